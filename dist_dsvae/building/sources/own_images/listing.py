"""What lies in a folder of pictures: classes with their picture files, and everything else by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image

from dist_dsvae.building.sources.own_images.place import (
    AnyPlace,
    Place,
    image_at,
    in_order,
    relative_name,
)
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage, foreign_format, open_encoded, open_image
from dist_dsvae.core.text import printable
from dist_dsvae.data.shards import system_names
from dist_dsvae.data.shards.system_names import is_system_name

# Sub-folders of this name say nothing: pictures in CLASS/images/ are of the class CLASS.
_IMAGE_FOLDERS = frozenset(
    {
        "image",
        "images",
        "img",
        "imgs",
        "picture",
        "pictures",
        "photo",
        "photos",
        "jpg",
        "jpeg",
        "jpegs",
        "png",
    }
)


@dataclass(frozen=True, slots=True)
class Listing:
    """Lists below ``root`` and keeps what was found but is not used.

    recursive: take the pictures of folders inside the class folders too.
    left_out: heading -> names of files (and of classes), relative to ``root``.
    """

    root: Place
    recursive: bool = False
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def name(self, path: Place) -> str:
        return printable(relative_name(path, self.root))

    def leave_out(self, heading: str, path: Place) -> None:
        """Name a file, or every file below a folder."""
        self.left_out.setdefault(heading, []).extend(self.name(file) for file in _files_below(path))

    def leave_out_system(self, folder: Place) -> None:
        """Name what lies directly in ``folder`` under a hidden or system name."""
        for path in in_order(entries(folder)):
            if is_system_name(path.name):
                self.leave_out(system_names.HEADING, path)

    def found(self) -> str:
        """The first things left out, for a sentence on nothing else being there."""
        return "".join(f"; {heading}: {', '.join(names[:3])}" for heading, names in self.left_out.items())

    def sample(self, path: Place) -> Sample[EncodedImage]:
        return Sample(image_at(path), 0, self.name(path))

    def classes(self, folder: AnyPlace) -> dict[str, list[AnyPlace]]:
        """Class name (of a sub-folder, in Unicode NFC) -> pictures, both sorted.

        Classes without a picture are left out. Raises DataError if two folders have one name.
        """
        classes: dict[str, list[AnyPlace]] = {}
        self.leave_out_system(folder)
        for path in folders_in(folder):
            name = class_name(path.name)
            if name in classes:
                raise DataError(
                    f"{folder} holds two folders that are both written '{name}' (in different Unicode "
                    "forms). Merge them, or rename one."
                )
            classes[name] = self.images(path)
            if not classes[name]:
                self.left_out.setdefault("classes without a picture", []).append(self.name(path))
        return {name: classes[name] for name in sorted(classes) if classes[name]}

    def images(self, folder: AnyPlace) -> list[AnyPlace]:
        """The pictures of one class: in its folder, or in ``images`` or the like if that is all it has."""
        images = [image for path in files_in(folder) for image in self.image(path)]
        inner = folders_in(folder)
        says_nothing = len(inner) == 1 and not images and is_image_folder(inner[0].name)
        self.leave_out_system(folder)
        for path in inner:
            if says_nothing or (self.recursive and not path.is_symlink()):
                images += self.images(path)
            else:
                self.leave_out("folders inside a class", path)
        return in_order(images)

    def image(self, path: AnyPlace) -> list[AnyPlace]:
        """[path] if it is a picture, otherwise []."""
        if is_image(path):
            return [path]
        reason = foreign_format(image_at(path)) if path.is_file() else None
        name = self.name(path) + (f" ({reason})" if reason else "")
        self.left_out.setdefault("files that are no pictures", []).append(name)
        return []


def entries(folder: AnyPlace) -> Iterator[AnyPlace]:
    """What lies directly in ``folder``. Raises DataError where it may not be looked into."""
    try:
        yield from folder.iterdir()
    except PermissionError:
        raise DataError(
            f"The folder {folder} may not be looked into, so its pictures would be missing. Allow it "
            "(chmod u+rx), or move that folder away."
        ) from None


def files_in(folder: AnyPlace) -> list[AnyPlace]:
    """What lies directly in ``folder`` and is no folder, sorted, without hidden and system files."""
    return in_order(path for path in entries(folder) if not path.is_dir() and not is_system_name(path.name))


def folders_in(folder: AnyPlace) -> list[AnyPlace]:
    """The folders that lie directly in ``folder``, sorted, without hidden and system ones."""
    return in_order(path for path in entries(folder) if path.is_dir() and not is_system_name(path.name))


def is_image_folder(name: str) -> bool:
    """Whether a folder's name says only that pictures are in it."""
    return name.casefold() in _IMAGE_FOLDERS


def class_name(name: str) -> str:
    """A folder's name, or a word of a list, as the name of a class: in Unicode NFC."""
    return unicodedata.normalize("NFC", printable(name))


def is_image(path: Place) -> bool:
    """By the ending of its name, or else by its first bytes. Opening a pipe or a device would block."""
    if not path.is_file():
        return False
    if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
        return True
    try:
        with open_encoded(image_at(path)) as stream, open_image(stream):
            return True
    except Image.DecompressionBombError:
        return True  # a picture, if one that is too large: the report says so
    except Exception:  # codecs raise nearly anything on what is no picture
        return False


def _files_below(path: AnyPlace) -> list[AnyPlace]:
    """The files of a folder, at any depth, sorted; the folder itself if there is none."""
    if not path.is_dir() or path.is_symlink():
        return [path]
    return in_order(_walk(path)) or [path]


def _walk(folder: AnyPlace) -> Iterator[AnyPlace]:
    for path in entries(folder):
        if not path.is_dir():
            yield path
        elif not path.is_symlink():
            yield from _walk(path)

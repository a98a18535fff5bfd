"""What lies in a folder of pictures: classes with their picture files, and everything else by name."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dist_dsvae.data.errors import DataError
from dist_dsvae.data.sources.images import PictureFile
from dist_dsvae.data.writer import Sample


@dataclass(frozen=True, slots=True)
class Listing:
    """Lists below ``root`` and keeps what was found but is not used.

    recursive: take the pictures of folders inside the class folders too.
    left_out: heading -> names, relative to ``root``.
    """

    root: Path
    recursive: bool = False
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    def leave_out(self, heading: str, path: Path) -> None:
        self.left_out.setdefault(heading, []).append(self.name(path))

    def found(self) -> str:
        """The first things left out, for a sentence on nothing else being there."""
        return "".join(f"; {heading}: {', '.join(names[:3])}" for heading, names in self.left_out.items())

    def sample(self, path: Path, label: int) -> Sample[PictureFile]:
        return Sample(str(path), label, self.name(path))

    def classes(self, folder: Path) -> dict[str, list[Path]]:
        """Class name (of a sub-folder, in Unicode NFC) -> pictures, both sorted.

        Classes without a picture are left out. Raises DataError if two folders have one name.
        """
        classes: dict[str, list[Path]] = {}
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            name = unicodedata.normalize("NFC", printable(path.name))
            if name in classes:
                raise DataError(
                    f"{folder} holds two folders that are both written '{name}' (in different Unicode "
                    "forms). Merge them, or rename one."
                )
            classes[name] = self.pictures(path)
            if not classes[name]:
                self.leave_out("classes without a picture", path)
        return {name: classes[name] for name in sorted(classes) if classes[name]}

    def pictures(self, folder: Path) -> list[Path]:
        """The pictures of one class."""
        pictures: list[Path] = []
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                pictures += self.picture(path)
            elif self.recursive and not path.is_symlink():
                pictures += self.pictures(path)
            else:
                self.leave_out("folders inside a class", path)
        return pictures

    def picture(self, path: Path) -> list[Path]:
        """[path] if it is a picture, otherwise []."""
        if is_picture(path):
            return [path]
        self.leave_out("files that are no pictures", path)
        return []


def files_in(folder: Path) -> list[Path]:
    """What lies directly in ``folder`` and is no folder, sorted."""
    return sorted(path for path in folder.iterdir() if not path.is_dir())


def printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_picture(path: Path) -> bool:
    """By the ending of its name, or else by its first bytes. Opening a pipe or a device would block."""
    if not path.is_file():
        return False
    if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
        return True
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False

"""Files and folders, on a disk or in an archive: what a listing asks of either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, Self, TypeVar

from dist_dsvae.core.images import EncodedImage, ImagePart


class Place(Protocol):
    """The part of ``pathlib.Path`` that an archive has too; like it, written out by ``str``."""

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    @property
    def parts(self) -> tuple[str, ...]: ...

    def iterdir(self) -> Iterator[Self]: ...

    def is_dir(self) -> bool: ...

    def is_file(self) -> bool: ...

    def is_symlink(self) -> bool: ...

    def __truediv__(self, name: str) -> Self: ...


AnyPlace = TypeVar("AnyPlace", bound=Place)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """What an archive holds.

    path: of the archive. folders: parts of a name -> names directly in it; () is the root.
    files: parts of a name -> where the content is.
    """

    path: Path
    folders: Mapping[tuple[str, ...], Sequence[str]]
    files: Mapping[tuple[str, ...], ImagePart]


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """A file or a folder in an archive; () is the archive itself."""

    tree: Tree = field(repr=False, hash=False, compare=False)
    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else self.tree.path.name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def iterdir(self) -> Iterator[Self]:
        return (self / name for name in self.tree.folders[self.parts])

    def is_dir(self) -> bool:
        return self.parts in self.tree.folders

    def is_file(self) -> bool:
        return self.parts in self.tree.files

    def is_symlink(self) -> bool:
        return False

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.tree, (*self.parts, name))

    def __str__(self) -> str:
        return "/".join([str(self.tree.path), *self.parts])


def image_at(place: Place) -> EncodedImage:
    """What ``open_encoded`` opens, for the file at ``place``."""
    if isinstance(place, Path):
        return str(place)
    assert isinstance(place, ArchivePlace), "there are no other places"
    return place.tree.files[place.parts]


def relative_name(place: Place, root: Place) -> str:
    """With slashes, as seen from ``root``, which holds it."""
    return "/".join(place.parts[len(root.parts) :])


def in_order(places: Iterable[AnyPlace]) -> list[AnyPlace]:
    """Sorted by their names, folder by folder."""
    return sorted(places, key=lambda place: place.parts)

"""Finds tars, and reads the samples of those that any tool wrote; notices when one is damaged.

    file --gunzip / unxz (unpacked)--> tar stream (tar_members)--> members --group by key--> samples

Members are grouped as WebDataset groups them: the key is the path up to the first dot of the file
name, the rest in lower case is the extension; neighbouring members of one key are one sample.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.text import printable
from dist_dsvae.data.shards.manifest import MANIFEST_FILE
from dist_dsvae.data.shards.system_names import is_system_name, is_system_path
from dist_dsvae.data.shards.tar_members import TarMember, members_of, promises
from dist_dsvae.data.shards.unpacked import TAR_SUFFIXES, open_uncompressed

_ARCHIVE = re.compile(
    r"[.](tar([.](gz|xz|bz2|zst|zstd|lz4|lzma|lzo|lz|br|z|7z|zip))?|tgz|txz|tbz2?|tzst|tlz)$", re.IGNORECASE
)
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_MOST_MEMBER_BYTES = 2**28
_META = re.compile(r"__[^/]*__($|/)")


_MANIFEST_MARKS = (b'"format_version"', b'"classes"')


class Member(NamedTuple):
    """A file of a sample. offset: of its content in the uncompressed tar."""

    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class TarSample:
    """Neighbouring members of one key, by extension."""

    key: str
    members: dict[str, Member]


def find_tars(directory: Path) -> list[Path]:
    """The tars of a directory, sorted by name.

    Raises DataError for an archive that is none of ``TAR_SUFFIXES``: its samples would be missing unseen.
    """
    tars = []
    for path in sorted(directory.iterdir()):
        if is_system_name(path.name) or path.is_dir():
            continue
        if _ARCHIVE.search(path.name) and not path.name.endswith(TAR_SUFFIXES):
            raise DataError(
                f"{path} is an archive that is not read: shards end in {', '.join(TAR_SUFFIXES)}. Unpack it "
                "and pack it anew, or move it away."
            )
        if path.name.endswith(TAR_SUFFIXES):
            if not path.is_file():
                raise DataError(f"The shard {path} is no file, but perhaps a broken link. Mend or remove it.")
            if printable(path.name) != path.name:
                raise DataError(
                    f"The name of the shard {printable(str(path))} is not UTF-8, so no manifest can hold it. "
                    "Rename the file."
                )
            tars.append(path)
    return tars


def find_splits(directory: Path) -> list[Path]:
    """``directory`` itself if it holds tars, otherwise its sub-folders that do.

    Raises DataError if there is none, or if there are others on another level, which would be missed.
    """
    if not directory.is_dir():
        if directory.name.endswith(TAR_SUFFIXES):
            raise DataError(
                f"{directory} is a shard, not a directory. Give the directory: {directory.parent}."
            )
        raise DataError(f"The shard directory {directory} does not exist. Correct the path.")
    inner = _folders_with_tars(directory)
    splits = [directory] if find_tars(directory) else inner
    strangers = inner if splits == [directory] else []
    strangers += [deeper for folder in _folders(directory) for deeper in _folders_with_tars(folder)]
    if splits and strangers:
        raise DataError(
            f"{splits[0]} holds shards, and {strangers[0]} on another level does, too. Shards lie in "
            f"{directory} itself or in its sub-folders, one for each split: move those of {strangers[0]}, or "
            "index the two directories one by one."
        )
    if not splits:
        where = f"; {strangers[0]} holds some: give {strangers[0].parent}" if strangers else ""
        raise DataError(
            f"Neither {directory} nor its sub-folders hold a shard{where}. Shards are files that end in "
            f"{', '.join(TAR_SUFFIXES)}."
        )
    return splits


def splits_to_verify(directory: Path) -> list[Path]:
    """As ``find_splits``, and those that have a manifest, but no tars any more."""
    known = folders_with_manifests(directory) if directory.is_dir() else []
    have_tars = not known or any(map(find_tars, [directory, *_folders(directory)]))
    return list(dict.fromkeys([*known, *(find_splits(directory) if have_tars else [])]))


def folders_with_manifests(directory: Path) -> list[Path]:
    """``directory`` and its sub-folders, where they are splits, or were."""
    return [folder for folder in [directory, *_folders(directory)] if _has_manifest(folder)]


def _has_manifest(folder: Path) -> bool:
    """Whether it has one of ours: other tools have files of that name, too."""
    path = folder / MANIFEST_FILE
    return path.is_file() and (bool(find_tars(folder)) or is_manifest(path.read_bytes()))


def is_manifest(content: bytes) -> bool:
    """Of the content of a file of a manifest's name: other tools have such, too."""
    return all(mark in content for mark in _MANIFEST_MARKS)


def _folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not is_system_name(path.name))


def _folders_with_tars(directory: Path) -> list[Path]:
    return [path for path in _folders(directory) if find_tars(path)]


def scan(path: Path, system_files: list[str] | None = None) -> Iterator[TarSample]:
    """Yield the samples of a tar, or of several tars joined end to end, in their order.

    system_files: gets the names of members that a system left behind (``system_names``).
    Raises DataError, naming the tar and the last complete sample, if the tar is truncated or
    damaged, if a key or a file name occurs twice, or if a sample has a member that is no plain file.
    """
    last_key = None
    seen: set[str] = set()
    try:
        for sample in _group(path, _members(path, system_files if system_files is not None else [])):
            if sample.key in seen:
                raise DataError(
                    f"The key '{sample.key}' occurs twice in the shard {path}, with other keys in between. "
                    "The files of a sample must stand together, and keys (a file's name up to its first "
                    "dot) must differ: write the shard again."
                )
            seen.add(sample.key)
            yield sample
            last_key = sample.key
    except DataError:
        raise
    except Exception as error:  # tarfile raises nearly anything on a crafted header
        place = f"after the sample '{last_key}'" if last_key is not None else "before its first sample ends"
        raise DataError(
            f"The shard {path} is truncated or damaged {place} ({error}). Copy or build it again; "
            "a tar that was never finished can be packed anew from its sources."
        ) from error


def _members(path: Path, system_files: list[str]) -> Iterator[tuple[str, str, Member]]:
    """Key, extension and content of each file."""
    with open_uncompressed(path) as stream:
        for member in members_of(stream):
            info, match = member.info, _KEY_AND_EXTENSION.fullmatch(member.info.name)
            if info.isdir():
                continue
            if is_system_path(info.name) or _META.match(info.name):
                system_files.append(f"{path.name}: {info.name}")
            elif match is not None:
                _check_plain(member, path)
                if not 0 <= info.size <= _MOST_MEMBER_BYTES:
                    raise tarfile.ReadError(f"the member '{info.name}' promises {info.size:,} bytes")
                yield match[1], match[2].lower(), Member(member.offset, member.read())


def _check_plain(member: TarMember, path: Path) -> None:
    """Raise DataError for a member whose content training could not find where the index says."""
    info = member.info
    if info.islnk() or info.issym():
        kind, option = ("hard", "--hard-dereference") if info.islnk() else ("symbolic", "--dereference")
        what = f"a {kind} link to '{info.linkname}'", f"Pack the files themselves (tar {option})."
    elif member.is_sparse:
        what = "a sparse file", "Pack it again without the option --sparse."
    elif not info.isreg():
        what = f"of the type {info.type!r}, no plain file", "Pack plain files alone."
    elif not promises(member.header, info.size):
        what = "written in another format than USTAR, GNU or PAX", "Pack it again (tar --format=pax)."
    else:
        return
    raise DataError(
        f"The member '{info.name}' of the shard {path} is {what[0]}, which is not read. {what[1]}"
    )


def _group(path: Path, members: Iterator[tuple[str, str, Member]]) -> Iterator[TarSample]:
    sample: TarSample | None = None
    num_bytes = 0
    for key, extension, member in members:
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample, num_bytes = TarSample(key, {}), 0
        num_bytes += len(member.content)
        if num_bytes > _MOST_MEMBER_BYTES:
            raise tarfile.ReadError(
                f"the files of the sample '{key}' have more than {_MOST_MEMBER_BYTES:,} bytes"
            )
        if extension in sample.members:
            raise DataError(
                f"The sample '{key}' has two files '.{extension}' in the shard {path}. Every file of a "
                "sample needs an extension of its own: write the shard again."
            )
        sample.members[extension] = member
    if sample is not None:
        yield sample

"""Folders that are splits, as data sets come: train/ and test/, train/ and val/, Training/ and Testing/.

    train/CLASS/*            train/CLASS/images/*      (Tiny-ImageNet)
    val/CLASS/*              val/images/*  with val/val_annotations.txt: lines "file class ..."

A split "test" is what test/ holds, or else what val/ holds. Pictures in no class folder and on no list
have no labels: such a split is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dist_dsvae.building.sources.own_images.listing import (
    Listing,
    class_name,
    files_in,
    folders_in,
    is_image,
    is_image_folder,
)
from dist_dsvae.building.sources.own_images.place import AnyPlace, Place, image_at, in_order
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import open_encoded
from dist_dsvae.core.text import TextError, decode_text

_ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev", "development"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
_ENDING = re.compile(r"[ _-]?(set|data|images?|split)$")


class SplitFolders(NamedTuple):
    """The pictures of "train" and perhaps "test" by class, and what is to be said about the folders."""

    images: Mapping[str, Mapping[str, Sequence[Place]]]
    notes: Sequence[str]


def role_of(name: str) -> str | None:
    """ "train", "test" or "val" if a folder's name means one of them, whatever its case."""
    return _ROLE_OF.get(_ENDING.sub("", name.casefold()))


def folders_by_role(source: AnyPlace) -> dict[str, AnyPlace]:
    """Role -> folder, if the sub-folders of ``source`` are splits; {} if they are classes.

    Raises DataError if they could be either, or if two of them have one role.
    """
    folders = folders_in(source)
    others = [path for path in folders if role_of(path.name) is None]
    roles: dict[str, AnyPlace] = {}
    for path in folders:
        role = role_of(path.name)
        if role is not None and role in roles:
            raise DataError(
                f"{source} holds {roles[role].name}/ and {path.name}/, which both name the split '{role}'. "
                "Merge them, or move one away."
            )
        if role is not None:
            roles[role] = path
    if not roles or not others:
        return roles
    if "train" not in roles or not folders_in(roles["train"]):
        return {}  # a class may be called "train", such as CIFAR-100's
    strangers = [path for path in others if _holds_images(path)]
    if strangers and len(roles) > 1:
        raise DataError(
            f"{source} holds the splits {_listed(roles.values())}, and beside them {strangers[0].name}/ with "
            f"pictures. Move {strangers[0].name}/ away, or give one split, for example {roles['train']}."
        )
    return {} if strangers else roles


def read_splits(source: AnyPlace, roles: Mapping[str, AnyPlace], listing: Listing) -> SplitFolders:
    """The labelled pictures of the splits that ``folders_by_role`` found; the rest is named in ``listing``.

    Raises DataError if there is no training split with labels.
    """
    some = next(iter(roles.values()))
    if "train" not in roles:
        raise DataError(
            f"{source} holds {_listed(roles.values())}, which name splits, but no train/. Give one of them "
            f"({some}) if it has a sub-folder per class; rename it if its name is a class's."
        )
    _leave_out_rest(source, roles, listing)
    train = _labelled(roles["train"], listing)
    if not train:
        raise DataError(
            f"{source} holds {_listed(roles.values())}, which name splits, but the pictures of "
            f"{roles['train']} lie in no class folder{listing.found()}. Sort them into one folder per class, "
            f"or give {roles['train']} with --unlabelled; rename it if its name is a class's."
        )
    images: dict[str, Mapping[str, Sequence[Place]]] = {"train": train}
    notes: list[str] = []
    for role in ("test", "val"):
        if role not in roles:
            continue
        name = roles[role].name
        if "test" in images:
            notes.append(f"{name}/ is not used: {roles['test'].name}/ is the split 'test'")
            listing.leave_out("splits that are not used", roles[role])
            continue
        found = _labelled(roles[role], listing)
        if not found:
            notes.append(f"{name}/ is not used: its pictures lie in no class folder, so they have no labels")
            listing.leave_out("splits that are not used", roles[role])
            continue
        images["test"] = found
        if role == "val":
            notes.append(f"{name}/ serves as the split 'test'")
    return SplitFolders(images, notes)


def deeper_source(source: AnyPlace) -> AnyPlace | None:
    """A sub-folder that holds splits; or the only one, if it holds class folders."""
    folders = folders_in(source)
    for folder in folders:
        inner = folders_in(folder)
        holds_classes = len(folders) == 1 and len(inner) > 1 and any(map(_holds_images, inner))
        if holds_classes or any(role_of(path.name) == "train" for path in inner):
            return folder
    return None


def _leave_out_rest(source: AnyPlace, roles: Mapping[str, AnyPlace], listing: Listing) -> None:
    listing.leave_out_system(source)
    for path in [*files_in(source), *folders_in(source)]:
        if path not in roles.values():
            listing.leave_out("beside the splits", path)


def _labelled(split: AnyPlace, listing: Listing) -> dict[str, list[AnyPlace]]:
    """Class -> pictures of a split; {} if nothing tells the classes."""
    annotations = split / f"{split.name}_annotations.txt"
    if annotations.is_file():
        return _annotated(split, annotations, listing)
    if all(is_image_folder(path.name) for path in folders_in(split)):
        return {}
    for path in files_in(split):
        listing.leave_out("files outside the class folders", path)
    return listing.classes(split)


def _annotated(split: AnyPlace, annotations: AnyPlace, listing: Listing) -> dict[str, list[AnyPlace]]:
    """By Tiny-ImageNet's list: a file and its class per line, further columns do not matter."""
    try:
        with open_encoded(image_at(annotations)) as stream:
            lines = decode_text(stream.read()).splitlines()
    except (OSError, TextError) as error:
        raise DataError(f"{annotations} cannot be read ({error}). Correct it, or move it away.") from error
    inner = [path for path in folders_in(split) if is_image_folder(path.name)]
    files = {path.name: path for folder in (split, *inner) for path in files_in(folder)}
    classes: dict[str, list[AnyPlace]] = {}
    named = set[str]()
    for number, line in enumerate(lines, start=1):
        words = line.split("\t") if "\t" in line else line.split()
        if not any(words):
            continue
        if len(words) < 2:
            raise DataError(
                f"Line {number} of {annotations} is {line[:60]!r}; it must be a file's name and its class. "
                "Correct it, or move the list away."
            )
        path = files.pop(words[0].strip(), None)
        if path is None and words[0].strip() in named:
            raise DataError(
                f"Line {number} of {annotations} names {words[0]} again. Every picture has one line: take "
                "one of the two away."
            )
        named.add(words[0].strip())
        if path is None:
            listing.left_out.setdefault("listed, but there is no such file", []).append(
                f"{listing.name(annotations)}, line {number}: {words[0]}"
            )
        elif listing.image(path):
            classes.setdefault(class_name(words[1].strip()), []).append(path)
    files.pop(annotations.name, None)
    for path in in_order(files.values()):
        listing.leave_out(f"pictures that {annotations.name} does not name", path)
    listing.leave_out_system(split)
    for folder in folders_in(split):
        if folder in inner:
            listing.leave_out_system(folder)
        else:
            listing.leave_out("files outside the class folders", folder)
    return {name: in_order(classes[name]) for name in sorted(classes)}


def _holds_images(folder: Place) -> bool:
    """Directly, or in a folder ``images`` or the like."""
    places = [folder, *(path for path in folders_in(folder) if is_image_folder(path.name))]
    return any(is_image(path) for place in places for path in files_in(place))


def _listed(folders: Iterable[Place]) -> str:
    return ", ".join(f"{path.name}/" for path in folders)

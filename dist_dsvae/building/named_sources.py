"""A source of samples for each raw data set that ``dsvae build`` knows: make_X, from the options of add_X."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

from dist_dsvae.building.build_progress import progress_of
from dist_dsvae.building.faces.options import FaceOptions
from dist_dsvae.building.faces.stage import crop_faces
from dist_dsvae.building.faces.work_cache import WorkCache
from dist_dsvae.building.sources.arrays import fashion_mnist
from dist_dsvae.building.sources.casia import casia, read_persons
from dist_dsvae.building.sources.cifar import cifar
from dist_dsvae.building.sources.cub200 import cub200
from dist_dsvae.building.sources.facescrub import facescrub
from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.own_images.archive import open_archive
from dist_dsvae.building.sources.own_images.csv_list import Columns, images_listed_in
from dist_dsvae.building.sources.own_images.folder import any_images_in, images_in
from dist_dsvae.building.sources.own_images.found import FoundImages, as_unlabelled, with_labels
from dist_dsvae.building.sources.own_images.hub_dataset import Wanted, images_of_dataset
from dist_dsvae.building.sources.own_images.place import Place
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.sources.toy import toy
from dist_dsvae.building.sources.unlabelled import HeldOutChoice, read_excluded
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.detect import CenterFaceDetector, require_detector
from dist_dsvae.core.images import Codec


def codec_of(arguments: argparse.Namespace) -> Codec:
    of_the_other = {"png_level": "--png-level"} if arguments.format == "jpg" else {"quality": "--quality"}
    _check_default(Codec, of_the_other, arguments, f"as --format is {arguments.format}. Change that")
    return Codec(extension=arguments.format, quality=arguments.quality, png_level=arguments.png_level)


def _check_default(of: Any, options: Mapping[str, str], arguments: argparse.Namespace, reason: str) -> None:
    """Raise DataError if one of ``options``, by the fields of the dataclass ``of``, was chosen in vain."""
    for field in fields(of):
        option = options.get(field.name)
        if option is not None and getattr(arguments, option[2:].replace("-", "_")) != field.default:
            raise DataError(f"{option} has no effect {reason}, or leave {option} out.")


def encoder_of(arguments: argparse.Namespace) -> FileEncoder:
    return FileEncoder(
        size=arguments.size,
        channels=arguments.channels,
        resize=arguments.resize,
        codec=codec_of(arguments),
    )


def choice_of(arguments: argparse.Namespace, num_unlabelled: int | None) -> HeldOutChoice:
    return HeldOutChoice(
        num_unlabelled=num_unlabelled,
        num_held_out=arguments.held_out_classes,
        excluded=read_excluded(arguments.exclude),
        seed=arguments.seed,
    )


def with_faces(source: Source, arguments: argparse.Namespace) -> Source:
    """Aligned faces of its photographs, if asked for."""
    return crop(source, arguments) if arguments.faces else source


def crop(source: Source, arguments: argparse.Namespace) -> Source:
    """Aligned faces of the photographs of ``source``, undivided: the stage takes the test fraction."""
    options = FaceOptions(
        size=arguments.size,
        channels=arguments.channels,
        codec=codec_of(arguments),
        choice=arguments.choose,
        min_face=arguments.min_face,
        duplicate_bits=arguments.duplicate_bits,
        test_fraction=arguments.test_fraction,
    )
    require_detector()
    return crop_faces(
        source,
        options,
        CenterFaceDetector(),
        WorkCache(arguments.out),
        num_workers=arguments.workers,
        progress_of=progress_of,
    )


def own_images(arguments: argparse.Namespace, find: Callable[[], FoundImages]) -> Source:
    """What ``find`` finds, with labels or without, as the options that these sources share say."""
    if arguments.unlabelled and arguments.test_fraction:
        raise DataError(
            "--test-fraction makes a labelled test split, which --unlabelled has not. Leave one of them "
            "out; --held-out-classes keeps labelled classes aside."
        )
    if not arguments.unlabelled and (arguments.held_out_classes or arguments.exclude):
        raise DataError(
            "--held-out-classes and --exclude belong to --unlabelled. Add that, or leave them out."
        )
    if not arguments.faces:
        of_faces = {"choice": "--choose", "min_face": "--min-face", "duplicate_bits": "--duplicate-bits"}
        _check_default(FaceOptions, of_faces, arguments, "without --faces. Add that")
    name, encoder = arguments.subcommand, encoder_of(arguments)
    if arguments.unlabelled:
        choice = choice_of(arguments, None)
        source = as_unlabelled(name, find(), encoder, choice, min_images=arguments.min_pictures)
        return with_faces(source, arguments)
    # of faces the stage itself takes the test part, when it knows the duplicates
    fraction = 0.0 if arguments.faces else arguments.test_fraction
    source = with_labels(name, find(), encoder, test_fraction=fraction, min_images=arguments.min_pictures)
    return with_faces(source, arguments)


def make_folder(arguments: argparse.Namespace) -> Source:
    return own_images(arguments, lambda: _in_folders(arguments.source, arguments))


def make_zip(arguments: argparse.Namespace) -> Source:
    def find() -> FoundImages:
        root, left_out, notes = open_archive(arguments.source)
        found = _in_folders(root, arguments, left_out)
        return replace(found, notes=[*notes, *found.notes])

    return own_images(arguments, find)


def _in_folders(
    source: Place, arguments: argparse.Namespace, left_out: Mapping[str, Sequence[str]] | None = None
) -> FoundImages:
    find = any_images_in if arguments.unlabelled else images_in
    return find(source, recursive=arguments.recursive, left_out=left_out)


def make_csv(arguments: argparse.Namespace) -> Source:
    columns = Columns(path=arguments.path_column, label=arguments.label_column, split=arguments.split_column)
    return own_images(
        arguments,
        lambda: images_listed_in(
            arguments.source,
            columns,
            train=arguments.train_split,
            test=arguments.test_split,
            unlabelled=arguments.unlabelled,
        ),
    )


def make_hf(arguments: argparse.Namespace) -> Source:
    wanted = Wanted(
        image_column=arguments.image_column,
        label_column=arguments.label_column,
        train_split=arguments.train_split,
        test_split=arguments.test_split,
        subset=arguments.subset,
        revision=arguments.revision,
    )
    return own_images(
        arguments, lambda: images_of_dataset(arguments.source, wanted, unlabelled=arguments.unlabelled)
    )


def make_facescrub(arguments: argparse.Namespace) -> Source:
    require_detector()
    source = facescrub(
        arguments.source,
        encoder_of(arguments),
        WorkCache(arguments.out),
        num_workers=arguments.workers,
        progress_of=progress_of,
    )
    return crop(source, arguments)


def make_cub200(arguments: argparse.Namespace) -> Source:
    return cub200(arguments.source, encoder_of(arguments), margin=arguments.margin)


def make_casia(arguments: argparse.Namespace) -> Source:
    if arguments.names and not arguments.exclude:
        raise DataError("--names serves --exclude, to compare names. Give that too, or leave it out.")
    source = casia(
        arguments.source,
        encoder_of(arguments),
        choice_of(arguments, arguments.identities),
        persons=read_persons(arguments.names) if arguments.names else None,
    )
    return with_faces(source, arguments)


def download(name: Literal["fashion-mnist", "cifar10", "cifar100"], beside: Path) -> Path:
    """The folder of a set's files, fetched into ``beside``/downloads unless they are there.

    torchvision fetches them, for it checks their md5 sums.
    """
    from torchvision import datasets  # here, for importing it takes seconds and few runs download

    root = beside / "downloads"
    try:
        if name == "fashion-mnist":
            return Path(datasets.FashionMNIST(root, download=True).raw_folder)
        kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        return root / str(kind(root, download=True).base_folder)
    except (URLError, RuntimeError, OSError) as error:
        raise DataError(
            f"The data set {name} could not be downloaded to {root} ({error}). If this machine has no "
            "network, fetch it elsewhere and give its folder as SOURCE."
        ) from error


def make_cifar(arguments: argparse.Namespace) -> Source:
    return cifar(
        arguments.subcommand,
        arguments.source or download(arguments.subcommand, arguments.out.parent),
        codec=codec_of(arguments),
        num_train=arguments.train_samples,
        num_test=arguments.test_samples,
    )


def make_fashion_mnist(arguments: argparse.Namespace) -> Source:
    return fashion_mnist(
        arguments.source or download("fashion-mnist", arguments.out.parent),
        size=arguments.size,
        codec=codec_of(arguments),
        num_train=arguments.train_samples,
        num_test=arguments.test_samples,
    )


def make_toy(arguments: argparse.Namespace) -> Source:
    return toy(num_train=arguments.num_points, num_test=arguments.num_test_points, seed=arguments.seed)

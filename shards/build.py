"""Turn a raw data set into tar shards with a manifest, or add a manifest to existing shards.

    python shards/build.py folder my-images shards/mine --size 64 --test-fraction 0.1
    python shards/build.py toy shards/toy
    python shards/build.py index shards/made-elsewhere

`python shards/build.py SUBCOMMAND --help` lists the options; shards/README.md has the schema.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from dist_dsvae.data.build import build
from dist_dsvae.data.errors import DataError
from dist_dsvae.data.faces.options import add_face_options, check_before_long_work, crop_faces_as_asked
from dist_dsvae.data.faces.work_cache import WorkCache
from dist_dsvae.data.indexing import find_splits, index, read_class_names
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.remote import is_remote
from dist_dsvae.data.sources.arrays import fashion_mnist
from dist_dsvae.data.sources.cifar import cifar
from dist_dsvae.data.sources.download import download
from dist_dsvae.data.sources.facescrub import facescrub
from dist_dsvae.data.sources.folder import folder
from dist_dsvae.data.sources.images import Codec, FileEncoder
from dist_dsvae.data.sources.source import Source
from dist_dsvae.data.sources.toy import toy
from dist_dsvae.data.split import open_split
from dist_dsvae.data.tarscan import find_tars
from dist_dsvae.data.verify import verify


def parse_arguments() -> argparse.Namespace:
    raw_text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw_text)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    add_folder(commands.add_parser("folder", help="pictures, one sub-folder per class"))
    add_facescrub(commands.add_parser("facescrub", help="photographs of people: finds, aligns, crops faces"))
    add_fashion_mnist(commands.add_parser("fashion-mnist", help="Fashion-MNIST from its four idx files"))
    add_cifar(commands.add_parser("cifar10", help="CIFAR-10 from its official python version"))
    add_cifar(commands.add_parser("cifar100", help="CIFAR-100 (fine labels), likewise"))
    add_toy(commands.add_parser("toy", help="three half-moons of points in the plane"))
    add_index(commands.add_parser("index", help="add manifests to shards that other tools made"))
    add_verify(commands.add_parser("verify", help="read all of the shards and compare with the manifests"))
    return parser.parse_args()


def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="class folders, or train/ and test/")
    parser.add_argument("--size", type=int, default=64, help="edge of the images in pixels (%(default)s)")
    parser.add_argument(
        "--resize",
        choices=["crop", "pad", "stretch"],
        default="crop",
        help="cut the centre, add white, or distort (%(default)s)",
    )
    parser.add_argument("--channels", type=int, choices=[1, 3], default=3, help="(%(default)s)")
    parser.add_argument(
        "--test-fraction", type=float, default=0.0, help="share of each class for test/ (none)"
    )
    parser.add_argument("--recursive", action="store_true", help="take folders inside class folders too")
    parser.add_argument("--faces", action="store_true", help="take one aligned face of each photograph")
    add_face_options(parser)
    add_output_options(parser)
    add_codec_options(parser, default="jpg")
    parser.set_defaults(run=run_build, make_source=make_folder)


def add_facescrub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="official lists and files, or a folder per identity"
    )
    parser.add_argument("--size", type=int, default=64, help="edge of the crops in pixels (%(default)s)")
    parser.add_argument("--channels", type=int, choices=[1, 3], default=3, help="(%(default)s)")
    parser.add_argument(
        "--test-fraction", type=float, default=0.05, help="share of each class for test/ (%(default)s)"
    )
    add_face_options(parser)
    add_output_options(parser)
    add_codec_options(parser, default="jpg")
    parser.set_defaults(run=run_build, make_source=make_facescrub)


def add_fashion_mnist(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=32, help="edge in pixels, black margin (%(default)s)")
    add_known_set_options(parser)
    parser.set_defaults(run=run_build, make_source=make_fashion_mnist)


def add_cifar(parser: argparse.ArgumentParser) -> None:
    add_known_set_options(parser)
    parser.set_defaults(run=run_build, make_source=make_cifar)


def add_known_set_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", type=Path, metavar="SOURCE", help="left out: download it")
    parser.add_argument("--train-samples", type=int, help="take so many, balanced over the classes (all)")
    parser.add_argument("--test-samples", type=int, help="take so many, balanced over the classes (all)")
    add_output_options(parser)
    add_codec_options(parser, default="png")


def add_toy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-points", type=int, default=60_000, help="training points (%(default)s)")
    parser.add_argument("--num-test-points", type=int, default=6_000, help="test points (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other points (%(default)s)")
    add_output_options(parser, archive="gz")
    parser.set_defaults(run=run_build, make_source=make_toy)


def add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="holds tars, or sub-folders that do")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line, id by place")
    add_workers_option(parser)
    parser.set_defaults(run=run_index)


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "location", metavar="DIR", help="holds tars, or sub-folders that do; or a split's URL"
    )
    parser.set_defaults(run=run_verify)


def add_output_options(parser: argparse.ArgumentParser, archive: str = "none") -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="new directory; gets train/ and test/")
    parser.add_argument("--samples-per-shard", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--archive", choices=["none", "gz", "xz"], default=archive, help="(%(default)s)")
    add_workers_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the shards in OUT")


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores, help="processes (all cores, here %(default)s)")


def add_codec_options(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--format", choices=["jpg", "png"], default=default, help="(%(default)s)")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG, 1..95 (%(default)s)")
    parser.add_argument("--png-level", type=int, default=6, help="PNG compression, 0..9 (%(default)s)")


def codec_of(arguments: argparse.Namespace) -> Codec:
    return Codec(extension=arguments.format, quality=arguments.quality, png_level=arguments.png_level)


def make_folder(arguments: argparse.Namespace) -> Source:
    encoder = FileEncoder(
        size=arguments.size,
        channels=arguments.channels,
        resize=arguments.resize,
        codec=codec_of(arguments),
    )
    source = folder(
        arguments.source,
        encoder,
        test_fraction=0.0 if arguments.faces else arguments.test_fraction,
        recursive=arguments.recursive,
    )
    if arguments.faces:
        return crop_faces_as_asked(source, arguments, codec_of(arguments), progress_of)
    return source


def make_facescrub(arguments: argparse.Namespace) -> Source:
    check_before_long_work(arguments)
    codec = codec_of(arguments)
    source = facescrub(
        arguments.source,
        FileEncoder(size=arguments.size, channels=arguments.channels, resize="crop", codec=codec),
        WorkCache(arguments.out),
        num_workers=arguments.workers,
        progress_of=progress_of,
    )
    return crop_faces_as_asked(source, arguments, codec, progress_of)


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


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda advance: bar.advance(task, advance)
        return
    done, last_line_seconds = 0, time.monotonic()

    def count(advance: int) -> None:
        nonlocal done, last_line_seconds
        done += advance
        if done == total or time.monotonic() - last_line_seconds > 5:
            last_line_seconds = time.monotonic()
            print(f"{done:,} of {total:,} {what}", file=sys.stderr, flush=True)

    yield count


def run_build(arguments: argparse.Namespace, command: str) -> None:
    source: Source = arguments.make_source(arguments)
    with progress_of("samples", sum(map(len, source.splits.values()))) as progress:
        report = build(
            source,
            arguments.out,
            command=command,
            samples_per_shard=arguments.samples_per_shard,
            archive=arguments.archive,
            num_workers=arguments.workers,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    print("\n".join([*report.lines(), f"Built {arguments.out}"]))


def run_index(arguments: argparse.Namespace, command: str) -> None:
    names = read_class_names(arguments.classes) if arguments.classes else None
    splits = find_splits(arguments.directory)
    with progress_of("shards", sum(len(find_tars(split)) for split in splits)) as progress:
        manifests = index(
            arguments.directory,
            command=command,
            names=names,
            num_workers=arguments.workers,
            progress=progress,
        )
    print("\n".join(describe(manifest) for manifest in manifests))


def run_verify(arguments: argparse.Namespace, command: str) -> None:
    if is_remote(arguments.location):
        manifests = [open_split(arguments.location)]
    else:
        manifests = [Manifest.load(split) for split in find_splits(Path(arguments.location))]
    with progress_of("shards", sum(len(manifest.shards) for manifest in manifests)) as progress:
        for manifest in manifests:
            verify(manifest, progress)
    print("\n".join(f"{describe(manifest)}: as the manifest says" for manifest in manifests))


def describe(manifest: Manifest) -> str:
    return (
        f"{manifest.location}: {manifest.num_samples:,} samples of {manifest.num_classes:,} classes "
        f"in {len(manifest.shards):,} shards"
    )


def main() -> int:
    arguments = parse_arguments()
    try:
        arguments.run(arguments, shlex.join(["python", *sys.argv]))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Turn a raw data set into tar shards with a manifest, or add a manifest to existing shards.

    dsvae build folder my-images shards/mine --size 64 --test-fraction 0.1
    dsvae build toy shards/toy
    dsvae build index shards/made-elsewhere

`dsvae build SUBCOMMAND --help` lists the options; shards/README.md has the schema.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dist_dsvae.building.build_progress import progress_of
from dist_dsvae.building.sources import build_options as options
from dist_dsvae.commands.starting import HelpFormatter, command_line, fail, say_start, tell
from dist_dsvae.config import option_types
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.paths import path_argument, place_argument

if TYPE_CHECKING:
    from dist_dsvae.building.build import BuildReport
    from dist_dsvae.building.sources.source import Source
    from dist_dsvae.data.shards.manifest import Manifest


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, add_options, what in (
        ("folder", options.add_folder, "pictures, one sub-folder per class; or any, without labels"),
        ("zip", options.add_zip, "the same in a zip or tar, which is not unpacked"),
        ("csv", options.add_csv, "pictures that a list names: path, label and perhaps split"),
        ("hf", options.add_hf, "a data set of the library datasets: of its hub, or local Arrow or Parquet"),
        ("facescrub", options.add_facescrub, "photographs of people: finds, aligns and crops their faces"),
        ("fashion-mnist", options.add_fashion_mnist, "Fashion-MNIST from its four idx files"),
        ("cifar10", options.add_cifar, "CIFAR-10 from its official python version"),
        ("cifar100", options.add_cifar, "CIFAR-100 (fine labels), likewise"),
        ("cub200", options.add_cub200, "CUB-200-2011 from its official folder, cut out by its boxes"),
        ("casia", options.add_casia, "identities of CASIA-WebFace without labels, from folders or RecordIO"),
        ("toy", options.add_toy, "three half-moons of points in the plane"),
    ):
        source_parser = commands.add_parser(name, help=what)
        source_parser.set_defaults(run=run_build)
        add_options(source_parser)
    add_index(commands.add_parser("index", help="add manifests to shards that other tools made"))
    add_verify(commands.add_parser("verify", help="read all of the shards and compare with the manifests"))
    return parser


def add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", type=path_argument, metavar="DIR", help="holds tars, or sub-folders that do"
    )
    parser.add_argument(
        "--classes", type=path_argument, metavar="FILE", help="class names, one a line, id by place"
    )
    parser.add_argument(
        "--empty-classes",
        type=option_types.whole(0),
        metavar="N",
        help="so many may have no sample (a tenth, at least one)",
    )
    options.add_workers_option(parser)
    parser.set_defaults(run=run_index)


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "location",
        type=place_argument,
        metavar="DIR",
        help="holds tars, or sub-folders that do; or a split's URL",
    )
    parser.set_defaults(run=run_verify)


def run_build(arguments: argparse.Namespace, command: str) -> None:
    from dist_dsvae.building import named_sources
    from dist_dsvae.building.build import build
    from dist_dsvae.building.older_shards import files_of_older_shards
    from dist_dsvae.core.staging import check_free

    if arguments.overwrite and arguments.out.exists():
        print(f"Looking whether all of {arguments.out} is this program's own", flush=True)
    check_free(arguments.out, arguments.overwrite, sources_of(arguments), files_of_older_shards)
    raw = getattr(arguments, "source", None)
    print(f"Looking through {raw}" if raw else "Listing the samples", flush=True)
    source: Source = getattr(named_sources, arguments.make_source)(arguments)
    with progress_of("samples", sum(map(len, source.splits.values()))) as progress:
        report = build(
            source,
            arguments.out,
            command=command,
            samples_per_shard=arguments.samples_per_shard,
            archive=arguments.archive,
            num_workers=arguments.workers,
            overwrite=arguments.overwrite,
            apart_from=sources_of(arguments),
            progress=progress,
        )
    tell("\n".join([*report.lines(), f"Built {arguments.out}", *where_to_look(arguments.out, report)]))


def where_to_look(out: Path, report: BuildReport) -> list[str]:
    from dist_dsvae.building.faces.stage import SHEETS_FOLDER
    from dist_dsvae.building.older_shards import REPORT_FILE

    lines = [f"{out / REPORT_FILE} names everything that was left out"] if report.left_out else []
    if (out / SHEETS_FOLDER).is_dir():
        lines.append(f"{out / SHEETS_FOLDER} has a picture per class of what was kept, and left out and why")
    return lines


def sources_of(arguments: argparse.Namespace) -> list[Path]:
    """What is searched for pictures; OUT in it would be found next time."""
    if arguments.subcommand not in ("folder", "zip", "csv", "hf", "facescrub", "casia"):
        return []
    source = Path(arguments.source)
    return [source] if source.exists() or arguments.subcommand != "hf" else []


def run_index(arguments: argparse.Namespace, command: str) -> None:
    from dist_dsvae.building.indexing import index, read_class_names
    from dist_dsvae.building.tar_scan import find_splits, find_tars

    names = read_class_names(arguments.classes) if arguments.classes else None
    splits = find_splits(arguments.directory)
    lines: list[str] = []
    with progress_of("shards", sum(len(find_tars(split)) for split in splits)) as progress:
        manifests = index(
            arguments.directory,
            command=command,
            names=names,
            max_empty_classes=arguments.empty_classes,
            num_workers=arguments.workers,
            progress=progress,
            tell=lines.append,
        )
    tell("\n".join([*lines, *map(describe, manifests)]))


def run_verify(arguments: argparse.Namespace, command: str) -> None:
    from dist_dsvae.building.tar_scan import splits_to_verify
    from dist_dsvae.building.verify import verify
    from dist_dsvae.data.open_split import open_split
    from dist_dsvae.data.remote.location import is_remote
    from dist_dsvae.data.shards.manifest import Manifest

    if is_remote(arguments.location):
        manifests = [open_split(arguments.location)]
    else:
        manifests = [Manifest.load(split) for split in splits_to_verify(Path(arguments.location))]
    with progress_of("shards", sum(len(manifest.shards) for manifest in manifests)) as progress:
        for manifest in manifests:
            verify(manifest, progress)
    tell("\n".join(f"{describe(manifest)}: as the manifest says" for manifest in manifests))


def describe(manifest: Manifest) -> str:
    return (
        f"{manifest.location}: {manifest.num_samples:,} samples of {manifest.num_classes:,} classes "
        f"in {len(manifest.shards):,} shards"
    )


def main() -> int:
    arguments = make_parser().parse_args()
    say_start()
    try:
        arguments.run(arguments, command_line())
    except (DataError, OSError) as error:
        return fail(error)
    except KeyboardInterrupt:
        print("Interrupted. What was not ready is gone; the same command builds it anew.", file=sys.stderr)
        return 130
    return 0

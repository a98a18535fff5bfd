"""The options of ``dsvae build`` for each raw data set; ``building.named_sources`` makes a source of them."""

from __future__ import annotations

import argparse

from dist_dsvae.building.faces.options import add_face_options
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument, place_argument
from dist_dsvae.core.process import available_cores


def add_folder(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "SOURCE", "class folders, or train/ and test/")
    add_recursive_option(parser)
    add_own_image_options(parser)
    parser.set_defaults(make_source="make_folder")


def add_zip(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "FILE", "a zip or tar that holds what folder takes")
    add_recursive_option(parser)
    add_own_image_options(parser)
    parser.set_defaults(make_source="make_zip")


def add_csv(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "FILE", "a line per picture, column names in the first")
    parser.add_argument(
        "--path-column", default="path", metavar="NAME", help="files, relative to FILE's folder (%(default)s)"
    )
    parser.add_argument("--label-column", default="label", metavar="NAME", help="classes (%(default)s)")
    parser.add_argument(
        "--split-column", metavar="NAME", help='"train", "test" or the like ("split", if there is one)'
    )
    add_split_options(parser)
    add_own_image_options(parser)
    parser.set_defaults(make_source="make_csv")


def add_hf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=place_argument,
        metavar="NAME_OR_PATH",
        help="at the hub, a folder that save_to_disk made, or Parquet: a file, or a folder of such",
    )
    parser.add_argument("--image-column", metavar="NAME", help="of the pictures (the one of the type Image)")
    parser.add_argument(
        "--label-column", metavar="NAME", help="of the classes (the one of the type ClassLabel, or of texts)"
    )
    add_split_options(parser)
    parser.add_argument("--subset", metavar="NAME", help="which of several data sets under one name")
    parser.add_argument("--revision", metavar="NAME", help="commit, branch or tag at the hub (newest)")
    add_own_image_options(parser)
    parser.set_defaults(make_source="make_hf")


def add_source(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    parser.add_argument("source", type=path_argument, metavar=metavar, help=what)


def add_size_option(parser: argparse.ArgumentParser, what: str, default: int = 64) -> None:
    parser.add_argument("--size", type=option_types.edge, default=default, help=f"{what} (%(default)s)")


def add_recursive_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recursive", action="store_true", help="take folders inside class folders too")


def add_split_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train-split", metavar="NAME", help="becomes train/ (told by the splits' names)")
    parser.add_argument("--test-split", metavar="NAME", help="becomes test/ (likewise)")


def add_own_image_options(parser: argparse.ArgumentParser) -> None:
    """What folder, zip, csv and hf share."""
    add_image_options(parser)
    parser.add_argument(
        "--test-fraction", type=option_types.share, default=0.0, help="share of each class for test/ (none)"
    )
    parser.add_argument(
        "--min-pictures",
        type=option_types.positive,
        default=1,
        metavar="N",
        help="leave out classes with fewer (%(default)s)",
    )
    parser.add_argument(
        "--unlabelled", action="store_true", help="drop the labels; pictures of no class count too"
    )
    add_choice_options(parser)
    add_faces_option(parser)
    add_output_options(parser)


def add_facescrub(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "SOURCE", "official lists and files, or a folder per identity")
    add_size_option(parser, "edge of the crops in pixels")
    parser.add_argument("--channels", type=int, choices=[1, 3], default=3, help="(%(default)s)")
    parser.add_argument(
        "--test-fraction",
        type=option_types.share,
        default=0.05,
        help="share of each class for test/ (%(default)s)",
    )
    add_face_options(parser)
    parser.set_defaults(make_source="make_facescrub", resize="crop")
    add_output_options(parser)
    add_codec_options(parser, default="jpg")


def add_cub200(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "SOURCE", "CUB_200_2011, or the folder that holds it")
    add_size_option(parser, "edge of the images in pixels")
    parser.add_argument(
        "--margin",
        type=option_types.number(0, 1),
        default=0.1,
        help="added at each end of the box, as a share of its longer side (%(default)s)",
    )
    parser.add_argument("--channels", type=int, choices=[1, 3], default=3, help="(%(default)s)")
    parser.set_defaults(make_source="make_cub200", resize="crop")
    add_output_options(parser)
    add_codec_options(parser, default="jpg")


def add_casia(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "SOURCE", "a folder per identity, or train.rec and train.idx")
    add_image_options(parser)
    parser.add_argument(
        "--identities",
        type=option_types.positive,
        default=200,
        metavar="N",
        help="take so many, unlabelled (%(default)s)",
    )
    add_choice_options(parser)
    parser.add_argument(
        "--names",
        type=path_argument,
        metavar="FILE",
        help="lines 'id name', so that --exclude can compare names",
    )
    add_faces_option(parser)
    add_output_options(parser)
    parser.set_defaults(make_source="make_casia", test_fraction=0.0)


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``FileEncoder``."""
    add_size_option(parser, "edge of the images in pixels; networks take 32, 64, 128 and 256")
    parser.add_argument(
        "--resize",
        choices=["crop", "pad", "stretch"],
        default="crop",
        help="cut the centre, add white, or distort (%(default)s)",
    )
    parser.add_argument("--channels", type=int, choices=[1, 3], default=3, help="(%(default)s)")
    add_codec_options(parser, default="jpg")


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``HeldOutChoice`` that all unlabelled sources share."""
    parser.add_argument(
        "--held-out-classes",
        type=option_types.whole(0),
        default=0,
        metavar="N",
        help="so many others keep their labels, in held-out/ (%(default)s)",
    )
    parser.add_argument(
        "--exclude",
        type=path_argument,
        action="append",
        default=[],
        metavar="PATH",
        help="take no class that these shards, or lines of this file, name; may be repeated",
    )
    parser.add_argument(
        "--seed", type=option_types.seed, default=0, help="decides which classes (%(default)s)"
    )


def add_faces_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faces", action="store_true", help="take one aligned face of each photograph")
    add_face_options(parser)


def add_fashion_mnist(parser: argparse.ArgumentParser) -> None:
    add_size_option(parser, "edge in pixels, black margin", default=32)
    add_known_set_options(parser)
    parser.set_defaults(make_source="make_fashion_mnist")


def add_cifar(parser: argparse.ArgumentParser) -> None:
    add_known_set_options(parser)
    parser.set_defaults(make_source="make_cifar")


def add_known_set_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", type=path_argument, metavar="SOURCE", help="left out: download it"
    )
    parser.add_argument(
        "--train-samples", type=option_types.positive, help="take so many, balanced over the classes (all)"
    )
    parser.add_argument(
        "--test-samples", type=option_types.positive, help="take so many, balanced over the classes (all)"
    )
    add_output_options(parser)
    add_codec_options(parser, default="png")


def add_toy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-points",
        type=option_types.whole(1, 10**7),
        default=60_000,
        help="training points (%(default)s)",
    )
    parser.add_argument(
        "--num-test-points",
        type=option_types.whole(1, 10**7),
        default=6_000,
        help="test points (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=option_types.seed, default=0, help="another seed, other points (%(default)s)"
    )
    add_output_options(parser, archive="gz")
    parser.set_defaults(make_source="make_toy")


def add_output_options(parser: argparse.ArgumentParser, archive: str = "none") -> None:
    parser.add_argument("out", type=path_argument, metavar="OUT", help="new directory; gets train/ and test/")
    parser.add_argument("--samples-per-shard", type=option_types.positive, default=2000, help="(%(default)s)")
    parser.add_argument("--archive", choices=["none", "gz", "xz"], default=archive, help="(%(default)s)")
    add_workers_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the shards in OUT")


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    cores = available_cores()
    parser.add_argument(
        "--workers",
        type=option_types.num_workers,
        default=cores,
        help="processes (all cores, here %(default)s)",
    )


def add_codec_options(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--format", choices=["jpg", "png"], default=default, help="(%(default)s)")
    parser.add_argument(
        "--quality", type=option_types.whole(1, 95), default=95, help="of JPEG, 1..95 (%(default)s)"
    )
    parser.add_argument(
        "--png-level", type=option_types.whole(0, 9), default=6, help="PNG compression, 0..9 (%(default)s)"
    )

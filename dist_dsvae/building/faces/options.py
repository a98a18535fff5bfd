"""The face stage's options on the command line, the same for every source of photographs."""

from __future__ import annotations

import argparse

from dist_dsvae.building.faces.detect import CenterFaceDetector, require_detector
from dist_dsvae.building.faces.stage import FaceOptions, ProgressOf, crop_faces
from dist_dsvae.building.faces.work_cache import WorkCache
from dist_dsvae.building.sources.source import Source
from dist_dsvae.config import option_types
from dist_dsvae.core.images import Codec


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """For a parser that also has size, channels, test_fraction, out, workers and overwrite."""
    defaults = FaceOptions.__dataclass_fields__
    group = parser.add_argument_group("the face stage")
    group.add_argument(
        "--choose",
        choices=["consistent", "largest"],
        default=defaults["choice"].default,
        help="which of several faces: most like the identity's other pictures, or largest (%(default)s)",
    )
    group.add_argument(
        "--min-face",
        type=option_types.number(1),
        default=defaults["min_face"].default,
        metavar="PIXELS",
        help="smallest edge of a face in the photograph (%(default)s)",
    )
    group.add_argument(
        "--duplicate-bits",
        type=option_types.whole(-1, 255),
        default=defaults["duplicate_bits"].default,
        metavar="N",
        help="crops whose 256-bit hashes differ by so many bits or fewer are one; -1 keeps all (%(default)s)",
    )


def crop_faces_as_asked(
    source: Source, arguments: argparse.Namespace, codec: Codec, progress_of: ProgressOf
) -> Source:
    """The face stage with the options of the command line.

    source: all of its pictures, not divided: the stage takes ``arguments.test_fraction`` itself.
    Raises DataError as require_detector and crop_faces do.
    """
    options = FaceOptions(
        size=arguments.size,
        channels=arguments.channels,
        codec=codec,
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

"""What can be chosen of the face stage, the same for every source of photographs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_dsvae.building.faces.near import HASH_BITS
from dist_dsvae.config import option_types
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import Codec

if TYPE_CHECKING:
    from dist_dsvae.building.faces.choose_face import FaceChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceOptions:
    """How faces become samples.

    size: edge of the crops in pixels. channels: 3, or 1 for grey.
    choice: which face of several, where no annotation gives a box.
    min_face: pixels of the shorter edge of a face's box in the picture.
    duplicate_bits: of two crops whose 256-bit hashes differ by at most so many bits (or by a few more if
        they look alike pixel for pixel) one is left out; -1 keeps all.
    test_fraction: share of each class that becomes the split "test", 0 for none.
    """

    size: int
    channels: int
    codec: Codec
    choice: FaceChoice = "consistent"
    min_face: float = 24
    duplicate_bits: int = 40
    test_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise DataError(f"Images of {self.channels} channels were asked for; allowed are 1 and 3.")
        if self.min_face < 1:
            raise DataError(f"The smallest face is {self.min_face:g} pixels; it must be at least 1.")
        if not -1 <= self.duplicate_bits < HASH_BITS:
            raise DataError(
                f"Duplicates were to differ by at most {self.duplicate_bits} bits; allowed are 0 to "
                f"{HASH_BITS - 1}, or -1 to keep all."
            )
        if not 0 <= self.test_fraction < 1:
            raise DataError(f"The test fraction is {self.test_fraction}; it must be at least 0 and below 1.")


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

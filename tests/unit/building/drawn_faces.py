"""Drawn faces, a stand-in for the detector that finds them, and the stage run with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dist_dsvae.building.faces.options import FaceOptions
from dist_dsvae.building.faces.stage import crop_faces
from dist_dsvae.building.faces.survey import SeenFace
from dist_dsvae.building.faces.work_cache import WorkCache
from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.own_images.folder import images_in
from dist_dsvae.building.sources.own_images.found import with_labels
from dist_dsvae.building.sources.source import Source
from dist_dsvae.core.faces.crop_record import DetectorRecord
from dist_dsvae.core.faces.face import Face, Point
from dist_dsvae.core.images import Codec

PATTERN = 12  # edge of the pattern that makes an identity


def landmarks_at(x: float, y: float, distance: float, turn: float = 0.0) -> tuple[Point, ...]:
    """Those of a frontal face whose eyes have the middle (x, y), turned by ``turn`` radians."""
    shape = np.array([-0.5, 0.5, 0.58j, -0.41 + 1.15j, 0.41 + 1.15j])
    points = complex(x, y) + distance * shape * np.exp(1j * turn)
    return tuple((float(point.real), float(point.imag)) for point in points)


def face_at(x: float, y: float, distance: float, score: float = 0.9) -> Face:
    box = (x - distance, y - 0.8 * distance, x + distance, y + 1.6 * distance)
    return Face(box, score, landmarks_at(x, y, distance))  # type: ignore[arg-type]


def seen_face(seed: int, edge: float, noise: int = 0, left: float = 0.0) -> SeenFace:
    """A face of the look and hash ``seed``, slightly another one with another ``noise``."""
    rng = np.random.default_rng(seed)
    look = rng.integers(40, 216, (16, 16)) + np.random.default_rng(1000 + noise).integers(-40, 40, (16, 16))
    face = replace(face_at(50, 50, 10), box=(left, 0.0, left + edge, edge))
    return SeenFace(face, look.clip(0, 255).astype(np.uint8).tobytes().hex(), rng.bytes(32).hex())


@dataclass(frozen=True)
class Marks:
    """The stand-in: a face is a pure red pixel (left eye) with a pure green one (right eye) after it."""

    log: str | None = None
    pause_seconds: float = 0.0

    @property
    def record(self) -> DetectorRecord:
        return DetectorRecord(name="marks", package="tests 1", weights_sha256="none", settings={"pixels": 2})

    def __call__(self, image: Image.Image) -> list[Face]:
        if self.log is not None:
            time.sleep(self.pause_seconds)
            with Path(self.log).open("a") as stream:
                stream.write("looked\n")
        pixels = np.asarray(image).astype(int)
        red = np.argwhere((pixels == [255, 0, 0]).all(axis=2))
        green = np.argwhere((pixels == [0, 255, 0]).all(axis=2))
        return [
            face_at((left + right) / 2, float(row), float(right - left))
            for (row, left), (_, right) in zip(red.tolist(), green.tolist(), strict=True)
        ]


def photograph(path: Path, *faces: tuple[int, int, int, int], size: int = 160) -> None:
    """A PNG with a face of (identity, x, y, eye distance) each: a pattern that fills the crop, and marks."""
    image = Image.new("RGB", (size, size), "white")
    for identity, x, y, distance in faces:
        rng = np.random.default_rng(identity)
        pattern = Image.fromarray(rng.integers(30, 225, (PATTERN, PATTERN, 3), dtype=np.uint8))
        edge = round(distance / 0.30)
        image.paste(pattern.resize((edge, edge)), (x - edge // 2, round(y - 0.406 * edge)))
    for _, x, y, distance in faces:
        image.putpixel((x - distance // 2, y), (255, 0, 0))
        image.putpixel((x - distance // 2 + distance, y), (0, 255, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@contextlib.contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda advance: None


def options_of(**changes: object) -> FaceOptions:
    return replace(FaceOptions(size=64, channels=3, codec=Codec()), **changes)  # type: ignore[arg-type]


def cropped(detector: Marks, num_workers: int = 1, root: str = "photos", **changes: object) -> Source:
    encoder = FileEncoder(size=64, channels=3, resize="crop", codec=Codec())
    return crop_faces(
        with_labels("folder", images_in(Path(root)), encoder, test_fraction=0.0, min_images=1),
        options_of(**changes),
        detector,
        WorkCache(Path("out")),
        num_workers=num_workers,
        progress_of=silent,
    )

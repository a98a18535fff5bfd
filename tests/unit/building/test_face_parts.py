"""The parts of the face stage: alignment, perceptual hashes, the choice among several faces."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dist_dsvae.building.faces.choose_face import choose
from dist_dsvae.building.faces.duplicates import near_duplicates, perceptual_hash
from dist_dsvae.building.faces.near import near_pairs
from dist_dsvae.building.faces.survey import Seen
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.face import FaceBox, overlap
from tests.unit.building.drawn_faces import (
    landmarks_at,
    seen_face,
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


# ---- alignment


@pytest.mark.parametrize("turn", [0.0, 0.5, -1.2])
@pytest.mark.parametrize("distance", [12.0, 60.0, 200.0])
def test_the_eyes_come_to_the_same_place(turn: float, distance: float) -> None:
    image = Image.new("RGB", (900, 900), "black")
    points = landmarks_at(450, 400, distance, turn)
    draw = ImageDraw.Draw(image)
    radius = 0.12 * distance
    for (x, y), colour in zip(points[:2], ["red", "lime"], strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    crop = np.asarray(Alignment(64).crop(image, points)).astype(float)
    for channel, expected in ((0, 0.35), (1, 0.65)):
        weight = crop[:, :, channel] / crop[:, :, channel].sum()
        x, y = (weight.sum(axis=axis) @ (np.arange(64) + 0.5) / 64 for axis in (0, 1))
        assert math.hypot(x - expected, y - 0.406) < 0.02


def test_outside_the_picture_its_edge_goes_on() -> None:
    image = Image.new("RGB", (40, 40), (10, 200, 30))
    for x, y in ((0, 0), (39, 39), (-30, 20), (90, 90)):
        crop = np.asarray(Alignment(32).crop(image, landmarks_at(x, y, 20)))
        assert np.abs(crop.astype(int) - [10, 200, 30]).max() <= 1


def test_a_large_face_is_shrunk_without_aliasing() -> None:
    stripes = np.zeros((800, 800, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    crop = np.asarray(Alignment(32).crop(Image.fromarray(stripes), landmarks_at(400, 300, 160)))
    assert np.abs(crop.astype(float) - 127.5).max() < 12


# ---- duplicates


def smooth(seed: int, size: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def bits_between(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_the_hash_survives_size_light_and_jpeg() -> None:
    for seed in range(5):
        image = smooth(seed)
        brighter = image.point(lambda value: int(0.7 * value + 60))
        image.save("x.jpg", quality=50)
        for other in (brighter, image.resize((150, 150)), Image.open("x.jpg")):
            assert bits_between(perceptual_hash(image), perceptual_hash(other)) <= 24
        assert bits_between(perceptual_hash(image), perceptual_hash(smooth(seed + 100))) > 70


def test_near_duplicates_are_those_of_the_plain_algorithm() -> None:
    rng = np.random.default_rng(0)
    bases = [int.from_bytes(rng.bytes(32)) for _ in range(12)]
    numbers = [
        bases[rng.integers(12)] ^ sum(1 << int(bit) for bit in rng.choice(256, rng.integers(0, 12), False))
        for _ in range(80)
    ]
    kept: list[int] = []
    expected = {}
    for place, number in enumerate(numbers):
        near = [other for other in kept if (numbers[other] ^ number).bit_count() <= 8]
        if near:
            expected[place] = near[0]
        else:
            kept.append(place)
    unlike = np.eye(80, dtype=np.float32)
    assert near_duplicates([f"{number:064x}" for number in numbers], unlike, 8) == expected
    assert 12 < len(kept) < 70
    assert near_duplicates([], unlike, 8) == {}


def looks_like(rng: np.random.Generator, count: int, spectrum: float) -> np.ndarray:
    looks = rng.normal(size=(count, 64)) * np.arange(1, 65) ** -spectrum
    looks -= looks.mean(axis=1, keepdims=True)
    return (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("max_bits", [0, 3, 20, 40, 100, 255])
@pytest.mark.parametrize("spectrum", [0.0, 1.5])
def test_every_near_pair_is_found(max_bits: int, spectrum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all pairs compared; a crowd of the same pictures, and pairs at the very edge of either rule."""
    monkeypatch.setattr("dist_dsvae.building.faces.near.LEAF", 16)
    monkeypatch.setattr("dist_dsvae.building.faces.near.AT_ONCE", 100)
    monkeypatch.setattr("dist_dsvae.building.faces.near.WAITING", 500)
    rng = np.random.default_rng(max_bits)
    numbers = [int.from_bytes(rng.bytes(32)) for _ in range(300)]
    looks = looks_like(rng, len(numbers), spectrum)
    for place in range(100, 300):
        original = int(rng.integers(100)) if place < 280 else 0
        flips = int(rng.choice([0, 1, max_bits, max_bits + 1, 80, 88, 89])) % 257
        numbers[place] = numbers[original]
        for bit in rng.choice(256, min(flips, 256), replace=False):
            numbers[place] ^= 1 << int(bit)
        looks[place] = looks[original] + rng.choice([0, 0.1, 0.25, 0.3]) * looks[place]
        looks[place] /= np.linalg.norm(looks[place])
    words = np.frombuffer(b"".join(number.to_bytes(32) for number in numbers), np.uint64).reshape(-1, 4)
    expected = {
        (one, other)
        for other in range(len(numbers))
        for one in range(other)
        if (bits := (numbers[one] ^ numbers[other]).bit_count()) <= max_bits
        or (bits <= 88 and looks[one] @ looks[other] >= 0.965)
    }
    found = near_pairs(words, looks, max_bits)
    assert set(map(tuple, found.tolist())) == expected
    assert len(found) == len(expected) > 100
    assert found.tolist() == sorted(found.tolist(), key=lambda pair: pair[::-1])


def test_a_crowd_of_one_scene_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every two of its pictures are near, and found again in every band: 45,000 pairs, most many times."""
    monkeypatch.setattr("dist_dsvae.building.faces.near.AT_ONCE", 1 << 10)
    monkeypatch.setattr("dist_dsvae.building.faces.near.WAITING", 1 << 10)
    monkeypatch.setattr("dist_dsvae.building.faces.near.LEAF", 32)
    rng = np.random.default_rng(0)
    crowd = np.repeat(np.frombuffer(rng.bytes(32), np.uint64)[None], 300, axis=0)
    crowd[:, 0] ^= np.uint64(1) << rng.integers(0, 64, 300).astype(np.uint64)
    looks = looks_like(rng, 1, 0.5) + 0.001 * looks_like(rng, 300, 0.5)
    tracemalloc.start()
    found = near_pairs(crowd, looks / np.linalg.norm(looks, axis=1, keepdims=True), 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 300 * 299 // 2
    assert peak < 8 * found.nbytes


def test_near_pairs_are_found_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by their hashes nor by their looks: less than a tenth of the pairs, however many there are."""
    compared = 0

    def count(words: np.ndarray, one: np.ndarray, other: np.ndarray, max_bits: int) -> np.ndarray:
        nonlocal compared
        compared += len(one)
        return np.empty((0, 2), np.int64)

    monkeypatch.setattr("dist_dsvae.building.faces.near.pairs_within", count)
    rng = np.random.default_rng(0)
    shares = []
    for images in (2_000, 8_000):
        compared = 0
        words = np.frombuffer(rng.bytes(32 * images), np.uint64).reshape(-1, 4)
        near_pairs(words, looks_like(rng, images, 0.5), 40)
        shares.append(compared / (images**2 / 2))
    assert max(shares) < 0.1


def test_hashes_a_little_apart_need_alike_pictures() -> None:
    hashes = [f"{(1 << bits) - 1:064x}" for bits in (0, 60, 130)]
    alike, unlike = np.ones((3, 1), dtype=np.float32), np.eye(3, dtype=np.float32)
    assert near_duplicates(hashes, alike, 40) == {1: 0}  # 130 bits are too many
    assert near_duplicates(hashes, unlike, 40) == {}
    assert near_duplicates(hashes, unlike, 60) == {1: 0}


# ---- choice


def test_the_choice_by_look_beats_size() -> None:
    anna, berta, stranger = 1, 2, 3
    seen = [Seen((seen_face(who, 50, noise),)) for who in (anna, berta) for noise in range(6)]
    labels = [0] * 6 + [1] * 6
    seen += [Seen((seen_face(stranger, 60, 90), seen_face(who, 50, 91))) for who in (anna, berta)]
    seen.append(Seen((seen_face(stranger, 200, 92), seen_face(anna, 50, 93))))
    labels += [0, 1, 0]
    boxes = [None] * len(seen)
    by_look = choose(seen, labels, boxes, how="consistent", min_face=10)[-3:]
    by_size = choose(seen, labels, boxes, how="largest", min_face=10)[-3:]
    assert by_look[:2] == [seen[-3].faces[1], seen[-2].faces[1]]
    assert by_look[2] == seen[-1].faces[0]  # the other is in the background
    assert by_size == [one.faces[0] for one in seen[-3:]]


def test_one_identity_and_too_few_pictures_to_compare() -> None:
    group = Seen((seen_face(9, 60, 50), seen_face(1, 50, 51)))
    for lone, expected in ((5, 1), (4, 0)):  # with fewer than five it is the largest
        seen = [Seen((seen_face(1, 50, noise),)) for noise in range(lone)] + [group]
        found = choose(seen, [0] * (lone + 1), [None] * (lone + 1), how="consistent", min_face=10)
        assert found[-1] == group.faces[expected]


def test_the_listed_box_decides_and_small_faces_do_not_count() -> None:
    one = Seen((seen_face(1, 100), seen_face(2, 40, left=200.0), seen_face(3, 9, left=300.0)))
    box: FaceBox = (205, 0, 240, 45)
    cases = [(one, box), (one, (290, 0, 320, 20)), (Seen(), None), (Seen((one.faces[2],)), None)]
    found = choose(
        [case[0] for case in cases], [0] * 4, [case[1] for case in cases], how="largest", min_face=10
    )
    assert found == [one.faces[1], "no face in the listed box", "no face", "no face of 10 pixels"]


def test_overlap() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0

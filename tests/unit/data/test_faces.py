"""The face stage on drawn faces: alignment, choice, duplicates, resuming, and the report."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dist_dsvae.data.build import build
from dist_dsvae.data.errors import DataError
from dist_dsvae.data.faces import contact_sheet
from dist_dsvae.data.faces.align import Alignment
from dist_dsvae.data.faces.choose import choose
from dist_dsvae.data.faces.contact_sheet import Entry, Sheet, sheet_file, write_sheet
from dist_dsvae.data.faces.duplicates import near_duplicates, perceptual_hash
from dist_dsvae.data.faces.face import Box, BoxedPicture, Face, Point, overlap
from dist_dsvae.data.faces.stage import FaceOptions, crop_faces
from dist_dsvae.data.faces.survey import Seen, SeenFace
from dist_dsvae.data.faces.work_cache import CHUNK, WorkCache
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.sources.folder import folder
from dist_dsvae.data.sources.images import Codec, FileEncoder
from dist_dsvae.data.sources.source import Source
from tests.unit.data.making import REPOSITORY, all_files, samples_of

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

    identity: str = "marks 1"
    log: str | None = None
    pause_seconds: float = 0.0

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
        folder(Path(root), encoder),
        options_of(**changes),
        detector,
        WorkCache(Path("out")),
        num_workers=num_workers,
        progress_of=silent,
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


@pytest.mark.parametrize("block", [3, 512])
def test_near_duplicates_are_those_of_the_plain_algorithm(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dist_dsvae.data.faces.duplicates._BLOCK", block)
    monkeypatch.setattr("dist_dsvae.data.faces.duplicates._COLUMNS", 4)
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
    box: Box = (205, 0, 240, 45)
    cases = [(one, box), (one, (290, 0, 320, 20)), (Seen(), None), (Seen((one.faces[2],)), None)]
    found = choose(
        [case[0] for case in cases], [0] * 4, [case[1] for case in cases], how="largest", min_face=10
    )
    assert found == [one.faces[1], "no face in the listed box", "no face", "no face of 10 pixels"]


def test_overlap() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0


# ---- the stage


def make_photos() -> None:
    for identity, name in ((1, "anna"), (2, "berta")):
        for number in range(6):
            # The marks move, the pattern does not: seeds far apart are other pictures.
            photograph(Path(f"photos/{name}/{number}.png"), (10 * identity + 100 * number, 80, 70, 36))
    photograph(Path("photos/anna/again.png"), (10, 90, 80, 30))
    photograph(Path("photos/berta/nobody.png"))
    photograph(Path("photos/berta/small.png"), (7, 80, 70, 8))
    Path("photos/berta/broken.jpg").write_bytes(b"<html>not here any more</html>")


def test_everything_is_kept_or_named_with_its_reason() -> None:
    make_photos()
    source = cropped(Marks())
    report = build(source, Path("out"), command="a test")
    assert report.samples_per_class == {"train": {"anna": 6, "berta": 6}}
    assert report.left_out == {
        "duplicate": ["anna/again.png (of anna/0.png)"],
        "no face": ["berta/nobody.png", "berta/small.png (no face of 24 pixels)"],
        "undecodable": ["berta/broken.jpg (not a picture of a known format)"],
    }
    faces = json.loads(Path("out/report.json").read_text())["faces"]
    assert faces["anna"]["kept"] == [f"anna/{number}.png" for number in range(6)]
    assert faces["berta"]["undecodable"] == report.left_out["undecodable"]
    assert sum(len(names) for entry in faces.values() for names in entry.values()) == 16
    for name in ("anna", "berta"):
        with Image.open(f"out/contact-sheets/{name}.png") as sheet:
            assert sheet.width == 1152
    assert not Path("out.work").exists()
    for content, _, about in samples_of(Path("out/train")):
        assert len(about["landmarks"]) == 5
        assert content.startswith(b"\x89PNG")


def test_the_same_bytes_for_any_number_of_workers() -> None:
    make_photos()
    for number, out in ((1, "one"), (2, "two")):
        source = cropped(Marks(), num_workers=number, test_fraction=0.2)
        build(source, Path(out), command="a test", num_workers=number)
    one, two = all_files(Path("one")), all_files(Path("two"))
    assert one == two
    assert Manifest.load("one/test").num_samples == 2


def test_near_duplicates_never_straddle_given_splits_or_classes() -> None:
    photograph(Path("photos/train/anna/a.png"), (1, 80, 70, 40))
    photograph(Path("photos/train/anna/b.png"), (2, 80, 70, 40))
    photograph(Path("photos/test/anna/c.png"), (1, 90, 80, 30))
    photograph(Path("photos/train/berta/d.png"), (2, 90, 80, 30))
    photograph(Path("photos/train/berta/e.png"), (3, 90, 80, 30))
    source = cropped(Marks())
    assert {split: [sample.name for sample in members] for split, members in source.splits.items()} == {
        "train": ["train/anna/b.png", "train/berta/e.png"],
        "test": ["test/anna/c.png"],
    }
    all_kept = cropped(Marks(), duplicate_bits=-1)
    assert [len(members) for members in all_kept.splits.values()] == [4, 1]
    with pytest.raises(DataError, match=r"has the split 'test' already, so a test fraction of 0\.1"):
        cropped(Marks(), test_fraction=0.1)


def test_pictures_of_any_mode_and_turn() -> None:
    photograph(Path("upright.png"), (1, 60, 70, 40), size=140)
    upright = Image.open("upright.png")
    Path("photos/anna").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save("photos/anna/turned.png", exif=exif)
    palette = upright.quantize(250)
    palette.putpalette([*palette.getpalette()[:750], 255, 0, 0, 0, 255, 0])
    palette.putpixel((40, 70), 250)
    palette.putpixel((80, 70), 251)
    palette.save("photos/anna/palette.png")
    upright.convert("RGBA").save("photos/anna/alpha.png")
    upright.convert("CMYK").save("photos/anna/cmyk.tiff")
    source = cropped(Marks(), duplicate_bits=-1)
    crops = {}
    for sample in source.splits["train"]:
        content, _ = source.encode(sample)
        Path("crop.png").write_bytes(content)
        with Image.open("crop.png") as crop:
            crops[sample.name.removeprefix("anna/")] = np.asarray(crop).astype(int)
    assert sorted(crops) == ["alpha.png", "cmyk.tiff", "palette.png", "turned.png"]
    for name, crop in crops.items():
        allowed = 12 if name == "palette.png" else 1
        assert np.abs(crop - crops["alpha.png"]).mean() < allowed, name
    assert crops["alpha.png"].std() > 20


def test_a_box_is_searched_at_full_size() -> None:
    photograph(Path("large.png"), (1, 500, 400, 36), (2, 1200, 900, 30), size=1500)

    @dataclass(frozen=True)
    class Near:
        """Sees only pictures of up to 400 pixels."""

        identity: str = "near"

        def __call__(self, image: Image.Image) -> list[Face]:
            return Marks()(image) if max(image.size) <= 400 else []

    Path("photos/anna").mkdir(parents=True)
    Path("large.png").rename("photos/anna/large.png")
    plain = folder(Path("photos"), FileEncoder(size=64, channels=3, resize="crop", codec=Codec()))
    (sample,) = plain.splits["train"]
    for box, expected in (((1160.0, 870.0, 1240.0, 950.0), 1200), ((460.0, 360.0, 540.0, 450.0), 500)):
        boxed = replace(sample, reference=BoxedPicture(sample.reference, box))
        source = crop_faces(
            replace(plain, splits={"train": [boxed]}),
            options_of(),
            Near(),
            WorkCache(Path("out")),
            num_workers=1,
            progress_of=silent,
        )
        (found,) = source.splits["train"]
        assert np.mean([x for x, _ in found.reference.landmarks[:2]]) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_face": 0}, "smallest face is 0 pixels; it must be at least 1"),
        ({"duplicate_bits": 256}, "at most 256 bits; allowed are 0 to 255"),
        ({"channels": 2}, "Images of 2 channels"),
        ({"test_fraction": 1.0}, "test fraction is 1.0; it must be at least 0 and below 1"),
        ({"min_face": 500}, "None of the 16 pictures shows a face of 500 pixels"),
    ],
)
def test_bad_options_get_a_sentence(changes: dict[str, object], sentence: str) -> None:
    make_photos()
    with pytest.raises(DataError, match=sentence):
        cropped(Marks(), **changes)


# ---- going on after a kill

KILLED = """
from pathlib import Path
from tests.unit.data.test_faces import Marks, cropped
if __name__ == "__main__":
    cropped(Marks(log="log", pause_seconds=0.01))
"""


def test_a_killed_search_goes_on_where_it_was() -> None:
    count = 4 * CHUNK
    for number in range(count):
        photograph(Path(f"photos/anna/{number:03d}.png"), (number, 80, 70, 36))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", KILLED], env=environment) as process:
        deadline = time.monotonic() + 120
        while len(list(Path("out.work").glob("*.json"))) < 2:
            assert process.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finished = len(list(Path("out.work").glob("*.json")))
    assert 2 <= finished < 4
    Path("log").write_text("")
    resumed = cropped(Marks(log="log"))
    assert len(Path("log").read_text().splitlines()) == count - finished * CHUNK
    WorkCache(Path("out")).remove()
    assert resumed.splits == cropped(Marks()).splits


def test_file_names_of_sheets_are_safe_and_differ() -> None:
    names = ["Anna", "a/b", "a_b", "../x", "Zoë", "Zoé", "", ".", "x" * 300]
    files = [sheet_file(name) for name in names]
    assert files[0] == "Anna.png"
    assert len(set(files)) == len(names)
    assert all("/" not in file and file[0] not in "." and len(file) < 120 for file in files)


def test_a_sheet_of_a_large_class_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MAX_KEPT", 40)
    photograph(Path("one.png"), (1, 80, 70, 36))
    entry = Entry("one.png", "anna/one.png", landmarks_at(80, 70, 36))
    write_sheet(Sheet(Path("large.png"), "anna", [entry] * 90, [entry] * 3))
    write_sheet(Sheet(Path("full.png"), "anna", [entry] * 40, [Entry("gone.png", "näme")] * 3))
    with Image.open("large.png") as large, Image.open("full.png") as full:
        assert large.size == full.size
        assert full.height < 500
        assert full.convert("RGB").getpixel((30, full.height - 60)) != (255, 255, 255)  # a grey square

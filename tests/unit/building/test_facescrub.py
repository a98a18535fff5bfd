"""shards/build.py facescrub: both layouts, and the real detector on a real photograph."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building import named_sources
from dist_dsvae.building.sources.facescrub import COLUMNS, read_list
from dist_dsvae.commands import build
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.detect import CenterFaceDetector, require_detector
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.building.drawn_faces import Marks, photograph
from tests.unit.data.making import samples_of

Run = Callable[..., int]


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in in the place of the detector, which needs a package."""
    monkeypatch.setattr(named_sources, "CenterFaceDetector", Marks)
    monkeypatch.setattr(named_sources, "require_detector", lambda: None)


def write_lists(actors: list[tuple[object, ...]], actresses: list[tuple[object, ...]]) -> None:
    for name, rows in (("actors", actors), ("actresses", actresses)):
        lines = ["\t".join(COLUMNS), *("\t".join(map(str, row)) for row in rows)]
        Path(f"raw/facescrub_{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def sha256_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_the_official_lists(run: Run, marks: None, capsys: pytest.CaptureFixture[str]) -> None:
    photograph(Path("raw/pictures/x.png"), (1, 70, 100, 36), (2, 230, 100, 40), size=300)
    for number in range(3, 8):
        photograph(Path(f"raw/pictures/{number}.png"), (number, 80, 70, 36))
    Path("raw/replaced.png").write_bytes(b"another picture by now")
    group, url = sha256_of("raw/pictures/x.png"), "http://a.b/c.jpg"
    alone = [sha256_of(f"raw/pictures/{number}.png") for number in range(3, 8)]
    write_lists(
        [
            ("Ann A", 1, 11, url, "40,70,100,140", group),
            ("Ann A", 2, 12, url, "40,40,120,120", alone[0].upper()),
            ("Ann A", 3, 13, url, "0,120,30,150", alone[1]),  # nobody is there
            ("Ann A", 4, 14, url, "1,1,9,9", "0" * 64),
        ],
        [
            ("Zoë", 1, 21, url, "190,70,270,150", group),
            *(("Zoë", 2 + n, 22 + n, url, "40,40,120,120", alone[2 + n]) for n in range(3)),
        ],
    )
    assert run("facescrub", "raw", "out", "--test-fraction", 0.25, "--format", "png") == 0
    assert Manifest.load("out/train").classes == ("Ann A", "Zoë")
    found = [sample for split in ("train", "test") for sample in samples_of(Path("out", split))]
    eyes = {
        (about["class_name"], about["source"]): np.mean([x for x, _ in about["landmarks"][:2]])
        for _, _, about in found
    }
    assert eyes["Ann A", "pictures/x.png (face 11)"] == 70
    assert eyes["Zoë", "pictures/x.png (face 21)"] == 230
    assert len(eyes) == 6
    assert Manifest.load("out/test").num_samples == 1
    report = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert report["left_out"] == {
        "listed, but no file has the sha256": ["Ann A, image 4, face 14"],
        "files whose sha256 no list has": ["replaced.png"],
        "classes without a sample": ["Ann A (in test)"],
        "no face": ["pictures/4.png (face 13)"],
    }
    assert sorted(path.name for path in Path("out/contact-sheets").iterdir())[0] == "Ann_A-" + (
        hashlib.sha256(b"Ann A").hexdigest()[:8] + ".png"
    )
    assert not Path("out.work").exists()


def test_a_folder_per_identity(run: Run, marks: None) -> None:
    for number in range(40):
        photograph(Path(f"raw/{'ab'[number % 2]}/{number:02d}.png"), (number, 80, 70, 36))
    assert run("facescrub", "raw", "out") == 0
    assert (Manifest.load("out/train").num_samples, Manifest.load("out/test").num_samples) == (38, 2)
    assert Manifest.load("out/train").shape == (3, 64, 64)
    assert run("folder", "raw", "mine", "--faces", "--size", 32, "--channels", 1) == 0
    assert Manifest.load("mine/train").shape == (1, 32, 32)
    assert Manifest.load("mine/train").num_samples == 40


GOOD = ("A", 1, 2, "u", "1,2,3,4", "a" * 64)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "first line of .* must be the column names name, image_id, face_id"),
        (["a\tb"], "first line of .* must be the column names"),
        ([COLUMNS, GOOD, GOOD[:5]], r"line 3 has 5 columns; there must be 6"),
        ([COLUMNS, (*GOOD[:5], "a" * 63)], r"line 2 reads .* a sha256 of 64"),
        ([COLUMNS, (*GOOD[:4], "1,2,3", "a" * 64)], "line 2 reads"),
        ([COLUMNS, ("A", "x", *GOOD[2:])], "line 2 reads"),
        ([COLUMNS, (*GOOD[:4], "5,2,3,4", "a" * 64)], "line 2 has the box 5,2,3,4, which is empty"),
    ],
)
def test_a_damaged_list_is_named(tmp_path: Path, lines: list[tuple[object, ...]], sentence: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    with pytest.raises(DataError, match=sentence):
        read_list(path)


def test_a_wrong_layout_is_named(run: Run, marks: None, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*arguments: object) -> str:
        assert run("facescrub", *arguments) == 1
        return capsys.readouterr().err

    assert "The folder none does not exist" in error("none", "out")
    Path("raw").mkdir()
    assert "neither facescrub_actors.txt nor facescrub_actresses.txt nor any folder" in error("raw", "out")
    Path("raw/file.png").write_bytes(b"")
    write_lists([GOOD], [])
    assert "None of the 1 files in raw has a sha256 that facescrub_actors.txt lists" in error("raw", "out")
    photograph(Path("ready/train/a/1.png"), (1, 80, 70, 36))
    photograph(Path("ready/test/a/1.png"), (1, 80, 70, 36))
    assert "ready holds folders of the splits 'train' and 'test'" in error("ready", "out")
    photograph(Path("good/a/1.png"), (1, 80, 70, 36))
    Path("out").mkdir()
    Path("out/mine").touch()
    assert "out exists already and is not empty" in error("good", "out", "--test-fraction", 0)


def test_a_missing_detector_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    photograph(Path("raw/a/1.png"), (1, 80, 70, 36))
    assert run("facescrub", "raw", "out") == 1
    assert 'pip install "dist_dsvae[faces]"' in capsys.readouterr().err
    assert build.main is not None  # the other subcommands need no detector


# ---- the real detector


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A photograph with one face at about (225, 115), inside scikit-image, which the detector brings."""
    try:
        require_detector()
        from skimage import data
    except (DataError, ImportError) as error:
        pytest.skip(str(error))
    return Image.fromarray(data.astronaut())


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_real_detector_finds_a_face_at_any_size(astronaut: Image.Image, scale: float) -> None:
    size = round(512 * scale)
    faces = CenterFaceDetector()(astronaut.resize((size, size)))
    assert len(faces) == 1
    (left, right, nose, *mouth) = (np.array(point) / scale for point in faces[0].landmarks)
    assert np.abs(left - [205, 110]).max() < 10
    assert np.abs(right - [246, 110]).max() < 10
    assert left[1] < nose[1] < mouth[0][1]
    assert CenterFaceDetector()(Image.new("RGB", (size, size), "white")) == []


def test_the_real_build(run: Run, astronaut: Image.Image) -> None:
    Path("raw/a").mkdir(parents=True)
    astronaut.save("raw/a/1.png")
    astronaut.crop((60, 0, 460, 400)).save("raw/a/2.jpg")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("raw/a/3.png")
    astronaut.crop((0, 300, 200, 512)).save("raw/a/nobody.png")
    assert run("facescrub", "raw", "out", "--test-fraction", 0) == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["left_out"]["no face"] == ["a/nobody.png"]
    assert report["left_out"]["duplicate"] in (["a/2.jpg (of a/1.png)"], ["a/1.png (of a/2.jpg)"])
    for content, _, _ in samples_of(Path("out/train")):
        with Image.open(io.BytesIO(content)) as crop:
            assert crop.size == (64, 64)

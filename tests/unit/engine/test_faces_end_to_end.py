"""From photographs to photographs by the commands: build with --faces, train, export, swap, paste."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building import named_sources
from dist_dsvae.commands import build, export, generate, train
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import RECORD_KEY, FaceCrops
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.pretrained import photographs
from dist_dsvae.runs import measure_statistics
from tests.distributed.launching import write_config
from tests.unit.building.drawn_faces import Marks, photograph
from tests.unit.engine.test_every_method import Entries

PHOTOS = ("anna.png", "ben.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of faces, a run trained on them for an iteration, its model, and two raw photographs."""
    folder = tmp_path_factory.mktemp("faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(named_sources, "CenterFaceDetector", Marks)
        patch.setattr(named_sources, "require_detector", lambda: None)
        patch.setattr(measure_statistics, "NUM_CODES", 64)
        for number in range(16):
            photograph(Path(f"raw/{'ab'[number % 2]}/{number}.png"), (number, 80, 70, 36))
        photograph(Path(PHOTOS[0]), (3, 80, 70, 36))
        photograph(Path(PHOTOS[1]), (4, 60, 80, 20), (5, 200, 120, 60), size=300)
        Image.new("RGB", (90, 70), "white").save("nobody.png")
        Image.effect_noise((32, 32), 90).convert("RGB").save("crop.png")
        data = {"train": "shards/train", "batch_size": 4}
        write_config(Path("config.json"), data=data, train={"epochs": 1e-9, "evaluate_at_end": False})
        for script, *words in (
            (
                build,
                "folder",
                "raw",
                "shards",
                "--faces",
                "--size",
                "32",
                "--channels",
                "1",
                "--workers",
                "1",
            ),
            (train, "--config", "config.json", "--run-dir", "run"),
            (export, "--run", "run", "--out", "model"),
        ):
            patch.setattr(sys, "argv", [f"{script.__name__.rpartition('.')[2]}.py", *words])
            assert script.main() == 0
    return folder


@pytest.fixture
def entry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Entries:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(photographs, "detector_of", lambda record: Marks())
    monkeypatch.setattr(photographs, "require_detector", lambda: None)
    return Entries(monkeypatch, capsys)


def test_the_record_goes_from_the_shards_to_the_model(folder: Path) -> None:
    record = Manifest.load(folder / "shards/train").face_crops
    assert record is not None
    assert (record.alignment.size, record.detector) == (32, Marks().record)
    for file in ("shards/report.json", "shards/train/manifest.json", "run/dataset.json", "model/config.json"):
        document = json.loads((folder / file).read_text())
        assert FaceCrops.from_document(document) == record, file
    path = folder / "shards/train/manifest.json"
    content = path.read_text()
    document = json.loads(content)
    document[RECORD_KEY]["size"] = "64"
    try:
        path.write_text(json.dumps(document))
        with pytest.raises(DataError, match=r"manifest\.json cannot be used: face_crops\.size is '64'"):
            Manifest.load(folder / "shards/train")
    finally:
        path.write_text(content)


def test_two_photographs_in_two_photographs_out(entry: Entries, tmp_path: Path) -> None:
    out = tmp_path / "swapped.png"
    swap = ["swap", "--model", "model", "--images", *PHOTOS, "--paste", "--out", str(out)]
    status, printed = entry(generate, *swap)
    assert status == 0, printed
    assert "ben.png shows 2 faces; the largest is taken, number 2 from the left. Another: --fa" in printed
    made = [tmp_path / f"swapped-{number}.png" for number in (1, 2)]
    assert f"Wrote {made[0]} (anna.png with the person of ben.png), {made[1]} (ben.png with" in printed
    assert not out.exists()
    nose = {1: (91, 80), 2: (155, 200)}  # row, column
    for number, (path, photo) in enumerate(zip(made, PHOTOS, strict=True), start=1):
        before, after = np.asarray(Image.open(photo)), np.asarray(Image.open(path))
        assert before.shape == after.shape
        changed = (before != after).any(axis=2)
        assert changed[nose[number]]
        assert 0.05 < changed.mean() < 0.7
    assert not (np.asarray(Image.open(made[1])) != np.asarray(Image.open(PHOTOS[1]))).any(axis=2)[:39].any()
    status, printed = entry(generate, *swap, "--face", "1", "1")
    assert status == 0, printed
    assert "shows 2 faces" not in printed
    assert (np.asarray(Image.open(made[1])) != np.asarray(Image.open(PHOTOS[1]))).any(axis=2)[85, 60]
    Image.new("RGB", (9, 9)).save(made[1])
    status, printed = entry(generate, *swap)
    assert status == 1
    assert "swapped-2.png exists already, and is no picture that this program drew" in printed


def test_a_hole_of_a_face_is_painted_in_its_photograph(entry: Entries, tmp_path: Path) -> None:
    out = tmp_path / "painted.png"
    inpaint = ["inpaint", "--run", "run", "--images", PHOTOS[0], "--refine-steps", "1", "--out", str(out)]
    status, printed = entry(generate, *inpaint, "--paste", "--masks", "eyes")
    assert status == 0, printed
    before, after = (np.asarray(Image.open(path)) for path in (PHOTOS[0], tmp_path / "painted-1.png"))
    changed = (before != after).any(axis=2)
    assert changed[70, 60:100].any()
    assert not changed[90:].any()
    status, printed = entry(generate, *inpaint)
    assert status == 0, printed
    assert all(f"{name} 0." in printed for name in ("right-half", "eyes", "nose-and-mouth", "centre"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["swap", "--images", PHOTOS[0], "nobody.png"], r"No face is found in nobody.png \(90x70 pixels\)"),
        (
            ["swap", "--images", *PHOTOS, "--face", "3"],
            "There is no face 3 in anna.png; 1 found",
        ),
        (["swap", "--images", *PHOTOS, "--face", "1", "1", "1"], "--face gives 3 numbers for 2 pictures"),
        (["swap", "--images", PHOTOS[0], "--paste"], "between two photographs or more"),
        (["swap", "--images", "crop.png", "crop.png", "--paste"], "the model's own size are taken as faces"),
        (
            ["swap", "--images", *PHOTOS, "--align", "no", "--paste"],
            "--paste puts faces back into",
        ),
        (["swap", "--data", "shards/train", "--paste"], "--paste puts faces back into"),
        (["inpaint", "--images", *PHOTOS, "--paste"], "--paste paints one hole: name it with --masks"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(
    entry: Entries, tmp_path: Path, words: list[str], sentence: str
) -> None:
    status, printed = entry(generate, *words, "--model", "model", "--out", str(tmp_path / "out.png"))
    assert status == 1
    assert __import__("re").search(sentence, printed), printed
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_an_interpolation(entry: Entries, tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    words = ["interpolate", "zs", "--model", "model", "--steps", "4", "--classes", "a", "b"]
    for _ in range(2):  # its own film may be replaced
        status, printed = entry(generate, *words, "--out", str(film))
        assert (status, printed) == (0, f"Wrote {film}.\n")
    with Image.open(film) as opened:
        assert opened.n_frames == 6
        assert opened.size == (264, 132)
    with pytest.raises(SystemExit):
        entry(generate, "grid", "--model", "model", "--out", str(film))

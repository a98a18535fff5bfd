"""Whatever command is given, with whatever options: a person's files stay, byte for byte.

A small world (photographs, shards, a run, a published model, samples, pictures, a comparison) is strewn with
files of a person's, where people leave them and where the program would like to write. Then commands run.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dist_dsvae.building.indexing import index
from dist_dsvae.building.older_shards import files_of_older_shards
from dist_dsvae.commands import build, evaluate, export, generate, train
from dist_dsvae.core import files, inventory
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.inventory import INVENTORY_FILE
from dist_dsvae.core.staging import building, check_free
from dist_dsvae.sampling.image_file import ForeignImageError, write_image
from tests.distributed.launching import write_config

PROGRAMS = {"build": build, "evaluate": evaluate, "export": export, "generate": generate, "train": train}
STEP = "run/checkpoints/step-00000001"
SETTINGS = [
    "--samples-per-class",
    "2",
    "--set",
    "evaluation.diversity_samples=2",
    "--set",
    "evaluation.batch_norm=running",
]

# where people leave things, and where they collide with what the program writes
STRAY = [
    "notes.txt",
    "raw/anna/notes.txt",
    "raw/more.png",
    "shards/notes.txt",
    "shards/train/backup.tar",
    "shards/report.json",
    "shards.work/notes.txt",
    "shards.incomplete-123/photograph.png",
    "shards.incomplete-photographs/a.png",
    "tars/manifest.json",
    "tars/000000.index.npy",
    "tars/manifest.shards.npy",
    "run/notes.txt",
    "run/checkpoints/notes.txt",
    f"{STEP}/notes.txt",
    "run/checkpoints/.step-00000002.partial/notes.txt",
    "run/samples/holiday.png",
    "run/samples/step-00000002.png",
    "run/evaluation/notes.json",
    "run/evaluation/.scores/notes.txt",
    "run/statistics/step-00000001-raw.safetensors",
    "model/README.md",
    "model/weights.bin",
    "samples/anna/000000.png",
    "samples/anna/mine.png",
    "elsewhere/config.json",
    "elsewhere/manifest.json",
    "elsewhere/metrics.jsonl",
    "elsewhere/lock.json",
    "elsewhere/model.safetensors",
    "grid.png",
    "comparison.md",
]
PLACES = [
    *(
        "new",
        "elsewhere",
        "shards",
        "shards/train",
        "tars",
        "raw",
        "raw/anna",
        "run",
        "run/checkpoints",
        STEP,
    ),
    *("model", "samples", "grid.png", "comparison", "notes.txt", "run/samples/step-00000002.png", "."),
]


def commands(place: str, overwrite: list[str]) -> dict[str, list[str]]:
    folder = ["build", "folder", "raw", place, "--size", "32", "--channels", "1", "--workers", "1"]
    toy = ["build", "toy", place, "--num-points", "30", "--num-test-points", "6", "--workers", "1"]
    drawn = ["--columns", "2", "--classes", "anna", "--out", place]
    return {
        "folder": [*folder, *overwrite],
        "toy": [*toy, *overwrite],
        "index": ["build", "index", place, "--workers", "1"],
        "verify": ["build", "verify", place],
        "export": ["export", "--run", "run", "--out", place, *overwrite],
        "grid": ["generate", "grid", "--model", "model", *drawn],
        "grid-of-run": ["generate", "grid", "--run", "run", *drawn],
        "many": ["generate", "many", "--model", "model", "--per-class", "2", "--out", place, *overwrite],
        "shards": ["generate", "many", "--model", "model", "--per-class", "2", "--out", place, "--shards"],
        "train": ["train", "--config", "config.json", "--run-dir", place],
        "train-never": ["train", "--config", "config.json", "--run-dir", place, "--resume", "never"],
        "train-from": ["train", "--config", "config.json", "--run-dir", place, "--resume", STEP],
        "evaluate": ["evaluate", "--run", "run", "--name", place.rsplit("/")[-1], *SETTINGS],
        "compare": ["evaluate", "--compare", "run", "--out", place],
    }


def call(*arguments: str) -> int:
    """A program in this process and folder; its status. A traceback fails the test."""
    sys.argv = [arguments[0], *arguments[1:]]
    try:
        return int(PROGRAMS[arguments[0]].main())
    except SystemExit as left:  # argparse
        return int(left.code or 0)


def make_config(iterations: int) -> None:
    write_config(
        Path("config.json"),
        data={"train": "shards/train", "test": "shards/test", "batch_size": 4, "num_workers": 0},
        model={"architecture": "small32", "zs_dim": 2, "zu_dim": 2},
        train={
            "epochs": iterations * 16 / 24,
            "sample_every_steps": 1,
            "checkpoint_every_steps": 1,
            "keep_checkpoints": 1,
            "trackers": [],
            "cpu_threads": 1,
            "evaluate_at_end": False,
        },
        evaluation={"samples_per_class": 2, "diversity_samples": 2},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", sys.argv)
        pixels = np.random.default_rng(0)
        for name in ("anna", "ben"):
            (place / "raw" / name).mkdir(parents=True)
            for number in range(15):
                image = Image.fromarray(pixels.integers(0, 256, (32, 32), dtype=np.uint8))
                image.save(place / "raw" / name / f"{number}.png")
        assert call(*commands("shards", ["--test-fraction", "0.2"])["folder"]) == 0
        (place / "tars").mkdir()
        shutil.copy(place / "shards/train/000000.tar", place / "tars")
        make_config(1)
        assert call(*commands("run", [])["train"]) == 0
        assert call(*commands("scores", [])["evaluate"]) == 0
        assert call(*commands("model", [])["export"]) == 0
        assert call(*commands("samples", [])["many"]) == 0
        assert call(*commands("grid.png", [])["grid"]) == 0
        assert call(*commands("comparison", [])["compare"]) == 0
        make_config(2)
    return place


@pytest.mark.parametrize("name", list(commands("", [])))
@given(
    strays=st.lists(st.sampled_from(STRAY), min_size=1, max_size=8, unique=True),
    place=st.sampled_from(PLACES),
    overwrite=st.booleans(),
)
@settings(
    max_examples=int(os.environ.get("OWNERSHIP_EXAMPLES", "6")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_a_person_left_stays(
    name: str,
    world: Path,
    strays: list[str],
    place: str,
    overwrite: bool,
) -> None:
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        copy = Path(temporary) / "world"
        shutil.copytree(world, copy)  # keeps the times
        patch.chdir(copy)
        patch.setattr(sys, "argv", sys.argv)
        photographs = {path: path.read_bytes() for path in (copy / "raw").rglob("*") if path.is_file()}
        tars = {path: path.read_bytes() for path in (copy / "tars").glob("*.tar")}
        mine = photographs | tars | {copy / stray: f"mine: {stray}".encode() for stray in strays}
        for path, content in mine.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        call(*commands(place, ["--overwrite"] if overwrite else [])[name])
        notes = copy / STEP / "notes.txt"
        if notes in mine and not notes.parent.exists():  # pruned: what is not the checkpoint's is kept beside
            mine[copy / "run/checkpoints/kept-step-00000001/notes.txt"] = mine.pop(notes)
        lost = [str(path.relative_to(copy)) for path, content in mine.items() if not _holds(path, content)]
        assert not lost, f"{name} at {place} lost {lost}"


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def test_what_the_program_wrote_is_replaced(world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(world, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        patch.setattr(sys, "argv", sys.argv)
        for name, place in (
            ("toy", "shards"),
            ("export", "model"),
            ("many", "samples"),
            ("grid", "grid.png"),
        ):
            assert call(*commands(place, ["--overwrite"])[name]) == 0, name
        assert call(*commands("comparison", [])["compare"]) == 0
        assert not (copy / "shards/report.json").read_text().count("anna")


@pytest.mark.parametrize("out", ["raw/shards", "raw", "."])
def test_source_and_target_that_contain_one_another(
    world: Path, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "raw", tmp_path / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", sys.argv)
        assert call(*commands(out, ["--overwrite"])["folder"]) == 1
    assert "one lies in the other" in capsys.readouterr().err


def shards_without_inventory(world: Path, tmp_path: Path) -> Path:
    """As they were built before there were inventories."""
    out = tmp_path / "shards"
    shutil.copytree(world / "shards", out)
    (out / INVENTORY_FILE).unlink()
    return out


def test_older_shards_are_known_by_their_manifests(world: Path, tmp_path: Path) -> None:
    out = shards_without_inventory(world, tmp_path)
    check_free(out, overwrite=True, proof=files_of_older_shards)
    (out / "train/000000.tar").write_bytes(b"another")
    with pytest.raises(DataError, match=r"it holds train/000000\.tar, which this program cannot prove"):
        check_free(out, overwrite=True, proof=files_of_older_shards)


@pytest.mark.parametrize("has_inventory", [True, False])
def test_a_tar_that_a_person_mended_is_theirs_though_its_size_is_as_it_was(
    has_inventory: bool, world: Path, tmp_path: Path
) -> None:
    out = shards_without_inventory(world, tmp_path)
    if has_inventory:
        shutil.copy(world / "shards" / INVENTORY_FILE, out)
    tar = out / "train/000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"it holds train/000000\.tar, which this program cannot prove"):
        check_free(out, overwrite=True, proof=files_of_older_shards)


def test_of_two_builds_of_one_place_the_first_to_end_stays(tmp_path: Path) -> None:
    def make(place: Path, word: str, meanwhile: Callable[[], object]) -> None:
        with building(place) as staging:
            (staging / "made").write_text(word, encoding="utf-8")
            meanwhile()

    def another() -> None:
        make(tmp_path / "elsewhere", "by another", lambda: None)
        (tmp_path / "elsewhere").rename(tmp_path / "out")

    with pytest.raises(DataError, match=r"exists already and is not empty\. Add --overwrite"):
        make(tmp_path / "out", "by this one", another)
    assert (tmp_path / "out/made").read_text(encoding="utf-8") == "by another"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
@pytest.mark.parametrize("is_empty", [True, False])
def test_a_folder_that_cannot_give_way_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_empty: bool
) -> None:
    """A mount point, or a folder of an image's lower layer."""
    out = tmp_path / "out"
    if is_empty:
        out.mkdir()
    else:
        with building(out) as staging:
            (staging / "made").touch()
    unable_to_rename(monkeypatch, out, code)
    with pytest.raises(
        DataError, match=r"out exists and cannot be renamed .*give a new folder inside it, such"
    ):
        check_free(out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_build_that_ends_as_another_begins_is_none_of_its_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    opened = os.open

    def ends_just_now(path: Path, *how: int) -> int:
        descriptor = opened(path, *how)
        if ".incomplete-" in str(path) and not out.exists():
            Path(path).rename(out)
        return descriptor

    leftover = tmp_path / "out.incomplete-12345678"
    leftover.mkdir()
    inventory.mark(leftover)
    monkeypatch.setattr("dist_dsvae.core.staging.os.open", ends_just_now)
    with pytest.raises(DataError, match=r"out exists already"), building(out) as staging:
        (staging / "made").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_looking_whether_a_folder_can_give_way_leaves_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with building(out) as staging:
        (staging / "made").write_text("a", encoding="utf-8")
    check_free(out, overwrite=True)

    def merge(path: Path, target: Path, rename: Callable[..., Path] = Path.rename) -> Path:
        """As a file system does that joins folders."""
        if not target.is_dir():
            return rename(path, target)
        (target / "made").write_text((path / "made").read_text(encoding="utf-8"), encoding="utf-8")
        shutil.copy(path / INVENTORY_FILE, target)
        shutil.rmtree(path)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", merge)
        check_free(out, overwrite=True)
    assert (out / "made").read_text(encoding="utf-8") == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check_free(out, overwrite=True)


@pytest.mark.parametrize("what", ["older", "new"])
def test_what_is_complete_stays_where_only_its_name_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    out = tmp_path / "out"
    with building(out) as staging:
        (staging / "made").write_text("before", encoding="utf-8")

    def build_again() -> None:
        with building(out, overwrite=True) as staging:
            (staging / "made").write_text("now", encoding="utf-8")
            unable_to_rename(monkeypatch, out if what == "older" else staging, errno.EIO, onto="out")

    with pytest.raises(
        DataError, match=r"out is made, but cannot .*It lies whole in .*out\.complete-[0-9a-f]{8}:"
    ):
        build_again()
    monkeypatch.undo()
    with building(tmp_path / "out2"):
        pass
    (complete,) = tmp_path.glob("out.complete-*")
    assert (complete / "made").read_text(encoding="utf-8") == "now"
    assert (out / "made").read_text(encoding="utf-8") == "before"
    with building(out, overwrite=True) as staging:
        (staging / "made").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", complete.name, "out2"]


def unable_to_rename(
    monkeypatch: pytest.MonkeyPatch, folder: Path, code: int, *, onto: str | None = None
) -> None:
    """``folder`` cannot be renamed; onto: or only to such a name, or to one that is not there yet."""
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        if path == folder and (
            onto is None or Path(target).name == onto or target.name.endswith("-replaced")
        ):
            raise OSError(code, os.strerror(code), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)


def test_tars_that_were_only_indexed_are_their_makers(world: Path, tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    shutil.copytree(world / "tars", tars)
    index(tars, command="index")
    with pytest.raises(DataError, match=r"it holds 000000\.tar, which"):
        check_free(tars, overwrite=True, proof=files_of_older_shards)


def test_a_touched_file_of_ours_is_ours_and_a_changed_one_is_not(world: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(world / "model", model)
    card = model / "README.md"
    os.utime(card, (1, 1))
    check_free(model, overwrite=True)
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("a", "b", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"holds README\.md"):
        check_free(model, overwrite=True)


def test_what_is_there_is_read_once_and_only_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards are large: a build that may not replace them reads none, one that does reads each once."""
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256_of(path)

    def make(word: str, overwrite: bool) -> None:
        hashes: dict[Path, str] = {}
        with building(tmp_path / "out", overwrite=overwrite, hashes=hashes) as staging:
            (staging / "made").write_text(word, encoding="utf-8")
            hashes[staging / "made"] = sha256_of(staging / "made")

    make("a", overwrite=False)
    monkeypatch.setattr(files, "sha256_of", counted)
    monkeypatch.setattr(inventory, "sha256_of", counted)
    monkeypatch.setattr(files, "_TICK_NS", 0)
    with pytest.raises(DataError, match=r"out exists already and is not empty\. Add --overwrite"):
        check_free(tmp_path / "out", overwrite=False)
    assert read == []
    check_free(tmp_path / "out", overwrite=True)
    make("b", overwrite=True)
    assert read == ["made"]
    check_free(tmp_path / "out", overwrite=True)  # the hash that the maker told is right
    assert read == ["made", "made"]


def test_a_hash_is_not_remembered_of_what_has_just_been_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for word in ("a", "b", "c"):
        path.write_text(word, encoding="utf-8")  # within a tick, perhaps, of the same size
        assert files.sha256_as_of(path) == sha256_of(path)


def test_a_link_in_our_folder_is_not_followed(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "shards", tmp_path / "shards")
    (tmp_path / "shards/elsewhere").symlink_to(world / "raw")
    with pytest.raises(DataError, match="holds elsewhere"):
        check_free(tmp_path / "shards", overwrite=True)


def test_a_file_that_comes_while_building_stays(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    shutil.copytree(world / "shards", out)
    with pytest.raises(DataError, match=r"holds notes\.txt"), building(out, overwrite=True):
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_a_picture_is_ours_by_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    write_image(path, Image.new("RGB", (3, 3)))
    write_image(path, Image.new("RGB", (4, 3)))
    with Image.open(path) as ours:
        edited = ours.copy()
        edited.putpixel((0, 0), (255, 0, 0))
        text = PngImagePlugin.PngInfo()
        text.add_text("dist_dsvae", ours.info["dist_dsvae"])  # an editor may keep it
    edited.save(path, pnginfo=text)
    with pytest.raises(ForeignImageError, match="is no picture that this program drew"):
        write_image(path, Image.new("RGB", (3, 3)))

"""The model that comes with the project is drawn from, and explored, where no other is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dist_dsvae import PretrainedModel
from dist_dsvae.commands import explore, generate
from dist_dsvae.config import DSVAEConfig
from dist_dsvae.core import shipped
from tests.programs import REPOSITORY
from tests.unit.engine.test_every_method import Entries
from tests.unit.pretrained.making import make_model


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Entries:
    """In an empty directory, of a package whose box holds the embedded test split alone."""
    box = tmp_path / "package/box/shards/fashion-mnist-mini"
    box.mkdir(parents=True)
    (box / "test").symlink_to(REPOSITORY / "shards/fashion-mnist-mini/test")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "package")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return Entries(monkeypatch, capsys)


@pytest.fixture
def model(tmp_path: Path, entry: Entries) -> Path:
    directory = tmp_path / "package/box/shards/fashion-mnist-mini/model"
    make_model(DSVAEConfig()).save_pretrained(directory)
    return directory


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    "figure",
    ["grid --columns 2", "interpolate zs --steps 2", "vary --dims 1 --steps 2", "swap --rows 1 --columns 2"],
)
def test_figures_need_no_argument(figure: str, entry: Entries) -> None:
    name = f"{figure.split()[0]}.png"
    status, printed = entry(generate, *figure.split())
    assert status == 0, printed
    assert "Neither --run nor --model is given: this is the model that comes with the project." in printed
    assert f"Wrote {name}." in printed
    assert Image.open(name).width > 100


@pytest.mark.usefixtures("model")
def test_a_picture_of_a_persons_is_not_replaced(entry: Entries) -> None:
    Image.new("L", (2, 2)).save("grid.png")
    status, printed = entry(generate, "grid")
    assert (status, "is no picture that this program drew" in printed) == (1, True)


def test_the_page_shows_it(model: Path, entry: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    app = pytest.importorskip("dist_dsvae.explore.app", reason="the page needs the extra explore")
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(app, "explore", lambda **arguments: shown.append(arguments))
    assert entry(explore)[0] == 0
    assert entry(explore, "--run", "runs/x")[0] == 0
    assert [(each["model"], each["run"]) for each in shown] == [(str(model), None), (None, Path("runs/x"))]


@pytest.mark.parametrize("command", [generate, explore])
def test_without_one_a_sentence_says_what_to_give(command: Any, entry: Entries) -> None:
    if command is explore:
        pytest.importorskip("gradio", reason="the page needs the extra explore")
    status, printed = entry(command, *(["grid"] if command is generate else []))
    assert status == 1
    assert "No model is given, and none comes with this installation. Give --run RUN, a run dir" in printed


def test_the_one_of_this_repository() -> None:
    """Small enough to travel, and the judge beside it takes its pictures for their classes."""
    place = shipped.model_in_the_box()
    assert place is not None
    assert sum(path.stat().st_size for path in place.iterdir()) < 8e6
    model = PretrainedModel.from_pretrained(place)
    judge = PretrainedModel.from_pretrained(place.parent / "classifier")
    assert model.classes == judge.classes
    drawn = model.sample(n=20, generator=0, kind="tensor")
    labels = [name for name in model.classes for _ in range(20)]
    taken_for = [judge.classes[number] for number in judge.classify(drawn).argmax(1).tolist()]
    assert sum(map(str.__eq__, taken_for, labels)) > 0.8 * len(labels)


def test_it_is_opened_without_the_compiler_of_pytorch(model: Path) -> None:
    """Whose import takes as long as all else until a picture is there."""
    script = (
        "import sys; from dist_dsvae import PretrainedModel;"
        "PretrainedModel.from_pretrained(sys.argv[1]).sample('bag', 1, 0);"
        "print(*{'torch._dynamo', 'torch.distributed.checkpoint', 'sympy', 'matplotlib'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", script, str(model)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

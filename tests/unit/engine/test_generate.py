"""launch/generate.py and export, end to end on a tiny run; many samples by any number of processes."""

from __future__ import annotations

import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae import PretrainedModel
from dist_dsvae.building.writer import Layout, Sample, write_split
from dist_dsvae.commands import export, generate, train
from dist_dsvae.config import CGANConfig, DSVAEConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import Codec
from dist_dsvae.core.inventory import INVENTORY_FILE
from dist_dsvae.core.shipped import model_in_the_box
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.runs import bulk_samples
from dist_dsvae.runs.checkpoint import read_marker
from dist_dsvae.runs.export import published_of_run
from dist_dsvae.sampling.temperature import AT_ONE
from tests.distributed.launching import REPOSITORY, environment, launcher_words, write_config
from tests.forking import launch_program
from tests.unit.data.making import png_claiming
from tests.unit.engine.test_every_method import Entries
from tests.unit.pretrained.making import CLASSES, make_model

SHARDS = "shards/fashion-mnist-mini"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dsvae's run and a cgan's, each with one step of training."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        for name in ("dsvae", "cgan", "cvae"):
            config = write_config(
                folder / f"{name}.json",
                data={"test": f"{SHARDS}/test"},
                method={"name": name},
                train={"epochs": 0.0048, "evaluate_at_end": False},
            )
            patch.setattr(sys, "argv", ["train", "--config", str(config), "--run-dir", str(folder / name)])
            assert train.main() == 0
    return {name: folder / name for name in ("dsvae", "cgan", "cvae")}


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Entries:
    monkeypatch.chdir(REPOSITORY)
    return Entries(monkeypatch, capsys)


COMMANDS = {
    "grid": ["grid", "--columns", "3"],
    "cool": ["grid", "--columns", "3", "--temperature-zu", "0.5"],
    "zs": ["interpolate", "zs", "--steps", "4", "--classes", "Bag", "7"],
    "zu": ["interpolate", "zu", "--steps", "4", "--path", "spherical"],
    "vary": ["vary", "--num-dims", "2", "--steps", "3"],
    "dims": ["vary", "--dims", "1", "0", "--classes", "Bag"],
    "swap": ["swap", "--rows", "2", "--columns", "3"],
    "inpaint": ["inpaint", "--pictures", "2", "--refine-steps", "2"],
    "one-mask": ["inpaint", "--pictures", "1", "--masks", "centre"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_figure(name: str, runs: dict[str, Path], entry: Entries, tmp_path: Path) -> None:
    first, again, other = (tmp_path / f"{i}.png" for i in range(3))
    for out, seed in ((first, "1"), (again, "1"), (other, "2")):
        run = ["--run", str(runs["dsvae"]), "--seed", seed, "--out", str(out)]
        status, printed = entry(generate, *COMMANDS[name], *run)
        assert status == 0, printed
        assert f"Wrote {out}." in printed
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()
    size = Image.open(first).size
    assert size[0] > 3 * 64
    assert size[1] > 64


def test_an_exported_model_draws_the_same(runs: dict[str, Path], entry: Entries, tmp_path: Path) -> None:
    run, model = str(runs["dsvae"]), str(tmp_path / "model")
    kinds = ["--torch-export", *(["--onnx"] if find_spec("onnxscript") else [])]
    status, printed = entry(export, "--run", run, "--out", model, *kinds, "--license", "mit")
    assert status == 0, printed
    for kind in ("pt2", "onnx")[: len(kinds)]:
        assert f"decoder.{kind}" in printed
        assert (tmp_path / f"model/sampler.{kind}").is_file()
        assert f"## Use the `.{kind}` files" in (tmp_path / "model/README.md").read_text()
    card = (tmp_path / "model/README.md").read_text()
    assert "license: mit" in card
    assert "shards/fashion-mnist-mini/train`, 10,000 samples" in card
    shapes = []
    for place in (["--run", run], ["--model", model, "--data", f"{SHARDS}/test"]):
        out = tmp_path / f"{place[0]}.png"
        status, printed = entry(generate, "inpaint", *place, "--out", str(out))
        assert status == 0, printed
        shapes.append(printed.split("Wrote")[0])
    assert shapes[0] == shapes[1]
    assert (tmp_path / "--run.png").read_bytes() == (tmp_path / "--model.png").read_bytes()


def test_pictures_and_masks_of_ones_own(runs: dict[str, Path], entry: Entries, tmp_path: Path) -> None:
    files = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for number, file in enumerate(files):
        Image.effect_noise((50 + 9 * number, 40), 90).save(file)
    mask = Image.new("L", (100, 100))
    mask.paste(255, (10, 10, 40, 40))
    mask.save(tmp_path / "patch.png")
    images = ["--images", *map(str, files)]
    run = ["--run", str(runs["dsvae"])]
    out = ["--out", str(tmp_path / "out.png")]
    for command in (["swap"], ["inpaint", "--mask-image", str(tmp_path / "patch.png")]):
        status, printed = entry(generate, *command, *run, *images, *out)
        assert status == 0, printed
    assert printed.startswith("Squared error in the hole: patch 0.")
    cvae = ["--run", str(runs["cvae"])]
    assert entry(generate, "swap", *cvae, "--rows", "2", "--columns", "2", *out)[0] == 0
    assert entry(generate, "swap", *cvae, *images, "--classes", "Bag", "Coat", *out)[0] == 0
    status, printed = entry(generate, "swap", *cvae, *images, *out)
    assert (status, "told the label: name a class for each of the 2 pictures" in printed) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grid", "--run", "{dsvae}", "--model", "{tmp}"], "Give either --run RUN or --model DIRECTORY, not"),
        (["grid", "--model", "{tmp}", "--step", "3"], "choose among a run's checkpoints"),
        (["grid", "--model", "{tmp}"], "has no model.safetensors and no config.json"),
        (["grid", "--run", "{tmp}"], "is not a run directory"),
        (["grid", "--run", "{model}"], "is an exported model, not a run directory. Give it as --model"),
        (["grid", "--run", "{dsvae}", "--step", "9"], "has no checkpoint of step 9"),
        (["grid", "--run", "{dsvae}", "--classes", "Bagg"], "no class 'Bagg'. Did you mean 'Bag'"),
        (["vary", "--run", "{dsvae}", "--dims", "99"], "no dimension 99"),
        (["swap", "--run", "{cgan}"], "a cgan, which cannot encode"),
        (["swap", "--run", "{dsvae}", "--images", "{tmp}/none.png"], "cannot be read as a picture"),
        (["swap", "--model", "{tmp}/none"], "There is no directory"),
        (["grid", "--run", "{dsvae}", "--device", "tpu9"], "device is 'tpu9'; allowed are"),
        (["grid", "--run", "{dsvae}", "--device", "xpu"], "device is 'xpu'; allowed are"),
        (
            ["swap", "--run", "{dsvae}", "--images", "a.png", "--rows", "2"],
            "--rows chooses pictures of a split",
        ),
        (["inpaint", "--run", "{dsvae}", "--face", "2"], "--face is for photographs: name their files with"),
        (
            ["swap", "--run", "{dsvae}", "--images", "a.png", "--face", "2"],
            "this model is not of aligned faces",
        ),
        (
            ["inpaint", "--run", "{dsvae}", "--refine-steps", "0", "--starts", "3"],
            "--starts are refined, which",
        ),
        (
            ["grid", "--run", "{cgan}", "--temperature-zs", "0.5"],
            "A cgan has one code, which --temperature-zu",
        ),
        (["swap", "--run", "{dsvae}", "--data", "{tmp}/none"], "The shard directory"),
        (
            ["many", "--run", "{dsvae}", "--per-class", "2", "--out", "launch"],
            "exists already and is not empty",
        ),
    ],
)
def test_what_is_wrong_gets_a_sentence(
    arguments: list[str], message: str, runs: dict[str, Path], entry: Entries, tmp_path: Path
) -> None:
    places = {"tmp": tmp_path, "model": model_in_the_box(), **runs}
    filled = [argument.format(**places) for argument in arguments]
    out = [] if "--out" in filled else ["--out", str(tmp_path / "out.png")]
    status, printed = entry(generate, *filled, *out)
    assert status == 1
    assert message in printed
    assert printed.startswith("error: ")


FOREIGN = {
    "drawing.svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "it is an SVG drawing, which is not read. Conv",
    ),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC picture, which is not read. Convert"),
    "broken.jpg": (b"\xff\xd8\xff\xe0", "cannot be read as a picture: "),
    "empty.png": (b"", "cannot be read as a picture: "),
    "huge.png": (
        png_claiming(20_000, 20_000),
        "it has too many pixels; at most 178 million are read. Make the",
    ),
}


@pytest.mark.parametrize("file", FOREIGN)
@pytest.mark.parametrize(
    "command", [["swap", "--images"], ["inpaint", "--mask-image"]], ids=["image", "mask"]
)
def test_pictures_that_cannot_be_read(
    file: str, command: list[str], runs: dict[str, Path], entry: Entries, tmp_path: Path
) -> None:
    content, reason = FOREIGN[file]
    (tmp_path / file).write_bytes(content)
    run = ["--run", str(runs["dsvae"]), "--out", str(tmp_path / "out.png")]
    status, printed = entry(generate, *command, str(tmp_path / file), *run)
    assert status == 1
    assert printed.startswith(f"error: {tmp_path / file} cannot be read as a picture: ")
    assert reason in printed


def test_classes_without_a_picture_are_left_out(
    runs: dict[str, Path], entry: Entries, tmp_path: Path
) -> None:
    mini = Manifest.load(REPOSITORY / SHARDS / "test")
    image = Codec().pack(Image.effect_noise((32, 32), 90))
    samples = [Sample(image, label, str(label)) for label in (0, 0, 7)]
    layout = Layout(shape=mini.shape, extension="png")
    split = tmp_path / "few"
    write_split(split, samples, _as_it_is, layout, classes=mini.classes, command="", source="test")
    run = ["--run", str(runs["dsvae"]), "--data", str(split), "--out", str(tmp_path / "out.png")]
    for command in (["swap", "--rows", "3", "--columns", "4"], ["inpaint", "--pictures", "3"]):
        status, printed = entry(generate, *command, *run)
        assert status == 0, printed
        assert printed.count(f"{split} has no picture of the classes {mini.classes[1]!r}, ") == 1
        assert "left out.\n" in printed
    status, printed = entry(generate, "swap", "--classes", mini.classes[7], mini.classes[1], *run)
    assert status == 0, printed
    assert f"{split} has no picture of the class {mini.classes[1]!r}; left out.\n" in printed
    status, printed = entry(generate, "swap", "--classes", mini.classes[1], *run)
    assert (status, "Choose other classes, or give another split with --data." in printed) == (1, True)


def _as_it_is(sample: Sample[bytes]) -> tuple[bytes, dict[str, object]]:
    return sample.reference, {}


# many


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_many_are_the_same_for_any_number_of_processes(tmp_path: Path) -> None:
    model = make_model(CGANConfig())
    for count in (1, 2, 5):  # processes share 150 samples: three units, one not full
        what = (model, tmp_path / str(count), [0, 2, 4], 50, 3, AT_ONE)
        for rank in range(count):
            bulk_samples.write_share(*what, rank=rank, world_size=count)
    one = contents(tmp_path / "1")
    assert len(one) == 150
    assert len(set(one.values())) == 150
    assert {name.split("/")[0] for name in one} == {"boot", "coat", "T-shirt-top"}
    assert contents(tmp_path / "2") == one
    assert contents(tmp_path / "5") == one
    alone = model.sample("coat", 50, 3)[49]
    assert (
        np.abs(np.asarray(Image.open(io.BytesIO(one["coat/000049.png"])), int) - np.asarray(alone)).max() <= 1
    )


@pytest.mark.parametrize("architecture", ["small32", "mlp2d"])
def test_many_as_shards_are_ready_for_training(architecture: str, tmp_path: Path) -> None:
    model = make_model(DSVAEConfig(), architecture)
    sentence = bulk_samples.write_many(model, tmp_path / "out", [1, 3, 1], 5, 0, as_shards=True, command="me")
    assert "10 samples of 2 classes" in sentence  # one was named twice
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train", INVENTORY_FILE}
    manifest = Manifest.load(tmp_path / "out/train")
    assert (manifest.classes, manifest.shape, manifest.command) == (CLASSES, model.shape, "me")
    assert manifest.samples_per_class == (0, 5, 0, 5, 0)
    (batch,) = one_pass(manifest, 16)
    bag = batch.images[batch.labels == 1].numpy()
    expected = model.sample("bag", 5, 0, kind="array")
    assert sorted(a.sum() for a in bag) == pytest.approx(sorted(a.sum() for a in expected), rel=1e-3)
    with pytest.raises(DataError, match="exists already and is not empty"):
        bulk_samples.write_many(model, tmp_path / "out", [1], 1, 0)


def test_nothing_is_left_of_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Codec, "pack", full)
    with pytest.raises(DataError, match=r"The disk that holds .* is full"):
        bulk_samples.write_many(make_model(CGANConfig()), tmp_path / "out", [1], 1, 0)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_write_what_one_does(runs: dict[str, Path], entry: Entries, tmp_path: Path) -> None:
    arguments = ["many", "--run", str(runs["cgan"]), "--per-class", "20", "--seed", "4", "--shards", "--out"]
    status, printed = entry(generate, *arguments, str(tmp_path / "one"))
    assert status == 0, printed
    words = [*launcher_words(2), "launch/generate.py", *arguments, str(tmp_path / "two")]
    done = launch_program(*words, environment=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Wrote 200 samples of 10 classes") == 1
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    del one[INVENTORY_FILE], two[INVENTORY_FILE]  # of manifests with other commands
    for files, out in ((one, b"/one"), (two, b"/two")):
        assert out in files["train/manifest.json"]  # in the command
        files["train/manifest.json"] = files["train/manifest.json"].replace(out, b"/out")
    assert one == two


def test_what_one_process_meets_all_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gather_objects", lambda value: [value, "its disk is full"])
    with pytest.raises(DataError, match="Process 1: its disk is full"):
        bulk_samples.write_many(make_model(CGANConfig()), tmp_path / "out", [1], 1, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_card_has_figures_of_these_weights_alone(runs: dict[str, Path]) -> None:
    folder = runs["cgan"] / "evaluation"
    folder.mkdir(exist_ok=True)
    marked = read_marker(runs["cgan"] / "checkpoints/step-00000004")
    scores = {key: marked[key] for key in ("samples_seen", "train_seconds")}
    scores |= {"checkpoint": "step-00000004", "weights": "raw", "figures": {"fid": 12.5}, "seconds": 1}
    about = published_of_run(runs["cgan"], weights="raw").about
    assert about["evaluation"] == {}  # the run was not evaluated
    (folder / "scores.json").write_text(json.dumps(scores))
    evaluated = published_of_run(runs["cgan"], weights="raw")
    assert evaluated.about["evaluation"] == {"figures": {"fid": 12.5}}
    for other in ({"weights": "ema"}, {"train_seconds": 1e6}):  # or of a run that was here before
        (folder / "scores.json").write_text(json.dumps(scores | other))
        assert published_of_run(runs["cgan"], weights="raw").about["evaluation"] == {}
    (folder / "summary.json").write_text(json.dumps({"zs_accuracy": 0.5, "samples_seen": 48}))
    summary = published_of_run(runs["cgan"], weights="raw").about["evaluation"]
    assert summary == {
        "figures": {"zs_accuracy": 0.5},
        "note": "At the end of training, with the last weights.",
    }
    averaged = {"zs_accuracy": 0.5, "samples_seen": 48, "weights": "ema"}
    (folder / "summary.json").write_text(json.dumps(averaged))
    summary = published_of_run(runs["cgan"], weights="raw").about["evaluation"]
    assert summary["note"] == "At the end of training, with the moving average."
    assert summary["figures"] == {"zs_accuracy": 0.5}
    assert "At the end of training" in str(
        PretrainedModel(published_of_run(runs["cgan"])).generate_model_card()
    )
    for damaged in ("{", "[]"):
        (folder / "scores.json").write_text(damaged)
        assert published_of_run(runs["cgan"], weights="raw").about["evaluation"] == summary
    assert "--step" not in published_of_run(runs["cgan"]).about["commands"]["export"]
    assert "--step 4 " in published_of_run(runs["cgan"], step=4).about["commands"]["export"]
    (folder / "summary.json").write_text(
        json.dumps({"zs_accuracy": 0.5, "samples_seen": 24})
    )  # then it went on
    assert published_of_run(runs["cgan"], weights="raw").about["evaluation"] == {}


def test_a_seed_is_a_seed_on_every_thread_count() -> None:
    model = make_model(CGANConfig())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = model.sample(n=2, generator=1, kind="tensor")
        torch.set_num_threads(1)
        torch.testing.assert_close(model.sample(n=2, generator=1, kind="tensor"), two)
    finally:
        torch.set_num_threads(threads)

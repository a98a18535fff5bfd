"""Saving, loading and the card; nothing foreign is ever opened."""

from __future__ import annotations

import ast
import copy
import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from dist_dsvae import PretrainedModel
from dist_dsvae.commands.export import make_parser
from dist_dsvae.config import CGANConfig, ClassifierConfig, CVAEConfig, DSVAEConfig
from dist_dsvae.methods.published import PublishedModelError, halve, save_published
from dist_dsvae.pretrained.card import CardError
from tests.unit.methods.test_published import Bomb
from tests.unit.pretrained.making import make_model, make_published, pixels


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_model(DSVAEConfig()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(directory: Path) -> None:
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "samples.png"]
    ours, theirs = make_model(DSVAEConfig()), PretrainedModel.from_pretrained(directory, batch_size=7)
    assert theirs.batch_size == 7
    assert torch.equal(ours.encode(pixels(2)).zs, theirs.encode(pixels(2)).zs)
    torch.testing.assert_close(
        theirs.sample(n=2, generator=1, kind="tensor"), ours.sample(n=2, generator=1, kind="tensor")
    )
    theirs.save_pretrained(directory.parent / "again")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (directory.parent / "again" / name).read_bytes() == (directory / name).read_bytes()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_that_are_no_models_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PublishedModelError, match="cannot be saved"):
        make_model(DSVAEConfig()).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_half_the_bytes(directory: Path) -> None:
    before, size = (
        PretrainedModel.from_pretrained(directory),
        (directory / "model.safetensors").stat().st_size,
    )
    halve(directory)
    assert (directory / "model.safetensors").stat().st_size < 0.6 * size
    after = PretrainedModel.from_pretrained(directory)
    for ours, theirs in zip(
        before.published.method.parameters(), after.published.method.parameters(), strict=True
    ):
        assert theirs.dtype is torch.float32
        assert torch.equal(ours.half().float(), theirs)
    drawn = [model.sample(n=2, generator=1, kind="tensor") for model in (before, after)]
    assert (drawn[0] - drawn[1]).abs().max() < 0.02


def test_weights_that_float16_cannot_hold(tmp_path: Path) -> None:
    model = make_model(DSVAEConfig())
    with torch.no_grad():
        next(model.published.method.parameters()).flatten()[0] = 1e5
    save_published(model.published, tmp_path / "model")
    before = (tmp_path / "model/model.safetensors").read_bytes()
    with pytest.raises(PublishedModelError, match="beyond 65504, the largest of float16"):
        halve(tmp_path / "model")
    assert (tmp_path / "model/model.safetensors").read_bytes() == before


def test_importing_the_package_is_light() -> None:
    script = "import sys, dist_dsvae; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
    assert "torch" in sys.modules  # the test can fail
    with pytest.raises(ImportError, match="cannot import name 'DSVAE'"):  # the method, in methods.dsvae
        from dist_dsvae import DSVAE  # type: ignore[attr-defined]  # noqa: F401


def test_completion_shows_the_public_names() -> None:
    """Before anything is loaded, too."""
    script = "import dist_dsvae; print(*dir(dist_dsvae))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["PretrainedModel", "__version__"], done.stderr


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.ckpt"])
def test_a_directory_of_pickles_is_refused(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "executed"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Bomb(trace)))
    (folder / "config.json").write_text("{}")
    with pytest.raises(PublishedModelError, match=f"no model.safetensors, but {name}: a pickle can run code"):
        PretrainedModel.from_pretrained(folder)
    with pytest.raises(PublishedModelError, match="a file, not a directory, and is not opened"):
        PretrainedModel.from_pretrained(folder / name)
    assert not trace.exists()


def test_a_pickle_in_place_of_the_weights_is_refused(directory: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (directory / "model.safetensors").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(PublishedModelError, match=r"model.safetensors cannot be read"):
        PretrainedModel.from_pretrained(directory)
    assert not trace.exists()


def test_an_archive_with_absolute_paths_is_refused(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "escaped"
    archive = tmp_path / "model.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo(str(target))
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(PublishedModelError, match=r"model.tar is an archive, not a directory"):
        PretrainedModel.from_pretrained(archive)
    (directory / "model.safetensors").write_bytes(archive.read_bytes())
    with pytest.raises(PublishedModelError, match=r"model.safetensors cannot be read"):
        PretrainedModel.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    archive.rename(directory / "model.tar")
    with pytest.raises(
        PublishedModelError, match=r"no model.safetensors, but model.tar: .* archive can write"
    ):
        PretrainedModel.from_pretrained(directory)
    assert not target.exists()


def test_places_that_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mixed_precison'"):
        PretrainedModel.from_pretrained("nobody/nothing", mixed_precison="bf16")  # type: ignore[call-arg]
    run = tmp_path / "run"
    run.mkdir()
    for place, message in (
        (run, "has no model.safetensors and no config.json"),
        (tmp_path / "nowhere", "There is no directory .*nowhere. Give a directory with"),
        ("./nowhere", "There is no directory ./nowhere"),
        ("nobody/nothing", "nobody/nothing is no directory here, and cannot be fetched from the hub"),
        ("not/an id", "cannot be fetched from the hub"),
    ):
        with pytest.raises(PublishedModelError, match=message):
            PretrainedModel.from_pretrained(place)
    (run / "dataset.json").write_text("{}")
    with pytest.raises(PublishedModelError, match=r"is a run, .* Export it first: dsvae export"):
        PretrainedModel.from_pretrained(run)


@pytest.mark.parametrize("place", ["modle", "run/modle"])
def test_a_mistyped_path_is_not_asked_of_the_hub(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One word is no id, and what lies in a folder that exists here is a path: no attempts at a network."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dist_dsvae.pretrained.hub._fetched", lambda *asked, **options: pytest.fail(place))
    with pytest.raises(PublishedModelError, match=f"There is no directory {place}. Give a directory with"):
        PretrainedModel.from_pretrained(place)


def test_of_the_hub_two_files_are_fetched(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, name: str, **options: object) -> str:
        asked.append((repository, name, options["revision"]))
        return str(directory / name)

    monkeypatch.setattr("dist_dsvae.pretrained.hub.hf_hub_download", download)
    model = PretrainedModel.from_pretrained("someone/faces", revision="v1")
    assert model.published.config.name == "dsvae"
    assert asked == [("someone/faces", name, "v1") for name in ("model.safetensors", "config.json")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ImportError("Using SOCKS proxy, but 'socksio' is not installed.\nSee ..."),
            r"Using SOCKS .* installed\.",
        ),
        (type("ProxyError", (Exception,), {})("403 Forbidden"), "403 Forbidden"),
        (type("ProxyError", (Exception,), {})(), "ProxyError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_whatever_keeps_the_hub_away_is_a_sentence(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("dist_dsvae.pretrained.hub.hf_hub_download", download)
    with pytest.raises(PublishedModelError, match=rf"fetched from the hub as a model \({reason}\)\. Give a"):
        PretrainedModel.from_pretrained("someone/faces")


def test_push_to_hub_sends_what_save_pretrained_writes(pushed: list[dict[str, bytes]]) -> None:
    make_model(CGANConfig()).push_to_hub("someone/faces")
    assert [sorted(files) for files in pushed] == [
        ["README.md", "config.json", "model.safetensors", "samples.png"]
    ]


ABOUT: dict[str, Any] = {
    "run": "my-run",
    "data": "shards/five/train",
    "num_samples": 1234,
    "checkpoint": "step-00000007",
    "weights": "ema",
    "commands": {"train": "accelerate launch launch/train.py --config configs/five.json"},
    "versions": {"torch": "9.9"},
    "evaluation": {
        "figures": {"inception_score": 4.25, "fid": 17.5},
        "real": {"inception_score": 5.5},
        "judges": {"classifier": {"name": "own:judge", "sha256": "ab" * 32}},
        "settings": {"samples": 500},
    },
}


def test_the_card_says_where_the_model_comes_from(tmp_path: Path) -> None:
    model = PretrainedModel(make_published(DSVAEConfig())._replace(about=ABOUT))
    model.save_pretrained(tmp_path, model_card_kwargs={"license": "cc-by-4.0"})
    text = (tmp_path / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    assert (front["license"], front["library_name"]) == ("cc-by-4.0", "dist_dsvae")
    assert {"dsvae", "dist_dsvae"} <= set(front["tags"])
    for part in (
        "# my-run",
        "![samples](samples.png)",
        "`shards/five/train`, 1,234 samples, 32x32 pixels, 1 channel(s), 5 classes: boot, bag, coat, dress",
        "| Inception Score | 4.25 | 5.5 |",
        "| FID | 17.5 |  |",
        "own:judge, sha256 `abab",
        "accelerate launch launch/train.py --config configs/five.json",
        "checkpoint: step-00000007, weights: ema, torch 9.9.",
    ):
        assert part in body, part
    assert "Licence" not in body
    assert json.loads((tmp_path / "config.json").read_text())["about"] == ABOUT
    other = str(PretrainedModel(make_published(CVAEConfig())).generate_model_card())
    assert "license: other" in other
    assert "Not chosen yet" in other
    assert "labels=[0] * 8" in other
    judge = str(make_model(ClassifierConfig(width=4), "resnet32").generate_model_card())
    assert "samples.png" not in judge
    assert "It guesses labels" in judge


def test_the_license_by_its_former_spelling(tmp_path: Path) -> None:
    model = make_model(DSVAEConfig())
    model.save_pretrained(tmp_path, model_card_kwargs={"licence": "mit"})
    assert "license: mit" in (tmp_path / "README.md").read_text()
    assert "license: mit" in str(model.generate_model_card(licence="mit"))
    for spelling in ("--license", "--licence"):
        args = make_parser().parse_args(["--run", "a", "--out", "b", spelling, "mit"])
        assert args.license == "mit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"licens": "mit"}, "A model card has no option 'licens'; allowed are license and programs."),
        (
            {"license": "mit", "licence": "mit"},
            "is given license and licence, which are one. Leave out licence",
        ),
        ({"programs": "pt2"}, "programs is 'pt2'; allowed are pt2 and onnx, in a tuple."),
        ({"programs": ("pt2", "zip")}, r"programs is \('pt2', 'zip'\); allowed are"),
    ],
)
def test_what_a_card_does_not_have_is_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(DSVAEConfig())
    with pytest.raises(CardError, match=message):
        model.save_pretrained(tmp_path / "model", model_card_kwargs=options)
    assert not (tmp_path / "model").exists()
    # No empty repository is made either
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda **_: pytest.fail("the hub was asked"))
    with pytest.raises(CardError, match=message):
        model.push_to_hub("someone/faces", model_card_kwargs=options)


def test_names_in_a_card_are_text_alone() -> None:
    """Whatever a class or a run is called: no HTML, no links, no broken tables or fences."""
    evil = "<script>alert(1)</script> [a](http://b) | `c` \n# d *e*"
    published = make_published(CVAEConfig())
    about = {"run": evil, "data": evil, "commands": {"train": "```\n<img src=x>"}, "versions": {evil: evil}}
    about["evaluation"] = {"figures": {evil: 1.0}, "note": evil}
    classes = (evil, *published.classes[1:])
    card = str(PretrainedModel(published._replace(classes=classes, about=about)).generate_model_card())
    shown = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    assert shown.count("<h1>") == 1
    for tag in ("<script", "<a ", "<img src=x", "<em>"):
        assert tag not in shown.replace('<img src="samples.png"', ""), tag
    assert shown.count("<tr>") == 2
    assert shown.count("&lt;img src=x&gt;") == 1


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("coat", '"coat"'),
        ("cat's", '"cat\'s"'),
        ('a "big" one', "'a \"big\" one'"),
        ("\u202ecoat\U0001f9e5\n", '"\\u202ecoat\U0001f9e5\\n"'),
        ("'\"", "'\\'\"'"),
    ],
)
def test_a_card_quotes_names_as_formatters_do(name: str, written: str) -> None:
    """And what is written is that name to Python, with nothing in it that would not be seen."""
    published = make_published(DSVAEConfig())
    named = published._replace(classes=(name, *published.classes[1:]))
    card = str(PretrainedModel(named).generate_model_card())
    assert f"model.sample({written}, n=8, generator=0)" in card
    assert ast.literal_eval(written) == name


JUNK: list[object] = [
    None,
    True,
    -1,
    10**30,
    float("nan"),
    float("inf"),
    "text",
    "\ud800",
    [],
    [1],
    {},
    {"a": {}},
]


def test_a_card_believes_nothing_that_a_model_says_of_itself() -> None:
    """In every place of ``about`` stands something else: the card leaves it out, and can be written."""
    published = make_published(CVAEConfig())
    places = [(key,) for key in ABOUT]
    places += [("evaluation", key) for key in ABOUT["evaluation"]]
    places += [("evaluation", "judges", "classifier"), ("evaluation", "judges", "classifier", "sha256")]
    places += [("evaluation", "figures", "fid"), ("commands", "train"), ("versions", "torch")]
    for place in places:
        for junk in JUNK:
            about = copy.deepcopy(ABOUT)
            inner = about
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = junk
            card = str(PretrainedModel(published._replace(about=about)).generate_model_card())
            assert card.encode().count(b"# ") > 2, (place, junk)


@pytest.mark.parametrize(
    "start", ["# a", "- a", "+ a", "1. a", "12) a", "---", "===", "> a", "\x1b[31m\u202e# a"]
)
def test_a_note_makes_no_heading_list_or_rule(start: str) -> None:
    about = {"evaluation": {"figures": {}, "note": start}, "run": start}
    card = str(PretrainedModel(make_published(CVAEConfig())._replace(about=about)).generate_model_card())
    assert card.replace("\n", "").isprintable()
    shown = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    assert shown.count("<h1>") == 1
    assert not any(tag in shown for tag in ("<li>", "<hr", "<blockquote"))

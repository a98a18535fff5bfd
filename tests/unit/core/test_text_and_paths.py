"""Text files of any Unicode, and paths as a shell would have them, in configs and on command lines."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from dist_dsvae.config.reading import ConfigError, differing_keys, from_tree, load_config, to_tree
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.paths import PathError, expanded, path_argument
from dist_dsvae.core.text import TextError, decode_text, one_line, parse_json, read_json, read_text
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.methods.published import PublishedModelError, load_published
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run import Run
from tests.distributed.launching import REPOSITORY, write_config


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_of_any_unicode(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x").write_bytes("größe\n图\n".encode(encoding))
    assert read_text(tmp_path / "x") == "größe\n图\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"ab\xff", "byte 2 is not UTF-8: save it as UTF-8"),
        ("ab".encode("utf-16-le"), "zero bytes, as UTF-16 without its mark"),
        (b"\xff\xfea", "byte 2 is not UTF-16"),
    ],
)
def test_what_is_no_text(content: bytes, sentence: str) -> None:
    with pytest.raises(TextError, match=sentence):
        decode_text(content)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("~/shards", "/home/me/shards"),
        ("$DATA/x", "/data/x"),
        ("${DATA}x/train", "/datax/train"),
        ("facenet=~/weights.pt", "facenet=/home/me/weights.pt"),
        ("inception-v3-tf=~/weights.pt", "inception-v3-tf=/home/me/weights.pt"),
        ("plain/./path/", "plain/./path/"),
        ("http://host/~me/$DATA", "http://host/~me/$DATA"),
        ("pipe:cat ~/x/$DATA", "pipe:cat ~/x/$DATA"),
        ("user/model", "user/model"),
    ],
)
def test_paths(given: str, path: str) -> None:
    assert expanded(given) == path


def test_a_variable_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PathError, match=r"names the variable NOWHERE, which the environment does not have"):
        expanded("${NOWHERE}/x")
    with pytest.raises(argparse.ArgumentTypeError, match="NOWHERE"):
        path_argument("$NOWHERE")
    monkeypatch.chdir(tmp_path)
    Path("$NOWHERE").touch()
    assert expanded("$NOWHERE") == "$NOWHERE"


def test_every_path_of_a_config(tmp_path: Path) -> None:
    paths = {
        "data": {"train": "~/a", "test": "$DATA/b", "unlabelled": "~/c", "cache_dir": "~/d"},
        "evaluation": {
            "classifier": "~/e",
            "fid_network": "fid=~/f",
            "identity_network": "$DATA/g",
            "held_out": "~/h",
        },
        "run_dir": "~/runs/x",
        "init_from": "~/runs/y",
    }
    tree = json.loads(write_config(tmp_path / "c.json").read_text())
    for key, value in paths.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    (tmp_path / "c.json").write_text(json.dumps(tree), encoding="utf-16")
    config = load_config(tmp_path / "c.json", ["data.unlabelled=$DATA/z"])
    assert (config.data.train, config.data.test, config.data.unlabelled) == (
        "/home/me/a",
        "/data/b",
        "/data/z",
    )
    assert (config.data.cache_dir, config.run_dir, config.init_from) == (
        "/home/me/d",
        "/home/me/runs/x",
        "/home/me/runs/y",
    )
    judges = config.evaluation
    assert (judges.classifier, judges.fid_network) == ("/home/me/e", "fid=/home/me/f")
    assert (judges.identity_network, judges.held_out) == ("/data/g", "/home/me/h")
    # what a run records is what the same file gives again, and no path keeps a run from being resumed
    assert from_tree(type(config), to_tree(config)) == config
    assert differing_keys(config, load_config(tmp_path / "c.json", ["data.train=elsewhere"])) == []
    with pytest.raises(ConfigError, match=r"data\.train: \$NOWHERE/x names the variable NOWHERE"):
        load_config(tmp_path / "c.json", ["data.train=$NOWHERE/x"])


def test_a_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dist_dsvae.commands import generate

    monkeypatch.setattr(sys, "argv", ["x", "swap", "--run", "~/run", "--data", "$DATA/t", "--out", "~/o.png"])
    args = generate.make_parser().parse_args()
    assert (args.run, args.data, args.out) == (Path("/home/me/run"), "/data/t", Path("/home/me/o.png"))
    monkeypatch.setattr(sys, "argv", ["x", "grid", "--run", "$NOWHERE", "--out", "o.png"])
    with pytest.raises(SystemExit):
        generate.make_parser().parse_args()
    assert "argument --run: $NOWHERE names the variable NOWHERE" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted((REPOSITORY / "launch").rglob("*.py")), ids=lambda path: path.name)
def test_no_command_takes_a_path_as_it_is(script: Path) -> None:
    assert "type=Path" not in script.read_text(encoding="utf-8")


def test_nothing_is_no_path() -> None:
    """What a shell makes of "$RUN" where nobody set RUN would be the folder that one is in."""
    with pytest.raises(PathError, match="The path is empty, as a variable"):
        expanded("")


def test_reading_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """The lock of a run is read, too, after memory ran out."""
    (tmp_path / "lock.json").write_text('{"pid": 1}')
    tracemalloc.start()
    try:
        assert read_json(tmp_path / "lock.json") == {"pid": 1}
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    missing = tmp_path / "no-folder" / "x.json"
    with pytest.raises(OSError, match="No such file") as refused:
        write_atomically(missing, b"x")
    assert refused.value.filename == str(missing)


def test_json_is_read_within_limits(tmp_path: Path) -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": ["[[[[", "\\"[", 1.5, null]}') == {"a": ["[[[[", '"[', 1.5, None]}
    assert parse_json("[" * 32 + "]" * 32)
    names = json.dumps({"classes": ["[" * 100, "{" * 100 + '"', '\\"[[' * 50, "", "[" * 40]})
    assert len(parse_json(names)["classes"]) == 5
    for wrong, sentence in (
        ("[" * 33 + "]" * 33, "nested more than 32 levels deep"),
        ("[" * 10**6, "nested more than 32"),
        ('{"a":' * 10**5, "nested more than 32"),
        (json.dumps(["x" * 100]), "larger than 90 bytes"),
        ('["', "Unterminated"),
    ):
        with pytest.raises(ValueError, match=sentence):
            parse_json(wrong, max_bytes=90 if "larger" in sentence else 10**7)
    path = tmp_path / "a.json"
    path.write_text("[1]" + " " * 100)
    with pytest.raises(ValueError, match="larger than 50 bytes"):
        read_json(path, max_bytes=50)


@pytest.mark.parametrize("depth", [10**3, 10**6])
def test_json_bombs_from_outside_get_a_sentence(depth: int, tmp_path: Path) -> None:
    """A manifest, a model's config.json, an evaluation's report, a run's record."""
    bomb = "[" * depth + "]" * depth
    (tmp_path / "manifest.json").write_text(bomb)
    with pytest.raises(DataError, match="nested more than 32 levels deep"):
        Manifest.load(tmp_path)
    (tmp_path / "config.json").write_text(bomb)
    with pytest.raises(PublishedModelError, match="nested more than 32 levels deep"):
        load_published(tmp_path)
    with pytest.raises(ConfigError, match="nested more than 32 levels deep"):
        load_config(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="nested more than 32 levels deep"):
        Run.open(tmp_path)


def test_anybodys_text_in_a_line() -> None:
    """Control characters, marks that turn the way of reading, halves of characters, and whole books."""
    assert one_line("a\x1b[31mb\n\tc \u202ed\ud800e\0") == "a [31mb c d e"
    assert one_line("x" * 10**6, 60) == "x" * 59 + "…"
    assert one_line("x" * 60, 60) == "x" * 60
    assert one_line(None) == "None"


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE42 a", r"\ud83d\ud83d", r"\ud83da\ude42"])
def test_half_a_character_is_no_text(half: str) -> None:
    """Python would read it, and no file and no terminal could be written with it."""
    assert parse_json(r'{"a": ["\ud83d\ude42", "\\ud83d"]}') == {"a": ["\U0001f642", r"\ud83d"]}
    for document in (f'{{"a": ["{half}"]}}', f'{{"{half}": 1}}'):
        with pytest.raises(ValueError, match="half a character"):
            parse_json(document)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, tried again and again."""
    write_atomically(tmp_path / "a.json", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(3):
        with pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"):
            write_atomically(tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"

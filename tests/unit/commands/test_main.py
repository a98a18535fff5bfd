"""``dsvae NAME``: every command answers at once, from any directory, and says how it was called."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from dist_dsvae.commands import config, main, train
from dist_dsvae.commands.starting import command_line, fail
from dist_dsvae.config.schema import schema
from tests.programs import REPOSITORY


def dsvae(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dist_dsvae.commands.main", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [*main.COMMANDS, "benchmark step", "benchmark scale"])
def test_help_comes_without_what_takes_long_to_import(name: str) -> None:
    script = (
        "import sys; from dist_dsvae.commands.main import main\n"
        f"sys.argv = {['dsvae', *name.split(), '--help']}\n"
        "try: main()\n"
        "except SystemExit: print('loaded', *sys.modules)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    printed, _, loaded = done.stdout.partition("loaded")
    assert printed.startswith(f"usage: dsvae {name} ")
    assert not {"torch", "torchvision", "accelerate", "gradio"} & set(loaded.split())


def test_all_commands_are_listed_and_others_refused() -> None:
    listed = dsvae("--help").stdout
    assert all(f"  {name} " in listed for name in main.COMMANDS)
    refused = dsvae("trian")
    assert refused.returncode == 2
    assert "There is no command 'trian'" in refused.stderr


def test_what_a_reader_leaves_unread_is_no_error() -> None:
    command = [sys.executable, "-m", "dist_dsvae.commands.main", "config"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()  # before anything is printed
        assert (started.stderr.read(), started.wait()) == (b"", 0)


def test_names_that_are_no_text_are_printed(tmp_path: Path) -> None:
    """In a locale of UTF-8 alone, too: a folder named in Latin-1 is built and verified."""
    folder = tmp_path / os.fsdecode(b"M\xfcnchen")
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / label / "1.png")
    out = tmp_path / os.fsdecode(b"\xe4us")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    for arguments in (["folder", folder, out, "--size", "8", "--workers", "1"], ["verify", out]):
        done = subprocess.run(
            [sys.executable, "-m", "dist_dsvae.commands.main", "build", *arguments],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        assert rb"\udce4us" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["config", "--schema"]])
def test_an_answer_that_cannot_be_printed_is_an_error(arguments: list[str], unbuffered: str) -> None:
    assert on_a_full_disk(unbuffered, "-m", "dist_dsvae.commands.main", *arguments) == (
        1,
        "error: Nothing could be printed: No space left on device. Mend that, or print to another place.\n",
    )


LOST = "What this command printed is lost: No space left on device.\n"


def test_help_that_cannot_be_printed_is_said() -> None:
    assert on_a_full_disk("", "-m", "dist_dsvae.commands.main", "generate", "--help") == (0, LOST)


def on_a_full_disk(unbuffered: str, *arguments: str) -> tuple[int, str]:
    """The status of Python with such a standard output, and what it says."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    return done.returncode, done.stderr


_TELLING = """
from dist_dsvae.commands.starting import tell
tell("Wrote grid.png.")
tell("And more.")
print("after")
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_work_that_is_done_is_done_whoever_reads_of_it(unbuffered: str) -> None:
    assert on_a_full_disk(unbuffered, "-c", _TELLING) == (0, LOST)
    for shell in ('"$@" >&-', '{ sleep 0.1; "$@"; echo "left with $?" >&2; } | true'):
        done = subprocess.run(
            ["sh", "-c", shell, "sh", sys.executable, "-c", _TELLING],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "left with 0\n" if "left" in shell else "")


def test_a_command_records_how_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dsvae build", "toy", "a folder"])
    assert command_line() == "dsvae build toy 'a folder'"
    monkeypatch.setattr(sys, "argv", ["shards/build.py", "toy", "out"])
    assert command_line() == "python shards/build.py toy out"


@pytest.mark.parametrize("name", [name for name in main.COMMANDS if name != "config"])
def test_help_calls_commands_as_they_were_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = importlib.import_module(f"dist_dsvae.commands.{name}").make_parser
    door = f"{'shards' if name == 'build' else 'launch'}/{name}.py"
    monkeypatch.setattr(sys, "argv", [f"dsvae {name}"])
    by_name = parser().format_help()
    monkeypatch.setattr(sys, "argv", [door])
    by_script = parser().format_help()
    assert by_name.startswith(f"usage: dsvae {name} ")
    assert by_script.startswith(f"usage: {name}.py ")
    assert f"\ndsvae {name} " in by_name.replace("    dsvae", "dsvae")
    assert f"\npython {door} " in by_script.replace("    python", "python")
    assert not re.search(r"(launch|shards)/\w+\.py", by_name)
    assert not re.search(r"dsvae (train|build|evaluate|generate|export)", by_script)


def test_what_is_wrong_ends_the_launchers_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert fail("There is no data.") == 1
    report = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    assert fail("There is no data.") == 1
    assert capsys.readouterr().err == "error: There is no data.\n" * 2
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(report))
    told = str(ChildFailedError("launch/train.py", {0: failure}))
    assert told.splitlines()[-2].split(":", 1)[1].strip() == "error: There is no data."
    assert 0 <= time.time() - failure.timestamp < 60
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path))  # which cannot be written to
    assert fail("There is no data.") == 1


Typed = Callable[..., tuple[str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """What `dsvae config ...` prints, and what it complains of."""

    def typed(*words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["dsvae config", *words])
        with suppress(SystemExit):
            assert config.main() == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    return typed


def test_keys_are_explained(typed: Typed) -> None:
    printed, _ = typed("ema_half_life")
    assert "train.ema_half_life_updates = 0.0" in printed
    assert "data.train" not in printed
    printed, _ = typed("train.epochs")
    assert printed.startswith("train.epochs = 100.0\n    number above 0. passes over the training set")
    assert printed.count(" = ") == 1
    assert typed("seed")[0].count(" = ") == 2  # the run's and the evaluation's
    printed, _ = typed("sampling")
    assert printed.startswith("sampling: The pictures drawn during training")
    assert "sampling.num_columns = 10" in printed
    assert "train." not in printed


def test_keys_that_are_none_are_refused(typed: Typed) -> None:
    assert "no key's name holds train.epoch_s. Did you mean train.epochs?" in typed("train.epoch_s")[1]
    assert "no key's name holds no_such_key" in typed("no_such_key")[1]


def test_experiments_are_listed_and_shown(typed: Typed) -> None:
    assert "baselines/cvae-quickstart" in typed("--names")[0].splitlines()
    assert typed("--print", "toy")[0] == (REPOSITORY / "configs/toy.json").read_text()
    assert "There is no config file tow. Did you mean 'toy'" in typed("--print", "tow")[1]
    assert "seed asks for keys" in typed("seed", "--names")[1]


def test_the_schema_is_printed(typed: Typed) -> None:
    assert json.loads(typed("--schema")[0]) == schema()


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["quickstart"], "quickstart"),
        (["--config", "quickstart"], "quickstart"),
        (["--set", "seed=1", "quickstart"], "quickstart"),
        (["--config", "quickstart", "--set", "seed=1"], "quickstart"),
        (["quickstart", "--config", "toy"], None),
        (["--config", "toy", "quickstart"], None),
    ],
)
def test_an_experiment_is_named_once(words: list[str], chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(SystemExit):
            train.make_parser().parse_args(words)
    else:
        assert train.make_parser().parse_args(words).config == Path(chosen)


def test_an_experiment_is_asked_for() -> None:
    refused = dsvae("train")
    assert refused.returncode == 2
    assert "which experiment? Give its file, or a name: `dsvae train quickstart`" in refused.stderr


_LEAVING = """
import sys
from dist_dsvae.commands.starting import leave
import atexit, threading, time

class TakenDown:
    def __del__(self):
        print("taken down", flush=True)

def late():
    time.sleep(0.2)
    print("thread", flush=True)

kept = TakenDown()
sys.modules["kept"] = kept
atexit.register(print, "handler")
threading.Thread(target=late).start()
sys.exit(leave(3))
"""


@pytest.mark.parametrize(
    ("processes", "printed"),
    [
        ("1", ["thread", "handler", "taken down"]),
        ("2", ["thread", "handler"]),
        ("", ["thread", "handler"]),
        ("many", ["thread", "handler"]),
    ],
)
def test_one_of_several_processes_leaves_before_the_interpreter_is_taken_down(
    processes: str, printed: list[str]
) -> None:
    environment = {**os.environ, "WORLD_SIZE": processes}
    done = subprocess.run(
        [sys.executable, "-c", _LEAVING], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()) == (3, printed)

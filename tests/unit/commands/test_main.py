"""``dsvae NAME``: every command answers at once, from any directory, and says how it was called."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dist_dsvae.commands import config, main
from dist_dsvae.commands.starting import command_line
from tests.programs import REPOSITORY


def dsvae(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dist_dsvae.commands.main", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_comes_without_what_takes_long_to_import(name: str) -> None:
    script = (
        "import sys; from dist_dsvae.commands.main import main\n"
        f"sys.argv = ['dsvae', '{name}', '--help']\n"
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


def test_a_command_records_how_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dsvae build", "toy", "a folder"])
    assert command_line() == "dsvae build toy 'a folder'"
    monkeypatch.setattr(sys, "argv", ["shards/build.py", "toy", "out"])
    assert command_line() == "python shards/build.py toy out"


def test_keys_are_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["dsvae config", "ema_half_life"])
    assert config.main() == 0
    printed = capsys.readouterr().out
    assert "train.ema_half_life_updates = 0.0" in printed
    assert "data.train" not in printed
    monkeypatch.setattr(sys, "argv", ["dsvae config", "no_such_key"])
    with pytest.raises(SystemExit):
        config.main()
    assert "no key's name holds no_such_key" in capsys.readouterr().err

"""How a command was started, and that it starts."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def say_start() -> None:
    """Before PyTorch is imported, which takes seconds."""
    say(f"{Path(sys.argv[0]).name} starts")


def say(sentence: str) -> None:
    """A word to the person at the terminal, by one of several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(sentence, file=sys.stderr, flush=True)


def command_line() -> str:
    """What was typed, for records: "dsvae build ..." or "python shards/build.py ..."."""
    program, *arguments = sys.argv
    words = program.split() if program.startswith("dsvae ") else ["python", program]
    return shlex.join([*words, *arguments])

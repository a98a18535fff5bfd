"""How a command was started, that it starts, and why it could not go on."""

from __future__ import annotations

import argparse
import atexit
import io
import json
import os
import re
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

from dist_dsvae.core.text import printable
from dist_dsvae.engine.reporting.steady_output import discard_rest

_DOORS = dict.fromkeys(
    ("train", "evaluate", "generate", "export", "explore", "benchmark", "doctor", "reproduce"), "launch"
) | {"build": "shards"}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help as it stands, in which commands are called as this one was: ``dsvae X``, or by their scripts."""

    def format_help(self) -> str:
        return as_started(super().format_help())


def as_started(text: str) -> str:
    """``text``, which calls commands ``dsvae X``, in the words of a person who started one by its script."""
    if Path(sys.argv[0]).suffix != ".py":
        return text
    names = "|".join(_DOORS)
    text = re.sub(rf"--no_python dsvae ({names})\b", lambda m: f"{_DOORS[m[1]]}/{m[1]}.py", text)
    return re.sub(rf"\bdsvae ({names})\b", lambda m: f"python {_DOORS[m[1]]}/{m[1]}.py", text)


def print_any_name() -> None:
    """Standard output takes names of files that are no text, escaped, as standard error does by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


print_any_name()  # here, where every command passes before it prints


def say_start() -> None:
    """Before PyTorch is imported, which takes seconds."""
    say(f"{Path(sys.argv[0]).name} starts")


def say(sentence: str) -> None:
    """A word to the person at the terminal, by one of several processes."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):  # that nobody reads it, or a full disk, stops no work
            print(sentence, file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print what was done, at the end of it: that nobody reads it, or a full disk, undoes no work."""
    try:
        print(text, flush=True)
    except OSError as error:
        _lost(error)


def answer(text: str) -> int:
    """Print what was asked for, and nothing else; the status to leave with."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `dsvae config | head`: the reader has seen enough
        discard_rest(sys.stdout)
    except OSError as error:
        discard_rest(sys.stdout)
        return fail(f"Nothing could be printed: {error.strerror}. Mend that, or print to another place.")
    return 0


def _lost(error: OSError) -> None:
    """What was printed came to nothing. What follows is not tried."""
    discard_rest(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        say(f"What this command printed is lost: {error.strerror}.")


def _flush() -> None:
    """Before Python does it, which would print a traceback and leave with the status 120."""
    try:
        if sys.stdout is not None:  # closed, before the command was started
            sys.stdout.flush()
    except OSError as error:
        _lost(error)
    except ValueError:  # closed by the command
        pass


def fail(reason: str | Exception) -> int:
    """Say what is wrong; the status to leave with.

    reason: a sentence, an error that is one, or what a file system refuses.
    torchrun, by which `accelerate launch` starts several processes, ends with a traceback of its own and a
    report of each process that failed. The report gets the sentence, too, so the last word is the reason.
    """
    sentence = str(reason)
    if isinstance(reason, OSError) and not isinstance(reason, ValueError):
        where = f": {reason.filename}" if reason.filename else ""
        sentence = f"{reason.strerror or reason}{where}. Mend that, then start the same command again."
    with suppress(OSError):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        told = {"message": f"error: {sentence}", "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(report).write_text(json.dumps({"message": told}), encoding="utf-8")
    return 1


def leave(status: int) -> int:
    """``status``; one of several processes leaves with it before Python takes the interpreter down.

    PyTorch's gloo threads let go of a collective's tensors at their leisure and need the interpreter for it;
    one that asks for it in its last moments aborts the process, and a command that did its work fails
    (https://github.com/pytorch/pytorch/issues/190489). Threads are waited for and exit handlers run as ever.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":  # whatever it says: most commands have no use for it
        _leaves_with.append(status)
    return status


_leaves_with: list[int] = []


def _leave_at_once() -> None:
    if _leaves_with:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed, or its reader is gone
                stream.flush()
        os._exit(_leaves_with[-1])


atexit.register(_leave_at_once)  # before whatever is imported from here on: of the handlers it runs last
atexit.register(_flush)


def command_line() -> str:
    """What was typed, for records: "dsvae build ..." or "python shards/build.py ..."."""
    program, *arguments = sys.argv
    words = program.split() if program.startswith("dsvae ") else ["python", program]
    return printable(shlex.join([*words, *arguments]))

"""``dsvae NAME ...``: every command by its name, from any directory."""

from __future__ import annotations

import importlib
import sys

from dist_dsvae.commands.starting import answer, leave

COMMANDS = {
    "train": "train an experiment",
    "build": "turn raw pictures or data sets into shards, or index those of other tools",
    "evaluate": "score a run, or compare runs",
    "reproduce": "train, evaluate and compare whole tables, with seeds",
    "generate": "draw the figures of a trained model, or many samples of it",
    "export": "make a model that others can load safely from a run",
    "explore": "look at a model, or a run while it trains, in the browser",
    "benchmark": "measure this machine",
    "doctor": "is this machine, or this job, fit to train?",
    "config": "explain the keys of a configuration",
}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        sys.argv = [f"dsvae {name}", *sys.argv[2:]]
        command = importlib.import_module(f"dist_dsvae.commands.{name}")
        return leave(command.main())
    known = "\n".join(f"  {each:10s}{what}" for each, what in COMMANDS.items())
    if name in ("-h", "--help"):
        return answer(f"usage: dsvae COMMAND [--help] ...\n\ncommands:\n{known}")
    print(f"error: There is no command {name!r}. The commands are:\n{known}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

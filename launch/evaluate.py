"""The door of `dsvae evaluate` for launchers and clones: dist_dsvae/commands/evaluate.py."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the package beside it, installed or not

from dist_dsvae.commands.evaluate import main
from dist_dsvae.commands.starting import leave

if __name__ == "__main__":
    sys.exit(leave(main()))

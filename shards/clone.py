"""Importing this puts the clone that it stands in on Python's path.

Scripts of a clone run with the package beside them, whether or not one is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # after the script's own folder

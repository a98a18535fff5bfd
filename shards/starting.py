"""What a script of this folder does first, on being imported.

It puts the clone that it stands in on Python's path, so that a script runs with the package beside it,
installed or not; and it says that the script starts, because importing PyTorch takes seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_SCRIPT = Path(sys.argv[0]).resolve()

sys.path.insert(1, str(_FOLDER.parent))  # after the script's own folder
if _SCRIPT.parent == _FOLDER and os.environ.get("RANK", "0") == "0" and not {"-h", "--help"} & {*sys.argv}:
    print(f"{_SCRIPT.name} starts", file=sys.stderr, flush=True)

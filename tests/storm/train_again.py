"""Start the same training again and again under faults, in this process, until it ends well.

python -m tests.storm.train_again CONFIG RUN_DIR SEED EVERY, with faults.so in LD_PRELOAD; prints JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
KINDS = ("open", "write", "fsync", "rename", "socket")
_MOST_STARTS = 400


def main() -> None:
    sys.path.insert(0, str(REPOSITORY / "launch"))
    import train

    config, run_dir, seed, every = sys.argv[1:]
    faults = ctypes.CDLL(None)
    faults.faults_count.restype = ctypes.c_long
    sys.argv = ["train.py", "--config", config, "--run-dir", run_dir]
    for start in range(1, _MOST_STARTS + 1):
        faults.faults_arm(ctypes.c_ulong(int(seed) * _MOST_STARTS + start), int(every))
        status = train.main()
        faults.faults_arm(ctypes.c_ulong(0), 0)
        if status == 0:
            counts = {kind: faults.faults_count(number) for number, kind in enumerate(KINDS)}
            print(json.dumps({"starts": start, "faults": counts}))
            return
        print(f"start {start} ended with {status}", file=sys.stderr, flush=True)
    raise SystemExit("it never ended well")


if __name__ == "__main__":
    main()

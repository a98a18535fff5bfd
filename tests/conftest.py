"""Before torch is imported, here and in the processes that tests start.

Two files of tests run at a time, and many of them start several processes: with a thread per core in
each, all of them would wait for one another.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

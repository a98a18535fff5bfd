"""Fields of the configuration's dataclasses, with what ``reading`` checks and compares."""

from __future__ import annotations

from dataclasses import field
from typing import Any

MAX_TEMPERATURE = 10.0  # of sampling
WINDOW_SHARDS = 8  # of the shuffle, where nothing else is chosen
LARGE = 1e9  # stands for "no upper bound" where a number must not be negative
LONGEST_WAIT = 2e6  # seconds, 23 days: systems count a wait in 2**31 milliseconds


def free(default: Any) -> Any:
    """A field that may change when a run is resumed."""
    return field(default=default, metadata={"free": True})


def place(default: Any) -> Any:
    """A path or URL, which may change when a run is resumed; ``reading`` fills in ``~`` and variables."""
    return field(default=default, metadata={"free": True, "path": True})


def positive(default: Any, *, free: bool = False, up_to: float | None = None) -> Any:
    """A number that must be positive and, where ``up_to`` is given, no more than that; checked likewise."""
    bounds = {} if up_to is None else {"between": (0, up_to)}
    return field(default=default, metadata={"positive": True, "free": free, **bounds})


def between(low: float, high: float, default: Any, *, free: bool = False, former: str | None = None) -> Any:
    """A number within bounds, both included; ``reading`` checks it.

    former: an earlier name of the key, under which older files and records still give it.
    """
    return field(default=default, metadata={"between": (low, high), "free": free, "former": former})

"""What a check found: a state, a sentence, and where something is wrong what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Figure = int | float | str | bool


class State(StrEnum):
    OK = "ok"
    SKIPPED = "skipped"  # it does not apply here; the text says why
    WARNING = "warning"  # training works, but more slowly or less safely than it could
    FAILED = "failed"  # training would fail, or compute something else


@dataclass(frozen=True, kw_only=True)
class Finding:
    """name: of the check. remedy: what to do; whatever is wrong has one. figures: what was measured."""

    name: str
    state: State
    text: str
    remedy: str | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    rank: int = 0
    host: str = ""

    def __post_init__(self) -> None:
        assert self.remedy or not self.is_wrong, f"{self.name} is wrong and has no remedy"

    @property
    def is_wrong(self) -> bool:
        return self.state in (State.WARNING, State.FAILED)


def ok(name: str, text: str, /, **figures: Figure) -> Finding:
    return Finding(name=name, state=State.OK, text=text, figures=figures)


def skipped(name: str, reason: str) -> Finding:
    return Finding(name=name, state=State.SKIPPED, text=reason)


def warning(name: str, text: str, remedy: str, /, **figures: Figure) -> Finding:
    return Finding(name=name, state=State.WARNING, text=text, remedy=remedy, figures=figures)


def failed(name: str, text: str, remedy: str, /, **figures: Figure) -> Finding:
    return Finding(name=name, state=State.FAILED, text=text, remedy=remedy, figures=figures)


def found_by(name: str, check: Callable[[], Finding], remedy: str) -> Finding:
    """What ``check`` finds, or that it broke: ``remedy`` is what to do then."""
    try:
        return check()
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error).strip() or type(error).__name__
        return failed(name, text.partition("\n")[0], remedy)

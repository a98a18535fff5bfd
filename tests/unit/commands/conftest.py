"""What the tests of several commands ask of them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

UsageError = Callable[[Callable[[], int], str], str]


@pytest.fixture
def usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> UsageError:
    """(main of a command, its arguments) -> what it says as it refuses them, with status 2."""

    def refused(main: Callable[[], int], arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dsvae command", *arguments.split()])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        return capsys.readouterr().err

    return refused

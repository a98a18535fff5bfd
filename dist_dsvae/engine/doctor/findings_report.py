"""Findings as people and programs read them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import IO

from dist_dsvae.engine.doctor.finding import Finding, State

_WORST_FIRST = (State.FAILED, State.WARNING, State.OK)


class Findings:
    """Prints each finding when it comes, and at the end the sum of them.

    stream: of the lines for people.
    """

    def __init__(self, stream: IO[str] = sys.stdout) -> None:
        self.findings: list[Finding] = []
        self._stream = stream

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        print(line_of(finding), file=self._stream, flush=True)

    @property
    def state(self) -> State:
        """The worst of all findings; what was skipped does not count."""
        states = {finding.state for finding in self.findings}
        return next((state for state in _WORST_FIRST if state in states), State.OK)

    def conclude(self) -> None:
        counts = {state: sum(f.state is state for f in self.findings) for state in State}
        text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        verdict = {
            State.OK: "Fit to train",
            State.WARNING: "Fit to train, with warnings",
            State.FAILED: "Not fit to train",
        }[self.state]
        print(f"{verdict}: {text}.", file=self._stream, flush=True)

    def as_json(self, seconds: float) -> str:
        """One line: ``state`` of all, ``seconds``, and ``findings``, each as ``Finding`` has it."""
        findings = [asdict(finding) for finding in self.findings]
        return json.dumps({"state": self.state, "seconds": round(seconds, 2), "findings": findings})


def line_of(finding: Finding) -> str:
    """State, name and text; below that the remedy. Another rank than 0 is named with its host."""
    where = f" [rank {finding.rank} on {finding.host}]" if finding.rank else ""
    line = f"{finding.state:<8} {finding.name}{where}: {finding.text}"
    return f"{line}\n{'':<8} -> {finding.remedy}" if finding.is_wrong else line

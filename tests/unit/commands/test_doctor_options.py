"""What ``dsvae doctor`` is given: options of a check that is left out are refused."""

from __future__ import annotations

import sys

import pytest

from dist_dsvae.commands import doctor


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--only versions --disk elsewhere", "--disk is for disk alone, which --only leaves out."),
        ("--only disk --classes 3", "--classes is for bf16, iteration, graph alone"),
        ("--only host --batch-size 8 --only gpus", "--batch-size is for bf16"),
    ],
)
def test_options_of_checks_that_are_left_out(
    arguments: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dsvae doctor", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        doctor.main()
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err

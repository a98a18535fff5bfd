"""What ``dsvae doctor`` is given: options of a check that is left out are refused."""

from __future__ import annotations

import pytest

from dist_dsvae.commands import doctor
from tests.unit.commands.conftest import UsageError


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--only versions --disk elsewhere", "--disk is for disk alone, which --only leaves out."),
        ("--only disk --classes 3", "--classes is for bf16, iteration, graph alone"),
        ("--only host --batch-size 8 --only gpus", "--batch-size is for bf16"),
    ],
)
def test_options_of_checks_that_are_left_out(arguments: str, sentence: str, usage_error: UsageError) -> None:
    assert sentence in usage_error(doctor.main, arguments)

"""A run directory that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run import Run


def test_a_strange_record_gets_sentences_with_one_full_stop_each(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": {"colour": 1}}')
    with pytest.raises(CheckpointError, match=r"damaged one: Unknown key 'method\.colour'.*[^.]\. Give one"):
        Run.open(tmp_path)

"""What batch norm cannot do is said before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dist_dsvae.config.reading import ConfigError
from dist_dsvae.engine.iteration.batch_norm import place


def test_one_sample_has_no_variance_of_its_own() -> None:
    runtime: Any = SimpleNamespace(world_size=2, device=torch.device("cpu"))
    normalised = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match=r"each of 2 processes has one sample .* Raise data\.batch_size"):
        place(normalised, runtime, 1, sync_batch_norm=False)
    place(normalised, runtime, 2, sync_batch_norm=False)
    place(nn.Sequential(nn.Linear(2, 2)), runtime, 1, sync_batch_norm=False)  # a discriminator has none
    runtime.world_size = 1
    place(normalised, runtime, 1, sync_batch_norm=False)

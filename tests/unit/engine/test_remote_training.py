"""A run whose shards come from afar: stopped by a sick server, resumed elsewhere, the same bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from dist_dsvae.building.indexing import index
from dist_dsvae.commands import train
from dist_dsvae.config.reading import load_config
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.plan import Plan
from dist_dsvae.data.shards.manifest import Manifest
from tests.distributed.launching import checkpoint_tensors, epochs_of, metrics, write_config
from tests.unit.data.http_server import serving
from tests.unit.data.test_stream import png

COUNTS = [24] * 6
ITERATIONS = 6  # of 48 samples: two epochs


def write_split(directory: Path) -> None:
    rng = np.random.default_rng(0)
    directory.mkdir()
    for shard, count in enumerate(COUNTS):
        with webdataset.TarWriter(str(directory / f"{shard:06d}.tar")) as writer:
            for row in range(count):
                image = png(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                writer.write({"__key__": f"{shard}-{row}", "png": image, "cls": row % 3})
    index(directory, command="test")


def test_stopped_resumed_and_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path / "train")
    patience = {"fetch_tries": 2, "fetch_pause_seconds": 0.01, "cache_dir": str(tmp_path / "cache")}
    config = write_config(
        tmp_path / "c.json",
        data={"train": str(tmp_path / "train"), "shuffle_window_shards": 1, **patience},
        train={"epochs": epochs_of(ITERATIONS, num_samples=sum(COUNTS)), "checkpoint_every_steps": 1},
    )

    def run(name: str, *overrides: str) -> str | None:
        """Train; the error's sentence, if it ended with one."""
        arguments = ["train.py", "--config", str(config), "--run-dir", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", [*arguments, *(f"--set={override}" for override in overrides)])
        status = train.main()
        return capsys.readouterr().err.splitlines()[-1] if status else None

    assert run("local") is None
    with serving(tmp_path) as server:
        late = f"{Plan(COUNTS, 0, 1).shards_ahead(0, 5)[-1]:06d}.tar"  # for samples 96 to 120
        server.tell(late, "500")
        sentence = run("remote", f"data.train={server.url}")
        assert sentence is not None
        assert sentence.startswith(f"error: {server.url}/{late} could not be fetched (tried 2 times in ")
        assert "500 Internal Server Error" in sentence
        newest = max(path.name for path in (tmp_path / "remote/checkpoints").iterdir())
        assert newest == "step-00000002"

        # the same run goes on from the directory, and then from the URL again
        assert run("remote", f"train.epochs={epochs_of(4, num_samples=sum(COUNTS))}") is None
        server.tell(late, "none")
        assert run("remote", f"data.train={server.url}") is None

    last = f"checkpoints/step-{ITERATIONS:08d}"
    expected, got = (
        checkpoint_tensors(tmp_path / "local" / last),
        checkpoint_tensors(tmp_path / "remote" / last),
    )
    assert got.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    assert metrics(tmp_path / "remote") == metrics(tmp_path / "local")


def test_processes_that_see_different_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path / "train")
    write_split(tmp_path / "test")
    (tmp_path / "test/000005.tar").unlink()  # or both would be one
    index(tmp_path / "test", command="test")
    config = load_config(
        write_config(tmp_path / "c.json", data={name: str(tmp_path / name) for name in ("train", "test")})
    )

    def gather(fingerprint: Any) -> list[Any]:
        return [fingerprint, "another machine's" if fingerprint == differing else fingerprint]

    monkeypatch.setattr(distributed, "gather_objects", gather)
    for name in ("train", "test"):
        differing = Manifest.load(tmp_path / name).fingerprint
        said = f"{name} differs between the processes: give every machine the same shards"
        with pytest.raises(DataError, match=said):
            open_splits(config.data)

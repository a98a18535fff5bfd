"""Law 9, through the entry point: what a person types wrong comes back as one sentence."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from dist_dsvae.commands import train
from tests.distributed.launching import REPOSITORY, epochs_of, write_config

SHARDS = REPOSITORY / "shards/fashion-mnist-mini"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The entry point in this process; its error line."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    assert train.main() == 1
    return capsys.readouterr().err.splitlines()[-1]


def config_with(tmp_path: Path, **sections: dict[str, object]) -> list[object]:
    config = write_config(tmp_path / "c.json", **sections)
    return ["--config", config, "--run-dir", tmp_path / "run"]


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"data": {"train": "nowhere"}}, "error: The shard directory nowhere does not exist."),
        ({"data": {"train": "shards/fashion-mnist-mini"}}, "holds the splits test, train: give one of them"),
        ({"model": {"architecture": "vgg64"}}, "takes 64x64 images, but the shards hold 32x32 images"),
        ({"train": {"epoch": 3}}, "Unknown key 'train.epoch'. Did you mean 'epochs'?"),
        ({"method": {"kl_weight": -1}}, "method.kl_weight is -1; it must be between 0 and"),
        ({"train": {"mixed_precision": "fp16"}}, "fp16 needs a GPU; on a CPU choose no or bf16"),
    ],
)
def test_config_mistakes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, dict[str, object]],
    sentence: str,
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert sentence in run(capsys, monkeypatch, *config_with(tmp_path, **sections))
    assert not (tmp_path / "run").exists()


def test_missing_shards_name_the_command_that_builds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = str(REPOSITORY / "configs/facescrub.json")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", config, "--mixed_precision", "no"])
    assert train.main() == 1
    error = capsys.readouterr().err
    assert "There are no shards in shards/facescrub/train. Build them with:" in error
    assert "dsvae build facescrub " in error


def test_run_directory_that_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").write_text("a file")
    error = run(capsys, monkeypatch, *config_with(tmp_path))
    assert "error: " in error
    assert str(tmp_path / "run") in error


def copied_shards(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHARDS / "test", tmp_path / "shards"))


def test_truncated_tar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = copied_shards(tmp_path)
    tar = next(shards.glob("*.tar*"))
    tar.write_bytes(tar.read_bytes()[:-1000])
    error = run(capsys, monkeypatch, *config_with(tmp_path, data={"train": str(shards)}))
    assert tar.name in error
    assert "1,000" in error or "bytes" in error


def test_label_outside_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = copied_shards(tmp_path)
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["classes"] = manifest["classes"][:9]
    (shards / "manifest.json").write_text(json.dumps(manifest))
    error = run(capsys, monkeypatch, *config_with(tmp_path, data={"train": str(shards)}))
    assert "the label 9; allowed are 0 to 8 (9 classes in the manifest)" in error


def test_train_and_test_of_different_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = copied_shards(tmp_path)
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["classes"][0] = "Another"
    (shards / "manifest.json").write_text(json.dumps(manifest))
    error = run(capsys, monkeypatch, *config_with(tmp_path, data={"test": str(shards)}))
    assert "do not belong together" in error


def test_non_finite_loss_names_term_and_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {
        "optimizer": {"learning_rate": 1e30},
        "train": {"epochs": epochs_of(40), "checkpoint_every_steps": 1},
    }
    error = run(capsys, monkeypatch, *config_with(tmp_path, **sections))
    assert "error: Loss term " in error
    assert "became infinite or NaN at sample position " in error


def test_disk_full_while_saving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last write of a save fails as on a full disk."""
    import errno

    from torch.distributed.checkpoint import state_dict_saver

    write = state_dict_saver.save

    def write_until_full(*args: object, **kwargs: object) -> None:
        write(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_dict_saver, "save", write_until_full)
    error = run(capsys, monkeypatch, *config_with(tmp_path, train={"epochs": epochs_of(1)}))
    assert "error: The checkpoint could not be written: the disk is full." in error
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []

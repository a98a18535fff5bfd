"""Law 5: a checkpoint is complete or not there; damage gets a sentence (single process)."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import state_dict_saver

from dist_dsvae.config import CVAEConfig, DataConfig, ExperimentConfig, ModelConfig
from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.types import ImageShape
from dist_dsvae.runs import checkpoint, checkpoint_folder
from dist_dsvae.runs.checkpoint import load, read_marker, save, verify
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints
from dist_dsvae.runs.marker import MARKER, CheckpointError, UnreadableCheckpointError
from dist_dsvae.runs.run import Run
from dist_dsvae.runs.run_directory import checkpoint_to_resume


def state(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"method": {"weight": torch.full((3, 4), value), "count": torch.tensor(int(value))}}


def test_save_and_load_in_place(tmp_path: Path) -> None:
    path = save(tmp_path, 7, state(5.0), {"samples_seen": 70}, keep=3)
    assert path.name == "step-00000007"
    assert read_marker(path) == {"samples_seen": 70}
    into = state(0.0)
    weight = into["method"]["weight"]
    load(path, into)
    assert torch.equal(weight, torch.full((3, 4), 5.0))
    assert into["method"]["count"] == 5


def test_a_damaged_marker_gets_a_sentence(tmp_path: Path) -> None:
    path = save(tmp_path, 7, state(5.0), {"samples_seen": 70}, keep=3)
    (path / MARKER).write_text("{}")
    with pytest.raises(CheckpointError, match="was damaged"):
        read_marker(path)


VALUES = {
    "samples_seen": 30,
    "train_seconds": 1.5,
    "num_replaced": 0,
    "meter_sums": [{"joint": [0.5, 1.5]}],
    "meter_iterations": 2,
    "scaler": None,
    "data_fingerprint": "ab",
}
WRONG: list[object] = [None, -1, True, "text", 1.5, 1e400, [], {}, 2**80]


def as_older(path: Path) -> None:
    """Its marker as older versions wrote it, without a checksum of its own."""
    marker = json.loads((path / MARKER).read_text())
    (path / MARKER).write_text(json.dumps({"values": marker["values"], "sha256": marker["files"]}))


def damages(marker: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """What may become of a marker: other types and values in every place, keys lost, new and renamed."""
    for key in marker:
        yield f"without {key}", {k: v for k, v in marker.items() if k != key}
        yield f"{key} renamed", {k + ("_" if k == key else ""): v for k, v in marker.items()}
        for wrong in WRONG:
            yield f"{key} is {wrong!r}", marker | {key: wrong}
    for part in (key for key in marker if isinstance(marker[key], dict)):
        for key in marker[part]:
            yield (
                f"{part} without {key}",
                marker | {part: {k: v for k, v in marker[part].items() if k != key}},
            )
            for wrong in WRONG:
                yield f"{part}.{key} is {wrong!r}", marker | {part: marker[part] | {key: wrong}}
    for sums in ([{"joint": 1.5}], [{"joint": ["1.5"]}], [{"joint": [None]}], [{"joint": [True]}]):
        yield f"sums are {sums}", marker | {"values": marker["values"] | {"meter_sums": sums}}
    yield "a strange key", marker | {"extra": 1}
    yield from (("another document", wrong) for wrong in WRONG)
    files = "files" if "files" in marker else "sha256"
    for name in ("../__0_0.distcp", "__0_9.distcp", "/etc/passwd", "other", ""):
        yield f"a strange file {name}", marker | {files: marker[files] | {name: "0" * 64}}
        yield f"the file {name} alone", marker | {files: {name: "0" * 64}}


@pytest.mark.parametrize("older", [False, True])
def test_whatever_is_wrong_in_a_marker_is_named_and_the_checkpoint_before_is_used(
    older: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [save(tmp_path / "checkpoints", step, state(step), VALUES, keep=3) for step in (1, 2)]
    if older:
        as_older(paths[1])
    assert checkpoint_to_resume(tmp_path, "auto") == paths[1]
    sound = json.loads((paths[1] / MARKER).read_text())
    harmless = {  # an older marker has nothing that would tell
        f"values.{key} is {wrong!r}"
        for key, allowed in {
            "meter_sums": [[]],
            "data_fingerprint": ["text"],
            "train_seconds": [1.5],
        }.items()
        for wrong in allowed
    } | {"values without meter_sums", "values without scaler"}
    tried = 0
    for damage, marker in damages(sound):
        if marker == sound or (older and damage in harmless):
            continue
        caplog.clear()
        (paths[1] / MARKER).write_text(json.dumps(marker))
        assert checkpoint_to_resume(tmp_path, "auto") == paths[0], damage
        assert "step-00000002" in caplog.text, damage
        with pytest.raises(CheckpointError, match="step-00000002"):
            checkpoint_to_resume(tmp_path, str(paths[1]))
        tried += 1
    assert tried > 80


def test_every_byte_of_a_marker_is_covered(tmp_path: Path) -> None:
    paths = [save(tmp_path / "checkpoints", step, state(step), VALUES, keep=3) for step in (1, 2)]
    content = (paths[1] / MARKER).read_bytes()
    for place, byte in enumerate(content):
        if chr(byte).isspace():
            continue
        changed = bytearray(content)
        changed[place] = ord("7") if byte != ord("7") else ord("8")
        (paths[1] / MARKER).write_bytes(changed)
        with pytest.raises(CheckpointError, match="step-00000002"):
            verify(paths[1])


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_damage_is_found_by_checksum(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 7, state(5.0), {}, keep=3)
    verify(path)
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"step-00000007 is damaged: its file {name} is not as it was"):
        verify(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"its file {name} is missing"):
        verify(path)


def test_auto_resume_goes_past_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [save(tmp_path / "checkpoints", step, state(step), {}, keep=3) for step in (1, 2, 3)]
    assert checkpoint_to_resume(tmp_path, "auto") == paths[2]
    (paths[2] / "__0_0.distcp").write_bytes(b"")
    (paths[1] / MARKER).write_text("not JSON")
    assert checkpoint_to_resume(tmp_path, "auto") == paths[0]
    assert "step-00000003 is damaged" in caplog.text
    with pytest.raises(CheckpointError, match="step-00000003 is damaged"):
        checkpoint_to_resume(tmp_path, str(paths[2]))  # named ones are not exchanged for others
    (paths[0] / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(CheckpointError, match="None of the 3 checkpoints"):
        checkpoint_to_resume(tmp_path, "auto")


def test_what_cannot_be_read_is_not_gone_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be sound. A file system that stumbles once or twice is asked again."""
    paths = [save(tmp_path / "checkpoints", step, state(step), {}, keep=3) for step in (1, 2)]
    failures = [OSError(errno.ESTALE, "Stale file handle", "x"), PermissionError(errno.EACCES, "denied", "y")]

    def read(path: Path) -> str:
        if path.parent == paths[1] and failures:
            raise failures.pop(0)
        return sha256_of(path)

    monkeypatch.setattr(checkpoint, "sha256_of", read)
    monkeypatch.setattr(checkpoint, "_PAUSES", (0.0, 0.0))
    assert checkpoint_to_resume(tmp_path, "auto") == paths[1]
    assert not failures
    failures[:] = [OSError(errno.EIO, "Input/output error", "z")] * 3
    with pytest.raises(UnreadableCheckpointError, match=r"cannot be read: Input/output error \(z\)"):
        checkpoint_to_resume(tmp_path, "auto")
    assert "Trying the checkpoint before it" not in caplog.text


def test_a_marker_that_cannot_be_read_is_not_gone_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(tmp_path / "checkpoints", step, state(step), {}, keep=3)

    def read(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("dist_dsvae.runs.marker.read_json", read)
    monkeypatch.setattr(checkpoint, "_PAUSES", ())
    with pytest.raises(UnreadableCheckpointError, match=r"step-00000002 .*Permission denied"):
        checkpoint_to_resume(tmp_path, "auto")


def test_an_old_one_that_cannot_be_removed_stays_and_the_new_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    protected = save(tmp_path, 1, state(1.0), {"samples_seen": 1}, keep=1)
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if "step-00000001" in path.parent.name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    for step in (2, 3):
        save(tmp_path, step, state(step), {"samples_seen": step}, keep=1)
        names = [path.name for path in complete_checkpoints(tmp_path)]
        assert names == ["step-00000001", f"step-{step:08d}"]
    assert f"{protected} could not be removed, and stays: Permission denied." in caplog.text
    verify(protected)


def test_multiples_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, state(step), {}, keep=2, keep_every=3)
    kept = [int(path.name[-2:]) for path in complete_checkpoints(tmp_path)]
    assert kept == [3, 6, 7]


def test_strides_do_not_matter(tmp_path: Path) -> None:
    """Saved channels-last, loaded contiguous and back: values by index, not by memory."""
    image = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    path = save(tmp_path, 1, {"x": image.to(memory_format=torch.channels_last)}, {}, keep=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        into = torch.zeros(2, 3, 4, 5).to(memory_format=layout)
        load(path, {"x": into})
        assert torch.equal(into, image)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9, 100):
        save(tmp_path, step, state(step), {}, keep=3)
    assert [path.name for path in complete_checkpoints(tmp_path)] == [
        "step-00000009",
        "step-00000010",
        "step-00000100",
    ]


def test_without_marker_it_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1, state(1.0), {}, keep=3)
    path = save(tmp_path, 2, state(2.0), {}, keep=3)
    (path / MARKER).unlink()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000001"]
    with pytest.raises(CheckpointError, match="is not a complete checkpoint"):
        read_marker(path)
    # the same step again replaces what the kill left behind
    save(tmp_path, 2, state(2.0), {}, keep=3)
    assert len(complete_checkpoints(tmp_path)) == 2


def test_leftovers_of_a_kill_while_writing(tmp_path: Path) -> None:
    partial = tmp_path / ".step-00000003.partial"
    partial.mkdir()
    (partial / "junk").write_text("x")
    assert complete_checkpoints(tmp_path) == []
    save(tmp_path, 3, state(3.0), {}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003"]


def test_a_later_save_clears_what_other_kills_left(tmp_path: Path) -> None:
    """A run that saves by the clock does not come to the same step again."""
    for name in (".step-00000003.partial", ".step-00000002.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__0_0.distcp").write_bytes(b"1")
    persons = tmp_path / ".step-00000004.partial"
    persons.mkdir()
    for name in ("__1_0.distcp", "notes.txt"):
        (persons / name).write_text("x")
    save(tmp_path, 7, state(7.0), {}, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [persons.name, "step-00000007"]
    assert [p.name for p in persons.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full. Free some space"),
        (RuntimeError("write: No space left on device"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), r"Read-only file system \(/x\)"),
        (RuntimeError("strange"), "RuntimeError: strange"),
    ],
)
def test_a_failed_save_keeps_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    save(tmp_path, 1, state(1.0), {}, keep=1)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(state_dict_saver, "save", fail)
    with pytest.raises(CheckpointError, match=f"could not be written: {sentence}"):
        save(tmp_path, 2, state(2.0), {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_kill_while_removing_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, state(1.0), {"samples_seen": 1}, keep=1)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_folder.remove(tmp_path / "step-00000001")
    assert complete_checkpoints(tmp_path) == []


def test_setting_a_run_back_keeps_what_was_beyond(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), {"samples_seen": step}, keep=5)
    checkpoint_folder.set_back(tmp_path, 1)
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000001"]
    assert (tmp_path / "abandoned-step-00000003" / MARKER).is_file()


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 1 MB in memory, and 4 MB to save."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        save(tmp_path, 1, state(1.0), {"samples_seen": 1}, keep=2)
        big = {"weight": torch.zeros(1_000_000)}
        with pytest.raises(CheckpointError, match="could not be written: the disk is full"):
            save(tmp_path, 2, big, {"samples_seen": 2}, keep=2)
        assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_damaged_tensor_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1, state(1.0), {}, keep=1)
    (path / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match="step-00000001 could not be read; an older one can be named"):
        load(path, state(0.0))


def test_removing_a_checkpoint_keeps_what_is_not_of_it(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), {}, keep=1)
        (tmp_path / checkpoint_folder.checkpoint_name(step) / "notes.txt").write_text(f"mine {step}")
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-00000003"]
    for step in (1, 2):
        kept = tmp_path / f"kept-step-0000000{step}"
        assert [path.name for path in kept.iterdir()] == ["notes.txt"]
        assert (kept / "notes.txt").read_text() == f"mine {step}"


def test_removing_a_linked_checkpoint_leaves_the_run_it_leads_to(tmp_path: Path) -> None:
    other = save(tmp_path / "other", 1, state(1), {}, keep=1)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/step-00000001").symlink_to(other)
    save(tmp_path / "own", 2, state(2), {}, keep=1)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["step-00000002"]
    verify(other)


def test_setting_back_twice_keeps_both_futures(tmp_path: Path) -> None:
    for value in (5.0, 6.0):
        save(tmp_path, 2, state(value), {}, keep=3)
        checkpoint_folder.set_back(tmp_path, 1)
    into = state(0.0)
    for name, value in (("abandoned-step-00000002", 5.0), ("abandoned-step-00000002-2", 6.0)):
        load(tmp_path / name, into)
        assert into["method"]["count"] == value


@pytest.mark.parametrize("counter", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_job_that_is_started_again_goes_on_whatever_its_words_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counter: str
) -> None:
    """They are those of the first start: a requeued job would set its run back for ever, or be refused."""
    run, other = tmp_path / "run", tmp_path / "other"
    paths = [save(run / "checkpoints", step, state(step), {}, keep=3) for step in (1, 2)]
    origin = save(other / "checkpoints", 9, state(9.0), {}, keep=3)
    assert checkpoint_to_resume(run, str(paths[0])) == paths[0]
    monkeypatch.setenv(counter, "0")
    with pytest.raises(CheckpointError, match="already holds checkpoints of its own"):
        checkpoint_to_resume(run, str(origin))
    monkeypatch.setenv(counter, "1")
    for words in (str(paths[0]), str(origin), "never"):
        assert checkpoint_to_resume(run, words) == paths[1]
    assert checkpoint_to_resume(tmp_path / "new", str(origin)) == origin  # with none yet
    # but who draws, scores or exports a step asks for that one
    config = ExperimentConfig(
        data=DataConfig(train="x"), model=ModelConfig(architecture="small32"), method=CVAEConfig()
    )
    opened = Run(run, config, ImageShape(1, 32, 32), ("a",))
    assert (opened.checkpoint(1), opened.checkpoint()) == tuple(paths)

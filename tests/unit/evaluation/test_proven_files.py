"""Files of one JSON document: what is written, replaced, and left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.evaluation.comparing import proven_files
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError
from dist_dsvae.evaluation.comparing.proven_files import check_replaceable, write_proven

DOCUMENT: dict[str, Any] = {"format": "mine/1"}


def write(prefix: Path, **others: str) -> None:
    write_proven(prefix, DOCUMENT, {ending: text.encode() for ending, text in others.items()})


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("there", [{}, {"md": "old", "png": "old too"}], ids=["fresh", "again"])
def test_what_is_killed_between_two_files_can_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, str], after: int
) -> None:
    if there:
        write(tmp_path / "a", **there)
    written = 0

    def until_killed(path: Path, content: bytes) -> None:
        nonlocal written
        if written == after:
            raise KeyboardInterrupt
        written += 1
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(proven_files, "write_atomically", until_killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a", md="new", png="new too")
    write(tmp_path / "a", md="newer", png="newer too")
    assert (tmp_path / "a.md").read_text() == "newer"
    assert (tmp_path / "a.png").read_text() == "newer too"
    write(tmp_path / "a", md="newest")
    assert not (tmp_path / "a.png").exists()


def test_a_document_that_a_person_changed_stays(tmp_path: Path) -> None:
    write(tmp_path / "a", md="ours")
    document = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(document))  # laid out otherwise
    write(tmp_path / "a", md="ours again")
    changed = json.dumps({**json.loads((tmp_path / "a.json").read_text()), "remarks": "hours of work"})
    (tmp_path / "a.json").write_text(changed)
    with pytest.raises(ComparisonError, match=r"a.json exists already, and is not as this command wrote it"):
        write(tmp_path / "a", md="newer")
    assert (tmp_path / "a.json").read_text() == changed
    assert (tmp_path / "a.md").read_text() == "ours again"


def test_a_persons_note_is_no_change_and_stays(tmp_path: Path) -> None:
    write(tmp_path / "a", md="ours")
    document = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**document, "note": "Seen."}))
    write(tmp_path / "a", md="ours again")
    assert json.loads((tmp_path / "a.json").read_text())["note"] == "Seen."
    write(tmp_path / "a", md="and again")


def test_a_document_of_before_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a", md="ours")
    document = json.loads((tmp_path / "a.json").read_text())
    del document["files_sha256"]["json"]
    (tmp_path / "a.json").write_text(json.dumps({**document, "remarks": "nobody can tell"}))
    write(tmp_path / "a", md="ours again")
    assert "remarks" not in json.loads((tmp_path / "a.json").read_text())


def test_a_persons_file_stays(tmp_path: Path) -> None:
    write(tmp_path / "a", md="ours")
    (tmp_path / "a.md").write_text("a person's")
    with pytest.raises(ComparisonError, match=r"a.md exists already, and is not as this command wrote it"):
        write(tmp_path / "a", md="ours again")
    with pytest.raises(ComparisonError, match=r"a.json exists already"):
        check_replaceable(tmp_path / "a", "another/1", ("json",))
    assert (tmp_path / "a.md").read_text() == "a person's"

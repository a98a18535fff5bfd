"""A folder for each class, whatever the classes are called."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dist_dsvae.runs.bulk_samples import folder_names


def test_names_that_would_become_one_or_nothing_have_their_number() -> None:
    assert folder_names(("a/b", "a-b", "..", "c", "")) == ["0-a-b", "1-a-b", "2-", "c", "4-"]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("a/b", "a-b", "0-a-b"), ["0-1-a-b", "1-a-b", "0-a-b"]),
        (("a ", "a", "0-a", "0-1-a"), ["0-2-a", "1-a", "0-a", "0-1-a"]),
        ((".hidden", "hidden", "1-hidden"), ["0-hidden", "1-1-hidden", "1-hidden"]),
    ],
)
def test_no_class_has_the_name_of_another_with_its_number(
    classes: tuple[str, ...], expected: list[str]
) -> None:
    assert folder_names(classes) == expected


def test_long_names_are_cut_at_a_letter_and_differ(tmp_path: Path) -> None:
    cat, letters = "\u732b", "x" * 255
    classes = (cat * 90, cat * 91, cat * 85, letters, letters + "y", "z" + cat * 85, "0-" + cat * 84)
    names = folder_names(classes)
    assert names[2:4] == [cat * 85, letters]  # these fit
    assert names[0] == "0-1-" + cat * 83  # the last class is called what this one would be
    assert names[1] == "1-" + cat * 84
    for name in names:
        (tmp_path / name).mkdir()  # fits, and is not there yet


@pytest.mark.parametrize("name", ["..", " ..", ". .", " .hidden", "\t../x", "\\..", "/.."])
def test_no_name_hides_a_folder_or_leads_out_of_its_own(name: str, tmp_path: Path) -> None:
    (found,) = folder_names((name,))
    assert not found.startswith(".")
    assert (tmp_path / found).resolve().parent == tmp_path.resolve()
    assert (tmp_path / found) != tmp_path


def test_very_many_classes_take_no_time() -> None:
    classes = tuple(f"person {number}" for number in range(40_000))
    began = time.process_time()
    assert folder_names(classes) == list(classes)
    assert time.process_time() - began < 3  # comparing each with all takes half a minute

"""docs/configuration.md is what the dataclasses say now, and says something about every field."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from dist_dsvae import config
from dist_dsvae.config.fields import between, free, positive
from dist_dsvae.config.reference import UndescribedError, descriptions, keys, parse_docstring, reference

PAGE = Path(__file__).parents[3] / "docs/configuration.md"
SECTIONS = [section for name in config.__all__ if dataclasses.is_dataclass(section := getattr(config, name))]


@dataclass(frozen=True, kw_only=True)
class Described:
    """Two lines about
    the section.

    width, height: of an image,
        in pixels.
    colour: any | all; see ``colours``.
    """

    width: int = positive(1)
    height: int = between(0, 7, 2)
    colour: str = free("red")


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """A section.

    width: of an image.
    """

    width: int = 1
    height: int = 2


@dataclass(frozen=True, kw_only=True)
class Stale:
    """A section.

    width, depth: of an image.
    """

    width: int = 1


def test_the_page_is_current() -> None:
    current = PAGE.read_text(encoding="utf-8") == reference()
    assert current, "run: python -m dist_dsvae.config.reference > docs/configuration.md"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_every_field_stands_on_the_page_with_its_default(section: type) -> None:
    lines = reference().splitlines()
    for f in dataclasses.fields(section):
        if dataclasses.is_dataclass(f.default) or f.name in ("data", "model"):
            assert any(line.startswith(f"## `{f.name}`") for line in lines)
            continue
        shown = "**must be given**" if f.default is dataclasses.MISSING else f"`{json.dumps(f.default)}`"
        rows = [line for line in lines if line.startswith(f"| `{f.name}` |")]
        assert any(f" | {shown} | " in row for row in rows), f.name
        assert all(re.search(r"\w", row.split(" | ")[-1]) for row in rows), f.name


def test_entries_name_groups_and_go_on_over_lines() -> None:
    about, entries = parse_docstring(Described)
    assert about == "Two lines about the section."
    assert entries["width"] == entries["height"] == "of an image, in pixels."
    assert descriptions(Described)["colour"] == r"any \| all; see `colours`."


def test_a_field_without_an_entry_is_an_error() -> None:
    with pytest.raises(UndescribedError, match="Lacking has no entry for height"):
        descriptions(Lacking)


def test_an_entry_without_a_field_is_an_error() -> None:
    with pytest.raises(UndescribedError, match="Stale describes 'depth', but has no such field"):
        descriptions(Stale)


def test_baselines_take_what_dsvae_says_of_their_fields() -> None:
    ours, theirs = descriptions(config.DSVAEConfig), descriptions(config.CVAEGANConfig)
    assert theirs["adversarial"] == ours["adversarial"]
    assert "features" in theirs["feature_weight"]


def test_every_key_has_words_of_its_own() -> None:
    """`dsvae config KEY` shows them alone: none is of several keys, or leans on those of another."""
    explained = [(key.name.rpartition(".")[0], key.of, key.meaning) for key in keys()]
    assert [words for words in explained if explained.count(words) > 1] == []
    leaning = re.compile(r"\b(likewise|these terms|those updates|this one)\b")
    assert [key.name for key in keys() if leaning.search(key.meaning)] == []


def test_a_step_is_an_iteration() -> None:
    """As in ``every_steps``, ``--step`` and the names of checkpoints; what takes one batch is an update."""
    leading = re.compile(r"\b(every|each|one|per) step\b")
    assert [key.name for key in keys() if leading.search(key.meaning)] == []
    (stage_1,) = (key for key in keys() if key.name == "method.gm_updates")
    assert "(stage 1)" in stage_1.meaning


def test_bounds_and_freedom_are_shown() -> None:
    page = reference()
    assert "| `batch_size` | whole number, 2 or more | `96` |  |" in page
    assert "| `epochs` | number above 0 | `100.0` | may change |" in page
    assert "| `beta1` | number, 0 to 0.999999 | `0.0` |" in page
    assert '| `source` | `"stream"`, `"resident"` | `"stream"` |' in page

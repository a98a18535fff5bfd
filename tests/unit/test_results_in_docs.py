"""Figures on the pages are those of docs/results/*.json.

Tables stand between marks, and are as ``dsvae reproduce --write-docs`` writes them. Sentences are listed in
CLAIMS, with a field for each figure. A score that stands in neither is found.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from dist_dsvae.evaluation.comparing.marked_pages import with_tables
from dist_dsvae.evaluation.comparing.proven_files import check_replaceable
from dist_dsvae.evaluation.comparing.results import FORMAT, read_results

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "docs/results"
PAGES_OF_TABLES = ("docs/results.md", "docs/trials.md")
PAGES = (
    "README.md",
    "docs/reproduce.md",
    "docs/your-images.md",
)  # in which every score is a claim or in a table


class Claim(NamedTuple):
    """A part of a page. Fields with digits: {FIGURE:.2f}, {FIGURE.std:.2f} of the row, {real.FIGURE:.2f}."""

    page: str
    results: str
    row: str
    text: str


CLAIMS = (
    Claim(
        "README.md",
        "quickstart",
        "dsvae",
        "FID {fid:.3f} (deviation {fid.std:.3f}, seeds 0 to 2), Inception Score {inception_score:.2f} "
        "({inception_score.std:.2f}; real pictures {real.inception_score:.2f})",
    ),
    Claim(
        "README.md",
        "quickstart-230-seconds",
        "dsvae",
        "FID {fid:.3f}, Inception Score {inception_score:.2f} "
        "(seed 0; from 2,000 samples, the others from 1,000)",
    ),
    Claim(
        "docs/your-images.md",
        "photographs",
        "dsvae",
        "a cosine of {identity_swap_to_zs:.2f} between a swapped face and the picture that gave the person, "
        "{identity_swap_to_zu:.2f} to the one that gave the rest; two real pictures of one person have "
        "{real.identity_swap_to_zs:.2f}, of two persons {real.identity_swap_to_zu:.2f}. Drawn faces have "
        "{identity_sample_to_class:.2f} to their own person and {identity_sample_to_others:.2f} to the "
        "others",
    ),
    Claim("docs/reproduce.md", "toy", "dsvae", "dsvae covers {coverage:.3f} of the real points"),
    Claim("docs/reproduce.md", "toy", "cVAE-GAN", "cVAE-GAN {coverage:.3f} ("),
    Claim("docs/reproduce.md", "toy", "cVAE-GAN, gain 1", "({coverage:.3f} with gain 1)"),
)
FIELD = re.compile(r"\{(real\.)?(\w+)(\.std)?:(\.\df)\}")
SCORE = re.compile(
    r"\b(FID|Inception Scores?|precision|recall|diversity|accuracy|cosines?|coverage|covers|swaps follow"
    r"|reconstruction error)\b[^.\n|]*?\b\d+\.\d+|\bgain 1\b.*?\d\.\d+",
    re.IGNORECASE,
)
TABLE = re.compile(r"<!-- results .*?<!-- end of results -->", re.DOTALL)
BY_HAND = re.compile(r"^ *<!-- by hand: .{10,} -->\n\n", re.MULTILINE)
FIGURES = re.compile(r"(?:^ *\|.*\n)+", re.MULTILINE)


def words(text: str) -> str:
    """The text on one line."""
    return re.sub(r"\s+", " ", text)


def tables_pages() -> str:
    """Of the pages that hold tables of figures."""
    return "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES_OF_TABLES)


def said(claim: Claim) -> str:
    """The claim's sentence with the figures of its results."""
    results = read_results(RESULTS / f"{claim.results}.json")
    cells = next(row.cells for row in results.rows if row.label == claim.row)

    def figure(match: re.Match[str]) -> str:
        real, name, std, digits = match.groups()
        value = results.real[name] if real else cells[name].std if std else cells[name].mean
        assert value is not None, f"{claim.results}.json has no deviation of {name}"
        return f"{value:{digits}}"

    return FIELD.sub(figure, claim.text)


def scores_without_claim(page: str, text: str) -> list[str]:
    """Passages that quote a score which is in no marked table and in no claim."""
    rest = words(TABLE.sub("", text))
    for claim in CLAIMS:
        if claim.page == page:
            rest = rest.replace(said(claim), "")
    return [match.group() for match in SCORE.finditer(rest)]


@pytest.mark.parametrize("page", sorted(REPOSITORY.glob("docs/*.md")), ids=lambda page: page.name)
def test_marked_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = with_tables(text, lambda name: read_results(RESULTS / f"{name}.json"), page.name)
    assert text == written, "`dsvae reproduce --write-docs` writes them"


def test_every_result_is_shown_and_says_how_it_came_about() -> None:
    text = tables_pages()
    quoted = {claim.results for claim in CLAIMS}
    names = [path.stem for path in RESULTS.glob("*.json")]
    assert len(names) >= 6
    for name in names:
        document = read_results(RESULTS / f"{name}.json").document
        assert document["name"] == name
        assert f"<!-- results {name}" in text or name in quoted, f"no page shows {name}.json"
        for key in ("budget", "hardware", "software", "settings", "commands"):
            assert document[key], f"{name}.json does not say its {key}"


def test_other_tables_of_figures_say_why_they_are_written_by_hand() -> None:
    text = TABLE.sub("", tables_pages())
    excused = re.sub(f"{BY_HAND.pattern}{FIGURES.pattern}", "", text, flags=re.MULTILINE)
    tables = [table for table in FIGURES.findall(excused) if re.search(r"\d\.\d", table)]
    assert tables == []
    assert len(BY_HAND.findall(text)) > 3


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page} {claim.results}")
def test_claims_quote_the_results(claim: Claim) -> None:
    page = words((REPOSITORY / claim.page).read_text(encoding="utf-8"))
    assert said(claim) in page, f"{claim.page} is to say: {said(claim)}"


@pytest.mark.parametrize("page", PAGES)
def test_no_score_is_quoted_without_its_results(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert scores_without_claim(page, text) == []


def test_the_test_can_fail() -> None:
    claim = said(CLAIMS[0])
    assert scores_without_claim("README.md", f"Here: {claim}. Python 3.11, 30.0 ms.") == []
    for wrong in (
        claim.replace("FID 0.", "FID 1."),
        "a recall of 0.76",
        "FID 0.33",
        "Inception\nScore of 9.99",
    ):
        assert scores_without_claim("README.md", wrong), wrong


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_reproduce_may_replace_what_it_wrote(name: str) -> None:
    """A table or picture that was changed by hand would stop the command of its page."""
    check_replaceable(RESULTS / name, FORMAT, ("json", "md", "png"))

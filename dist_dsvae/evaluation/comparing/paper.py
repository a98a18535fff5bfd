"""The paper's own figures, beside ours but never in one column: its classifiers are its own."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

# The paper's order of rows, and its names for the methods.
METHODS = {"cvae": "cVAE", "cgan": "cGAN", "cvae_gan": "cVAE-GAN", "dsvae": "ours"}


def paper_order(method: str) -> int:
    """Its place in the paper's order; behind them all for a method that the paper does not have."""
    return list(METHODS).index(method) if method in METHODS else len(METHODS)


@dataclass(frozen=True)
class PaperFigures:
    """What the paper prints for one data set: figure -> method -> value."""

    data_set: str
    figures: dict[str, dict[str, float]]


def _printed(data_set: str, scores: tuple[float, ...], diversities: tuple[float, ...]) -> PaperFigures:
    """scores in the order of METHODS; diversities of cvae_gan and dsvae alone."""
    return PaperFigures(
        data_set,
        {
            "inception_score": dict(zip(METHODS, scores, strict=True)),
            "diversity": dict(zip(("cvae_gan", "dsvae"), diversities, strict=True)),
        },
    )


# What it prints, by a pattern of the places where each data set's shards are
PRINTED = {
    r"face[-_ ]?scrub": _printed("FaceScrub", (9.55, 10.02, 16.75, 17.91), (0.0141, 0.0157)),
    r"cifar[-_ ]?10(?!\d)": _printed("CIFAR-10", (3.01, 6.27, 6.99, 7.04), (0.0136, 0.0149)),
    r"cub[-_ ]?200": _printed("CUB-200", (37.34, 78.06, 91.14, 100.86), (0.0195, 0.0192)),
    r"cifar[-_ ]?100(?!\d)": _printed("CIFAR-100", (3.10, 6.39, 6.68, 6.70), (0.0179, 0.0190)),
}


def paper_figures(places: Collection[str]) -> PaperFigures | None:
    """The paper's figures for the data set that ``places`` (paths or URLs of shards) name.

    None if they name none of its four, or more than one.
    """
    told = [
        figures
        for pattern, figures in PRINTED.items()
        if any(re.search(pattern, place, re.IGNORECASE) for place in places)
    ]
    return told[0] if len(told) == 1 else None

"""Every figure of an evaluation, in one table: the printed report, model cards and comparisons read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Figures = dict[str, float | int]

# The settings that two runs' figures must agree in to stand in one column. The kind of weights is none of
# them, as not every method keeps an average; the tables tell where rows differ in it
_ALWAYS = ("data_fingerprint", "test_fingerprint", "precision")
_DECODED = (*_ALWAYS, "batch_norm")
_DRAWN = (
    *(*_DECODED, "seed", "samples", "samples_per_class", "prior", "batch_size"),
    *("temperature_zs", "temperature_zu"),
)
_COMPARED = (*_DRAWN, "real_split", "real_samples")
_POINTS = (*_COMPARED, "radius")
_UNSEEN = "unseen persons: "


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of an evaluation: its name, what people read of it, and its column in a comparison.

    description: its row in the printed table and in a model card. title: of its column; "" has none.
    deviation: names the figure of its own +-, where it has one.
    best: which value is best: the highest, the lowest, or the one nearest to 1.
    judge: role of the network that it is judged by. points: a figure of points in the plane.
    depends: the settings that it depends on. chance: what guessing gives, of samples, as many of each
        class, 1 / number of classes; of pictures of the test split the share of the commonest class.
    """

    figure: str
    description: str
    title: str = ""
    best: Literal["highest", "lowest", "nearest 1"] = "highest"
    digits: int = 3
    judge: Literal["classifier", "feature_network", "identity_network"] | None = None
    depends: tuple[str, ...] = _ALWAYS
    deviation: str | None = None
    chance: Literal["", "samples", "pictures"] = ""
    points: bool = False


def _identity_metrics(prefix: str, title: str, *depends: str) -> Iterator[Metric]:
    """Of persons trained on, or with the prefix of those never seen."""
    of_whom = _UNSEEN if prefix else ""
    best: Literal["highest", "lowest"]
    for figure, what, description, best in (
        ("swap_to_zs", "swap to zs", "swapped faces' cosine to the picture of zs", "highest"),
        ("swap_to_zu", "swap to zu", "swapped faces' cosine to the picture of zu", "lowest"),
        ("reconstruction", "reconstruction", "reconstructed faces' cosine to their picture", "highest"),
    ):
        yield Metric(
            figure=f"{prefix}identity_{figure}",
            description=f"{of_whom}{description}",
            title=f"{title}, {what}",
            best=best,
            judge="identity_network",
            depends=(*_DECODED, "seed", "identity_samples", "identity_means", *depends),
        )
    for figure, description in (
        ("swaps", "swapped faces"),
        ("same_person", "real pictures' cosine, same person"),
        ("other_person", "real pictures' cosine, other person"),
    ):
        yield Metric(figure=f"{prefix}identity_{figure}", description=f"{of_whom}{description}")


METRICS = (
    Metric(
        figure="inception_score",
        description="Inception Score",
        title="Inception Score",
        digits=2,
        judge="classifier",
        depends=_DRAWN,
    ),
    Metric(
        figure="inception_score_splits_mean",
        description="Inception Score over splits, mean",
        title="Inception Score over splits",
        digits=2,
        judge="classifier",
        depends=(*_DRAWN, "splits"),
        deviation="inception_score_splits_std",
    ),
    Metric(
        figure="fid",
        description="FID",
        title="FID",
        best="lowest",
        digits=2,
        judge="feature_network",
        depends=_COMPARED,
    ),
    Metric(
        figure="precision",
        description="precision",
        title="precision",
        judge="feature_network",
        depends=(*_COMPARED, "neighbour_samples"),
    ),
    Metric(
        figure="recall",
        description="recall",
        title="recall",
        judge="feature_network",
        depends=(*_COMPARED, "neighbour_samples"),
    ),
    Metric(
        figure="diversity",
        description="intra-class diversity",
        title="diversity",
        digits=4,
        depends=(*_DRAWN, "diversity_samples", "ms_ssim"),
    ),
    Metric(
        figure="label_accuracy",
        description="samples taken for their own class",
        title="label accuracy",
        judge="classifier",
        depends=_DRAWN,
        chance="samples",
    ),
    Metric(
        figure="zs_accuracy",
        description="held-out accuracy from zs",
        title="accuracy from zs",
        chance="pictures",
    ),
    Metric(
        figure="zu_probe_accuracy",
        description="linear probe from zu",
        title="linear probe of zu",
        best="lowest",
        depends=(*_ALWAYS, "probe_noise"),
        chance="pictures",
    ),
    Metric(
        figure="zu_mlp_accuracy",
        description="perceptron probe from zu",
        title="perceptron on zu",
        best="lowest",
        depends=(*_ALWAYS, "probe_noise"),
        chance="pictures",
    ),
    Metric(
        figure="swap_follows_zs",
        description="swapped images taken for the class of zs",
        title="swaps follow zs",
        judge="classifier",
        depends=(*_DECODED, "seed"),
        chance="pictures",
    ),
    *_identity_metrics("", "identity"),
    Metric(
        figure="identity_sample_to_class",
        description="samples' cosine to pictures of their class",
        title="identity, sample to class",
        judge="identity_network",
        depends=(*_DRAWN, "identity_samples"),
    ),
    Metric(
        figure="identity_sample_to_others",
        description="samples' cosine to pictures of other classes",
        title="identity, sample to others",
        best="lowest",
        judge="identity_network",
        depends=(*_DRAWN, "identity_samples"),
    ),
    *_identity_metrics("held_out_", "identity of unseen", "held_out_fingerprint"),
    Metric(
        figure="reconstruction_error",
        description="reconstruction, mean squared error",
        title="reconstruction error",
        best="lowest",
        digits=4,
        depends=_DECODED,
    ),
    Metric(
        figure="held_out_reconstruction_error",
        description=f"{_UNSEEN}reconstruction, mean squared error",
        title="reconstruction error of unseen",
        best="lowest",
        digits=4,
        depends=(*_DECODED, "held_out_fingerprint"),
    ),
    Metric(
        figure="coverage",
        description="real points with a drawn one near",
        title="coverage",
        depends=_POINTS,
        points=True,
    ),
    Metric(
        figure="precision", description="precision", title="precision of points", depends=_POINTS, points=True
    ),
    Metric(
        figure="spread_x",
        description="spread along x, of the real one",
        title="spread along x",
        best="nearest 1",
        depends=_POINTS,
        points=True,
    ),
    Metric(
        figure="spread_y",
        description="spread along y, of the real one",
        title="spread along y",
        best="nearest 1",
        depends=_POINTS,
        points=True,
    ),
    Metric(figure="accuracy", description="held-out accuracy"),
    Metric(figure="zs_probe_accuracy", description="linear probe from zs"),
    Metric(figure="zs_mlp_accuracy", description="perceptron probe from zs"),
    Metric(figure="zu_mean_probe_accuracy", description="linear probe from the mean of zu"),
    Metric(figure="swap_follows_zu", description="swapped images taken for the class of zu"),
    Metric(figure="test_samples", description="held-out samples"),
    Metric(figure="inception_score_splits_std", description="Inception Score over splits, deviation"),
)

_DESCRIPTIONS = {metric.figure: metric.description for metric in METRICS}


def description_of(figure: str) -> str | None:
    """What people read of a figure; None if it is none of these."""
    return _DESCRIPTIONS.get(figure)

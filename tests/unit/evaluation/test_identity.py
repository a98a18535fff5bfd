"""Cosines of embeddings from sums, against loops over all pairs; who swaps with whom."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.core.types import Codes, Gaussian
from dist_dsvae.evaluation.identity import (
    EmbeddingSums,
    SwapSums,
    couples,
    other_class_cosine,
    own_class_cosine,
    same_class_cosine,
)
from dist_dsvae.evaluation.judging.judge import Judge

CPU = torch.device("cpu")
SHAPE = (1, 2, 3)


class Pixels(nn.Module):
    """Features: the pixels themselves, of a length other than 1."""

    def forward(self, rgb: Tensor) -> tuple[None, Tensor]:
        return None, 3 * rgb[:, 0].flatten(1)


NETWORK = Judge("pixels", "0" * 64, None, 6, Pixels())


def random_images(num_images: int, seed: int = 0) -> Tensor:
    return torch.rand(num_images, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


def sums_of(images: Tensor, labels: Tensor, num_classes: int) -> EmbeddingSums:
    """Added up in two parts that are then merged."""
    parts = [EmbeddingSums(NETWORK, num_classes, CPU) for _ in range(2)]
    for part, rows in zip(parts, torch.arange(len(labels)).split(len(labels) // 2 + 1), strict=True):
        part.add(images[rows], labels[rows], rows)
    parts[0].merge(parts[1].state(), parts[1].kept)
    return parts[0]


def mean_over_pairs(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], counts: Callable[[int, int], bool]
) -> float:
    """Mean over pairs of classes that count of the mean cosine over their pairs of pictures."""
    return statistics.fmean(
        statistics.fmean(cosine(x, y) for x in a[0][a[1] == i] for y in b[0][b[1] == j])
        for i in a[1].unique().tolist()
        for j in b[1].unique().tolist()
        if counts(i, j)
    )


def test_cosines_from_sums_equal_those_of_all_pairs() -> None:
    """Classes of 1, 2, 3 and 6 pictures, one without any; samples of one that has no picture."""
    real = random_images(12), torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3])
    drawn = random_images(7, seed=1), torch.tensor([1, 1, 2, 3, 3, 4, 4])
    real_sums, drawn_sums = sums_of(*real, 6), sums_of(*drawn, 6)

    same = []
    for label in (1, 2, 3):
        images = real[0][real[1] == label]
        pairs = [cosine(a, b) for i, a in enumerate(images) for b in images[:i]]
        same.append(statistics.fmean(pairs))
    assert same_class_cosine(real_sums) == pytest.approx(statistics.fmean(same), abs=1e-7)
    other = mean_over_pairs(real, real, lambda i, j: i != j)
    assert other_class_cosine(real_sums, real_sums) == pytest.approx(other, abs=1e-7)
    own = mean_over_pairs(drawn, real, lambda i, j: i == j)
    assert own_class_cosine(drawn_sums, real_sums) == pytest.approx(own, abs=1e-7)
    others = mean_over_pairs(drawn, real, lambda i, j: i != j)
    assert other_class_cosine(drawn_sums, real_sums) == pytest.approx(others, abs=1e-7)


def test_what_has_no_pair_has_no_cosine() -> None:
    single = sums_of(random_images(3), torch.tensor([0, 1, 2]), 4)
    assert same_class_cosine(single) is None
    alone = sums_of(random_images(3), torch.tensor([3, 3, 3]), 4)
    assert own_class_cosine(single, alone) is None
    assert other_class_cosine(alone, alone) is None
    assert other_class_cosine(single, alone) is not None


def swaps_of(
    decode: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch_size: int = 8
) -> SwapSums:
    """Codes are the picture (zs) and half of it (zu)."""

    def encode(x: Tensor, y: Tensor) -> Codes:
        zs = x.flatten(1)
        return Codes(zs, Gaussian(zs / 2, zs))

    sums = SwapSums(NETWORK, encode, decode, num_classes=5, seed=4, device=CPU)
    for rows in torch.arange(len(labels)).split(batch_size):
        sums.add(images[rows], labels[rows], rows)
    return sums


def test_a_perfect_swap_is_the_picture_that_gave_zs() -> None:
    images, labels = random_images(21), torch.arange(21) % 5 % 4  # a person with twice as many pictures
    by_zs = swaps_of(lambda codes: codes[:, :6].view(-1, *SHAPE), images, labels).figures()
    by_zu = swaps_of(lambda codes: codes[:, 6:].view(-1, *SHAPE), images, labels).figures()
    assert by_zs["swap_to_zs"] == pytest.approx(1, abs=1e-6)
    assert by_zu["swap_to_zu"] == pytest.approx(1, abs=1e-6)
    assert by_zs["reconstruction"] == pytest.approx(1, abs=1e-6)
    of_person: dict[int, list[float]] = defaultdict(list)
    for rows in torch.arange(21).split(8):
        for giver, taker in zip(*couples(labels[rows], rows, 4), strict=True):
            pair = cosine(images[rows][giver], images[rows][taker])  # the same of who gives and who takes
            of_person[int(labels[rows][giver])].append(pair)
    assert by_zs["swaps"] == sum(map(len, of_person.values())) == 20  # the last batch is of five
    by_person = statistics.fmean(map(statistics.fmean, of_person.values()))
    by_picture = statistics.fmean(itertools.chain.from_iterable(of_person.values()))
    assert by_person != pytest.approx(by_picture, abs=1e-3)
    assert by_zs["swap_to_zu"] == pytest.approx(by_person, abs=1e-6)
    assert by_zu["swap_to_zs"] == pytest.approx(by_person, abs=1e-6)
    same = same_class_cosine(sums_of(images, labels, 5))
    assert by_zs["same_person"] == pytest.approx(same, abs=1e-9)


def test_swaps_and_reconstructions_are_told_apart() -> None:
    """A decoder of both codes: a reconstruction is 3/2 of its picture, a swap is between two."""
    images, labels = random_images(16), torch.arange(16) % 5
    found = swaps_of(lambda codes: (codes[:, :6] + codes[:, 6:]).view(-1, *SHAPE), images, labels).figures()
    assert found["reconstruction"] == pytest.approx(1, abs=1e-6)
    assert 1 > found["swap_to_zs"] > found["swap_to_zu"] > found["other_person"]


def test_a_method_that_cannot_encode_leaves_the_real_pairs() -> None:
    sums = SwapSums(NETWORK, None, lambda codes: codes, num_classes=5, seed=0, device=CPU)
    sums.add(random_images(6), torch.arange(6) % 3, torch.arange(6))
    assert sums.figures().keys() == {"same_person", "other_person"}
    sums.add(random_images(0), torch.arange(0), torch.arange(0))  # all of a batch were corrupt
    assert int(sums.real.counts.sum()) == 6


def test_a_person_with_many_pictures_weighs_no_more() -> None:
    """Nine pictures that come back as they are, and one of another person that comes back black."""
    images, labels = random_images(10), torch.tensor([0] * 9 + [1])

    def decode(codes: Tensor) -> Tensor:
        given = codes[:, :6].view(-1, *SHAPE)
        lost = torch.isclose(given, images[9:]).flatten(1).all(1)
        return torch.where(lost.view(-1, 1, 1, 1), -given, given)

    found = swaps_of(decode, images, labels, batch_size=10).figures()
    lost = cosine(-images[9], images[9])
    assert found["reconstruction"] == pytest.approx((1 + lost) / 2, abs=1e-6)


def test_one_class_has_nobody_to_swap_with() -> None:
    found = swaps_of(lambda codes: codes[:, :6].view(-1, *SHAPE), random_images(4), torch.full((4,), 2))
    assert found.figures().keys() == {"reconstruction", "same_person"}


@pytest.mark.parametrize(("largest", "num_swaps"), [(3, 30), (15, 30), (20, 20), (29, 2)])
def test_as_many_couples_as_there_can_be(largest: int, num_swaps: int) -> None:
    """Of 30 pictures ``largest`` are of one class; the others' neighbours are of one class, too."""
    labels = torch.cat([torch.zeros(largest), 1 + torch.arange(30 - largest) // 3]).long()
    giver, taker = couples(labels, torch.arange(100, 130), 0)
    assert len(giver) == num_swaps
    assert (labels[giver] != labels[taker]).all()
    partner = dict(zip(giver.tolist(), taker.tolist(), strict=True))
    assert len(partner) == num_swaps
    assert all(partner[partner[row]] == row for row in partner)


def test_couples_depend_on_seed_and_position_alone() -> None:
    labels, positions = torch.arange(24) % 6, torch.arange(48, 72)

    def pairs(order: Tensor, seed: int = 0, shift: int = 0) -> set[tuple[int, int]]:
        rows = couples(labels[order], positions[order] + shift, seed)
        return set(zip(*(order[r].tolist() for r in rows), strict=True))

    plain = pairs(torch.arange(24))
    assert pairs(torch.randperm(24, generator=torch.Generator().manual_seed(0))) == plain
    assert pairs(torch.arange(24), seed=1) != plain
    # other classes meet in another batch, although it has the same ones
    meetings = [frozenset((a % 6, b % 6) for a, b in pairs(torch.arange(24), shift=24 * i)) for i in range(4)]
    assert len(set(meetings)) > 1

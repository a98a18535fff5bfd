"""Seams: the correction against a dense solve, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dist_dsvae.sampling import blend

HEIGHT, WIDTH = 7, 9


def random_holes(num: int) -> Tensor:
    """Of any form: specks, edges, corners."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num, 1, HEIGHT, WIDTH, generator=generator) < 0.6


def differences(num: int) -> Tensor:
    return torch.randn(num, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))


def dense(difference: Tensor, hole: Tensor, length: float) -> Tensor:
    """One channel, pixel by pixel: sum over neighbours q of (f_q - f_p) = f_p / length^2, in float64."""
    places = {tuple(place): row for row, place in enumerate(hole.nonzero().tolist())}
    height, width = hole.shape
    matrix = torch.zeros(len(places), len(places), dtype=torch.float64)
    right = torch.zeros(len(places), dtype=torch.float64)
    for (y, x), row in places.items():
        matrix[row, row] += length**-2
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= near[0] < height and 0 <= near[1] < width):
                continue  # the edge of the picture
            matrix[row, row] += 1
            if near in places:
                matrix[row, places[near]] -= 1
            else:
                right[row] += float(difference[near])
    solved = torch.zeros(height, width, dtype=torch.float64)
    solved[hole] = torch.linalg.solve(matrix, right)
    return solved


@pytest.mark.parametrize("length", [1.5, float("inf")])
def test_the_correction_solves_the_equation(length: float) -> None:
    holes, difference = random_holes(4), differences(4)
    found = blend.correction(difference, holes, length)
    for image in range(4):
        for channel in range(3):
            expected = dense(difference[image, channel], holes[image, 0], length)
            torch.testing.assert_close(found[image, channel].double(), expected, atol=2e-3, rtol=0)


def test_a_constant_step_is_taken_away_whole_by_the_membrane() -> None:
    holes = random_holes(2)
    found = blend.correction(torch.full((2, 1, HEIGHT, WIDTH), 0.25), holes, float("inf"))
    torch.testing.assert_close(found, 0.25 * holes.float(), atol=1e-3, rtol=0)


def test_without_a_step_or_without_a_border_nothing_is_corrected() -> None:
    holes, generated = random_holes(2), differences(2).clamp(-1, 1)
    outside = torch.where(holes, 0.3, generated)
    assert torch.equal(blend.blended(outside, generated, holes), generated)
    whole = torch.ones_like(holes)
    assert torch.equal(blend.blended(torch.ones_like(generated), generated, whole), generated)
    none = torch.zeros(0, 3, HEIGHT, WIDTH)
    assert blend.blended(none, none, holes[:0]).shape == none.shape


def test_a_blended_picture_stays_in_range_and_depends_on_itself_alone() -> None:
    holes, generated = random_holes(3), differences(3).clamp(-1, 1)
    originals = -generated
    blended = blend.blended(originals, generated, holes)
    assert blended.abs().max() <= 1
    # what is under the holes is not looked at
    assert torch.equal(blended, blend.blended(originals.masked_fill(holes, 0.9), generated, holes))
    for i in range(3):
        alone = blend.blended(originals[i : i + 1], generated[i : i + 1], holes[i : i + 1])
        torch.testing.assert_close(alone[0], blended[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [6.0, float("inf")])
def test_big_pictures_are_solved_as_exactly(length: float) -> None:
    """Of odd sides, from coarser ones; a hole that meets three edges, and a speck that coarser ones lose."""
    hole = torch.zeros(41, 51, dtype=torch.bool)
    hole[:, 25:] = True
    hole[20, 10] = True
    difference = torch.linspace(-1, 1, 41)[:, None] * torch.linspace(0, 1, 51)
    found = blend.correction(difference[None, None], hole[None, None], length)[0, 0].double()
    torch.testing.assert_close(found, dense(difference, hole, length), atol=1e-3, rtol=0)


def test_the_seam_is_the_mean_step() -> None:
    image = torch.tensor([[0.0, 0.5, 0.1], [0.2, 0.9, 0.4]])[None, None]
    holes = torch.tensor([[False, True, False], [False, True, False]])[None, None]
    assert float(blend.seam(image, holes)) == pytest.approx((0.5 + 0.4 + 0.7 + 0.5) / 4)
    assert float(blend.seam(image, torch.ones_like(holes))) == 0

"""Paths through the latent space, single dimensions, masks and holes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.sampling import inpaint
from dist_dsvae.sampling.holes import HOLES, hole
from dist_dsvae.sampling.interpolate import PathNoise, interpolated_codes, places
from dist_dsvae.sampling.vary import expressiveness, varied_codes
from tests.unit.methods.making import make_method

CPU = torch.device("cpu")


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_zs_is_one_path_mapped_to_every_class(path: str) -> None:
    method = make_method().float()
    codes = interpolated_codes(method, [1, 4], places(5), moving="zs", seed=3, path=path, device=CPU)  # type: ignore[arg-type]
    zs, zu = codes.detach().view(2, 5, 10).split([6, 4], dim=2)
    assert torch.equal(zu, zu[:1, :1].expand_as(zu))
    mean, log_variance = (t.detach()[[1, 4]][:, None] for t in method.mixture_prior.components())
    z = (zs - mean) / torch.exp(0.5 * log_variance)
    torch.testing.assert_close(z[0], z[1], atol=1e-5, rtol=1e-5)
    half = (z[0, 0] + z[0, 4]) * (math.sqrt(0.5) if path == "spherical" else 0.5)
    torch.testing.assert_close(z[0, 2], half, atol=1e-5, rtol=1e-5)


def test_zu_moves_alike_for_all_classes_and_zs_stays() -> None:
    method = make_method(**{"prior_labels": "uniform"}).float()
    codes = interpolated_codes(method, [1, 4], places(3), moving="zu", seed=3, device=CPU).detach()
    zs, zu = codes.view(2, 3, 10).split([6, 4], dim=2)
    assert torch.equal(zu[0], zu[1])
    torch.testing.assert_close(zu[0, 1], (zu[0, 0] + zu[0, 2]) / 2)
    assert torch.equal(zs, zs[:, :1].expand_as(zs))
    assert not torch.equal(zs[0], zs[1])


def test_a_spherical_path_is_distributed_as_samples_are_and_a_linear_one_is_not() -> None:
    fractions = torch.tensor([0.0, 0.3, 0.5, 1.0])
    for path, expected in (
        ("spherical", [1.0, 1, 1, 1]),
        ("linear", [1, math.sqrt(0.58), math.sqrt(0.5), 1]),
    ):
        walking = PathNoise(0, fractions, path).normal(Draw.SAMPLE_ZU, 20_000)  # type: ignore[arg-type]
        torch.testing.assert_close(walking.std(1), torch.tensor(expected), atol=0.02, rtol=0)
    samples = Noise(0, torch.arange(4)).normal(Draw.SAMPLE_ZU, 20_000)
    assert (samples @ walking.T / 20_000).abs().max() < 0.05  # nothing in common


def test_one_dimension_is_varied() -> None:
    codes = torch.arange(10.0).view(2, 5)
    varied = varied_codes(codes, 3, 1, (-3.0, 0.5))
    assert varied.tolist() == [
        [0, 1, 2, -3, 4],
        [0, 1, 2, 0.5, 4],
        [5, 6, 7, -3, 9],
        [5, 6, 7, 0.5, 9],
    ]
    assert torch.equal(codes, torch.arange(10.0).view(2, 5))


def test_expressiveness_is_the_change_of_the_picture() -> None:
    strengths = torch.tensor([0.0, 0.25, 3.0])

    def decode(codes: torch.Tensor) -> torch.Tensor:
        return (codes[:, 2:] * strengths).sum(1)[:, None, None, None].expand(-1, 1, 4, 4)

    change = expressiveness(decode, torch.randn(5, 5), 3)
    torch.testing.assert_close(change, 4 * strengths, atol=1e-5, rtol=1e-5)


def test_masks_scale_with_the_picture() -> None:
    for name, rectangle in HOLES.items():
        small, large = hole(rectangle, 32, 32), hole(rectangle, 64, 128)
        area = (rectangle.bottom - rectangle.top) * (rectangle.right - rectangle.left)
        assert float(small.mean()) == pytest.approx(area, abs=0.04), name
        assert float(large.mean()) == pytest.approx(area, abs=0.02), name
    right, bottom = (hole(HOLES[name], 32, 32) for name in ("right-half", "bottom-half"))
    assert right[:, 16:].all()
    assert not right[:, :16].any()
    assert bottom[16:].all()
    assert not bottom[:16].any()


def test_holes_are_filled_and_measured() -> None:
    images = torch.tensor([[0.1, 0.2], [0.3, 0.4]]).view(1, 1, 2, 2)
    holes = torch.tensor([[True, False], [False, True]]).view(1, 1, 2, 2)
    generated = torch.full_like(images, 0.5)
    assert inpaint.corrupted(images, holes).flatten().tolist() == pytest.approx(
        [inpaint.FILL, 0.2, 0.3, inpaint.FILL]
    )
    painted = inpaint.filled(images, generated, holes)
    assert torch.equal(painted, torch.tensor([0.5, 0.2, 0.3, 0.5]).view(1, 1, 2, 2))
    assert float(inpaint.hole_error(painted, images, holes)) == pytest.approx((0.4**2 + 0.1**2) / 2)


def painting(images: Tensor, holes: Tensor) -> Callable[[Tensor], Tensor]:
    """The energy of a decoder that paints its codes, under N(0, I)."""
    return inpaint.codes_energy(
        lambda codes: codes.view_as(images), lambda codes: 0.5 * codes.square().sum(1), images, holes
    )


def test_refined_codes_are_the_likeliest_given_the_known_pixels() -> None:
    """Closed form: every known pixel is x w / (w + 1) for the precision w of a pixel, every other one 0."""
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    holes = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    holes[:, :, 0, 1] = True
    start = torch.full((3, 4), 0.2)
    codes = inpaint.refined(painting(images, holes), [start], 1, 300)
    precision = 32 * 32 / 4 / 0.6**2  # the constants of the module
    expected = (images * precision / (precision + 1)).masked_fill(holes, 0.0).flatten(1)
    expected[:, 0] = 0.2  # fixed
    torch.testing.assert_close(codes, expected, atol=1e-3, rtol=0)
    assert not codes.requires_grad
    energy = 0.5 * expected.square().sum(1)
    energy += precision / 2 * ((expected - images.flatten(1)) * ~holes.flatten(1)).square().sum(1)
    torch.testing.assert_close(painting(images, holes)(codes), energy, atol=1e-2, rtol=1e-4)


def test_a_refined_picture_does_not_depend_on_the_others() -> None:
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    holes = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    starts = [torch.zeros(3, 4), torch.full((3, 4), 0.5)]
    codes = inpaint.refined(painting(images, holes), starts, 0, 5)
    one = slice(1, 2)
    alone = inpaint.refined(painting(images[one], holes[one]), [start[one] for start in starts], 0, 5)
    assert torch.equal(alone[0], codes[1])


def test_each_picture_keeps_its_start_of_least_energy() -> None:
    """A double well: Adam stays in the well it starts in, and one is deeper."""

    def energy(codes: Tensor) -> Tensor:
        return (codes.square() - 1).square().sum(1) + 0.1 * codes.sum(1)

    starts = [torch.tensor([[1.1], [-1.1], [1.1]]), torch.tensor([[0.9], [0.9], [-0.9]])]
    codes = inpaint.refined(energy, starts, 0, 100)
    assert codes[:, 0].sign().tolist() == [1, -1, -1]
    assert all((energy(codes) <= energy(start) + 1e-6).all() for start in starts)

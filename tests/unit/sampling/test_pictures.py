"""Grids and scatter plots: what is drawn, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae.config import DSVAEConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Codes, Gaussian
from dist_dsvae.sampling.fitted_prior import fit_prior
from dist_dsvae.sampling.generate import class_grid, sample_codes, spread
from dist_dsvae.sampling.grids import draw_grid, draw_scatter, save_scatter, to_pil
from dist_dsvae.sampling.image_file import write_image
from dist_dsvae.sampling.swap import swap_grid
from tests.unit.methods.making import make_any


class Showing:
    """A generative method whose images are its codes."""

    num_classes, zu_dim = 4, 2

    def __init__(self) -> None:
        self.codes: list[torch.Tensor] = []
        self.dsvae = make_any(DSVAEConfig()).float()
        with torch.no_grad():
            self.dsvae.mixture_prior.log_variance.fill_(-20.0)  # clamped to -10: zs stays near its mean

    def prior_codes(self, labels, zs_noise, zu_noise):  # type: ignore[no-untyped-def]
        return self.dsvae.prior_codes(labels, zs_noise, zu_noise)

    def encode(self, images, labels):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    def decode(self, codes: torch.Tensor, kind: str) -> torch.Tensor:
        self.codes.append(codes)
        return codes[:, :, None, None]


def test_columns_share_zu_and_rows_a_class() -> None:
    method = Showing()
    grid = class_grid(method, [0, 2, 3], 5, seed=7, device=torch.device("cpu"))
    assert grid.shape == (3, 5, 10, 1, 1)
    zs, zu = method.codes[0].view(3, 5, 10).split([6, 4], dim=2)
    means = method.dsvae.mixture_prior.mean.detach()
    torch.testing.assert_close(zs, means[[0, 2, 3]][:, None].expand(3, 5, 6), atol=0.05, rtol=0)
    assert torch.equal(zu, zu[:1].expand_as(zu))
    assert not torch.equal(zu[0, 0], zu[0, 1])


def test_a_sample_depends_on_its_number_only() -> None:
    labels = torch.tensor([1, 2, 3, 0, 1])
    whole = sample_codes(Showing(), labels, seed=1)
    assert torch.equal(whole[:2], sample_codes(Showing(), labels[:2], seed=1))
    assert not torch.equal(whole, sample_codes(Showing(), labels, seed=2))


def test_swap_grid_takes_zs_from_rows_and_zu_from_columns() -> None:
    def codes(values: list[float]) -> Codes:
        column = torch.tensor(values)[:, None]
        return Codes(column, Gaussian(10 * column, torch.zeros_like(column)))

    grid = swap_grid(Showing(), codes([1.0, 2.0]), codes([1.0, 2.0, 3.0]))
    assert grid[..., 0, 0].sum(2).tolist() == [[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]


def test_a_fitted_prior_has_the_moments_of_the_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(2000)
    zs = torch.randn(6000, 2, generator=generator) * (labels[:, None] + 1) + 10 * labels[:, None]
    zu = torch.randn(6000, 4, generator=generator) * 0.3 - 1
    prior = fit_prior(zs, zu, labels, 3)
    positions = torch.arange(6000)
    drawn = prior.codes(labels, *[Noise(4, positions)] * 2)
    for label in range(3):
        own = drawn[labels == label, :2]
        torch.testing.assert_close(own.mean(0), zs[labels == label].mean(0), atol=0.3, rtol=0)
        torch.testing.assert_close(own.std(0), zs[labels == label].std(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn[:, 2:].mean(0), torch.full((4,), -1.0), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn[:, 2:].std(0), torch.full((4,), 0.3), atol=0.03, rtol=0)
    assert torch.equal(drawn[5:9], prior.codes(labels[5:9], *[Noise(4, positions[5:9])] * 2))
    with pytest.raises(ValueError, match="class 3 has 0 image"):
        fit_prior(zs, zu, labels, 4)


def test_spread() -> None:
    assert spread(10, 10) == list(range(10))
    assert spread(3, 10) == [0, 1, 2]
    assert spread(530, 4) == [0, 132, 265, 397]


def test_grid_shows_every_tile_unsmoothed(tmp_path: Path) -> None:
    values = torch.linspace(-1, 1, 6).view(2, 3, 1, 1, 1)
    images = values.expand(2, 3, 1, 32, 32)
    heads = torch.full((3, 1, 32, 32), -1.0)
    path = tmp_path / "deep" / "grid.png"
    write_image(
        path,
        draw_grid(images, title="t", row_names=["a", "long name"], row_images=heads[:2], column_images=heads),
    )
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for value in values.flatten():
        grey = round((float(value) + 1) * 127.5)
        assert (pixels == grey).all(axis=2).sum() >= 64 * 64  # one tile, enlarged twice
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_colours_and_clipping() -> None:
    image = torch.tensor([2.0, -1.0, 0.0]).view(3, 1, 1).expand(3, 2, 2)
    assert to_pil(image).getpixel((0, 0)) == (255, 0, 128)


def test_scatter_has_a_panel_per_cloud(tmp_path: Path) -> None:
    points, labels = torch.randn(90, 2), torch.arange(90) % 3
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    save_scatter(one, [("real", points, labels)], ["a", "b", "c"])
    save_scatter(two, [("real", points, labels), ("ours", points, labels)], ["a", "b", "c"])
    assert Image.open(two).width > 1.8 * Image.open(one).width


NAMES = ["$\\frac{$", "_hidden", "a\x1b[31m\n\u202eb\ud800", "book " * 10**5, "<b>\0</b>"]


def test_whatever_classes_are_called_they_are_drawn_as_text(tmp_path: Path) -> None:
    """No formula is set, none is left out, and no name makes a picture wider than a screen."""
    points, labels = torch.randn(50, 2), torch.arange(50) % 5
    figure = draw_scatter([("real $\\frac{$", points, labels)], NAMES)
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown[:3] == ["$\\frac{$", "_hidden", "a [31m b"]
    assert max(map(len, shown)) == 60
    save_scatter(tmp_path / "cloud.png", [("real $\\frac{$", points, labels)], NAMES)
    images = torch.zeros(5, 5, 1, 32, 32)
    write_image(
        tmp_path / "grid.png", draw_grid(images, title="t\ud800" * 10**4, row_names=NAMES, column_names=NAMES)
    )
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width < 3000

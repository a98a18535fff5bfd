"""Grids and scatter plots: what is drawn, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dist_dsvae.models.mixture_prior import MixturePrior
from dist_dsvae.sampling.generate import class_grid, sample_codes, spread
from dist_dsvae.sampling.grids import save_grid, save_scatter, to_picture
from dist_dsvae.sampling.swap import swap_grid


def prior() -> MixturePrior:
    torch.manual_seed(0)
    return MixturePrior(4, 3, -10.0)


def test_columns_share_zu_and_rows_a_class() -> None:
    codes: list[torch.Tensor] = []

    def decode(batch: torch.Tensor) -> torch.Tensor:
        codes.append(batch)
        return batch[:, :, None, None]

    p = prior()
    with torch.no_grad():
        p.log_variance.fill_(-20.0)  # clamped to -10: zs stays within a hair of its class mean
    grid = class_grid(decode, p, [0, 2, 3], 5, zu_dim=2, seed=7)
    assert grid.shape == (3, 5, 5, 1, 1)
    zs, zu = codes[0].view(3, 5, 5).split([3, 2], dim=2)
    torch.testing.assert_close(zs, p.mean.detach()[[0, 2, 3]][:, None].expand(3, 5, 3), atol=0.05, rtol=0)
    assert torch.equal(zu, zu[:1].expand_as(zu))
    assert not torch.equal(zu[0, 0], zu[0, 1])


def test_a_sample_depends_on_its_number_only() -> None:
    labels = torch.tensor([1, 2, 3, 0, 1])
    whole = sample_codes(prior(), labels, 2, seed=1)
    assert torch.equal(whole[:2], sample_codes(prior(), labels[:2], 2, seed=1))
    assert not torch.equal(whole, sample_codes(prior(), labels, 2, seed=2))


def test_swap_grid_takes_zs_from_rows_and_zu_from_columns() -> None:
    rows, columns = torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    grid = swap_grid(lambda x: x, lambda x: x, lambda codes: codes.sum(1, keepdim=True), rows, columns)
    assert grid[..., 0].tolist() == [[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]


def test_spread() -> None:
    assert spread(10, 10) == list(range(10))
    assert spread(3, 10) == [0, 1, 2]
    assert spread(530, 4) == [0, 132, 265, 397]


def test_grid_shows_every_tile_unsmoothed(tmp_path: Path) -> None:
    values = torch.linspace(-1, 1, 6).view(2, 3, 1, 1, 1)
    images = values.expand(2, 3, 1, 32, 32)
    heads = torch.full((3, 1, 32, 32), -1.0)
    path = tmp_path / "deep" / "grid.png"
    save_grid(
        path, images, title="t", row_names=["a", "long name"], row_images=heads[:2], column_images=heads
    )
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for value in values.flatten():
        grey = round((float(value) + 1) * 127.5)
        assert (pixels == grey).all(axis=2).sum() >= 64 * 64  # one tile, enlarged twice
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_colours_and_clipping() -> None:
    image = torch.tensor([2.0, -1.0, 0.0]).view(3, 1, 1).expand(3, 2, 2)
    assert to_picture(image).getpixel((0, 0)) == (255, 0, 128)


def test_scatter_has_a_panel_per_cloud(tmp_path: Path) -> None:
    points, labels = torch.randn(90, 2), torch.arange(90) % 3
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    save_scatter(one, [("real", points, labels)], ["a", "b", "c"])
    save_scatter(two, [("real", points, labels), ("ours", points, labels)], ["a", "b", "c"])
    assert Image.open(two).width > 1.8 * Image.open(one).width

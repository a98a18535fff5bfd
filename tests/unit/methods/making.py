"""Small methods and batches for tests, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dist_dsvae.config import DSVAEConfig, MethodConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch, ImageShape
from dist_dsvae.methods.choose import make_method as choose
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.methods.update import Method, objective
from dist_dsvae.models.augmentation import NUM_NUMBERS, NUM_POSE_NUMBERS, Group, augmented, posed
from dist_dsvae.models.sampled_classes import draw_classes

SHAPES = {
    "small": ImageShape(1, 32, 32),
    "small32": ImageShape(1, 32, 32),
    "conv32": ImageShape(3, 32, 32),
    "mlp2d": ImageShape(2, 0, 0),
}
NUM_CLASSES = 5
DRAWS = {
    "posterior_zu": Draw.POSTERIOR_ZU,
    "prior_zs": Draw.PRIOR_ZS,
    "prior_zu": Draw.PRIOR_ZU,
    "posterior_zs": Draw.POSTERIOR_ZS,
    "stage_1_zs": Draw.STAGE_1_ZS,
}
# every term and choice beyond the paper
BEYOND: dict[str, object] = {
    "zs_posterior": "gaussian",
    "mixture_fit": "moments",
    "mixture_spread": 1.5,
    "aggregate_weight": 3.0,
    "code_weight": 0.5,
    "mixture_separation": 2.0,
    "mixture_pair_separation": 8.0,
    "discriminator_gain": 5.0,
    "sampled_classes": 2,
}


def make_method(architecture: str = "small32", zs_dim: int = 6, zu_dim: int = 4, **settings: object) -> DSVAE:
    torch.manual_seed(0)
    model = ModelConfig(architecture=architecture, zs_dim=zs_dim, zu_dim=zu_dim)
    method = DSVAE(DSVAEConfig(**settings), model, SHAPES[architecture], NUM_CLASSES).double()
    with torch.no_grad():  # variances that differ, so that no test passes by their being 1
        method.mixture_prior.log_variance.normal_(0, 0.3)
    return method


def make_any(
    config: MethodConfig, architecture: str = "small32", num_classes: int = NUM_CLASSES
) -> nn.Module:
    """The method of ``config`` in float64, always from the same weights."""
    torch.manual_seed(0)
    model = ModelConfig(architecture=architecture, zs_dim=6, zu_dim=4)
    shape = SHAPES[architecture if architecture in SHAPES else "small32"]
    return choose(config, model, shape, num_classes).double()


def make_batch(shape: ImageShape, size: int = 6, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(first + 1)
    dims = (size, shape.channels, shape.height, shape.width) if shape.is_image else (size, shape.channels)
    images = torch.rand(dims, generator=generator, dtype=torch.float64) * 2 - 1
    labels = torch.randint(NUM_CLASSES, (size,), generator=generator)
    return Batch(images, labels, torch.arange(first, first + size))


def summed(method: Method, terms: dict[str, Tensor]) -> Tensor:
    """What one backward pass of these terms begins with."""
    return objective(method, tuple(terms), terms)[0]


def named_gradients(method: nn.Module, value: Tensor) -> dict[str, Tensor | None]:
    """Of all parameters by their names, by one backward pass; None where ``value`` does not depend on one,
    or where no gradient is ever asked for.
    """
    names, parameters = zip(*((n, p) for n, p in method.named_parameters() if p.requires_grad), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    nothing: dict[str, Tensor | None] = {name: None for name, _ in method.named_parameters()}
    return nothing | dict(zip(names, found, strict=True))


def assert_routed(
    method: Method,
    term: str,
    networks: Sequence[str],
    gradients: Mapping[str, Tensor | None],
    *,
    rtol: float,
) -> None:
    """What ``term`` alone left in each network is the table's weight times ``gradients``; else nothing."""
    for network in networks:
        weight = method.routing[term].get(network, 0.0)
        own = cast(nn.Module, method).get_submodule(network).named_parameters(network)
        got = {name: parameter.grad for name, parameter in own}
        if weight == 0.0:
            assert all(g is None or not g.any() for g in got.values()), f"{term} leaks into {network}"
            continue
        assert any(g is not None and g.any() for g in got.values()), f"{term} does not train {network}"
        for name, g in got.items():
            e = gradients[name]
            if e is None:  # a parameter the term does not depend on, such as a frozen bias
                assert g is None or not g.any()
                continue
            torch.testing.assert_close(g, weight * e, rtol=rtol, atol=1e-10, msg=f"{term} on {network}")


def noise_for(batch: Batch) -> Noise:
    return Noise(9, batch.positions, torch.float64)


def seen_by_the_discriminator(batch: Batch):  # type: ignore[no-untyped-def]
    """The oracle's view of the same augmentation: (group, images) -> images."""
    numbers = noise_for(batch).uniform(Draw.AUGMENTATION, len(Group) * NUM_NUMBERS)

    def seen(group: str, images: Tensor) -> Tensor:
        return augmented(images, numbers.split(NUM_NUMBERS, dim=1)[Group[group.upper()]])

    return seen


def seen_by_networks(config: DSVAEConfig, batch: Batch):  # type: ignore[no-untyped-def]
    """The same, and encoder_s's in stage 1, group "stage_1": as ``config`` has them augmented."""
    discriminator = seen_by_the_discriminator(batch)

    def seen(group: str, images: Tensor) -> Tensor:
        if group == "stage_1":
            numbers = noise_for(batch).uniform(Draw.STAGE_1_AUGMENTATION, NUM_POSE_NUMBERS)
            return posed(images, numbers) if config.stage_1_augmentation == "on" else images
        return discriminator(group, images) if config.augmentation == "on" else images

    return seen


def drawn_for(batch: Batch) -> list[int]:
    """The classes that L_cls of such a batch draws from, with ``sampled_classes`` 2."""
    return draw_classes(9, batch.positions[0], NUM_CLASSES, 3).tolist()


def normal_for(batch: Batch):  # type: ignore[no-untyped-def]
    """The oracle's view of the same noise."""

    def normal(draw: str, size: int) -> Tensor:
        return noise_for(batch).normal(DRAWS[draw], size)

    return normal

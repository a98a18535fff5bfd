"""What ``DSVAE`` does with codes: samples, paths, single dimensions, swaps, holes to paint."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dist_dsvae.noise import Noise
from dist_dsvae.pretrained.networks import Networks
from dist_dsvae.pretrained.pictures import Kind, to_network
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.sampling import inpaint, interpolate, vary
from dist_dsvae.sampling.temperature import Temperatures


def samples(
    networks: Networks,
    labels: Tensor,
    numbers: Tensor,
    seed: int,
    kind: Kind,
    temperatures: Temperatures,
    *,
    shared_zu: bool,
) -> Tensor:
    """The numbers[i]-th sample of class labels[i]; with shared_zu, equal numbers share their zu."""
    method = networks.generative()
    prior, statistics = networks.prior(temperatures)
    positions = numbers * method.num_classes + labels
    zu_positions = numbers if shared_zu else positions

    def draw(labels: Tensor, positions: Tensor, zu_positions: Tensor) -> tuple[Tensor]:
        codes = prior(labels, Noise(seed, positions), Noise(seed, zu_positions))
        return (kind.stored(method.decoding_network()(codes, statistics)),)

    return networks.run(draw, labels, positions, zu_positions)[0]


def path_codes(
    networks: Networks,
    classes: list[int],
    num_steps: int,
    moving: Literal["zs", "zu"],
    seed: int,
    path: interpolate.Path,
) -> Tensor:
    """``sampling.interpolate.interpolated_codes``. Raises RequestError for another code or path."""
    if moving not in ("zs", "zu") or path not in ("linear", "spherical"):
        raise RequestError(
            f'moving is {moving!r} and path {path!r}; allowed are "zs", "zu" and "linear", "spherical".'
        )
    method, device = networks.generative(), networks.device
    return interpolate.interpolated_codes(
        method, classes, num_steps, moving=moving, seed=seed, path=path, device=device
    )


def dimension_codes(
    networks: Networks, dim: int, classes: list[int], num_steps: int, extent: float, seed: int
) -> Tensor:
    """``sampling.vary.varied_codes`` from -extent to extent. Raises RequestError for no such dimension."""
    method = networks.generative()
    if not 0 <= dim < method.zu_dim:
        raise RequestError(f"zu has no dimension {dim}; this model's are 0 to {method.zu_dim - 1}.")
    labels = torch.tensor(classes, device=networks.device)
    noise = Noise(seed, torch.zeros_like(labels))
    values = torch.linspace(-extent, extent, num_steps).tolist()
    return vary.varied_codes(method.prior_codes(labels, noise, noise), method.zu_dim, dim, values)


def expressiveness(networks: Networks, num_codes: int, seed: int) -> Tensor:
    """``sampling.vary.expressiveness`` over samples of the classes in turn: [zu_dim]."""
    method, kind = networks.generative(), Kind("tensor", torch.float32, torch.device("cpu"))
    numbers = torch.arange(num_codes, device=networks.device)
    noise = Noise(seed, numbers)
    codes = method.prior_codes(numbers % method.num_classes, noise, noise)
    return vary.expressiveness(lambda rows: networks.decode(rows, kind, "prior"), codes, method.zu_dim)


def paired(zs: Tensor, zu: Tensor) -> Tensor:
    """Codes of as many zs as zu, or of one of them with all of the other."""
    if len(zs) != len(zu) and 1 not in (len(zs), len(zu)):
        raise RequestError(
            f"a has {len(zs)} pictures and b {len(zu)}; give as many, one for all, or use swap_grid."
        )
    count = max(len(zs), len(zu)) if min(len(zs), len(zu)) else 0
    return torch.cat([zs.expand(count, -1), zu.expand(count, -1)], dim=1)


def crossed(zs: Tensor, zu: Tensor) -> Tensor:
    """Codes of every zs [R, ...] with every zu [K, ...], row by row."""
    return torch.cat([zs.repeat_interleave(len(zu), dim=0), zu.repeat(len(zs), 1)], dim=1)


def painted(
    networks: Networks, originals: Tensor, kind: Kind, holes: Tensor, labels: Tensor, refine_steps: int
) -> Tensor:
    """``originals``, in their own values, with their ``holes`` painted (``sampling.inpaint``)."""
    method = networks.autoencoding()
    if refine_steps < 0:
        raise RequestError(f"refine_steps is {refine_steps}; it must be at least 0.")

    def decode(codes: Tensor) -> Tensor:
        return method.decode(codes, "images")

    def paint(originals: Tensor, holes: Tensor, labels: Tensor) -> tuple[Tensor]:
        pictures = to_network(originals)
        zs, zu = networks.posterior(method, inpaint.corrupted(pictures, holes), labels)
        codes = torch.cat([zs, zu.mean], dim=1)
        if refine_steps:
            # A one-hot label is no code to improve.
            num_fixed = 0 if networks.encodes_without_labels else zs.shape[1]
            fixed, free = codes[:, :num_fixed], codes[:, num_fixed:]
            codes = inpaint.refined(decode, fixed, free, pictures, holes, refine_steps, method.zu_dim)
        generated = kind._replace(device=originals.device).stored(decode(codes))
        return (inpaint.filled(originals, generated, holes).to(kind.device),)

    return networks.run(paint, originals, holes, labels)[0]

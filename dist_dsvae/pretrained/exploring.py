"""What ``PretrainedModel`` does with codes: samples, paths, single dimensions, swaps, holes to paint."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.methods.abilities import LabelFree
from dist_dsvae.pretrained.image_kinds import Kind, to_network
from dist_dsvae.pretrained.networks import Networks
from dist_dsvae.pretrained.requests import ClassNames, RequestError
from dist_dsvae.sampling import inpaint, interpolate, vary
from dist_dsvae.sampling.blend import blended
from dist_dsvae.sampling.temperature import Temperatures

Read = tuple[Tensor, Kind]  # by ``read_images``
Labelled = tuple[Read, ClassNames | None]

_STARTS_SEED = 0


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
    """The numbers[i]-th sample of class labels[i]; with shared_zu, equal numbers share their zu.

    Raises RequestError for a temperature of a code that the model does not have.
    """
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
    fractions: Tensor,
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
    if moving == "zs" and not isinstance(method, LabelFree):
        raise RequestError(
            f"A {networks.name} has the label in the place of zs, which no path goes through. Move zu."
        )
    return interpolate.interpolated_codes(
        method, classes, fractions, moving=moving, seed=seed, path=path, device=device
    )


def dimension_codes(
    networks: Networks, dim: int, classes: list[int], num_steps: int, extent: float, seed: int
) -> Tensor:
    """``sampling.vary.varied_codes`` from -extent to extent. Raises RequestError for what there is not."""
    method = networks.generative()
    if not 0 <= dim < method.zu_dim:
        raise RequestError(f"zu has no dimension {dim}; this model's are 0 to {method.zu_dim - 1}.")
    if not math.isfinite(extent):
        raise RequestError(f"extent is {extent}; it must be a finite number of the prior's deviations.")
    labels = torch.tensor(classes, dtype=torch.int64, device=networks.device)
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


def codes_of_two(networks: Networks, a: Labelled, b: Labelled) -> tuple[Tensor, Tensor, Kind]:
    """zs of ``a``, the mean of zu of ``b``, both on ``a``'s device, and the kind of their offspring.

    Raises as ``encode`` does.
    """
    (first, kind), (second, other) = a[0], b[0]
    zs, zu = networks.encode(first, kind, a[1]).zs, networks.encode(second, kind, b[1]).zu.mean
    return zs, zu, kind._replace(is_single=kind.is_single and other.is_single)


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


class Painting(NamedTuple):
    """How holes are painted: see ``PretrainedModel.inpaint``."""

    refine_steps: int
    num_starts: int
    blend: bool


def painted(
    networks: Networks,
    images: Read,
    holes: Tensor,
    labels: ClassNames | None,
    how: Painting,
) -> Any:
    """``images``, in their own values and as their kind, with their holes painted (``sampling.inpaint``).

    holes: bool [N, 1, H, W].
    """
    method = networks.autoencoding()
    for name, number in (("refine_steps", how.refine_steps), ("num_starts", how.num_starts)):
        if number < 0:
            raise RequestError(f"{name} is {number}; it must be at least 0.")
    originals, kind = images
    known = networks.known_labels(labels, len(originals))

    def paint(originals: Tensor, holes: Tensor, ids: Tensor | None = None) -> tuple[Tensor]:
        inputs = to_network(originals)
        zs, zu = networks.posterior(method, inpaint.corrupted(inputs, holes), ids)
        codes = torch.cat([zs, zu.mean], dim=1)
        if how.refine_steps:
            codes = _refined(networks, codes, inputs, holes, ids, how)
        generated = method.decode(codes, "images")
        if how.blend:
            generated = blended(inputs, generated, holes)
        generated = kind._replace(device=originals.device).stored(generated)
        return (inpaint.filled(originals, generated, holes).to(kind.device),)

    with torch.inference_mode(False):  # Adam needs gradients, even where the caller wants none
        return kind.wrap(networks.run(paint, originals, holes, *known)[0])


def _refined(
    networks: Networks, codes: Tensor, images: Tensor, holes: Tensor, labels: Tensor | None, how: Painting
) -> Tensor:
    """From ``codes``, those of the encoders, and from ``how.num_starts`` draws of the prior."""
    method, density = networks.generative(), networks.prior_density()

    def start(number: int) -> Tensor:
        # One noise for all pictures, so that none depends on its place among the others
        noise = Noise(_STARTS_SEED, torch.full((len(codes),), number, device=codes.device))
        drawn = noise.integers(Draw.PRIOR_LABEL, method.num_classes) if labels is None else labels
        return method.prior_codes(drawn, noise, noise)

    # Codes of pictures, drawn ones too: they are to become those of these pictures
    energy = inpaint.codes_energy(
        lambda codes: method.decode(codes, "images"),
        lambda codes: -density.log_prior(codes, labels),
        images,
        holes,
    )
    starts = (codes, *(start(number) for number in range(how.num_starts)))
    # A one-hot label is no code to improve.
    num_fixed = 0 if networks.encodes_without_labels else codes.shape[1] - method.zu_dim
    return inpaint.refined(energy, starts, num_fixed, how.refine_steps)

"""Spectral normalisation of all weights of a network at once (Miyato et al., 2018).

    W / sigma, with sigma = |W' u|, u = W v / |W v|, and v = W' u / |W' u| kept for the next time

That is torch's own parametrisation: one power iteration per forward in training, the names of its buffers,
and its initial vectors. But for a handful of layers torch takes some thirty small operators each, forward and
backward; here what is no product with a weight is done for all weights together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from dist_dsvae.models.casting import takes_half

_FIRST_ITERATIONS = 15

Layer = TypeVar("Layer", bound=nn.Module)


def spectral_norm(layer: Layer) -> Layer:
    """``layer`` with its weight divided by that weight's largest singular value, as torch does it."""
    weight = cast(Tensor, layer.weight)
    # Of shapes without memory nothing is calculated: PyTorch would import its compiler for that, in seconds.
    parametrize.register_parametrization(layer, "weight", SpectralNorm(weight), unsafe=weight.is_meta)
    return layer


class SpectralNorm(nn.Module):
    """The parametrisation of one weight [out, ...]: u [out] and v [the rest, flattened] as buffers."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = weight.detach().flatten(1)
        u, v = (rows.new_empty(size) for size in rows.shape)
        self._u: Tensor
        self._v: Tensor
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        if not weight.is_meta:
            for vector in (u, v):
                vector.copy_(F.normalize(vector.normal_(), dim=0))
            self.converge(weight)
        self.ready: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight: made with the network's others (``normalised_together``), or by itself."""
        return self.ready if self.ready is not None else _normalised([self], [weight], [weight.dtype])[0]

    @torch.no_grad()
    def converge(self, weight: Tensor) -> None:
        """Bring u and v to a weight that is not the one they followed."""
        rows, v = weight.detach().flatten(1), self._v.clone()
        for _ in range(_FIRST_ITERATIONS):
            u = F.normalize(rows @ v, dim=0)
            v = F.normalize(rows.T @ u, dim=0)
        self._u.copy_(u)
        self._v.copy_(v)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


@contextmanager
def normalised_together(network: nn.Module, device_type: str) -> Iterator[None]:
    """Inside, the weights of ``network`` are normalised: once, in full precision, whatever they are used for.

    Under autocast, weights of layers that it would cast are made in its type.
    """
    layers = [module for module in network.modules() if parametrize.is_parametrized(module, "weight")]
    lists = [cast(Any, layer).parametrizations.weight for layer in layers]
    norms = [cast(SpectralNorm, of_layer[0]) for of_layer in lists]
    weights = [cast(Tensor, of_layer.original) for of_layer in lists]
    dtypes = [weight.dtype for weight in weights]
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        half = torch.get_autocast_dtype(device_type)
        dtypes = [half if takes_half(layer) else dtype for layer, dtype in zip(layers, dtypes, strict=True)]
    with torch.autocast(device_type, enabled=False):
        for norm, weight in zip(norms, _normalised(norms, weights, dtypes), strict=True):
            norm.ready = weight
    try:
        yield
    finally:
        for norm in norms:
            norm.ready = None


def _normalised(
    norms: Sequence[SpectralNorm], weights: Sequence[Tensor], dtypes: Sequence[torch.dtype]
) -> tuple[Tensor, ...]:
    normalised: tuple[Tensor, ...] = _Normalised.apply(norms, dtypes, *weights)
    return normalised


class _Normalised(torch.autograd.Function):
    """Weights as matrices are read in memory order, so that no layout has to be changed for it."""

    @staticmethod
    def forward(
        ctx: Any, norms: Sequence[SpectralNorm], dtypes: Sequence[torch.dtype], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        matrices = [_matrix(weight) for weight in weights]
        count = len(norms)
        # the vectors as rows of one matrix, u above v, with zeros behind the shorter ones
        vectors = weights[0].new_zeros(2 * count, max(max(matrix.shape) for matrix in matrices))
        us = [vectors[i, : len(m)] for i, m in enumerate(matrices)]
        vs = [vectors[count + i, : m.shape[1]] for i, m in enumerate(matrices)]
        earlier = [
            _reordered(norm._v, weight).reshape(-1) for norm, weight in zip(norms, weights, strict=True)
        ]
        if norms[0].training:
            for matrix, before, u, v in zip(matrices, earlier, us, vs, strict=True):
                torch.mv(matrix, before, out=u)
                torch.mv(matrix.T, u, out=v)
            lengths = torch.linalg.vector_norm(vectors, dim=1).clamp_min_(torch.finfo(vectors.dtype).tiny)
            vectors.div_(lengths[:, None])
            sigmas = lengths[count:] / lengths[:count]  # v was made from a u that was not a unit vector yet
            _keep(norms, weights, us, vs)
        else:
            torch._foreach_copy_([*us, *vs], [*(norm._u for norm in norms), *earlier])
            sigmas = torch.stack([u @ (m @ v) for u, m, v in zip(us, matrices, vs, strict=True)])
        ctx.save_for_backward(vectors, sigmas, *weights)
        return tuple(
            weight / sigma if dtype == weight.dtype else _divided_into(dtype, weight, sigma)
            for weight, sigma, dtype in zip(weights, sigmas.unbind(), dtypes, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """By W, from G by W / sigma: (G - <G, W> / sigma u v') / sigma."""
        vectors, sigmas, *weights = ctx.saved_tensors
        count = len(weights)
        wide = [torch.empty_like(weight) for weight in weights]
        torch._foreach_copy_(wide, list(gradients))
        matrices = [_matrix(gradient) for gradient in wide]
        products = torch.empty_like(sigmas)
        for product, matrix, weight in zip(products.unbind(), matrices, weights, strict=True):
            torch.dot(matrix.flatten(), _matrix(weight).flatten(), out=product)
        us = vectors[:count] * (products / sigmas)[:, None]
        for i, (matrix, sigma) in enumerate(zip(matrices, sigmas.unbind(), strict=True)):
            rows, columns = matrix.shape
            matrix.addr_(us[i, :rows], vectors[count + i, :columns], alpha=-1.0).div_(sigma)
        return None, None, *wide


def _is_channels_last(weight: Tensor) -> bool:
    return weight.dim() == 4 and not weight.is_contiguous()


def _matrix(weight: Tensor) -> Tensor:
    """[out, the rest] in memory order: a view of a weight that is dense, channels-last or not."""
    return (weight.permute(0, 2, 3, 1) if _is_channels_last(weight) else weight).flatten(1)


def _reordered(v: Tensor, weight: Tensor) -> Tensor:
    """A view of v, kept in the order of a contiguous weight, in the order of ``_matrix``'s columns."""
    return v.view(weight.shape[1:]).permute(1, 2, 0) if _is_channels_last(weight) else v


def _keep(
    norms: Sequence[SpectralNorm], weights: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor]
) -> None:
    """Write the vectors into the buffers; those that are reordered one by one, the others at once."""
    alike, values = [norm._u for norm in norms], list(us)
    for norm, weight, v in zip(norms, weights, vs, strict=True):
        if _is_channels_last(weight):
            target = _reordered(norm._v, weight)
            target.copy_(v.view(target.shape))
        else:
            alike.append(norm._v)
            values.append(v)
    torch._foreach_copy_(alike, values)


def _divided_into(dtype: torch.dtype, weight: Tensor, sigma: Tensor) -> Tensor:
    """weight / sigma, rounded to ``dtype`` once."""
    return torch.div(weight, sigma, out=torch.empty_like(weight, dtype=dtype))

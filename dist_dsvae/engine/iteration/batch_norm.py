"""Synchronised batch norm: statistics of the global batch, so that results do not depend on ranks.

torch's SyncBatchNorm refuses CPU tensors, and on CUDA it reads the ranks' batch sizes on the host in
every forward. Here every rank holds equally many samples, so one all-gather of moments will do, on
any device. Parameters, buffers and state-dict keys are those of nn.BatchNorm.

Where they are not synchronised, every rank has running statistics of its own. Training does not read them,
and they move linearly; so their mean over the ranks is what a checkpoint holds, and what is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core import distributed
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.models.norm_statistics import batch_norms


def convert_sync_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside ``module`` by its synchronised form, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SynchronisedBatchNorm):
                synchronised = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum)
                synchronised.load_state_dict(child.state_dict())
                setattr(parent, name, synchronised.to(child.weight.dtype))
    return module


def place(method: nn.Module, runtime: Runtime, batch_size: int = 2, *, sync_batch_norm: bool) -> None:
    """Bring a method to the device, laid out as convolutions like it; batch norms synchronised if asked.

    batch_size: of each rank. Raises ConfigError where each would normalise one sample by itself.
    """
    if not sync_batch_norm and runtime.world_size > 1 and batch_size < 2 and any(batch_norms(method)):
        raise ConfigError(
            f"train.sync_batch_norm is false, and each of {runtime.world_size} processes has one sample of a "
            "batch, which has no variance of its own. Raise data.batch_size, or leave sync_batch_norm true."
        )
    if sync_batch_norm and runtime.world_size > 1:
        convert_sync_batch_norm(method)
    method.to(runtime.device)
    method.to(memory_format=torch.channels_last)


def with_mean_statistics(method: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors``, but for running statistics that each rank has of its own: their means over the ranks, new.

    tensors: by the names of a state dict of ``method``, or of parts of it. Called by all ranks.
    """
    own = any(not isinstance(norm, SynchronisedBatchNorm) for norm in batch_norms(method))
    names = [name for name in tensors if name.rpartition(".")[2] in ("running_mean", "running_var")]
    if distributed.world_size() == 1 or not own or not names:
        return dict(tensors)
    means = distributed.all_reduce_flat([tensors[name] for name in names])
    return {**tensors, **dict(zip(names, means, strict=True))}


@contextmanager
def mean_statistics(method: nn.Module) -> Iterator[None]:
    """Inside, every rank has the running statistics of ``with_mean_statistics``; after, its own, to the bit.

    Called by all ranks.
    """
    live = method.state_dict()
    means = with_mean_statistics(method, live)
    changed = [name for name in live if means[name] is not live[name]]
    own = {name: live[name].clone() for name in changed}
    _copy({name: means[name] for name in changed}, live)
    try:
        yield
    finally:
        _copy(own, live)


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        into[name].copy_(tensor)


class JointCounts:
    """Callable: a context inside which the batch norms of ``module`` count batches on the host.

    After it, all counts on the device move at once, where every batch norm would have moved its own by an
    operator per batch. Nothing reads them, but a state dict has them.
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [norm for norm in batch_norms(module) if norm.num_batches_tracked is not None]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        counts = [cast(Tensor, norm.num_batches_tracked) for norm in self._norms]
        seen = [_Count() for _ in self._norms]
        for norm, count in zip(self._norms, seen, strict=True):
            norm._buffers["num_batches_tracked"] = count  # type: ignore[assignment]
        try:
            yield
        finally:
            for norm, tensor in zip(self._norms, counts, strict=True):
                norm._buffers["num_batches_tracked"] = tensor
        for number in sorted({count.value for count in seen} - {0}):
            together = [t for t, count in zip(counts, seen, strict=True) if count.value == number]
            torch._foreach_add_(together, number)


class _Count:
    """What a batch norm does to the tensor that it counts with."""

    def __init__(self) -> None:
        self.value = 0

    def add_(self, number: int) -> None:
        self.value += number


class SynchronisedBatchNorm(_BatchNorm):
    """nn.BatchNorm over [B, C] or [B, C, H, W], training statistics taken over all ranks."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected [B, C] or [B, C, H, W], got {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or distributed.world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        normalised, mean, variance = _SynchronisedNorm.apply(input, self.weight, self.bias, self.eps)
        count = distributed.world_size() * input.numel() / input.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        output: Tensor = normalised
        return output


class _SynchronisedNorm(torch.autograd.Function):
    """One all-gather of per-rank moments forward, one all-reduce of two sums per channel backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        dims = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = x.to(weight.dtype)
        local_variance, local_mean = torch.var_mean(wide, dims, correction=0)
        mean, variance = distributed.global_moments(local_mean, local_variance)
        inverse_std = torch.rsqrt(variance + eps)
        scale = inverse_std * weight
        output = torch.addcmul((bias - mean * scale).view(shape), wide, scale.view(shape)).to(x.dtype)
        ctx.save_for_backward(x, mean, inverse_std, weight)
        ctx.dims, ctx.shape = dims, shape
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, mean, inverse_std, weight = ctx.saved_tensors
        dims, shape = ctx.dims, ctx.shape
        gradient = gradients[0].to(weight.dtype)
        normalised = (x.to(weight.dtype) - mean.view(shape)) * inverse_std.view(shape)
        bias_gradient = gradient.sum(dims)
        weight_gradient = (gradient * normalised).sum(dims)
        sums = distributed.all_reduce_sum(torch.stack([bias_gradient, weight_gradient]))
        sums /= distributed.world_size() * x.numel() / x.shape[1]
        centred = gradient - sums[0].view(shape) - normalised * sums[1].view(shape)
        input_gradient = (centred * (inverse_std * weight).view(shape)).to(x.dtype)
        return input_gradient, weight_gradient, bias_gradient, None

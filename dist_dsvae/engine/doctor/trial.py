"""A real iteration of training on made-up images: eager, as a CUDA graph, in bf16. Called by all ranks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.doctor.finding import Figure, Finding, failed, ok, skipped, warning
from dist_dsvae.engine.iteration.cuda_graph import Graphed, obstacle
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.update import Method, objective

_MIB = 2**20
_COPIED_BYTES = 64 * _MIB
_SLOW_COPY_GB_PER_SECOND = 3.0
_GRAPHED_ITERATIONS = 3
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6  # one kernel chosen differently while capturing
_SMALL_COSINE = 0.9  # of the gradients in bf16 with those in float32


class Trial(NamedTuple):
    """An iteration, and the inputs of its batches laid end to end (``Iteration.__call__``)."""

    iteration: Iteration
    inputs: list[Tensor]


MakeTrial = Callable[[Runtime], Trial]  # the same weights and inputs every time


def pinned_copies(runtime: Runtime) -> Finding:
    """From the host's pinned memory to the GPU: unchanged, and how fast."""
    name = "pinned-copies"
    if runtime.device.type != "cuda":
        return skipped(name, "nothing is copied: the device is the CPU")
    host = torch.randint(0, 256, (_COPIED_BYTES,), dtype=torch.uint8)
    pinned = host.pin_memory()
    target = torch.empty_like(host, device=runtime.device)
    gigabytes = {}
    for kind, source in (("pageable", host), ("pinned", pinned)):
        best = min(seconds_of(lambda s=source: target.copy_(s, non_blocking=True), runtime) for _ in range(5))  # type: ignore[misc]
        gigabytes[kind] = _COPIED_BYTES / best / 1e9
    if not torch.equal(target.cpu(), host):
        remedy = "Do not train here: test the GPU and its slot (nvidia-smi -q, dmesg), or take another node."
        return failed(name, "bytes copied to the GPU arrived changed", remedy)
    text = f"{gigabytes['pinned']:.1f} GB/s to the GPU, {gigabytes['pageable']:.1f} GB/s from unpinned memory"
    figures = {f"{kind}_gb_per_second": round(value, 2) for kind, value in gigabytes.items()}
    if gigabytes["pinned"] < _SLOW_COPY_GB_PER_SECOND:
        remedy = "data.source=resident copies the data once. Is the GPU in a slow slot (nvidia-smi topo -m)?"
        return warning(name, text, remedy, **figures)
    return ok(name, text, **figures)


def iteration(runtime: Runtime, make_trial: MakeTrial) -> Finding:
    """Two eager iterations: losses are finite and weights move."""
    trial = make_trial(runtime)
    first = next(trial.iteration.method.parameters())
    before = first.detach().clone()
    trial.iteration.set_rates(0.0, 0)
    trial.iteration(*trial.inputs)  # the first one chooses kernels and allocates
    seconds = seconds_of(lambda: trial.iteration(*trial.inputs), runtime)
    trial.iteration.guard.raise_if_tripped()
    if torch.equal(first, before):
        remedy = "The installation of torch computes wrongly: install it anew, in a fresh environment."
        return failed("iteration", "an iteration of training left the weights as they were", remedy)
    precision = "float32" if runtime.mixed_precision == "no" else runtime.mixed_precision
    text = f"{1000 * seconds:.0f} ms eagerly in {precision}, losses are finite"
    return ok("iteration", text, milliseconds=round(1000 * seconds, 2), precision=precision)


def bf16(runtime: Runtime, make_trial: MakeTrial) -> Finding:
    """Losses and gradients of every step under bf16 autocast, beside those in float32."""
    trial = make_trial(runtime)
    method, to_batch = trial.iteration.method, trial.iteration.to_batch["train"]
    per_batch = len(trial.inputs) // trial.iteration.num_batches
    noise = Noise(0, trial.inputs[per_batch - 1])
    batch = to_batch(trial.inputs[:per_batch], noise)
    cosines, differences = [], []
    for step in [each.name for each in trial.iteration.method.updates]:
        exact, rounded = (
            _gradients(method, batch, noise, step, runtime, half=half) for half in (False, True)
        )
        differences.append((exact.terms - rounded.terms).abs() / exact.terms.abs().clamp_min(0.1))
        cosines.append(torch.nn.functional.cosine_similarity(exact.gradient, rounded.gradient, dim=0))
    runtime.fence.synchronize()
    difference, cosine = torch.cat(differences).max().item(), torch.stack(cosines).min().item()
    return judged_bf16(difference, cosine)


def judged_bf16(difference: float, cosine: float) -> Finding:
    """difference: the largest of a loss term, relative. cosine: the smallest of a step's gradients."""
    text = f"losses within {100 * difference:.2g} % of float32, gradients at a cosine of {cosine:.4f}"
    figures = {"loss_difference": difference, "gradient_cosine": cosine}
    if not cosine >= _SMALL_COSINE:  # NaN as well
        remedy = "Train with --mixed_precision no, and update torch and the driver."
        return warning("bf16", text, remedy, **figures)
    return ok("bf16", text, **figures)


def graph(runtime: Runtime, make_trial: MakeTrial) -> Finding:
    """Iterations as a CUDA graph against eager ones, each time from the same state."""
    reason = obstacle(runtime)
    if reason is not None:
        return skipped("graph", f"no CUDA graphs here: {reason}")
    with _deterministic():
        eager, captured = make_trial(runtime), make_trial(runtime)
        torch.cuda.reset_peak_memory_stats()
        graphed = Graphed(
            captured.iteration, captured.iteration.state, runtime.timeout, runtime.fence.synchronize
        )
        try:
            different = _different_tensors(eager, captured, graphed, runtime)
            seconds = min(seconds_of(lambda: graphed(*captured.inputs), runtime) for _ in range(5))
        finally:
            graphed.release()
    figures: dict[str, Figure] = {
        "milliseconds": round(1000 * seconds, 3),
        "peak_allocated_mib": round(torch.cuda.max_memory_allocated() / _MIB),
        "reserved_mib": round(torch.cuda.max_memory_reserved() / _MIB),  # the graph's own memory included
    }
    if different:
        return failed(
            "graph",
            f"{different} tensors of the training state differ from the eager iteration's",
            "Train with --set train.cuda_graph=off, which is slower; update torch and the driver.",
            **figures,
        )
    text = (
        f"captured, and equal to eager over {_GRAPHED_ITERATIONS} iterations; {1000 * seconds:.1f} ms each, "
        f"{figures['reserved_mib']} MiB reserved for both"
    )
    return ok("graph", text, **figures)


def _different_tensors(eager: Trial, captured: Trial, graphed: Graphed, runtime: Runtime) -> int:
    different = 0
    for number in range(_GRAPHED_ITERATIONS):
        for trial, run in ((eager, eager.iteration), (captured, graphed)):
            trial.iteration.set_rates(number / 2, number)
            run(*trial.inputs)
        runtime.fence.synchronize()
        for ours, theirs in zip(captured.iteration.state(), eager.iteration.state(), strict=True):
            different += not torch.allclose(ours, theirs, rtol=_RELATIVE, atol=_ABSOLUTE)
            ours.detach().copy_(theirs)  # what rounding did is not carried on
    return different


class _Taken(NamedTuple):
    terms: Tensor
    gradient: Tensor


def _gradients(
    method: nn.Module, batch: Batch, noise: Noise, step: str, runtime: Runtime, *, half: bool
) -> _Taken:
    """A step's loss terms, float64 [terms], and the gradients of all that it trains, laid end to end."""
    own = copy.deepcopy(method)  # a forward moves batch norms and spectral norms
    assert isinstance(own, Method)
    chosen = next(each for each in own.updates if each.name == step)
    with torch.autocast(runtime.device.type, dtype=torch.bfloat16, enabled=half):
        # not own.forward, which Accelerate may have put under the autocast of training
        terms = type(own).forward(own, batch, noise, step)
        loss, values = objective(own, chosen.terms, terms)
    parameters = [p for network in chosen.trains for p in own.get_submodule(network).parameters()]
    gradients: Sequence[Tensor] = torch.autograd.grad(loss, parameters)
    return _Taken(values.detach().double(), torch.cat([g.flatten().double() for g in gradients]))


def seconds_of(call: Callable[[], object], runtime: Runtime) -> float:
    """Of one call, the device's work included."""
    runtime.fence.synchronize()
    begin = time.perf_counter()
    call()
    runtime.fence.synchronize()
    return time.perf_counter() - begin


@contextmanager
def _deterministic() -> Iterator[None]:
    """Kernels that give the same bits each time, so that only the graph can make a difference."""
    settings = torch.backends.cudnn
    before = settings.deterministic, settings.benchmark
    settings.deterministic, settings.benchmark = True, False
    try:
        yield
    finally:
        settings.deterministic, settings.benchmark = before

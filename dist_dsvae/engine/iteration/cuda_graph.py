"""CUDA graphs: record what a function launches on the GPU once, then launch all of it at one call.

    1st call   snapshot state -> warm up eagerly -> restore state -> capture -> replay
    after      copy the inputs into those of the capture -> replay

A graphed function has the signature of the eager one and computes the same. The function must do
nothing on the host that matters: what it does in Python happens while it is captured, and never
again. Where a graph is known not to be possible, the function itself runs, after one warning. A capture
that fails ends the run: the CUDA context is not always sound afterwards (pytorch#180395, #190348).

Capture forbids the default stream, and autograd remembers the stream on which a parameter was first
used; so a process that captures works on one stream of its own from the start (``Runtime``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Literal

import torch
from torch import Tensor

from dist_dsvae.core import distributed
from dist_dsvae.engine.iteration.warm_up import without_trace
from dist_dsvae.engine.processes.runtime import Runtime

logger = logging.getLogger(__name__)

# DistributedDataParallel rebuilds its buckets and times its first ten iterations; then it is steady.
_WARM_UP_CALLS = 11
_WARM_UP_CALLS_ALONE = 3

Function = Callable[..., None]


class CaptureError(ValueError):
    """The iteration could not be captured; the message says why and what to do."""


def _capture(function: Callable[[], None]) -> Callable[[], None]:
    """Record what ``function`` launches on the current stream, not the default one; returns what runs it."""
    graph = torch.cuda.CUDAGraph()
    # thread_local: data workers' pinning threads and NCCL's watchdog go on meanwhile
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        function()
    return graph.replay


def _lack_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """Of ``error`` or of what it followed: to end a capture that lacked memory may fail in its own way."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error


class Graphed:
    """``function`` as a graph. Made by all ranks, and called by all.

    function: takes tensors; its effects are in tensors alone, and it returns nothing.
    state: every tensor that the function changes, live; restored after warm-up.
    timeout: of the ranks' agreement that all of them captured.
    synchronize: returns when the device is done with all that it was given (``Fence.synchronize``): putting
    the state back waits for that without heeding signals or missing ranks.
    inputs: those of the capture, which the graph reads; none before it. replay: launches all that was
    captured, on ``inputs`` as they are; None before.
    """

    def __init__(
        self,
        function: Function,
        state: Callable[[], Iterable[Tensor]],
        timeout: timedelta | None = None,
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self.function = function
        self._synchronize = synchronize
        self.state = state
        self.inputs: tuple[Tensor, ...] = ()
        self.replay: Callable[[], None] | None = None
        self._group = distributed.new_cpu_group(timeout)  # a failed capture may leave NCCL unusable

    def __call__(self, *inputs: Tensor) -> None:
        """Run once; the first call prepares.

        Raises ValueError if shapes or types differ from those of the capture, and what ``prepare`` raises.
        """
        replay = self.replay or self.prepare(*inputs)
        self._check(inputs)
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given, non_blocking=True)
        replay()

    def release(self) -> None:
        """Give the graph's memory back; it must be gone before its communicators are."""
        self.replay = None
        self.inputs = ()

    def prepare(self, *inputs: Tensor) -> Callable[[], None]:
        """Warm up and capture on inputs like these; nothing of the state changes. Returns ``replay``.

        Raises CaptureError, on every rank, if some rank cannot capture; OutOfMemoryError where that was why.
        """
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        self._warm_up()
        replay: Callable[[], None] | None = None
        problem: str | None = None
        no_memory: torch.OutOfMemoryError | None = None
        try:
            replay = _capture(lambda: self.function(*self.inputs))
        except RuntimeError as error:
            no_memory = _lack_of_memory(error)
            problem = str(error).strip().partition("\n")[0].rstrip(".")
        # all ranks replay or none: a collective in a graph waits for the others' graphs
        problems = [p for p in distributed.gather_objects(problem, self._group) if p]
        if no_memory is not None:
            raise no_memory  # launching every kernel anew would need it as well
        if replay is None or problems:
            raise CaptureError(
                f"The iteration could not be captured as a CUDA graph: {problems[0]}. After a failed capture "
                "this process cannot go on safely. Start the same command again with --set "
                "train.cuda_graph=off, which is slower and computes the same."
            )
        self.replay = replay
        return replay

    def _warm_up(self) -> None:
        """Run eagerly until libraries have chosen kernels and allocated; leaves no trace in the state."""
        with without_trace(self.state, self.inputs):
            for _ in range(_WARM_UP_CALLS if distributed.is_initialized() else _WARM_UP_CALLS_ALONE):
                self.function(*self.inputs)
            self._synchronize()

    def _check(self, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs) != len(self.inputs):
            raise ValueError(f"The graph was captured with {len(self.inputs)} inputs, but got {len(inputs)}.")
        for number, (static, given) in enumerate(zip(self.inputs, inputs, strict=True)):
            if static.shape != given.shape or static.dtype != given.dtype:
                raise ValueError(
                    f"The graph was captured with {list(static.shape)} {static.dtype} as input {number}, but "
                    f"got {list(given.shape)} {given.dtype}. Every batch must have the first one's shape."
                )


def graphed_where_possible(
    function: Function,
    state: Callable[[], Iterable[Tensor]],
    setting: Literal["auto", "on", "off"],
    runtime: Runtime,
) -> Graphed | Function:
    """``function`` as a graph, or itself: by choice, or with one warning where a graph cannot be."""
    if setting == "off":
        return function
    reason = obstacle(runtime)
    if reason is None:
        return Graphed(function, state, runtime.timeout, runtime.fence.synchronize)
    if setting == "on" or runtime.device.type == "cuda":
        logger.warning("training without CUDA graphs, which is slower: %s", reason)
    return function


def obstacle(runtime: Runtime) -> str | None:
    """Why there can be no graph on this device and among these processes; None if there can."""
    if runtime.device.type != "cuda":
        return "they need a CUDA device"
    if runtime.zero_stage:
        return "DeepSpeed reads the gradient's norm on the host at every step"
    if distributed.is_initialized() and distributed.backend() != "nccl":
        return f"a graph can hold NCCL's collectives, not those of {distributed.backend()}"
    return None

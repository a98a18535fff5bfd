"""The simulated device: its streams and events, and a record of everything that makes the host wait."""

from __future__ import annotations

import collections
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.simulated.graphs import Capture, Graph
from tests.simulated.memory import CUDA, HOST, PINNED, Copies, DeviceError, Labels, unobserved

_HERE = str(Path(__file__).parent)


class Wait(NamedTuple):
    """The host waited: for a value ("sync"), or while memory of its own was copied ("transfer")."""

    kind: str
    what: str
    where: str


class Stream:
    """In the place of ``torch.cuda.Stream``. Operators run at once, so that only copies can be late."""

    owner: Device

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.number = self.cuda_stream = self.owner.num_streams
        self.owner.num_streams += 1
        self.device = self.owner.cuda

    def wait_event(self, event: Event) -> None:
        event.arrive()

    def wait_stream(self, other: Stream) -> None:
        self.owner.copies.finish(other.number)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or self.owner.Event()
        event.record(self)
        return event

    def is_capturing(self) -> bool:
        return self.owner.capturing is not None

    def synchronize(self) -> None:
        self.owner.waited("sync", "Stream.synchronize")
        self.owner.copies.finish(self.number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class Event:
    """In the place of ``torch.cuda.Event``."""

    owner: Device

    def __init__(self, *_: Any, **__: Any) -> None:
        self._recorded: tuple[int, int] | None = None

    def record(self, stream: Stream | None = None) -> None:
        self._recorded = (stream or self.owner.stream).number, self.owner.copies.now()

    def arrive(self) -> None:
        if self._recorded is not None:
            self.owner.copies.finish(*self._recorded)

    def wait(self, stream: Stream | None = None) -> None:
        self.arrive()

    def query(self) -> bool:
        """Whether it came to pass: asking does not make the host wait. Never on a device that is stuck."""
        if self.owner.is_stuck:
            return False
        self.arrive()
        return True

    def synchronize(self) -> None:
        self.owner.waited("sync", "Event.synchronize")
        self.arrive()


class Device:
    """A GPU as far as the host can tell: labels of memory, copies under way, streams, a capture.

    is_stuck: what is launched from now on never becomes done, as behind a collective without its peer.
    """

    def __init__(self) -> None:
        self.cuda = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        self.labels = Labels()
        self.copies = Copies()
        self.log: list[Wait] = []
        self.capturing: Graph | None = None
        self.is_stuck = False
        self.num_replays = 0
        self.replayed: list[str] = []  # operators of the last one
        self.num_streams = 0
        # classes of its own, whose instances know it; torch itself asks isinstance of some of them
        self.Stream = type("Stream", (Stream,), {"owner": self})
        self.Event = type("Event", (Event,), {"owner": self})
        self.Graph = type("CUDAGraph", (Graph,), {"device": self})
        self.Capture = type("graph", (Capture,), {"device": self})
        self.default_stream: Stream = self.Stream()
        self._threads = threading.local()
        self._quiet = 0

    # Devices and streams of threads

    @property
    def current(self) -> int:
        """The index of this thread's device: 0 in a new one, as with CUDA."""
        return int(getattr(self._threads, "index", 0))

    def set_current(self, device: Any) -> None:
        self._threads.index = torch.device(device).index if not isinstance(device, int) else device

    @property
    def stream(self) -> Stream:
        """This thread's current one: the default in a new one, as with CUDA."""
        found: Stream = getattr(self._threads, "stream", self.default_stream)
        return found

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self._threads.stream = stream

    # What makes the host wait

    def waited(self, kind: str, what: str) -> None:
        """Take down that the host waits. Raises DeviceError during a capture, which may not wait."""
        if self._quiet:
            return
        where = _place()
        self.log.append(Wait(kind, what, where))
        if self.capturing is not None:
            raise DeviceError(f"operation not permitted when stream is capturing: {what} ({kind}) at {where}")

    def waits(self) -> collections.Counter[Wait]:
        return collections.Counter(self.log)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """What happens inside was taken down already."""
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    @property
    def is_quiet(self) -> bool:
        return self._quiet > 0

    # Copies between the sides

    def moved(self, tensor: Tensor, side: str, *, non_blocking: bool = False) -> Tensor:
        """``tensor`` on a side (CUDA or HOST): itself where it is there, or a copy."""
        here = self.labels[tensor] or HOST
        if (here == CUDA) == (side == CUDA):
            return tensor
        if non_blocking and here == PINNED:
            with unobserved():
                copy = torch.empty_like(tensor)
            self.labels[copy] = side
            self.copies.start(self.stream.number, tensor, copy)
            return copy
        if side == HOST:
            self.waited("sync", "copy to the host")
        else:
            self.waited("transfer", "copy to the device")
        self.copies.finish(self.stream.number)
        with self.quiet():
            copy = tensor.clone(memory_format=torch.preserve_format)
        self.labels[copy] = side
        return copy

    def pinned(self, tensor: Tensor) -> Tensor:
        with self.quiet():
            copy = tensor.clone()
        self.labels[copy] = PINNED
        return copy


def _place() -> str:
    """The innermost line that is neither torch's nor the simulation's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        simulation = path.startswith(_HERE) and "/test_" not in path
        if not simulation and "site-packages" not in path and "/lib/python" not in path:
            return f"{path.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"

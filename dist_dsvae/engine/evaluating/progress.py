"""What is done of a long evaluation, so that a killed or preempted one goes on where it was.

    <run>/evaluation/.<name>/  key.json            what is evaluated, and how; another key starts anew
                               <part>.safetensors  the sums of one part, so far or whole

Rank 0 writes, every file whole or not at all; all ranks read what rank 0 read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dist_dsvae.core import distributed
from dist_dsvae.core.files import write_atomically

OnProgress = Callable[[str, int, int], None]  # what, how many are done, of how many


class Progress:
    """Parts of one evaluation. Made, and each method called, by all ranks.

    folder: where parts are kept; None keeps nothing. key: identifies the evaluation. pause: called
    between pieces of work; raises to stop it there. tell: is told how far a part is.
    """

    def __init__(
        self,
        folder: Path | None = None,
        key: Mapping[str, Any] | None = None,
        pause: Callable[[], None] = lambda: None,
        tell: OnProgress = lambda part, done, of: None,
    ) -> None:
        self.folder = folder
        self.pause = pause
        self.tell = tell
        if folder is not None and distributed.is_main():
            text = json.dumps(key, indent=1, sort_keys=True) + "\n"
            path = folder / "key.json"
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                _remove_parts(folder)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, text.encode())

    def load(self, part: str) -> dict[str, Tensor] | None:
        """The tensors saved for a part, on the CPU; None if there are none."""
        if self.folder is None:
            return None
        return load_tensors(self.folder / f"{part}.safetensors")

    def save(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a part's tensors, the same on all ranks."""
        if self.folder is not None:
            save_tensors(self.folder / f"{part}.safetensors", tensors)

    @contextmanager
    def shown(self, part: str) -> Iterator[None]:
        """A part that is computed in one piece, which begins here."""
        self.tell(part, 0, 1)
        yield
        self.tell(part, 1, 1)

    def whole(self, part: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """A part that is computed in one piece, or was before."""
        found = self.load(part)
        if found is None:
            self.pause()
            found = compute()
            self.save(part, found)
        return found

    def finish(self) -> None:
        """Forget the parts: the evaluation is written."""
        if self.folder is not None and distributed.is_main():
            _remove_parts(self.folder)


def _remove_parts(folder: Path) -> None:
    """Remove the key and the parts; the folder too, if nothing else is in it."""
    for path in [folder / "key.json", *folder.glob("*.safetensors")]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def load_tensors(path: Path) -> dict[str, Tensor] | None:
    """What rank 0 finds in a safetensors file, on all ranks; None if it is missing or damaged."""
    found: dict[str, Tensor] | None = None
    if distributed.is_main() and path.is_file():
        try:
            found = load_file(path)
        except (OSError, SafetensorError):
            found = None
    return distributed.broadcast_object(found)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all. Rank 0's tensors; other ranks return at once."""
    if distributed.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))

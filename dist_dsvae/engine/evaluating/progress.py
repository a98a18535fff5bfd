"""What is done of a long evaluation, so that a killed or preempted one goes on where it was.

    <run>/evaluation/.<name>/  key.json            what is evaluated, and how; another key starts anew
                               <part>.safetensors  the sums of one part, so far or whole, and whose they are

Two evaluations may run under one name: the parts of one are nothing to the other, which writes over them.
Rank 0 writes, every file whole or not at all; all ranks read what rank 0 read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dist_dsvae.core import distributed
from dist_dsvae.core.files import write_atomically

OnProgress = Callable[[str, int, int], None]  # what, how many are done, of how many

_OWNER = "evaluation"  # in a part's metadata: the hash of the key it belongs to


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
        text = json.dumps(key, indent=1, sort_keys=True) + "\n"
        # In the part itself: a key beside it may be replaced while the evaluation that wrote it goes on.
        self._metadata = {_OWNER: hashlib.sha256(text.encode()).hexdigest()}
        if folder is not None and distributed.is_main():
            path = folder / "key.json"
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                _remove_parts(folder)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, text.encode())

    def load(self, part: str) -> dict[str, Tensor] | None:
        """The tensors this evaluation saved for a part, on the CPU; None if there are none."""
        if self.folder is None:
            return None
        return load_tensors(self.folder / f"{part}.safetensors", self._metadata)

    def save(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a part's tensors, the same on all ranks."""
        if self.folder is not None:
            save_tensors(self.folder / f"{part}.safetensors", tensors, self._metadata)

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
    """Remove the key and what says of itself that it is a part; the folder too, if nothing else is in it."""
    parts = [path for path in folder.glob("*.safetensors") if _is_part(path)]
    for path in [folder / "key.json", *parts]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _is_part(path: Path) -> bool:
    """Of any evaluation."""
    try:
        with safe_open(path, framework="pt") as opened:
            return _OWNER in (opened.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_tensors(path: Path, metadata: Mapping[str, str] | None = None) -> dict[str, Tensor] | None:
    """What rank 0 finds in a safetensors file, on all ranks.

    None if it is missing or damaged, or was saved with other metadata.
    """
    found: dict[str, Tensor] | None = None
    if distributed.is_main() and path.is_file():
        try:
            with safe_open(path, framework="pt") as opened:
                if (opened.metadata() or {}) == (metadata or {}):
                    found = {name: opened.get_tensor(name) for name in list(opened.keys())}
        except (OSError, SafetensorError):
            found = None
    return distributed.broadcast_object(found)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all. Rank 0's tensors; other ranks return at once."""
    if distributed.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        write_atomically(path, save(content, None if metadata is None else dict(metadata)))

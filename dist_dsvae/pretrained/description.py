"""What a trained model says of itself, from its networks and from what it was published with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import torch

from dist_dsvae.core.text import one_line
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.methods.published import Published
from dist_dsvae.pretrained.networks import Networks
from dist_dsvae.pretrained.requests import at_least_one

WEIGHTS = {"ema": "moving average", "raw": "last weights"}  # of a run, in words

_WIDTH = 100


class Described:
    """The facts of a model: its samples, classes and codes, what it can do, and in words where it is from."""

    published: Published
    _networks: Networks

    @property
    def shape(self) -> ImageShape:
        """Of one sample: an image, or a point."""
        return self.published.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        return self.published.classes

    @property
    def batch_size(self) -> int:
        """How many pictures go through the networks at once, at most."""
        return self._networks.batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        self._networks.batch_size = at_least_one("batch_size", batch_size)

    @property
    def device(self) -> torch.device:
        """Of the networks."""
        return self._networks.device

    @property
    def code_dims(self) -> tuple[int, int]:
        """zs_dim and zu_dim; where the one-hot label stands for zs, the number of classes."""
        return self._networks.code_dims

    @property
    def can_encode(self) -> bool:
        """Whether pictures can be encoded, swapped and inpainted."""
        return self._networks.can_encode

    @property
    def needs_labels(self) -> bool:
        """Whether ``encode``, ``swap`` and ``inpaint`` must be told the pictures' classes."""
        return self.can_encode and not self._networks.encodes_without_labels

    def __repr__(self) -> str:
        place = f", from {one_line(self.published.place)}" if self.published.place else ""
        return f"<{type(self).__name__}: {self._kind_of_model()}, {len(self.classes)} classes{place}>"

    def __str__(self) -> str:
        return "\n".join(line for line in self._lines() if line)

    def _kind_of_model(self) -> str:
        shape = self.shape
        colours = "" if shape.channels == 3 else " grey"
        samples = f"{shape.height}x{shape.width}{colours} pictures" if shape.is_image else "points"
        return f"{self.published.config.name} of {samples}"

    def _lines(self) -> Iterator[str]:
        published, about = self.published, self.published.about
        num_weights = sum(weights.numel() for weights in published.method.parameters())
        yield f"{type(self).__name__}: {self._kind_of_model()}"
        yield _line("classes", f"{len(self.classes)}: {', '.join(map(one_line, self.classes))}")
        networks = f"{published.model.architecture}, {num_weights:,} weights"
        if isinstance(published.method, Generative):
            networks += "; zs has {}, zu {} dimensions".format(*self._networks.code_dims)
        yield _line("networks", networks)
        weights = WEIGHTS.get(str(about.get("weights")), "")
        made = [weights, *(one_line(about[key]) for key in ("run", "checkpoint") if key in about)]
        yield _line("trained", ", ".join(filter(None, made)))
        number = f", {about['num_samples']:,} samples" if isinstance(about.get("num_samples"), int) else ""
        yield _line("data", f"{one_line(about['data'])}{number}" if "data" in about else "")
        yield _line("from", one_line(published.place))


def _line(name: str, text: str) -> str:
    """A line of two columns, cut off where it is too long; nothing for no text."""
    return f"  {name:10s}{textwrap.shorten(text, _WIDTH, placeholder=' ...')}" if text else ""

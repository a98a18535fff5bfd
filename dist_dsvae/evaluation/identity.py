"""Identity: whom generated faces resemble, as cosines between the embeddings of a face network.

    pictures ----> embeddings of length 1 ----> sums by class ----> same person, other person
       |
       +--couples of two persons: decoder(zs of a, zu of b) ----> cosine to a, cosine to b   (Figure 6)
       +--decoder(zs of a, zu of a) ----------------------------> cosine to a
    samples of a class ----> sums by class ----> cosine to pictures of that class, and of others

A mean cosine over all pairs of two sets is the inner product of the sets' mean embeddings, so sums by
class are all that processes exchange. Means are over persons (for pairs of persons: over ordered pairs
of them), so that one with many pictures weighs no more than the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.core.noise import Draw, hash_words
from dist_dsvae.core.types import Codes
from dist_dsvae.evaluation.judging.judge import Judge

IDENTITY_MEANS = "persons"  # in evaluations; they were over pictures where nothing is said
EncodeZs = Callable[[Tensor, Tensor], Codes]  # of images [B, C, H, W] and labels [B]
Decode = Callable[[Tensor], Tensor]  # codes [B, d] -> images [B, C, H, W] in [-1, 1]


class EmbeddingSums:
    """Embeddings of images, scaled to length 1 and added up by class, in float64.

    network: its features are the embeddings. totals: [num_classes, d]. counts: [num_classes].
    """

    def __init__(self, network: Judge, num_classes: int, device: torch.device) -> None:
        self.network = network
        size = (num_classes, network.num_features)
        self.totals = torch.zeros(size, dtype=torch.float64, device=device)
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.kept = torch.empty(0, network.num_features, device=device)  # nothing is kept picture by picture

    def embed(self, images: Tensor) -> Tensor:
        """[B, C, H, W] in [-1, 1] -> [B, d], float64, rows of length 1."""
        return F.normalize(self.network(images).features.double(), dim=1)

    def add(self, images: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Add images [B, C, H, W] of classes ``labels`` [B]; where they stand does not matter."""
        self.add_embeddings(self.embed(images), labels)

    def add_embeddings(self, embeddings: Tensor, labels: Tensor) -> None:
        self.totals.index_add_(0, labels, embeddings)
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    def state(self) -> dict[str, Tensor]:
        """The live sums, additive over processes."""
        return {"totals": self.totals, "counts": self.counts}

    def merge(self, sums: Mapping[str, Tensor], kept: Tensor) -> None:
        """Add the sums over other images."""
        for name, tensor in self.state().items():
            tensor += sums[name].to(tensor.device)


class SwapSums:
    """Embeddings of a split's pictures by class, and cosines of what a method makes of them.

    encode: None for a method that cannot; the pictures are then all that is added up.
    seed: decides who swaps codes with whom. Swaps and reconstructions are decoded from the mean of zu.
    """

    def __init__(
        self,
        network: Judge,
        encode: EncodeZs | None,
        decode: Decode,
        *,
        num_classes: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.real = EmbeddingSums(network, num_classes, device)
        self.encode, self.decode, self.seed = encode, decode, seed
        # by the class of the picture that is compared with; as many swaps take zs of a class as take zu of it
        self.to_zs = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.to_zu, self.to_itself = torch.zeros_like(self.to_zs), torch.zeros_like(self.to_zs)
        self.num_swaps = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.kept = self.real.kept

    @torch.no_grad()
    def add(self, images: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Add pictures [B, C, H, W] of a split with labels and positions [B]; couples are of one batch."""
        if not len(labels):  # all were corrupt
            return
        real = self.real.embed(images)
        self.real.add_embeddings(real, labels)
        if self.encode is None:
            return
        codes = self.encode(images, labels)
        zs, zu = codes.zs, codes.zu.mean
        rebuilt = self.real.embed(self.decode(torch.cat([zs, zu], dim=1)))
        self.to_itself.index_add_(0, labels, (rebuilt * real).sum(1))
        giver, taker = couples(labels, positions, self.seed)
        if len(giver):
            swapped = self.real.embed(self.decode(torch.cat([zs[giver], zu[taker]], dim=1)))
            self.to_zs.index_add_(0, labels[giver], (swapped * real[giver]).sum(1))
            self.to_zu.index_add_(0, labels[taker], (swapped * real[taker]).sum(1))
            self.num_swaps += torch.bincount(labels[giver], minlength=len(self.num_swaps))

    def state(self) -> dict[str, Tensor]:
        """The live sums, additive over processes."""
        found = {"to_zs": self.to_zs, "to_zu": self.to_zu, "to_itself": self.to_itself}
        found |= {"num_swaps": self.num_swaps}
        return found | {f"real.{name}": tensor for name, tensor in self.real.state().items()}

    def merge(self, sums: Mapping[str, Tensor], kept: Tensor) -> None:
        """Add the sums over other pictures."""
        for name, tensor in self.state().items():
            tensor += sums[name].to(tensor.device)

    def figures(self) -> dict[str, float | int]:
        """Mean cosines in [-1, 1], and the number of swaps; what there are no pairs for is left out.

        swap_to_zs, swap_to_zu: of decoder(zs of a, zu of b) to a, and to b; means over the persons of a,
        and of b. reconstruction: to its picture. same_person, other_person: of pairs of real pictures.
        """
        found: dict[str, float | int | None] = {}
        if num_swaps := int(self.num_swaps.sum()):
            found["swap_to_zs"] = _mean_over_classes(self.to_zs, self.num_swaps)
            found["swap_to_zu"] = _mean_over_classes(self.to_zu, self.num_swaps)
            found["swaps"] = num_swaps
        if self.encode is not None and bool(self.real.counts.any()):
            found["reconstruction"] = _mean_over_classes(self.to_itself, self.real.counts)
        found["same_person"] = same_class_cosine(self.real)
        found["other_person"] = other_class_cosine(self.real, self.real)
        return {name: value for name, value in found.items() if value is not None}


def _mean_over_classes(sums: Tensor, counts: Tensor) -> float:
    """Of sums [C] over ``counts`` [C] pictures each, the classes without any left out."""
    there = counts > 0
    return (sums[there] / counts[there]).mean().item()


def couples(labels: Tensor, positions: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Who gives zs, and who zu: rows [S] and [S] of pictures with labels and positions [B], for S swaps.

    Each picture is in one couple at most, and gives its zs once and its zu once. Rows are ordered by hashes
    of their classes, then of their positions, and coupled half the way round: two of one class meet only
    where that class has more than half of the pictures, and are then left out.
    """
    first = int(positions.min())  # other batches bring other persons together
    by_class = hash_words(seed, Draw.IDENTITY_PARTNER, first, labels)
    by_image = hash_words(seed, Draw.IDENTITY_PARTNER, positions).argsort(stable=True)
    order = by_image[by_class[by_image].argsort(stable=True)]
    half = len(order) // 2
    a, b = order[:half], order[half : 2 * half]
    differing = labels[a] != labels[b]
    a, b = a[differing], b[differing]
    return torch.cat([a, b]), torch.cat([b, a])


def same_class_cosine(sums: EmbeddingSums) -> float | None:
    """Mean over classes of the mean cosine over pairs of different pictures; None if no class has a pair.

    For unit vectors e_i of a class, sum over i != j of e_i e_j = |sum e_i|^2 - sum |e_i|^2.
    """
    enough = sums.counts > 1
    if not enough.any():
        return None
    counts = sums.counts[enough].double()
    return ((sums.totals[enough].square().sum(1) - counts) / (counts * (counts - 1))).mean().item()


def own_class_cosine(samples: EmbeddingSums, real: EmbeddingSums) -> float | None:
    """Mean over classes of the mean cosine of samples to real pictures of that class; None without any."""
    both = (samples.counts > 0) & (real.counts > 0)
    if not both.any():
        return None
    return (_means(samples)[both] * _means(real)[both]).sum(1).mean().item()


def other_class_cosine(samples: EmbeddingSums, real: EmbeddingSums) -> float | None:
    """Mean over ordered pairs of different classes of the mean cosine of samples of the one to real pictures
    of the other; None without such a pair."""
    known, given = samples.counts > 0, real.counts > 0
    num_pairs = int(known.sum()) * int(given.sum()) - int((known & given).sum())
    if num_pairs == 0:
        return None
    all_pairs = _means(samples).sum(0) @ _means(real).sum(0)
    own = (_means(samples) * _means(real)).sum()
    return ((all_pairs - own) / num_pairs).item()


def _means(sums: EmbeddingSums) -> Tensor:
    """Mean embedding by class [num_classes, d]; zero of a class without pictures."""
    return sums.totals / sums.counts.clamp(min=1)[:, None]

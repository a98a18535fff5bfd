"""A prior fitted to a trained method's codes, in place of the one that it was trained with.

Where the codes of real images are not distributed as the prior says, samples of the prior are codes
that the decoder has seldom seen. Ghosh et al., "From Variational to Deterministic Autoencoders" (ICLR
2020), fit a density to the codes afterwards; here it is a diagonal Gaussian of zs for each class, and
one of zu.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, Normals


@dataclass(frozen=True)
class FittedPrior:
    """Means and standard deviations of zs [C, zs_dim] and of zu [zu_dim]."""

    zs_mean: Tensor
    zs_std: Tensor
    zu_mean: Tensor
    zu_std: Tensor

    def codes(self, labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
        """Codes [B, zs_dim + zu_dim] of classes ``labels`` [B]: the draws of ``Generative.prior_codes``."""
        zs = zs_noise.normal(Draw.SAMPLE_ZS, self.zs_mean.shape[1])
        zu = zu_noise.normal(Draw.SAMPLE_ZU, len(self.zu_mean))
        zs = torch.addcmul(self.zs_mean[labels], self.zs_std[labels], zs)
        return torch.cat([zs, torch.addcmul(self.zu_mean, self.zu_std, zu)], dim=1)


def fit_prior(zs: Tensor, zu: Tensor, labels: Tensor, num_classes: int) -> FittedPrior:
    """The moments of real images' codes zs [N, zs_dim], zu [N, zu_dim] (samples of their posteriors).

    Raises ValueError if a class has fewer than two images.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    if int(counts.min()) < 2:
        raise ValueError(
            f"class {int(counts.argmin())} has {int(counts.min())} image(s) among the {len(labels)} that the "
            "prior is fitted to, and a Gaussian needs two: evaluate with evaluation.prior model"
        )
    of_class = [zs[labels == label] for label in range(num_classes)]
    return FittedPrior(
        torch.stack([codes.mean(0) for codes in of_class]),
        torch.stack([codes.std(0) for codes in of_class]),
        zu.mean(0),
        zu.std(0),
    )

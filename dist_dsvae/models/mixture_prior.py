"""Mixture prior ("GM"): p(zs) = sum_c p(c) N(zs; mean_c, diag(var_c)) with p(c) = 1/C (Eq. 6).

Parametrised by log-variance and evaluated in log space, in full precision: exponentiated
densities underflow for every class at the paper's own size (d = 512, C = 530), and the
gradient is then exactly zero. Densities leave out the constant -d/2 log(2 pi), but for log_prior's.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dist_dsvae.core.types import Gaussian

_MOST_BY_ONE_SAMPLE = 1 / 32
_MOST_CLASSES_BY_PAIR = 4096

Fit = Literal["gradient", "moments", "fixed"]


class MixturePrior(nn.Module):
    """Class means [C, d] (Xavier-normal at first) and log-variances [C, d] (0 at first).

    log_variance_floor: log-variances are clamped from below to it wherever they are used; the
        joint likelihood is unbounded as a variance goes to 0.
    fit: "gradient": an optimiser trains both. "moments": ``follow`` moves both to the moments of the classes'
        zs, without a gradient. "fixed": nothing moves them.
    spread: standard deviation of the means at first, in place of Xavier's; 0: Xavier's.
    separation: ``follow`` holds the classes' means at least so many of a component's standard deviations
        apart (root mean square over classes and dimensions, about the mean of means).
    pair_separation: ``follow`` pushes the means of any two classes at least so many standard deviations apart
        (root mean square over dimensions and both). Raises ValueError above 4,096 classes.
    unit_variance: ``follow`` leaves every variance at 1.
    """

    def __init__(
        self,
        num_classes: int,
        zs_dim: int,
        log_variance_floor: float,
        *,
        fit: Fit = "gradient",
        spread: float = 0.0,
        separation: float = 0.0,
        pair_separation: float = 0.0,
        unit_variance: bool = False,
    ) -> None:
        super().__init__()
        if pair_separation and num_classes > _MOST_CLASSES_BY_PAIR:
            raise ValueError(
                f"method.mixture_pair_separation is {pair_separation:g}, but the data have {num_classes:,} "
                f"classes, and pairs are looked at one by one, which is for {_MOST_CLASSES_BY_PAIR:,} at "
                "most. Set it to 0; method.mixture_separation holds any number apart as a whole."
            )
        mean = nn.init.xavier_normal_(torch.empty(num_classes, zs_dim))
        if spread:
            nn.init.normal_(mean, std=spread)
        log_variance = torch.zeros(num_classes, zs_dim)
        # Learned in whatever way, so parameters: averaged encoders need the average of the classes that
        # their codes had meanwhile, and of buffers there is none.
        learns = fit == "gradient"
        self.mean = nn.Parameter(mean, requires_grad=learns)
        self.log_variance = nn.Parameter(log_variance, requires_grad=learns)
        self.fit = fit
        self.separation = separation
        self.pair_separation = pair_separation
        self.unit_variance = unit_variance
        self.log_variance_floor = log_variance_floor

    @property
    def num_classes(self) -> int:
        return self.mean.shape[0]

    def components(self) -> Gaussian:
        """All classes' Gaussians, mean and clamped log-variance [C, d]."""
        return Gaussian(self.mean, floored(self.log_variance, self.log_variance_floor))

    def component(self, labels: Tensor) -> Gaussian:
        """The Gaussians of ``labels`` [B]: mean and log-variance [B, d]."""
        log_variance = floored(self.log_variance[labels], self.log_variance_floor)
        return Gaussian(self.mean[labels], log_variance)

    def log_densities(self, zs: Tensor) -> Tensor:
        """log p(zs | c) for every class: [B, d] -> [B, C].

        In full precision also under autocast; no [B, C, d] tensor arises (``_LogDensities``).
        """
        mean, log_variance = self.components()
        with torch.autocast(zs.device.type, enabled=False):
            return log_densities(zs.to(mean.dtype), mean, log_variance)

    @torch.no_grad()
    def follow(self, posterior: Gaussian, labels: Tensor, rate: float) -> None:
        """Move towards the moments of zs ~ posterior [B, d] (of the global batch), class by class.

        They are where the likelihood of Eq. 9 has its optimum. rate: a class's share of the way per update
        in which it has as many samples as classes have on average; but no sample moves it by more than
        1/32, or the moments of a rare class would be those of its last few. The scale of zs is free (codes,
        means and deviations can shrink together), so the variances' geometric mean over all classes stays 1
        in each dimension.
        """
        assert self.fit == "moments"
        mean, log_variance = (t.to(self.mean.dtype) for t in posterior)
        with torch.autocast(labels.device.type, enabled=False):
            every = torch.arange(self.num_classes, device=labels.device)
            classes = (labels[:, None] == every).to(mean.dtype)  # [B, C]; one_hot reads on the host
            counts = classes.sum(dim=0)
            of_one = min(1.0 - (1.0 - rate) ** (self.num_classes / len(labels)), _MOST_BY_ONE_SAMPLE)
            weight = 1.0 - torch.pow(1.0 - of_one, counts)[:, None]
            share = (classes / counts.clamp_min(1.0)).T  # [C, B]: averages over a class's samples
            former = self.mean.clone()
            self.mean.lerp_(share @ mean, weight)
            if not self.unit_variance:
                # both about the new mean: the moments of a mixture of what was known and what is seen
                squares = (mean - self.mean[labels]).square() + torch.exp(log_variance)
                known = torch.exp(self.log_variance) + (self.mean - former).square()
                variance = torch.lerp(known, share @ squares, weight)
                # a class whose samples are certain and equal loses all of it in time
                log_variance = torch.log(variance).clamp_min(self.log_variance_floor)
                self.log_variance.copy_(log_variance - log_variance.mean(dim=0))
            if self.separation:
                self._hold_apart()
            if self.pair_separation:
                self._hold_pairs_apart()

    def _hold_apart(self) -> None:
        centre = self.mean.mean(dim=0)
        between = (self.mean - centre).square().mean()
        within = torch.exp(self.log_variance).mean()
        # a single class has none to be apart from
        least = torch.finfo(between.dtype).tiny
        factor = (self.separation * torch.sqrt(within / between.clamp_min(least))).clamp_min(1.0)
        self.mean.copy_(centre + factor * (self.mean - centre))

    def _hold_pairs_apart(self) -> None:
        """What a pair lacks is made up by both of its classes alike, so the mean of means stays.

        A class among several adds up what it lacks to each. In a crowd that is far too much, so all take a
        shorter step: none goes farther at once than a pair at one place would.
        """
        variance = torch.exp(self.log_variance).mean(dim=1)
        least = self.pair_separation * torch.sqrt((variance[:, None] + variance) / 2)
        apart = torch.cdist(self.mean, self.mean, compute_mode="donot_use_mm_for_euclid_dist")
        lack = (least - apart).clamp_min(0.0).fill_diagonal_(0.0)
        # means that coincide have no direction to part in; the sum below keeps its digits
        share = 0.5 * lack / torch.maximum(apart, 1e-3 * least)
        step = share.sum(dim=1, keepdim=True) * self.mean - share @ self.mean
        longest = (step.norm(dim=1) / least.amax(dim=1)).amax()
        self.mean.add_(step * (0.5 / longest).clamp_max(1.0))

    def total_moments(self) -> Gaussian:
        """Mean and log-variance [d] of the whole mixture (Eq. 11), computed in float64."""
        mean, log_variance = (t.double() for t in self.components())
        total_mean = mean.mean(dim=0)
        total_variance = torch.exp(log_variance).mean(dim=0) + (mean - total_mean).square().mean(dim=0)
        return Gaussian(total_mean, torch.log(total_variance))

    def log_posterior(self, zs: Tensor) -> Tensor:
        """log p(c | zs) [B, C] under the uniform class prior."""
        return torch.log_softmax(self.log_densities(zs) - math.log(self.num_classes), dim=1)

    def log_prior(self, zs: Tensor, labels: Tensor | None) -> Tensor:
        """log p(zs | label), of the whole mixture without ``labels``: [B, d] -> [B], with the constant."""
        constant = 0.5 * zs.shape[1] * math.log(2.0 * math.pi)
        if labels is not None:
            return gaussian_log_density(zs, self.component(labels)) - constant
        return torch.logsumexp(self.log_densities(zs), dim=1) - math.log(self.num_classes) - constant


def log_densities(zs: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(zs; mean_c, var_c) without the constant: [B, d], [C, d], [C, d] -> [B, C], all of one dtype."""
    densities: Tensor = _LogDensities.apply(zs, mean, log_variance)
    return densities


class _LogDensities(torch.autograd.Function):
    """zs [B, d], mean and log-variance [C, d] -> log p(zs | c) [B, C], without the constant.

    The square is expanded into two matrix products, with P = 1 / v:
        sum_d (z - m)^2 P = (z z) P' - 2 z (m P)' + sum_d m m P
    z and m are taken relative to the mean of means first, which changes nothing in exact arithmetic and
    keeps the three parts small. They still cancel where variances are tiny: at 1/22,000 (a log-variance of
    -10) with means of deviation 5, float32 leaves an error of a nat. The derivatives are written out because
    autograd's own would pass over the [C, d] matrices twice as often, which is what 100,000 classes take
    time for.
    """

    @staticmethod
    def forward(ctx: Any, zs: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        centre, dim = mean.mean(dim=0), zs.shape[1]
        m = mean - centre
        # side by side what meets the same gradient in a product
        both, table = zs.new_empty(len(zs), 2 * dim), m.new_empty(len(m), 2 * dim)
        (z, squares), (scaled, precision) = both.chunk(2, dim=1), table.chunk(2, dim=1)
        torch.sub(zs, centre, out=z)
        torch.mul(z, z, out=squares)
        torch.exp(-log_variance, out=precision)
        torch.mul(m, precision, out=scaled)
        ctx.save_for_backward(both, m, table)
        constant = torch.addcmul(log_variance, m, scaled).sum(dim=1)
        minus_half = torch.addmm(constant, squares, precision.T, beta=-0.5, alpha=-0.5)
        return minus_half.addmm_(z, scaled.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        both, m, table = ctx.saved_tensors
        w = gradients[0]  # [B, C]
        (z, _), (scaled, precision) = both.chunk(2, dim=1), table.chunk(2, dim=1)
        w_scaled, w_precision = (w @ table).chunk(2, dim=1)
        by_z = torch.addcmul(w_scaled, z, w_precision, value=-1.0)
        # by mean: P (w'z - m w'1)
        total, (wz, w_squares) = w.sum(dim=0)[:, None], (w.T @ both).chunk(2, dim=1)
        pull = torch.addcmul(wz, m, total, value=-1.0)
        by_mean = precision * pull
        # by log-variance: 1/2 (P w'(z z) - m P (2 w'z - m w'1) - w'1)
        by_log_variance = w_squares * precision
        by_log_variance.addcmul_(scaled, pull.add_(wz), value=-1.0).sub_(total).mul_(0.5)
        return by_z, by_mean, by_log_variance


def floored(log_variance: Tensor, floor: float) -> Tensor:
    """max(log_variance, floor), with a gradient below the floor too where it points back up.

    clamp's gradient is 0 below the floor: a value that one optimiser step carried past it would
    stay there for ever.
    """
    result: Tensor = _Floored.apply(log_variance, floor)
    return result


class _Floored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.floor = floor
        return value.clamp(min=floor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (value,) = ctx.saved_tensors
        (gradient,) = gradients
        # Descent moves against the gradient: a negative one raises the value. Above the floor this is the
        # smaller of the gradient and itself, below it that of the gradient and 0.
        above = torch.ops.aten.threshold_backward(gradient, value, ctx.floor)
        return torch.minimum(gradient, above), None


def squared_distance(z: Tensor, gaussian: Gaussian) -> Tensor:
    """sum_d (z - mean)^2 / var: [B, d] -> [B]."""
    return ((z - gaussian.mean).square() * torch.exp(-gaussian.log_variance)).sum(dim=1)


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(N(mean, var) || N(prior's)) in closed form, summed over dimensions: [B, d] -> [B]."""
    ratio = posterior.log_variance - prior.log_variance
    return 0.5 * (squared_distance(posterior.mean, prior) + (torch.exp(ratio) - 1.0 - ratio).sum(dim=-1))


def gaussian_log_density(z: Tensor, gaussian: Gaussian) -> Tensor:
    """log N(z; mean, var) without the constant: [B, d] -> [B]."""
    return -0.5 * (squared_distance(z, gaussian) + gaussian.log_variance.sum(dim=-1))


def standard_normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I), with the constant: [B, d] -> [B]."""
    return -0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2.0 * math.pi))

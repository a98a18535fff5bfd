"""A plain, slow, literal transcription of Algorithm 1: the oracle for one whole iteration.

Every line of the algorithm is one line here. Each network's gradient is taken by itself, from the
sum of losses that lines 25-29 name for it, with torch.autograd.grad, and each network has an Adam
of its own (encoder_s has two, one per stage), as in the authors' code. No routing, no shared
passes, no fused optimiser. ``launch/benchmark.py step`` times it as the peer.

The discriminator's power iteration runs once per iteration, at its first use.

Beyond the paper, also written out plainly: zs drawn from a Gaussian posterior (Eq. 2 without the limit
of Eq. 7), the aggregate of zu, the recovery of codes, and a mixture that follows its
classes' moments.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.core.types import Batch
from dist_dsvae.methods.dsvae import DSVAE

NormalOf = Callable[[str, int], Tensor]
SeenBy = Callable[[str, Tensor], Tensor]
DrawnFor = Callable[[Batch], list[int]]


class PlainTrainer:
    """Trains the networks of a DSVAE module with the "reference" loss weights, logistic form.

    augmented: what the discriminator sees of x ("real"), x'_f ("reconstructed") and x'_p ("prior"), and
        encoder_s of x in lines 3-5 ("stage_1").
    drawn: the classes that are drawn for a batch, one more than method.sampled_classes, where that is set.
    """

    def __init__(
        self,
        method: DSVAE,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        augmented: SeenBy = lambda group, images: images,
        drawn: DrawnFor | None = None,
    ) -> None:
        self.m = method
        self.augmented = augmented
        self.drawn = drawn
        prior = method.mixture_prior

        def adam(parameters: list[nn.Parameter]) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=lr, betas=betas, foreach=False, fused=False)

        self.opt_gm_encoder = adam(list(method.encoder_s.parameters()))
        if method.config.mixture_fit == "gradient":
            self.opt_mean = adam([prior.mean])
            self.opt_variance = adam([prior.log_variance])
        self.opt_s = adam(list(method.encoder_s.parameters()))
        self.opt_u = adam(list(method.encoder_u.parameters()))
        self.opt_classifier = adam(list(method.latent_classifier.parameters()))
        self.opt_decoder = adam(list(method.decoder.parameters()))
        self.opt_discriminator = adam(list(method.discriminator.parameters()))
        self.last_gradients: dict[str, tuple[Tensor, ...]] = {}

    def log_normal(self, zs: Tensor, labels: Tensor | None) -> Tensor:
        """log N(zs; mean_c, var_c), all classes [B, C] or the label's own [B], by plain broadcasting."""
        mean, log_variance = self.m.mixture_prior.mean, self.m.mixture_prior.log_variance
        if labels is not None:
            mean, log_variance = mean[labels], log_variance[labels]
            return -0.5 * ((zs - mean) ** 2 / log_variance.exp() + log_variance).sum(1)
        difference = zs[:, None, :] - mean[None]
        return -0.5 * (difference**2 / log_variance.exp() + log_variance).sum(2)

    def encode_s(self, images: Tensor, epsilon: Callable[[], Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """zs, and mean and variance of its posterior (None: certain)."""
        encoded = self.m.encoder_s(images)
        if self.m.config.zs_posterior == "dirac":
            return encoded, encoded, None
        mean, log_variance = encoded
        return mean + (0.5 * log_variance).exp() * epsilon(), mean, log_variance.exp()

    def lkd(self, mean: Tensor, variance: Tensor | None, prior: tuple[Tensor, Tensor]) -> Tensor:
        """-log N(zs; prior) of a certain zs, else KL(q(zs|x) || prior), summed over dimensions: [B]."""
        m, v = prior
        if variance is None:
            return 0.5 * ((mean - m) ** 2 / v + v.log()).sum(1)
        return (0.5 * ((mean - m) ** 2 / v + variance / v - 1 - (variance / v).log())).sum(1)

    def class_prior(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.mixture_prior.mean[labels], self.m.mixture_prior.log_variance[labels].exp()

    def log_q(self, densities: Tensor, batch: Batch) -> Tensor:
        """log q(y | zs) [B] from all classes' log-densities [B, C], or from a sample of the classes."""
        every, others = range(self.m.num_classes), self.m.config.sampled_classes
        found = []
        for own, row in zip(batch.labels.tolist(), densities, strict=True):
            drawn = self.drawn(batch) if others else list(every)
            rest = [c for c in drawn if c != own][: others or None]
            weight = (self.m.num_classes - 1) / len(rest)  # 1 where all are there
            total = torch.cat([row[[own]], row[rest] + math.log(weight)]).logsumexp(0)
            found.append(row[own] - total)
        return torch.stack(found)

    def margined(self, densities: Tensor, zs: Tensor, labels: Tensor) -> Tensor:
        """Row by row: the true class's squared distance times 1 + margin (Wan et al., 2018)."""
        rows = []
        for code, row, own in zip(zs, densities, labels.tolist(), strict=True):
            mean, variance = self.m.mixture_prior.mean[own], self.m.mixture_prior.log_variance[own].exp()
            farther = 0.5 * self.m.config.gm_margin * ((code - mean) ** 2 / variance).sum()
            rows.append(torch.cat([row[:own], (row[own] - farther)[None], row[own + 1 :]]))
        return torch.stack(rows)

    def gm_loss(self, batch: Batch, normal: NormalOf) -> Tensor:
        """Lines 3-5."""
        images = self.augmented("stage_1", batch.images)
        zs, mean, variance = self.encode_s(images, lambda: normal("stage_1_zs", self.m.zs_dim))
        log_q = self.log_q(self.margined(self.log_normal(zs, None), zs, batch.labels), batch)
        lkd = self.lkd(mean, variance, self.class_prior(batch.labels))
        self.seen = mean.detach(), None if variance is None else variance.detach()
        return (-log_q + self.m.config.likelihood_weight * lkd).mean()

    def gm_step(self, batch: Batch, normal: NormalOf) -> Tensor:
        """Lines 3-8."""
        loss = self.gm_loss(batch, normal)
        plan = [("gm.encoder_s", self.opt_gm_encoder, loss)]
        if self.m.config.mixture_fit == "gradient":
            plan += [("gm.mean", self.opt_mean, loss), ("gm.log_variance", self.opt_variance, loss)]
        else:
            self.follow(batch.labels)
        self.update(plan)
        return loss.detach()

    def follow(self, labels: Tensor) -> None:
        """Class by class, in a loop: the mixture's moments move towards those of the last batch's zs."""
        prior, (mean, variance) = self.m.mixture_prior, self.seen
        old, log_variances = prior.mean.clone(), prior.log_variance.clone()
        for c in range(self.m.num_classes):
            own = mean[labels == c]
            if not len(own):
                continue
            of_one = 1 - (1 - self.m.config.mixture_rate) ** (self.m.num_classes / len(labels))
            weight = 1 - (1 - min(of_one, 1 / 32)) ** len(own)
            prior.mean[c] = old[c] + weight * (own.mean(0) - old[c])
            spread = torch.zeros_like(own) if variance is None else variance[labels == c]
            moment = ((own - prior.mean[c]) ** 2 + spread).mean(0)
            v = log_variances[c].exp() + (prior.mean[c] - old[c]) ** 2
            log_variances[c] = (v + weight * (moment - v)).log()
        if self.m.config.mixture_variance == "per_class":
            prior.log_variance.copy_(log_variances - log_variances.mean(0))
        if self.m.config.mixture_separation:
            away = prior.mean - prior.mean.mean(0)
            ratio = (away**2).mean().sqrt() / prior.log_variance.exp().mean().sqrt()
            prior.mean.copy_(prior.mean.mean(0) + away * max(1.0, self.m.config.mixture_separation / ratio))
        if self.m.config.mixture_pair_separation:
            self.part_pairs(self.m.config.mixture_pair_separation)

    def part_pairs(self, least: float) -> None:
        """Pair by pair: half of what lacks, for each of both, along the line through their means.

        No class farther than half of what its pairs are to have; if one would be, all by as much less.
        """
        prior = self.m.mixture_prior
        old, variance = prior.mean.clone(), prior.log_variance.exp()
        step, allowed = torch.zeros_like(old), torch.zeros(len(old), dtype=old.dtype)
        for c in range(self.m.num_classes):
            for other in range(self.m.num_classes):
                line = old[c] - old[other]
                wanted = float(least * torch.cat([variance[c], variance[other]]).mean().sqrt())
                allowed[c] = max(float(allowed[c]), wanted / 2)
                if other != c and (lack := wanted - float(line.norm())) > 0:
                    step[c] += lack / 2 * line / line.norm()
        prior.mean += step / max(1.0, float((step.norm(dim=1) / allowed).max()))

    def joint_terms(self, batch: Batch, normal: NormalOf) -> dict[str, Tensor]:
        """Lines 10-24: every loss with its whole graph, nothing detached but where the line says so."""
        m, x, y = self.m, batch.images, batch.labels
        mu, log_sigma2 = m.encoder_u(x)  # 11
        kl = (0.5 * (mu**2 + log_sigma2.exp() - 1 - log_sigma2)).mean()  # 12
        zu = (0.5 * log_sigma2).exp() * normal("posterior_zu", m.zu_dim) + mu  # 13, 14
        adv_e = -(torch.log_softmax(m.latent_classifier(zu), 1) / m.num_classes).sum(1).mean()  # 15
        adv_c = F.cross_entropy(m.latent_classifier(zu), y)  # 16
        zs, mean, variance = self.encode_s(x, lambda: normal("posterior_zs", m.zs_dim))  # 17
        lkd = self.lkd(mean, variance, self.class_prior(y)).mean()  # 18
        x_f = m.decoder(torch.cat([zs, zu], 1))  # 19
        rec = ((x - x_f) ** 2).mean()  # 20
        prior = m.mixture_prior
        zs_p = prior.mean[y] + (0.5 * prior.log_variance[y]).exp() * normal("prior_zs", m.zs_dim)  # 21
        x_p = m.decoder(torch.cat([zs_p, normal("prior_zu", m.zu_dim)], 1))  # 22

        def log_d(group: str, images: Tensor) -> tuple[Tensor, Tensor]:
            score = m.discriminator(self.augmented(group, images), y)
            return F.logsigmoid(score).mean(), F.logsigmoid(-score).mean()  # log D, log(1 - D)

        real = log_d("real", x)[0]
        m.discriminator.eval()  # the power iteration of this iteration is done
        adv_d = -real - log_d("reconstructed", x_f.detach())[1] - log_d("prior", x_p.detach())[1]  # 23
        adv_gd = -log_d("reconstructed", x_f)[0] - log_d("prior", x_p)[0]  # 24
        m.discriminator.train()
        terms = {
            "reconstruction": rec,
            "likelihood": lkd,
            "kl": kl,
            "confusion": adv_e,
            "latent_classification": adv_c,
            "generator": adv_gd,
            "discriminator": adv_d,
        }
        return terms | self.more_terms(batch, zu, zs_p, normal("prior_zu", m.zu_dim), x_p)

    def more_terms(
        self, batch: Batch, zu: Tensor, zs_p: Tensor, zu_p: Tensor, x_p: Tensor
    ) -> dict[str, Tensor]:
        """Beyond the paper."""
        m, terms = self.m, {}
        if m.config.aggregate_weight:
            variance = zu.var(0, correction=0)
            terms["aggregate"] = (0.5 * (zu.mean(0) ** 2 + variance - 1 - variance.log())).mean()
        if m.config.code_weight:
            encoders = copy.deepcopy((m.encoder_s, m.encoder_u))  # their running statistics stay

            def log_q(code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
                return -(0.5 * ((code - mean) ** 2 / log_variance.exp() + log_variance)).mean()

            of_zs, of_zu = encoders[0](x_p), encoders[1](x_p)
            if m.config.zs_posterior == "dirac":
                of_zs = of_zs, m.mixture_prior.log_variance[batch.labels].detach()
            terms["code_recovery"] = -log_q(zs_p.detach(), *of_zs) - log_q(zu_p, *of_zu)
        return terms

    def unlabelled_terms(self, batch: Batch, normal: NormalOf) -> dict[str, Tensor]:
        """Section 3.6: lines 10-24 without labels, zs ~ N(mean_t, var_t) of Eq. 11."""
        m, x = self.m, batch.images
        variance = m.mixture_prior.log_variance.exp()
        mean_t = m.mixture_prior.mean.mean(0)
        var_t = variance.mean(0) + (m.mixture_prior.mean**2).mean(0) - mean_t**2
        mu, log_sigma2 = m.encoder_u(x)
        kl = (0.5 * (mu**2 + log_sigma2.exp() - 1 - log_sigma2)).mean()
        zu = (0.5 * log_sigma2).exp() * normal("posterior_zu", m.zu_dim) + mu
        zs, mean, zs_variance = self.encode_s(x, lambda: normal("posterior_zs", m.zs_dim))
        lkd = self.lkd(mean, zs_variance, (mean_t, var_t)).mean()
        x_f = m.decoder(torch.cat([zs, zu], 1))
        rec = ((x - x_f) ** 2).mean()
        zs_p = mean_t + var_t.sqrt() * normal("prior_zs", m.zs_dim)
        x_p = m.decoder(torch.cat([zs_p, normal("prior_zu", m.zu_dim)], 1))

        def log_d(group: str, images: Tensor) -> tuple[Tensor, Tensor]:
            score = m.config.discriminator_gain * m.discriminator.head(
                m.discriminator.layers(self.augmented(group, images))
            )
            return F.logsigmoid(score).mean(), F.logsigmoid(-score).mean()

        real = log_d("real", x)[0]
        m.discriminator.eval()  # the power iteration of this step is done
        adv_d = -real - log_d("reconstructed", x_f.detach())[1] - log_d("prior", x_p.detach())[1]
        adv_gd = -log_d("reconstructed", x_f)[0] - log_d("prior", x_p)[0]
        m.discriminator.train()
        terms = {
            "reconstruction": rec,
            "likelihood": lkd,
            "kl": kl,
            "generator": adv_gd,
            "discriminator": adv_d,
        }
        if m.config.aggregate_weight:
            spread = zu.var(0, correction=0)
            terms["aggregate"] = (0.5 * (zu.mean(0) ** 2 + spread - 1 - spread.log())).mean()
        return {f"unlabelled_{name}": term for name, term in terms.items()}

    def joint_step(self, batch: Batch, normal: NormalOf) -> dict[str, Tensor]:
        """Lines 10-29."""
        t = self.joint_terms(batch, normal)
        c = self.m.config
        nothing = torch.zeros((), dtype=batch.images.dtype)
        to_s = 10 * t["reconstruction"] + 10 * c.likelihood_weight * t["likelihood"]
        aggregate = c.aggregate_weight * t.get("aggregate", nothing)
        to_u = t["confusion"] + t["kl"] + 10 * t["reconstruction"] + aggregate
        recovery = c.code_weight * t.get("code_recovery", nothing)
        to_decoder = 10 * t["reconstruction"] + t["generator"] + recovery
        self.update(
            [
                ("encoder_s", self.opt_s, to_s),  # 25
                ("encoder_u", self.opt_u, to_u),  # 26
                ("latent_classifier", self.opt_classifier, t["latent_classification"]),  # 27
                ("decoder", self.opt_decoder, to_decoder),  # 28
                ("discriminator", self.opt_discriminator, t["discriminator"]),  # 29
            ]
        )
        return {name: term.detach() for name, term in t.items()}

    def update(self, plan: list[tuple[str, torch.optim.Optimizer, Tensor]]) -> None:
        """All gradients at the same parameters, then all updates."""
        gradients = {}
        for name, optimizer, loss in plan:
            parameters = optimizer.param_groups[0]["params"]
            gradients[name] = torch.autograd.grad(loss, parameters, retain_graph=True)
        for name, optimizer, _ in plan:
            for parameter, gradient in zip(optimizer.param_groups[0]["params"], gradients[name], strict=True):
                parameter.grad = gradient
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.last_gradients.update(gradients)

"""A plain, slow, literal transcription of Algorithm 1: the oracle for one whole iteration.

Every line of the algorithm is one line here. Each network's gradient is taken by itself, from the
sum of losses that lines 25-29 name for it, with torch.autograd.grad, and each network has an Adam
of its own (encoder_s has two, one per stage), as in the authors' code. No routing, no shared
passes, no fused optimiser. ``launch/benchmark.py step`` times it as the peer.

The discriminator's power iteration runs once per iteration, at its first use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.types import Batch

NormalOf = Callable[[str, int], Tensor]
SeenBy = Callable[[str, Tensor], Tensor]


class PlainTrainer:
    """Trains the networks of a DSVAE module with the "reference" loss weights, logistic form.

    augmented: what the discriminator sees of x ("real"), x'_f ("reconstructed") and x'_p ("prior").
    """

    def __init__(
        self,
        method: DSVAE,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        augmented: SeenBy = lambda group, images: images,
    ) -> None:
        self.m = method
        self.augmented = augmented
        prior = method.mixture_prior

        def adam(parameters: list[nn.Parameter]) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=lr, betas=betas, foreach=False, fused=False)

        self.opt_gm_encoder = adam(list(method.encoder_s.parameters()))
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

    def gm_loss(self, batch: Batch) -> Tensor:
        """Lines 3-5."""
        zs = self.m.encoder_s(batch.images)
        log_posterior = torch.log_softmax(self.log_normal(zs, None), dim=1)
        log_q = log_posterior.gather(1, batch.labels[:, None])[:, 0]
        return (-log_q - self.m.config.likelihood_weight * self.log_normal(zs, batch.labels)).mean()

    def gm_step(self, batch: Batch) -> Tensor:
        """Lines 3-8."""
        loss = self.gm_loss(batch)
        self.update(
            [
                ("gm.encoder_s", self.opt_gm_encoder, loss),
                ("gm.mean", self.opt_mean, loss),
                ("gm.log_variance", self.opt_variance, loss),
            ]
        )
        return loss.detach()

    def joint_terms(self, batch: Batch, normal: NormalOf) -> dict[str, Tensor]:
        """Lines 10-24: every loss with its whole graph, nothing detached but where the line says so."""
        m, x, y = self.m, batch.images, batch.labels
        mu, log_sigma2 = m.encoder_u(x)  # 11
        kl = (0.5 * (mu**2 + log_sigma2.exp() - 1 - log_sigma2)).mean()  # 12
        zu = (0.5 * log_sigma2).exp() * normal("posterior_zu", m.zu_dim) + mu  # 13, 14
        adv_e = -(torch.log_softmax(m.latent_classifier(zu), 1) / m.num_classes).sum(1).mean()  # 15
        adv_c = F.cross_entropy(m.latent_classifier(zu), y)  # 16
        zs = m.encoder_s(x)  # 17
        lkd = -self.log_normal(zs, y).mean()  # 18
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
        return {
            "reconstruction": rec,
            "likelihood": lkd,
            "kl": kl,
            "confusion": adv_e,
            "latent_classification": adv_c,
            "generator": adv_gd,
            "discriminator": adv_d,
        }

    def unlabelled_terms(self, batch: Batch, normal: NormalOf) -> dict[str, Tensor]:
        """Section 3.6: lines 10-24 without labels, zs ~ N(mean_t, var_t) of Eq. 11."""
        m, x = self.m, batch.images
        variance = m.mixture_prior.log_variance.exp()
        mean_t = m.mixture_prior.mean.mean(0)
        var_t = variance.mean(0) + (m.mixture_prior.mean**2).mean(0) - mean_t**2
        mu, log_sigma2 = m.encoder_u(x)
        kl = (0.5 * (mu**2 + log_sigma2.exp() - 1 - log_sigma2)).mean()
        zu = (0.5 * log_sigma2).exp() * normal("posterior_zu", m.zu_dim) + mu
        zs = m.encoder_s(x)
        lkd = (0.5 * ((zs - mean_t) ** 2 / var_t + var_t.log()).sum(1)).mean()
        x_f = m.decoder(torch.cat([zs, zu], 1))
        rec = ((x - x_f) ** 2).mean()
        zs_p = mean_t + var_t.sqrt() * normal("prior_zs", m.zs_dim)
        x_p = m.decoder(torch.cat([zs_p, normal("prior_zu", m.zu_dim)], 1))

        def log_d(group: str, images: Tensor) -> tuple[Tensor, Tensor]:
            score = m.discriminator.head(m.discriminator.layers(self.augmented(group, images)))
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
        return {f"unlabelled_{name}": term for name, term in terms.items()}

    def joint_step(self, batch: Batch, normal: NormalOf) -> dict[str, Tensor]:
        """Lines 10-29."""
        t = self.joint_terms(batch, normal)
        weight = 10 * self.m.config.likelihood_weight
        self.update(
            [
                ("encoder_s", self.opt_s, 10 * t["reconstruction"] + weight * t["likelihood"]),  # 25
                ("encoder_u", self.opt_u, t["confusion"] + t["kl"] + 10 * t["reconstruction"]),  # 26
                ("latent_classifier", self.opt_classifier, t["latent_classification"]),  # 27
                ("decoder", self.opt_decoder, 10 * t["reconstruction"] + t["generator"]),  # 28
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

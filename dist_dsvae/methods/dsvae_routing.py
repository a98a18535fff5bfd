"""What of the paper's method trains what, as data: the routing table and the updates of an iteration."""

from __future__ import annotations

from dist_dsvae.config import DSVAEConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.conditional import autoencoder_weights
from dist_dsvae.methods.routing import RoutingTable
from dist_dsvae.methods.update import Reduction, Update

UNLABELLED = "unlabelled_"


def routing_table(config: DSVAEConfig, shape: ImageShape, zu_dim: int) -> RoutingTable:
    """Which term trains which network with which weight (Algorithm 1, lines 25-29).

    Weights multiply the terms as ``losses`` defines them. "reference" is what the authors' code
    runs: 10 x mean squared error in all three networks, likelihood 10 x lambda_lkd, KL averaged
    over zu. "paper" is the text taken literally: 1/2 of the summed squared error for encoder_s and
    decoder, lambda_rec = 1/N_zu of that for encoder_u, lambda_kl = 10/N_pixel of the summed KL.

    Terms beyond the paper are left out where their weight is 0.
    """
    rec_u, rec, kl = autoencoder_weights(config.loss_weights, shape, zu_dim)
    scale = 10.0 if config.loss_weights == "reference" else 1.0
    r = config.reconstruction_weight
    without_labels: RoutingTable = {
        "reconstruction": {"encoder_s": r * rec, "encoder_u": r * rec_u, "decoder": r * rec},
        "likelihood": {"encoder_s": scale * config.likelihood_weight},
        "kl": {"encoder_u": config.kl_weight * kl},
        "generator": {"decoder": config.generator_weight},
        "discriminator": {"discriminator": 1.0},
        **_given({"aggregate": {"encoder_u": config.aggregate_weight}}),
    }
    mixture = {"mixture_prior": 1.0} if config.mixture_fit == "gradient" else {}
    return {
        "gm": {"encoder_s": 1.0, **mixture},
        **without_labels,
        **_given({"code_recovery": {"decoder": config.code_weight}}),
        "confusion": {"encoder_u": config.confusion_weight},
        "latent_classification": {"latent_classifier": 1.0},
        **{UNLABELLED + term: trained for term, trained in without_labels.items()},
        f"{UNLABELLED}likelihood": {"encoder_s": scale * config.unlabelled_likelihood_weight},
    }


def _given(table: RoutingTable) -> RoutingTable:
    return {term: weights for term, weights in table.items() if any(weights.values())}


def updates_of(config: DSVAEConfig, routing: RoutingTable) -> tuple[Update, ...]:
    """The updates of one iteration; those with 0 repeats are left out."""
    unlabelled_terms = tuple(term for term in routing if term.startswith(UNLABELLED))
    updates = (
        Update(
            name="gm",
            repeats=config.gm_updates,
            terms=("gm",),
            trains=tuple(routing["gm"]),
            reduction=Reduction.FLAT,
            variances=("mixture_prior.log_variance",) if config.mixture_fit == "gradient" else (),
        ),
        Update(
            name="joint",
            repeats=config.joint_updates,
            terms=tuple(term for term in routing if term != "gm" and term not in unlabelled_terms),
            trains=("encoder_s", "encoder_u", "decoder", "latent_classifier", "discriminator"),
            reduction=Reduction.OVERLAPPED,
            fresh_batch=config.joint_batch == "fresh",
        ),
        Update(
            name="unlabelled",
            repeats=config.unlabelled_updates,
            terms=unlabelled_terms,
            # without the label embedding, which gets no gradient
            trains=("encoder_s", "encoder_u", "decoder", "discriminator.layers", "discriminator.head"),
            reduction=Reduction.FLAT,
            split="unlabelled",
        ),
    )
    return tuple(update for update in updates if update.repeats)

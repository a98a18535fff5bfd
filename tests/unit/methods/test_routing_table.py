"""The routing table against autograd: term by term, network by network.

For each term the routed gradient of each network is compared with weight x the gradient of the
literal transcription's term, whose graph nothing cuts; where the table has no entry, the routed
gradient must be exactly zero.
"""

from __future__ import annotations

import copy

import pytest
from torch import Tensor

from dist_dsvae.methods.dsvae import DSVAE
from tests.algorithm1 import PlainTrainer
from tests.unit.methods.making import (
    BEYOND,
    SHAPES,
    assert_routed,
    drawn_for,
    make_batch,
    make_method,
    named_gradients,
    noise_for,
    normal_for,
    seen_by_networks,
    summed,
)

NETWORKS = ("encoder_s", "encoder_u", "decoder", "latent_classifier", "discriminator", "mixture_prior")


def plain_terms(method: DSVAE, step: str, batch) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    plain = PlainTrainer(method, drawn=drawn_for, augmented=seen_by_networks(method.config, batch))
    if step == "joint":
        return plain.joint_terms(batch, normal_for(batch))
    if step == "unlabelled":
        return plain.unlabelled_terms(batch, normal_for(batch))
    return {"gm": plain.gm_loss(batch, normal_for(batch))}


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("small", {}),
        ("small32", {}),
        ("mlp2d", {}),
        ("mlp2d", {"loss_weights": "paper"}),
        ("small32", {"augmentation": "on"}),
        ("small32", BEYOND | {"augmentation": "on", "stage_1_augmentation": "on"}),
        ("mlp2d", BEYOND | {"loss_weights": "paper"}),
        ("mlp2d", {"code_weight": 0.5, "mixture_fit": "moments"}),
        ("mlp2d", {"sampled_classes": 2}),
        ("mlp2d", {"gm_margin": 0.5}),
        ("mlp2d", BEYOND | {"gm_margin": 0.5}),
        ("mlp2d", {"sampled_classes": 2, "gm_margin": 0.5}),
    ],
)
@pytest.mark.parametrize("step", ["gm", "joint", "unlabelled"])
def test_table_is_what_autograd_sees(architecture: str, settings: dict[str, object], step: str) -> None:
    settings = settings | {"unlabelled_updates": 1}
    batch = make_batch(SHAPES[architecture])
    unused = make_method(architecture, **settings)
    reference = copy.deepcopy(unused)
    values = plain_terms(reference, step, batch)
    for term in copy.deepcopy(unused)(batch, noise_for(batch), step):
        method = copy.deepcopy(unused)  # one backward each, and the same power iterations
        summed(method, {term: method(batch, noise_for(batch), step)[term]}).backward()
        assert_routed(method, term, NETWORKS, named_gradients(reference, values[term]), rtol=1e-8)


def test_every_trained_network_has_a_term_and_every_term_a_step() -> None:
    method = make_method(unlabelled_updates=1)
    assert {term for step in method.updates for term in step.terms} == set(method.routing)
    for step in method.updates:
        reached = {network for term in step.terms for network in method.routing[term]}
        assert reached == {name.partition(".")[0] for name in step.trains}


def test_presets_are_the_specified_numbers() -> None:
    """32x32 grey images, d_u = 4: N_pixel = 1024 values and pixels."""
    reference = make_method(loss_weights="reference").routing
    assert reference["reconstruction"] == {"encoder_s": 10.0, "encoder_u": 10.0, "decoder": 10.0}
    assert reference["likelihood"] == {"encoder_s": 1.0}
    assert reference["kl"] == {"encoder_u": 1.0}
    paper = make_method(loss_weights="paper").routing
    assert paper["reconstruction"] == {"encoder_s": 512.0, "encoder_u": 128.0, "decoder": 512.0}
    assert paper["likelihood"] == {"encoder_s": 0.1}
    assert paper["kl"] == {"encoder_u": 10.0 / 1024 * 4}

"""The baselines' routing tables against autograd, and what the conditional networks are told."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.config import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    DSVAEConfig,
    MethodConfig,
)
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.methods.abilities import Autoencoding, Classifying, Generative, LabelFree, PriorDensity
from dist_dsvae.methods.classifier import dropped_out, shifted
from dist_dsvae.methods.global_batch import mean_feature
from dist_dsvae.methods.update import Method
from dist_dsvae.models import losses
from dist_dsvae.sampling.generate import sample_codes
from tests.unit.methods.making import (
    NUM_CLASSES,
    SHAPES,
    assert_routed,
    make_any,
    make_batch,
    named_gradients,
    noise_for,
    seen_by_the_discriminator,
    summed,
)

CONFIGS = [
    CVAEConfig(),
    CVAEConfig(loss_weights="paper", kl_weight=2.0),
    CGANConfig(),
    CGANConfig(adversarial="hinge", prior_labels="uniform"),
    CVAEGANConfig(feature_weight=0.7, mean_feature_weight=3.0),
    CVAEGANConfig(loss_weights="paper", feature_weight=0.7),
    CVAEGANConfig(feature_weight=0.0, mean_feature_weight=0.0, adversarial="hinge"),
    CVAEGANConfig(reconstruction_weight=0.0, feature_weight=2.0),
    CGANConfig(augmentation="on"),
    CVAEGANConfig(feature_weight=0.7, augmentation="on"),
    CVAEGANConfig(feature_weight=0.0, adversarial="hinge", augmentation="on"),
    ClassifierConfig(label_smoothing=0.1, shift_pixels=2, dropout=0.25),
]
NETWORKS = ("encoder_u", "decoder", "discriminator", "network")


def name_of(config: MethodConfig) -> str:
    return f"{config.name}-{CONFIGS.index(config)}"


def plain_terms(method: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Every term with its whole graph: nothing detached, shared or scaled."""
    m, config, noise = method, method.config, noise_for(batch)
    x, y = batch.images, batch.labels
    told = F.one_hot(y, NUM_CLASSES).double()
    terms: dict[str, Tensor] = {}
    if hasattr(m, "network"):
        logits = m.network.head(dropped_out(m.network.features(shifted(x, noise, 2)), noise, 0.25))
        return {"classification": F.cross_entropy(logits, y, label_smoothing=0.1)}
    augmented = seen_by_the_discriminator(batch)

    def seen(group: str, images: Tensor) -> Tensor:
        return augmented(group, images) if config.augmentation == "on" else images

    fakes: list[tuple[str, Tensor, Tensor]] = []
    if hasattr(m, "encoder_u"):
        planes = told if x.dim() == 2 else told[:, :, None, None].expand(-1, -1, *x.shape[2:])
        mean, log_variance = m.encoder_u(torch.cat([x, planes], 1))
        z = mean + (0.5 * log_variance).exp() * noise.normal(Draw.POSTERIOR_ZU, m.zu_dim)
        rebuilt = m.decoder(torch.cat([told, z], 1))
        terms["reconstruction"] = ((x - rebuilt) ** 2).mean()
        terms["kl"] = (0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)).mean()
        fakes.append(("reconstructed", rebuilt, y))
    if not hasattr(m, "discriminator"):
        return terms
    uniform = config.prior_labels == "uniform"
    drawn = noise.integers(Draw.PRIOR_LABEL, NUM_CLASSES) if uniform else y
    code = torch.cat([F.one_hot(drawn, NUM_CLASSES).double(), noise.normal(Draw.PRIOR_ZU, m.zu_dim)], 1)
    fakes.append(("prior", m.decoder(code), drawn))
    form = config.adversarial
    scores, features = m.discriminator.scores_and_features(seen("real", x), y)
    m.discriminator.eval()  # the power iteration of this step is done
    judged = [m.discriminator.scores_and_features(seen(group, fake), label) for group, fake, label in fakes]
    terms["discriminator"] = losses.discriminator(-scores, form) + sum(
        losses.discriminator(score, form) for score, _ in judged
    )
    terms["generator"] = sum(losses.generator(score, form) for score, _ in judged)
    if getattr(config, "feature_weight", 0):
        # changed as the real image is, not as where the fake is judged
        rebuilt_features = m.discriminator.scores_and_features(seen("real", rebuilt), y)[1]
        terms["feature_reconstruction"] = ((features - rebuilt_features) ** 2).mean()
    if getattr(config, "mean_feature_weight", 0):
        terms["mean_feature"] = ((features.mean(0) - judged[1][1].mean(0)) ** 2).mean()
    m.discriminator.train()
    return terms


@pytest.mark.parametrize("architecture", ["small", "small32", "mlp2d"])
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_table_is_what_autograd_sees(config: MethodConfig, architecture: str) -> None:
    if config.name == "classifier":
        if architecture != "small32":
            pytest.skip("a classifier has networks of its own")
        architecture = "resnet32"
    if architecture == "mlp2d" and getattr(config, "augmentation", "off") == "on":
        pytest.skip("points are not augmented")
    batch = make_batch(SHAPES.get(architecture, SHAPES["small32"]))
    unused = make_any(config, architecture)
    reference = copy.deepcopy(unused)
    expected_terms = plain_terms(reference, batch)
    assert expected_terms.keys() == unused.routing.keys()
    for term, value in expected_terms.items():
        method = copy.deepcopy(unused)  # one backward each, and the same power iterations
        terms = method(batch, noise_for(batch), "joint")
        assert terms.keys() == expected_terms.keys()
        summed(method, {term: terms[term]}).backward()
        networks = [network for network in NETWORKS if hasattr(method, network)]
        assert_routed(method, term, networks, named_gradients(reference, value), rtol=1e-7)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_trained_network_has_a_term_and_every_term_a_step(config: MethodConfig) -> None:
    method = make_any(config, "resnet32" if config.name == "classifier" else "small32")
    assert isinstance(method, Method)
    (step,) = method.updates
    assert set(step.terms) == set(method.routing)
    assert {network for term in step.terms for network in method.routing[term]} == set(step.trains)
    assert {name for name, _ in method.named_children()} == set(step.trains)
    assert set(method.averaged) <= set(method.inference) <= set(step.trains)
    assert set(step.trains) - set(method.inference) <= {"discriminator"}


@pytest.mark.parametrize(
    ("config", "abilities"),
    [
        (DSVAEConfig(), {Generative, Autoencoding, LabelFree, PriorDensity, Classifying}),
        (CVAEConfig(), {Generative, Autoencoding, PriorDensity}),
        (CGANConfig(), {Generative}),
        (CVAEGANConfig(), {Generative, Autoencoding, PriorDensity}),
        (ClassifierConfig(), {Classifying}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_abilities(config: MethodConfig, abilities: set[type]) -> None:
    architecture = "resnet32" if config.name == "classifier" else "small32"
    method = make_any(config, architecture).eval()
    every = (Generative, Autoencoding, LabelFree, PriorDensity, Classifying)
    assert {a for a in every if isinstance(method, a)} == abilities
    batch = make_batch(SHAPES["small32"])
    if isinstance(method, Generative):
        codes = sample_codes(method, batch.labels, seed=3, dtype=torch.float64)
        again = sample_codes(
            method, batch.labels[2:], seed=3, positions=torch.arange(2, 6), dtype=torch.float64
        )
        assert torch.equal(codes[2:], again)
        assert method.decode(codes, "prior").shape == batch.images.shape
    if isinstance(method, Autoencoding):
        zs, zu = method.encode(batch.images, batch.labels)
        assert method.decode(torch.cat([zs, zu.mean], 1), "images").shape == batch.images.shape
        given = method.encoding_input(batch.images, batch.labels)
        networks = method.encoding_networks()
        assert all(method.get_submodule(name) is network for name, network in networks.items())
        assert all(map(torch.equal, networks["encoder_u"](given), zu))
        if "encoder_s" in networks:
            assert torch.equal(networks["encoder_s"](given), zs)
    if isinstance(method, LabelFree):
        assert torch.equal(method.encode_unlabelled(batch.images).zs, zs)
    if isinstance(method, Classifying):
        posterior = method.log_posterior(batch.images).exp()
        torch.testing.assert_close(posterior.sum(1), torch.ones(6, dtype=torch.float64))


def test_the_label_steers_decoder_and_encoder() -> None:
    method = make_any(CVAEConfig()).eval()
    batch = make_batch(SHAPES["small32"])
    other = (batch.labels + 1) % NUM_CLASSES
    a, b = method.encode(batch.images, batch.labels), method.encode(batch.images, other)
    assert not torch.allclose(a.zu.mean, b.zu.mean)
    z = torch.zeros(6, 4, dtype=torch.float64)
    assert not torch.allclose(*(method.decode(torch.cat([c.zs, z], 1), "images") for c in (a, b)))


def test_mean_feature_is_the_squared_distance_of_the_means() -> None:
    real, fake = torch.randn(6, 5).double(), torch.randn(6, 5, requires_grad=True, dtype=torch.float64)
    value, plain = mean_feature(real, fake), (real.mean(0) - fake.mean(0)).square().mean()
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(*(torch.autograd.grad(v, fake)[0] for v in (value, plain)))


def test_shift_and_dropout_depend_on_the_position_only() -> None:
    images = torch.arange(4 * 36.0).view(4, 1, 6, 6) + 1
    noise = Noise(1, torch.arange(4))
    moved = shifted(images, noise, 2)
    assert torch.equal(moved[2:], shifted(images[2:], Noise(1, torch.arange(2, 4)), 2))
    assert shifted(images, noise, 0) is images
    many = shifted(images[:1].expand(200, -1, -1, -1), Noise(1, torch.arange(200)), 2)
    centres = {tuple(divmod(int(m), 6)) for m in (many[:, 0, 3, 3] - 1).tolist()}
    assert centres == {(3 + i, 3 + j) for i in range(-2, 3) for j in range(-2, 3)}  # every shift occurs
    assert set(moved.flatten().tolist()) <= {-1.0, *images.flatten().tolist()}

    features = torch.ones(1000, 8)
    dropped = dropped_out(features, Noise(1, torch.arange(1000)), 0.25)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1.0 / 0.75]))
    assert dropped.mean() == pytest.approx(1.0, abs=0.03)


def test_an_architecture_of_the_other_kind_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="is 'resnet32', a classifier's"):
        make_any(CVAEConfig(), "resnet32")
    with pytest.raises(ValueError, match="is 'small32', but a classifier is one of"):
        make_any(ClassifierConfig(), "small32")
    with pytest.raises(ValueError, match="hold points"):
        make_any(ClassifierConfig(), "mlp2d")

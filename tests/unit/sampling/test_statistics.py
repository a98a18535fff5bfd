"""Statistics of batch norm for one kind of codes, against all of them computed by hand; temperatures."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from dist_dsvae.config import CGANConfig, CVAEConfig, DSVAEConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.methods.published import load_published, save_published
from dist_dsvae.models.blocks import running_statistics_kept
from dist_dsvae.models.norm_statistics import Moments, batch_norms, replace_running, statistics_of
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.sampling import statistics_codes
from dist_dsvae.sampling.fitted_prior import FittedPrior
from dist_dsvae.sampling.temperature import AT_ONE, Temperatures
from tests.unit.methods.making import NUM_CLASSES, SHAPES, make_any, make_batch, make_method
from tests.unit.pretrained.making import make_published


def by_hand(layers: nn.Module, batches: list[Tensor]) -> list[Moments]:
    """Mean of the means, E[var] + Var[mean] of what each batch norm is given, torch's own training mode."""
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in batch_norms(layers)}
    handles = [norm.register_forward_pre_hook(lambda m, x: seen[m].append(x[0].clone())) for norm in seen]
    layers.train()
    with torch.no_grad():
        for batch in batches:
            layers(batch)
    layers.eval()
    for handle in handles:
        handle.remove()
    found = []
    for inputs in seen.values():
        dims = [0, *range(2, inputs[0].dim())]
        means = torch.stack([x.mean(dims) for x in inputs])
        variances = torch.stack([x.var(dims, correction=0) for x in inputs])
        found.append(Moments(means.mean(0), variances.mean(0) + means.var(0, correction=0)))
    return found


def test_statistics_are_those_of_all_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_codes, "BATCH_SIZE", 8)
    method = make_method().eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    codes = statistics_codes.prior_codes(method, method.prior_codes, 27)
    got = statistics_codes.prior_statistics(method, method.prior_codes, 27)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    batches = [codes[0:8], codes[8:16], codes[16:24]]  # a short one is left out
    for ours, theirs in zip(got, by_hand(method.decoder.layers, batches), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    assert len(got) == len(batch_norms(method.decoder)) > 2
    assert statistics_codes.in_batches(codes[:1]) == ()
    assert len(statistics_codes.in_batches(codes[:3])[0]) == 3


def test_batches_of_one_process_or_several_add_up() -> None:
    method = make_method().eval()
    batches = statistics_codes.prior_codes(method, method.prior_codes, 12).split(3)
    whole = statistics_codes.sums_of(method.decoder, batches)
    parts = sum(statistics_codes.sums_of(method.decoder, batches[rank::5]) for rank in range(5))
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-13)


def test_prior_codes_cover_the_classes_and_image_codes_are_means() -> None:
    labels: list[Tensor] = []
    method = make_method().eval()

    def noting(told: Tensor, zs_noise: Noise, zu_noise: Noise) -> Tensor:
        labels.append(told)
        return method.prior_codes(told, zs_noise, zu_noise)

    codes = statistics_codes.prior_codes(method, noting, 12)
    assert labels[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    statistics_codes.prior_codes(method, noting, 3)
    assert labels[1].tolist() == [0, 1, 3]  # fewer codes than classes: spread
    assert not torch.equal(codes, method.prior_codes(labels[0], *[Noise(0, torch.arange(12))] * 2))

    batch = make_batch(SHAPES["small32"])
    zs, posterior = method.encode(batch.images, batch.labels)
    codes = statistics_codes.image_codes(method, batch.images, batch.labels)
    assert torch.equal(codes, torch.cat([zs, posterior.mean], 1))
    assert sorted(statistics_codes.shuffled(torch.arange(9)).tolist()) == list(range(9))


def test_each_kind_has_its_own_in_evaluation_mode_alone() -> None:
    method = make_method().eval()
    decoder = method.decoder
    codes = statistics_codes.prior_codes(method, method.prior_codes, 6)
    running = decoder(codes)
    names = list(method.state_dict())
    decoder.set_statistics("prior", statistics_codes.prior_statistics(method, method.prior_codes, 128))
    assert torch.equal(method.decode(codes, "images"), running)
    precise = method.decode(codes, "prior")
    assert (precise - running).abs().max() > 0.01
    # the same as with these in place of the running ones
    twin = make_method().eval()
    for norm, moments in zip(batch_norms(twin.decoder), decoder.statistics_of("prior"), strict=True):
        norm.running_mean, norm.running_var = moments
    torch.testing.assert_close(precise, twin.decoder(codes), rtol=0, atol=1e-13)
    method.train()
    twin.train()
    torch.testing.assert_close(method.decode(codes, "prior"), twin.decoder(codes), rtol=0, atol=1e-13)
    decoder.set_statistics("prior", None)
    assert list(method.state_dict()) == names


def test_running_ones_change_places() -> None:
    method = make_method().eval()
    encoder, images = method.encoder_u, make_batch(SHAPES["small32"], 8).images
    before = {name: (tensor, tensor.clone()) for name, tensor in encoder.named_buffers()}
    running = encoder(images).mean
    measured = statistics_of(encoder, statistics_codes.sums_of(encoder, [images]))
    former = replace_running(encoder, measured)
    encoder.train()  # of one batch they are what training mode normalises by
    with running_statistics_kept(encoder):
        expected = copy.deepcopy(encoder)(images).mean
    encoder.eval()
    torch.testing.assert_close(encoder(images).mean, expected, rtol=0, atol=1e-12)
    assert (running - expected).abs().max() > 0.01
    assert replace_running(encoder, former) == measured
    for name, tensor in encoder.named_buffers():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_threads_have_their_own() -> None:
    method = make_method().eval()
    codes = statistics_codes.prior_codes(method, method.prior_codes, 6)
    kinds = []
    for scale in (1.0, 0.5):
        scaled = Temperatures(scale, scale).tempered(method.prior_codes)
        kinds.append(statistics_codes.prior_statistics(method, scaled, 128))
    with torch.no_grad():
        expected = [method.decoder(codes, kind) for kind in kinds]
    wrong: list[int] = []

    def draw(number: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                got = method.decoder(codes, kinds[number])
                wrong.extend([] if torch.equal(got, expected[number]) else [number])

    threads = [threading.Thread(target=draw, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_points_have_nothing_to_measure() -> None:
    method = make_any(CVAEConfig(), "mlp2d").eval()
    assert statistics_codes.prior_statistics(method, method.prior_codes) == ()
    method.decoder.set_statistics("prior", ())
    assert not [name for name in method.state_dict() if "statistics" in name]


def test_a_published_model_keeps_both_kinds(tmp_path) -> None:  # type: ignore[no-untyped-def]
    published = make_published(DSVAEConfig())
    method = published.method.eval()
    save_published(published, tmp_path / "old")
    assert load_published(tmp_path / "old").method.decoder.statistics_of("prior") is None
    batch = make_batch(SHAPES["small32"])
    codes = statistics_codes.image_codes(method, batch.images.float(), batch.labels)
    method.decoder.set_statistics("prior", statistics_codes.prior_statistics(method, method.prior_codes, 128))
    sums = statistics_codes.sums_of(method.decoder, [codes])
    method.decoder.set_statistics("images", statistics_codes.statistics_of(method.decoder.layers, sums))
    save_published(published, tmp_path / "new")
    loaded = load_published(tmp_path / "new").method
    for kind in ("images", "prior"):
        assert torch.equal(loaded.decode(codes, kind), method.decode(codes, kind)), kind
    assert not torch.equal(loaded.decode(codes, "images"), loaded.decode(codes, "prior"))
    model = PretrainedModel.from_pretrained(tmp_path / "new")
    zs, zu = codes.split([6, 4], dim=1)
    torch.testing.assert_close(model.decode(zs, zu), method.decode(codes, "images"))
    torch.testing.assert_close(model.decode(zs, zu, code_kind="prior"), method.decode(codes, "prior"))
    with pytest.raises(RequestError, match='code_kind is \'zs\'; allowed are "images" and "prior"'):
        model.decode(zs, zu, code_kind="zs")


@pytest.mark.parametrize("fitted", [False, True])
def test_temperatures_scale_what_is_drawn(fitted: bool) -> None:
    method = make_method().eval()
    labels = torch.full((4000,), 2)
    noise = Noise(1, torch.arange(4000), torch.float64)
    prior = method.prior_codes
    if fitted:
        spread = torch.linspace(0.5, 2, 6).double()
        prior = FittedPrior(
            torch.zeros(NUM_CLASSES, 6).double(), spread.expand(NUM_CLASSES, 6), spread[:4], spread[:4]
        ).codes
    plain = prior(labels, noise, noise)
    assert torch.equal(Temperatures(1, 1).tempered(prior)(labels, noise, noise), plain)
    hot = Temperatures(0.5, 3.0).tempered(prior)(labels, noise, noise)
    ratio = hot.var(0) / plain.var(0)
    torch.testing.assert_close(ratio[:6], torch.full((6,), 0.25).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(ratio[6:], torch.full((4,), 9.0).double(), rtol=1e-6, atol=0)


def test_samples_at_a_temperature_have_statistics_of_their_own() -> None:
    model = PretrainedModel(make_published(CGANConfig()))
    method = model.published.method
    plain = model.sample([1, 2], 2, 5, kind="tensor")
    assert torch.equal(model.sample([1, 2], 2, 5, temperature_zs=1, temperature_zu=1.0, kind="tensor"), plain)
    cool = model.sample([1, 2], 2, 5, temperature_zu=0.5, kind="tensor")
    prior = Temperatures(1, 0.5).tempered(method.prior_codes)
    own = statistics_codes.prior_statistics(method, prior, statistics_codes.FEW_CODES)
    labels = torch.tensor([1, 1, 2, 2])
    noise = Noise(5, torch.tensor([0, 1, 0, 1]) * NUM_CLASSES + labels)
    with torch.no_grad():
        torch.testing.assert_close(cool, method.decoder(prior(labels, noise, noise), own))
    assert Temperatures(1, 1) == AT_ONE
    for wrong in (0.0, -1.0, 10.5, float("nan")):
        with pytest.raises(RequestError, match=r"temperature_zs is .*; it must be above 0 and at most 10"):
            model.sample([1], 1, 0, temperature_zs=wrong)

"""The model as its users call it: what comes out, that it repeats, and what it refuses."""

from __future__ import annotations

import errno
import inspect
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dist_dsvae import PretrainedModel
from dist_dsvae.config import CGANConfig, ClassifierConfig, CVAEConfig, CVAEGANConfig, DSVAEConfig
from dist_dsvae.core.types import Gaussian
from dist_dsvae.methods.published import PublishedModelError
from dist_dsvae.models.norm_statistics import Moments
from dist_dsvae.pretrained import image_kinds, networks
from dist_dsvae.pretrained.image_kinds import ImageError
from dist_dsvae.pretrained.networks import in_chunks
from dist_dsvae.pretrained.requests import RequestError, read_codes
from tests.unit.pretrained.making import CLASSES, make_model, make_published, pixels


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return make_model(DSVAEConfig())


def test_codes_are_those_of_the_networks(model: PretrainedModel) -> None:
    images = pixels(3)
    method = model.published.method
    inputs = torch.from_numpy(images).movedim(3, 1).float() / 127.5 - 1
    zs, zu = model.encode(images)
    with torch.no_grad():
        torch.testing.assert_close(zs, method.encoder_s(inputs))
        torch.testing.assert_close(zu.mean, method.encoder_u(inputs).mean)
        expected = method.decoder(torch.cat([zs, zu.mean], dim=1))
    torch.testing.assert_close(model.decode(zs, zu), expected)
    torch.testing.assert_close(model.decode(zs.numpy(), zu.mean.numpy()), expected)
    assert [p.mode for p in model.decode(zs, zu, kind="pil")] == ["L"] * 3
    probabilities = model.classify([Image.fromarray(a[..., 0]) for a in images])
    torch.testing.assert_close(probabilities, method.log_posterior(inputs).exp().detach())
    assert model.code_dims == (6, 4)


def test_a_sample_depends_on_seed_class_and_number_alone(model: PretrainedModel) -> None:
    whole = model.sample(n=3, generator=5, kind="tensor").view(5, 3, 1, 32, 32)
    assert whole.std() > 0.01
    coats = model.sample(["coat", 4], 2, torch.Generator().manual_seed(1), kind="tensor")
    again = model.sample([2, "T-shirt/top"], 2, torch.Generator().manual_seed(1), kind="tensor")
    assert torch.equal(coats, again)
    torch.testing.assert_close(model.sample("coat", 2, 5, kind="tensor"), whole[2, :2])
    assert not torch.allclose(model.sample("coat", 2, 6, kind="tensor"), whole[2, :2], atol=1e-3)
    torch.manual_seed(3)
    first = model.sample("bag", kind="array")
    assert not np.array_equal(first, model.sample("bag", kind="array"))
    torch.manual_seed(3)
    assert np.array_equal(first, model.sample("bag", kind="array"))


def test_any_batch_size_gives_the_same(model: PretrainedModel) -> None:
    small = make_model(DSVAEConfig(), batch_size=2)
    images = pixels(5)
    torch.testing.assert_close(
        small.sample(n=2, generator=1, kind="tensor"), model.sample(n=2, generator=1, kind="tensor")
    )
    torch.testing.assert_close(small.encode(images).zs, model.encode(images).zs)
    for steps in (0, 2):
        ours, theirs = (m.inpaint(images, "centre", refine_steps=steps) for m in (small, model))
        assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert model.encode(images[:0]).zs.shape == (0, 6)
    assert model.inpaint([], "centre") == []
    assert len(model.swap(images[:0], images[0])) == 0


def test_out_of_memory_halves_the_chunks(caplog: pytest.LogCaptureFixture) -> None:
    sizes = []

    def network(rows: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(rows))
        if len(rows) > limit:
            raise torch.OutOfMemoryError
        return (rows * 2,)

    limit = 3
    (doubled,) = in_chunks(network, (torch.arange(20),), 16, torch.device("cpu"))
    assert torch.equal(doubled, torch.arange(20) * 2)
    assert sizes == [16, 8, 4, 2, *[2] * 9]
    assert "going on with 2 at a time" in caplog.text
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(network, (torch.arange(3),), 2, torch.device("cpu"))


def test_bf16_runs_the_networks_in_half_precision(model: PretrainedModel) -> None:
    half = PretrainedModel(model.published, mixed_precision="bf16")
    exact, rough = (m.sample(n=2, generator=1, kind="tensor") for m in (model, half))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.1
    painted, roughly = (m.inpaint(pixels(2), "centre").astype(int) for m in (model, half))
    assert 0 < np.abs(painted - roughly).max() < 13  # of 255


def test_swap_takes_zs_of_a_and_zu_of_b(model: PretrainedModel) -> None:
    a, b = torch.from_numpy(pixels(2)).movedim(3, 1), torch.from_numpy(pixels(3)).movedim(3, 1)
    zs, zu = model.encode(a).zs, model.encode(b).zu.mean
    grid = model.swap_grid(a, b)
    assert grid.dtype == torch.uint8
    assert grid.shape == (2, 3, 1, 32, 32)
    for i, j in ((0, 2), (1, 0)):
        expected = model.decode(zs[i : i + 1], zu[j : j + 1])[0].add(1).mul(127.5).round()
        assert (grid[i, j] - expected).abs().max() <= 1
    assert (model.swap(a[1], b).int() - grid[1]).abs().max() <= 1
    assert model.swap(a[0], b[0]).shape == (1, 32, 32)
    with pytest.raises(RequestError, match="a has 2 pictures and b 3"):
        model.swap(a, b)
    image = Image.fromarray(pixels(1)[0, :, :, 0])
    assert model.swap(image, image).size == (32, 32)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("mask", ["right-half", "centre", "bottom-half", "own"])
def test_nothing_outside_the_hole_is_touched(model: PretrainedModel, mask: str, steps: int) -> None:
    hole = np.zeros((32, 32), np.uint8)
    hole[3:9, 20:31] = 1
    given = hole if mask == "own" else mask
    bytes_ = pixels(2)
    floats = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    painted = model.inpaint(bytes_, given, refine_steps=steps)
    changed = (painted != bytes_)[..., 0]
    painted_floats = model.inpaint(floats, given, refine_steps=steps)
    changed_floats = (painted_floats != floats)[:, 0].numpy()
    if mask == "own":
        assert not changed[:, hole == 0].any()
        assert changed[:, hole == 1].mean() > 0.9
    assert 0.05 < changed.mean() <= 0.5
    assert (changed_floats | ~changed).all()  # floats change wherever bytes do
    outside = ~changed_floats.any(0)
    assert outside.mean() >= 0.5
    assert torch.equal(painted_floats[:, 0, outside], floats[:, 0, outside])
    images = [Image.fromarray(a[..., 0]) for a in bytes_]
    as_image = Image.fromarray(hole * 255) if mask == "own" else mask
    from_pil = np.stack([np.asarray(p) for p in model.inpaint(images, as_image, refine_steps=steps)])
    assert np.array_equal(from_pil, painted[..., 0])


@pytest.fixture(scope="module")
def vivid() -> PretrainedModel:
    """A model whose decoder uses the whole range of values, so that known pixels tell of the codes."""
    vivid = make_model(DSVAEConfig())
    weights = [p for p in vivid.published.method.decoder.parameters() if p.dim() == 4]
    with torch.no_grad():
        weights[-1].mul_(10)
    return vivid


def test_refinement_finds_the_codes_of_the_known_pixels(vivid: PretrainedModel) -> None:
    # What the decoder can make and the prior holds likely, from where the encoders do not begin
    zs = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    images = vivid.decode(zs, torch.zeros(4, 4))

    def error(steps: int) -> float:
        # The known pixels come back untouched, so the better codes are seen in the hole.
        painted = vivid.inpaint(images, "right-half", refine_steps=steps, blend=False)
        return float((painted - images).square().mean())

    assert error(60) < 0.02 * error(0)


def test_more_starts_find_codes_that_are_at_least_as_likely(vivid: PretrainedModel) -> None:
    """Codes far from the prior, which descent from the encoders' misses; and pictures are independent."""
    zs = 3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    images = vivid.decode(zs, torch.zeros(4, 4))
    one, many = (vivid.inpaint(images, "right-half", num_starts=n, blend=False) for n in (0, 4))
    changed = (one != many).flatten(1).any(1)
    assert changed.any()
    errors = [(painted - images).square().flatten(1).mean(1) for painted in (one, many)]
    assert errors[1].mean() < 0.5 * errors[0].mean()
    alone = vivid.inpaint(images[2:3], "right-half", num_starts=4, blend=False)
    torch.testing.assert_close(alone[0], many[2], atol=1e-3, rtol=0)


def test_a_label_steers_what_is_painted_but_is_not_needed(model: PretrainedModel) -> None:
    images = pixels(2)
    unknown, told, other = (
        model.inpaint(images, "right-half", labels) for labels in (None, ["bag", "coat"], "boot")
    )
    assert not np.array_equal(unknown, told)
    assert not np.array_equal(told, other)
    with pytest.raises(RequestError, match="There are 3 labels for 2 pictures"):
        model.inpaint(images, "centre", [0, 1, 2])
    for wrong in ({"refine_steps": -1}, {"num_starts": -1}):
        with pytest.raises(RequestError, match=r"_st(eps|arts) is -1; it must be at least 0"):
            model.inpaint(images, "centre", **wrong)


@pytest.mark.parametrize("settings", [{}, {"zs_posterior": "gaussian", "mixture_fit": "moments"}])
def test_a_hole_is_painted_from_the_mean_codes_as_codes_of_pictures(settings: dict[str, Any]) -> None:
    model = make_model(DSVAEConfig(**settings))
    images, hole = torch.linspace(-1, 1, 2 * 1024).view(2, 1, 32, 32), np.zeros((32, 32))
    hole[8:24, 8:24] = 1

    def painted(steps: int) -> Tensor:
        result: Tensor = model.inpaint(images, hole, refine_steps=steps, num_starts=1, blend=False)
        return result[..., 8:24, 8:24]

    decoder = model.published.method.decoding_network()
    by_running = {steps: painted(steps) for steps in (0, 2)}
    for kind, changes in (("prior", False), ("images", True)):
        statistics = (Moments(m - 0.5, v + 1) for m, v in decoder.blank_statistics())
        decoder.set_statistics(kind, tuple(statistics))
        for steps, before in by_running.items():
            assert torch.equal(painted(steps), before) != changes
    corrupted = images.clone()
    corrupted[..., 8:24, 8:24] = 0
    zs, zu = model.encode(corrupted)
    torch.testing.assert_close(painted(0), model.decode(zs, zu, code_kind="images")[..., 8:24, 8:24])


def test_a_blended_hole_meets_its_border(model: PretrainedModel) -> None:
    """White pictures around a hole that the decoder fills with grey."""
    images = np.full((1, 32, 32, 1), 255, np.uint8)
    rough, smooth = (
        model.inpaint(images, "right-half", refine_steps=0, blend=blend)[0, :, 16, 0].astype(int)
        for blend in (False, True)
    )
    assert (255 - smooth).max() < 0.3 * (255 - rough).min()


def test_interpolation_shares_a_path_and_keeps_the_other_code(model: PretrainedModel) -> None:
    shown = model.interpolate([0, 3], 5, moving="zs", generator=2, kind="tensor")
    assert shown.shape == (2, 5, 1, 32, 32)
    assert torch.equal(shown, model.interpolate(["boot", "dress"], 5, generator=2, kind="tensor"))
    alone = model.interpolate(3, 5, generator=2, kind="tensor")
    torch.testing.assert_close(alone[0], shown[1])
    assert len(model.interpolate(None, 2, moving="zu", path="spherical")[4]) == 2
    with pytest.raises(RequestError, match=r"moving is 'zx'"):
        model.interpolate(moving="zx")  # type: ignore[arg-type]


def test_vary_moves_one_dimension(model: PretrainedModel) -> None:
    shown = model.vary(2, [0, 1], 3, extent=2.0, generator=1, kind="tensor")
    assert shown.shape == (2, 3, 1, 32, 32)
    assert (shown[:, 0] - shown[:, 2]).abs().max() > 1e-3
    with pytest.raises(RequestError, match="no dimension 4; this model's are 0 to 3"):
        model.vary(4)


def test_methods_are_asked_what_they_can() -> None:
    images = pixels(2)
    cgan, cvae = make_model(CGANConfig()), make_model(CVAEConfig())
    judge = make_model(ClassifierConfig(width=4), "resnet32")
    assert cgan.sample("bag", 2, 0, kind="array").shape == (2, 32, 32, 1)
    assert judge.classify(images).sum(1).tolist() == pytest.approx([1, 1])
    assert cvae.code_dims == (5, 4)
    cvae.sample("bag", temperature_zs=0.5, temperature_zu=0.5)
    zs, _ = cvae.encode(images, ["bag", 3])
    assert zs.argmax(1).tolist() == [1, 3]
    assert cvae.inpaint(images, "centre", [0], refine_steps=1, num_starts=2).shape == images.shape
    assert cvae.swap(images[0], images, 1, [2, 3]).shape == images.shape
    for call, message in (
        (lambda: cgan.encode(images), "a cgan, which cannot encode pictures; it can make pictures"),
        (lambda: cgan.inpaint(images, "centre"), "cannot encode"),
        (lambda: cgan.classify(images), "cannot classify"),
        (lambda: cgan.interpolate(moving="zs"), "has the label in the place of zs"),
        (lambda: cgan.sample(temperature_zs=0.5), "A cgan has one code, which temperature_zu is of"),
        (lambda: judge.sample(), "a classifier, which cannot make pictures; it can classify"),
        (lambda: judge.decode(zs, zs), "cannot make"),
        (lambda: cvae.encode(images), "a cvae, whose encoder is told the label: give each picture's class"),
        (lambda: cvae.encode(images, [0, 1, 2]), "There are 3 labels for 2 pictures"),
    ):
        with pytest.raises(RequestError, match=message):
            call()


def test_points() -> None:
    model = make_model(DSVAEConfig(), "mlp2d")
    points = model.sample(n=4, generator=0)
    assert isinstance(points, np.ndarray)
    assert points.shape == (20, 2)
    assert isinstance(model.swap(points[0], points[1]), np.ndarray)
    with pytest.raises(RequestError, match="are points, which have no pixels"):
        model.inpaint(points, "centre")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample("bagg"), "no class 'bagg'. Did you mean 'bag'"),
        (lambda m: m.sample(5), "no class 5; this model has 0 to 4"),
        (lambda m: m.sample([1.5]), "1.5 is neither"),
        (lambda m: m.sample(n=0), "n is 0; it must be at least 1"),
        (lambda m: m.sample(generator="x"), "generator is 'x'; give a whole number"),
        (lambda m: m.sample(generator=2**63), "must fit into 64 bits"),
        (lambda m: m.decode(torch.zeros(2, 4), torch.zeros(2, 6)), r"codes are \[N, 6\] and \[N, 4\]"),
        (lambda m: m.encode(pixels(1), "bagg"), "no class 'bagg'"),
        (lambda m: m.swap(pixels(1), pixels(1), b_labels=[1, 2]), "There are 2 labels for 1 pictures"),
        (lambda m: m.inpaint(pixels(1), "center"), "no mask 'center'. Did you mean 'centre'"),
        (
            lambda m: m.inpaint(pixels(1), np.zeros((32, 32))),
            "no hole: .* brighter than grey",
        ),
        (lambda m: m.inpaint(pixels(1), np.ones((8, 8))), r"shape \[8, 8\]; it must be \[32, 32\]"),
        (lambda m: m.inpaint(pixels(1), Image.new("L", (0, 0))), r"mask cannot be .* no pixels \(0x0\)"),
        (lambda m: m.inpaint(pixels(1), "centre", refine_steps=-1), "refine_steps is -1"),
        (lambda m: PretrainedModel(m.published, device="gpu"), "device is 'gpu'; allowed are cpu, cuda"),
        (lambda m: PretrainedModel(m.published, device="cuda:77"), "torch sees . GPU"),
        (lambda m: PretrainedModel(m.published, batch_size=0), "batch_size is 0"),
        (lambda m: PretrainedModel(m.published, mixed_precision="fp8"), "mixed_precision is 'fp8'; allowed"),
    ],
)
def test_what_is_wrong_gets_a_sentence(model: PretrainedModel, call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RequestError, match=message):
        call(model)


def test_a_distribution_stands_for_its_mean(model: PretrainedModel) -> None:
    zs, zu = torch.randn(2, 6), torch.randn(2, 4)
    assert torch.equal(model.decode(zs, Gaussian(zu, zu)), model.decode(zs, zu))
    assert model.classes == CLASSES


def test_codes_of_two_devices_are_decoded_where_zs_is() -> None:
    # no device of tensors without content can be decoded on, but they can be joined there
    zs, zu = torch.zeros(2, 6, device="meta"), torch.zeros(2, 4)
    assert read_codes(zs, zu, (6, 4)).device == zs.device


def test_a_mask_is_turned_and_cut_as_the_picture_is(model: PretrainedModel) -> None:
    height, width = model.shape.height, model.shape.width
    wide = np.zeros((100, 300), np.uint8)
    wide[:, 100:150] = 255  # the left half of the square in the middle
    holes = model.holes(Image.fromarray(wide))[0, 0]
    assert holes[:, : width // 2].all()
    assert not holes[:, width // 2 :].any()
    with pytest.raises(RequestError, match="no hole"):
        model.holes(Image.fromarray(np.roll(wide, -100, axis=1)))  # beside the square
    stored = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned right by 90 degrees
    top = Image.fromarray(np.repeat([[255], [0]], 50, axis=0).repeat(100, axis=1).astype(np.uint8))
    top.save(stored, format="JPEG", exif=turned, quality=95)
    holes = model.holes(Image.open(stored))[0, 0]
    assert holes[:, width // 2 :].all()
    assert not holes[:, : width // 2].any()
    assert holes.shape == (height, width)


def test_arrays_of_any_layout_and_numbers_of_numpy(model: PretrainedModel) -> None:
    images = model.sample(0, 2, np.int64(3), kind="array")
    assert np.array_equal(images, model.sample(0, 2, 3, kind="array"))
    floats = images.astype(np.float32) / 127.5 - 1
    flipped = floats.astype(">f4")[:, ::-1]
    flipped.flags.writeable = False
    assert torch.equal(model.encode(flipped).zs, model.encode(np.ascontiguousarray(floats[:, ::-1])).zs)
    mask = np.zeros((model.shape.height, model.shape.width))
    mask[:, :4] = 1
    holes = model.holes(np.fliplr(mask))
    assert holes[..., -4:].all()
    assert not holes[..., :-4].any()


def test_opening_a_model_draws_no_numbers(model: PretrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    PretrainedModel.from_pretrained(str(tmp_path))
    assert torch.equal(torch.rand(3), expected)


def test_saving_over_a_model(
    model: PretrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is a person's is found before anything is replaced; a card that stays is told of."""
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert caplog.text == ""
    other = PretrainedModel(model.published._replace(about={"run": "another"}))
    other.save_pretrained(tmp_path)
    assert "README.md is there already and stays, though it is not this model's card" in caplog.text
    config = (tmp_path / "config.json").read_bytes()
    Image.new("RGB", (3, 3)).save(tmp_path / "samples.png")
    with pytest.raises(PublishedModelError, match=r"cannot be saved to .*samples\.png exists already"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == config


def test_programs_and_a_picture_of_another_model_are_told_of(
    model: PretrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "sampler.pt2").write_bytes(b"")
    (tmp_path / "README.md").unlink()
    make_model(ClassifierConfig(), "resnet32").save_pretrained(tmp_path)
    assert "samples.png, sampler.pt2 of another model, or of this one as it was, stay in" in caplog.text


def test_a_full_disk_leaves_the_earlier_model(
    model: PretrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dist_dsvae.methods.published.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        make_model(CGANConfig()).save_pretrained(tmp_path)
    assert PretrainedModel.from_pretrained(tmp_path).published.config.name == "dsvae"


@pytest.mark.parametrize("config", [DSVAEConfig(), CVAEGANConfig(), ClassifierConfig()], ids=lambda c: c.name)
def test_a_model_goes_to_other_processes(config: Any) -> None:
    """By pickle, as processes that are spawned and torch.save send it."""
    published = make_published(config, "resnet32" if config.name == "classifier" else "small32")
    model = PretrainedModel(published, mixed_precision="bf16", batch_size=3)
    there = pickle.loads(pickle.dumps(model))
    assert (there.batch_size, there.classes, str(there)) == (3, model.classes, str(model))
    assert not any(weights.requires_grad for weights in there.published.method.parameters())
    if config.name == "classifier":
        assert torch.equal(there.classify(pixels(4)), model.classify(pixels(4)))
    else:
        assert torch.equal(*(m.sample(n=2, generator=1, kind="tensor") for m in (there, model)))


def test_a_model_that_is_opened_in_inference_mode_paints(model: PretrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        opened = PretrainedModel.from_pretrained(tmp_path)
        opened.classify(pixels(1))
    painted = opened.inpaint(pixels(1), "centre", refine_steps=2)
    assert np.array_equal(painted, model.inpaint(pixels(1), "centre", refine_steps=2))


@pytest.mark.parametrize("kind", ["pil", "array", "tensor"])
def test_nothing_asked_is_nothing_drawn(model: PretrainedModel, kind: str) -> None:
    assert len(model.sample([], 2, kind=kind)) == 0
    assert len(model.interpolate([], 4, kind=kind)) == 0
    assert len(model.vary(0, [], 4, kind=kind)) == 0
    assert len(model.swap_grid(pixels(0), pixels(2))) == 0


def test_painting_and_paths_whatever_the_caller_s_modes_of_torch(model: PretrainedModel) -> None:
    painted = model.inpaint(pixels(2), "right-half", refine_steps=2)
    with torch.inference_mode():
        within = torch.from_numpy(pixels(2)).movedim(3, 1).float() / 127.5 - 1
        assert np.array_equal(model.inpaint(pixels(2), "right-half", refine_steps=2), painted)
        mask = torch.ones(32, 32, dtype=torch.bool)
        assert model.inpaint(within, mask, refine_steps=1).shape == within.shape
    try:
        torch.set_default_dtype(torch.float64)
        again = model.interpolate("bag", 3, generator=5, kind="tensor")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(again, model.interpolate("bag", 3, generator=5, kind="tensor"))


def test_samples_as_images_are_so_at_every_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> None:
        raise AssertionError("a prior's statistics are measured")

    monkeypatch.setattr(networks, "prior_statistics", measured)
    model = make_model(DSVAEConfig())
    decoder = model.published.method.decoder
    statistics = decoder.blank_statistics()
    decoder.set_statistics("images", statistics)
    with pytest.raises(AssertionError, match="are measured"):
        model.sample("bag", temperature_zs=0.5)
    model = make_model(DSVAEConfig())
    for kind in ("images", "prior"):
        model.published.method.decoder.set_statistics(kind, statistics)
    assert len(model.sample("bag", temperature_zs=0.5)) == 1


def test_what_a_model_makes_goes_in_again_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """Tensors and arrays that the model made are in the range that it takes; of the one with the package."""
    image_kinds._warn_of_range.cache_clear()
    trained = PretrainedModel.from_pretrained("shards/fashion-mnist-mini/model")
    floats = trained.sample(n=2, generator=0, kind="tensor")
    for name, one in zip([name for name in trained.classes for _ in range(2)], floats, strict=True):
        trained.classify(one)
        trained.decode(*trained.encode(trained.swap(one, floats[:1])[0]))
        assert caplog.text == "", name


def test_every_argument_and_error_is_described() -> None:
    described = inspect.getdoc(PretrainedModel) or ""
    for name in list(inspect.signature(PretrainedModel).parameters):
        assert re.search(rf"\b{name}\b.*:", described), name
    for function in (PretrainedModel.__init__, PretrainedModel.from_pretrained, PretrainedModel.to):
        assert "None" in str(inspect.signature(function).parameters["device"].annotation)
    assert PretrainedModel(make_published(DSVAEConfig()), device=None).device.type in ("cpu", "cuda")
    drawing = ("decode", "sample", "interpolate", "vary")
    for name in ("encode", "classify", "swap", "swap_grid", "inpaint", "holes", *drawing):
        assert "Raises" in (getattr(PretrainedModel, name).__doc__ or ""), name


def test_shapes_and_ranges_of_samples_are_those_described(model: PretrainedModel) -> None:
    """[R * n, C, H, W] of R classes, class after class; arrays [R * n, H, W, C]; points [R * n, 2]."""
    tensors = model.sample(["coat", "bag"], 3, 0, kind="tensor")
    assert (tensors.shape, tensors.dtype) == ((6, 1, 32, 32), torch.float32)
    assert tensors.abs().max() <= 1
    assert torch.equal(tensors[3:], model.sample("bag", 3, 0, kind="tensor"))
    arrays = model.sample(["coat", "bag"], 3, 0, kind="array")
    assert (arrays.shape, arrays.dtype) == ((6, 32, 32, 1), np.uint8)
    points = make_model(DSVAEConfig(), "mlp2d").sample([1, 2], 3, 0)
    assert (points.shape, points.dtype) == ((6, 2), np.float32)
    with pytest.raises(ImageError, match="kind is 'png'; allowed are"):
        model.sample("bag", kind="png")

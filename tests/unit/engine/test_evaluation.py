"""Samples that depend on nothing but their position, and an evaluation that goes on where it was killed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dist_dsvae.config import CGANConfig, TrainConfig
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.sampler import Sampler
from dist_dsvae.engine.evaluating.scoring import add_up, diversity, neighbour_figures
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.coverage import Points, coverage_figures
from dist_dsvae.evaluation.diversity import pair_sum
from dist_dsvae.evaluation.image_sums import ImageSums
from dist_dsvae.evaluation.judging.judge import Judge
from dist_dsvae.sampling.generate import sample_codes
from dist_dsvae.sampling.pixels import as_saved
from tests.unit.evaluation.test_precision_recall import precision_recall
from tests.unit.methods.making import NUM_CLASSES, make_any

CPU = torch.device("cpu")


class Means(nn.Module):
    """Logits and features: means over the image's quarters."""

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        quarters = nn.functional.adaptive_avg_pool2d(rgb, 2).flatten(1)
        return 20 * quarters[:, :4], quarters


JUDGE = Judge("means", "0" * 64, 4, 12, Means())


def sampler(batch_size: int, batch_norm: str = "running", num_samples: int = 24) -> Sampler:
    method = make_any(CGANConfig()).eval()
    with torch.no_grad():  # running statistics unlike any batch's
        for module in method.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()
    runtime = Runtime(TrainConfig(double_precision=True))
    return Sampler(
        method,
        runtime,
        num_samples=num_samples,
        batch_size=batch_size,
        seed=5,
        batch_norm=batch_norm,
        prior=method.prior_codes,
    )


def test_a_sample_is_the_same_in_any_batch() -> None:
    drawn = [torch.cat([batch.images for batch in sampler(size).share()]) for size in (24, 7)]
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    (whole,) = sampler(24).share()
    assert whole.labels.tolist() == [p % NUM_CLASSES for p in range(24)]
    of_class = sampler(3).of_classes([1, 4], 4)
    torch.testing.assert_close(of_class[4], whole.images[4::NUM_CLASSES][:4], rtol=0, atol=0)
    later = next(sampler(7).share(first_batch=2))
    assert later.positions.tolist() == list(range(14, 21))


def test_batch_statistics_leave_the_running_ones_alone() -> None:
    by_batch = sampler(10, "batch")
    before = {k: v.clone() for k, v in by_batch.method.state_dict().items()}
    (running, *_), (batch, *_) = sampler(10).share(), list(by_batch.share())
    assert not torch.allclose(running.images, batch.images)
    assert all(torch.equal(v, before[k]) for k, v in by_batch.method.state_dict().items())
    # the class's images are those of the same batches
    every = torch.cat([b.images for b in by_batch.share()])
    assert torch.equal(by_batch.of_classes([2], 4)[2], every[2::NUM_CLASSES][:4])
    # and batches of other classes alone are not drawn for it
    few = sampler(2, "batch")
    every = torch.cat([b.images for b in few.share()])
    with patch.object(few, "draw", wraps=few.draw) as draw:
        assert torch.equal(few.of_classes([2], 4)[2], every[2::NUM_CLASSES][:4])
    assert draw.call_count == 4 < few.num_batches
    # what torch's own training mode makes of them
    training = copy.deepcopy(by_batch.method).train()
    codes = sample_codes(training, batch.labels, seed=5, positions=batch.positions, dtype=torch.float64)
    torch.testing.assert_close(as_saved(training.decode(codes, "prior")), batch.images, rtol=0, atol=0)


def test_a_short_last_batch_has_the_statistics_of_a_whole_one() -> None:
    short, whole = sampler(8, "batch", num_samples=17), sampler(8, "batch", num_samples=24)
    drawn = [torch.cat([batch.images for batch in s.share()]) for s in (short, whole)]
    assert len(drawn[0]) == 17
    assert torch.equal(drawn[0], drawn[1][:17])


def test_images_are_rounded_to_the_values_of_a_picture() -> None:
    images = torch.tensor([-1.2, -1.0, 0.0, 0.003, 1.0, 3.0])
    rounded = as_saved(images)
    assert ((rounded + 1) * 127.5 - ((rounded + 1) * 127.5).round()).abs().max() < 1e-4
    assert (rounded - images.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-6
    assert torch.equal(as_saved(rounded), rounded)
    assert as_saved(torch.tensor([torch.nan])).isnan()  # a model that broke is not scored as black


class KilledError(Exception):
    """Stands for what ends a process."""


def images(first: int) -> Iterator[Batch]:
    for number in range(first, 30):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.rand(2, 1, 16, 16, generator=generator) * 2 - 1
        yield Batch(pixels, torch.tensor([number % 2, 0]), torch.tensor([2 * number, 2 * number + 1]))


def make_sums() -> ImageSums:
    return ImageSums(JUDGE, JUDGE, 60, seed=0, num_splits=3, num_kept=11, knows_labels=True, device=CPU)


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[int] = []

    def counted(first: int) -> Iterator[Batch]:
        for batch in images(first):
            seen.append(int(batch.positions[0]) // 2)
            yield batch

    turns = iter([None, None, KilledError()])

    def pause() -> None:
        if (problem := next(turns, None)) is not None:
            raise problem

    made: list[ImageSums] = []

    def counted_sums() -> ImageSums:
        made.append(make_sums())
        return made[-1]

    whole = add_up(images, 30, counted_sums, Progress(), "drawn")
    assert len(made) == 2  # each orders all positions, so not one for every piece
    with pytest.raises(KilledError):
        add_up(counted, 30, make_sums, Progress(tmp_path / "p", {"a": 1}, pause), "drawn")
    again = Progress(tmp_path / "p", {"a": 1})
    resumed = add_up(counted, 30, make_sums, again, "drawn")
    assert seen == list(range(30))  # nothing twice, nothing left out
    for name, tensor in whole.state().items():
        torch.testing.assert_close(resumed.state()[name], tensor, rtol=1e-12, atol=0)
    assert torch.equal(resumed.kept, whole.kept)
    assert resumed.inception is not None
    assert whole.inception is not None
    assert resumed.inception.splits == whole.inception.splits
    assert whole.kept.shape == (11, 12)
    assert whole.count == 60

    add_up(counted, 30, make_sums, Progress(tmp_path / "p", {"a": 1}), "drawn")
    assert len(seen) == 30  # all of it was there
    add_up(counted, 30, make_sums, Progress(tmp_path / "p", {"a": 2}), "drawn")
    assert len(seen) == 60  # another evaluation starts anew
    again.finish()
    assert not (tmp_path / "p").exists()


def test_two_evaluations_under_one_name_take_nothing_of_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation/.scores"
    hot = Progress(folder, {"temperature": 1.0})
    hot.save("generated", {"sum": torch.tensor(1.0)})
    cold = Progress(folder, {"temperature": 0.5})  # begins while the other works
    hot.save("generated", {"sum": torch.tensor(2.0)})
    assert cold.load("generated") is None
    assert hot.load("generated") == {"sum": torch.tensor(2.0)}
    cold.save("generated", {"sum": torch.tensor(3.0)})
    assert hot.load("generated") is None
    assert Progress(folder, {"temperature": 0.5}).load("generated") == {"sum": torch.tensor(3.0)}
    hot.save("diversity", {"sum": torch.tensor(4.0)})
    cold.finish()
    assert not folder.exists()


def test_a_file_that_is_no_part_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    folder = tmp_path / ".scores"
    folder.mkdir()
    save_file({"sum": torch.tensor(1.0)}, folder / "mine.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"no tensors")
    progress = Progress(folder, {"a": 1})
    assert progress.load("mine") is None
    assert progress.load("damaged") is None
    progress.save("generated", {"sum": torch.tensor(2.0)})
    progress.finish()
    assert {path.name for path in folder.iterdir()} == {"mine.safetensors", "damaged.safetensors"}


def test_neighbours_and_diversity_equal_those_of_one_call() -> None:
    first, second = make_sums(), make_sums()
    for batch in images(0):
        first.add(*batch)
        second.add(batch.images * 0.9, *batch[1:])
    expected = precision_recall(first.kept, second.kept)
    assert neighbour_figures(first, second) == expected

    drawn = {c: torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(c)) for c in range(3)}
    got = diversity(lambda classes, _: {c: drawn[c] for c in classes}, "abc", 4, 1024, Progress(), "d")
    assert got == pytest.approx(sum(pair_sum(d, "cat").diversity for d in drawn.values()) / 3, abs=1e-9)


def test_coverage_of_points() -> None:
    grid = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    real = Points(torch.cat([grid, grid + 100]), torch.arange(2).repeat_interleave(100))
    half = Points(
        torch.cat([grid[:50], grid + 100]), torch.arange(2).repeat_interleave(torch.tensor([50, 100]))
    )
    figures = coverage_figures(real, half, 0.5)
    assert figures["coverage"] == pytest.approx(0.75)
    assert figures["precision"] == 1.0
    assert figures["spread_y"] == pytest.approx(1.0, abs=0.01)
    assert figures["spread_x"] < 0.8
    swapped = Points(half.places, 1 - half.labels)
    assert coverage_figures(real, swapped, 0.5)["coverage"] == 0.0
    with pytest.raises(ValueError, match="no class has two real and two drawn points"):
        coverage_figures(real, Points(grid, torch.full((100,), 7)), 0.5)

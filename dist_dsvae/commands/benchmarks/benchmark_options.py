"""What can be asked of each benchmark: its options, its docstring the text of its ``--help``.

They stand here together, apart from what measures, so that help and mistakes cost no import of torch.
"""

from __future__ import annotations

import argparse

from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument, place_argument
from dist_dsvae.engine.measuring.devices import DEVICES
from dist_dsvae.engine.measuring.families import FAMILIES


def step(parser: argparse.ArgumentParser) -> None:
    """One training iteration against a plain eager transcription, and where its time goes."""
    parser.add_argument("--architecture", choices=sorted(FAMILIES), default="conv32")
    parser.add_argument("--batch-size", type=option_types.training_batch_size, default=64)
    parser.add_argument("--classes", type=option_types.num_classes, default=10)
    parser.add_argument("--mixed_precision", choices=["auto", "no", "bf16", "fp16"])
    parser.add_argument(
        "--shards", type=place_argument, metavar="DIR", help="also feed real shards, streamed and resident"
    )
    parser.add_argument(
        "--profile", type=option_types.png_file, metavar="PNG", help="draw where the time goes"
    )
    parser.add_argument("--rounds", type=option_types.positive, default=10)


def gm_loss(parser: argparse.ArgumentParser) -> None:
    """GM loss and its gradients against plain broadcasting, by number of classes, at d = 512."""
    parser.add_argument(
        "--classes", type=option_types.num_classes, nargs="+", default=[10, 530, 10_575, 100_000]
    )
    parser.add_argument("--batch-size", type=option_types.batch_size, default=96)
    parser.add_argument("--rounds", type=option_types.positive, default=5)


def data(parser: argparse.ArgumentParser) -> None:
    """Decoding from shards on one core: our stream, the usual WebDataset pipeline, the bare decoder."""
    parser.add_argument("--images", type=option_types.whole(1, 10**6), default=3840)
    parser.add_argument("--rounds", type=option_types.positive, default=5)


def checkpoint(parser: argparse.ArgumentParser) -> None:
    """Saving and loading the whole state of a run: how long training waits, seconds, bytes per rank.

    Alone, or with several processes: accelerate launch --config_file configs/accelerate/cpu.yaml
    --num_processes 2 launch/benchmark.py checkpoint
    """
    parser.add_argument("--architecture", choices=sorted(FAMILIES), default="vgg64")
    parser.add_argument("--classes", type=option_types.num_classes, default=530)
    parser.add_argument("--rounds", type=option_types.positive, default=3)


def diversity(parser: argparse.ArgumentParser) -> None:
    """MS-SSIM of all pairs of images of a class: ours against pytorch_msssim called on every pair."""
    parser.add_argument(
        "--images", type=option_types.whole(2, 10_000), default=40, help="images of the class"
    )
    parser.add_argument(
        "--side", type=option_types.edge, default=176, help="their height and width in pixels"
    )
    parser.add_argument("--rounds", type=option_types.positive, default=5)


def operators(parser: argparse.ArgumentParser) -> None:
    """Operators of one training iteration by kind: on a GPU each is at least one kernel, however small."""
    parser.add_argument("--architecture", choices=sorted(FAMILIES), default="conv32")
    parser.add_argument(
        "--batch-size",
        type=option_types.training_batch_size,
        default=8,
        help="makes no difference to the count",
    )
    parser.add_argument("--classes", type=option_types.num_classes, default=10)
    parser.add_argument("--mixed_precision", choices=["auto", "no", "bf16", "fp16"])


def roofline(parser: argparse.ArgumentParser) -> None:
    """What a GPU would need for a training iteration: a model from the operators' shapes, not a measurement.

    Time per operator is the gap between launches and the larger of bytes / bandwidth and operations / peak,
    of which operators reach a share: assumed for a GPU, so that none is needed; measured for --device cpu,
    which predicts an iteration from what it measured, runs it and compares.
    """
    parser.add_argument(
        "--device",
        required=True,
        metavar=f"{'|'.join(DEVICES)}|FILE.json|cpu",
        help="whose time to predict; a file describes another one (docs/performance.md)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--config", type=path_argument, help="an experiment's, such as configs/cifar10.json")
    what.add_argument("--architecture", choices=sorted(FAMILIES), default="conv32")
    parser.add_argument(
        "--batch-size", type=option_types.training_batch_size, help="default: the config's, or 96"
    )
    parser.add_argument(
        "--classes", type=option_types.num_classes, help="default: those of the config's data, or 10"
    )
    parser.add_argument(
        "--mixed_precision", choices=["no", "bf16"], help="default: the config's, where auto is bf16 on a GPU"
    )
    parser.add_argument(
        "--rounds", type=option_types.positive, default=5, help="iterations to measure with --device cpu"
    )


def scale(parser: argparse.ArgumentParser) -> None:
    """Step time against the number of GPUs: a model from measured parts, checked against real processes.

    Measured here: an iteration's compute (the same processes, collectives left out), its collectives and
    their bytes, the link's latency and speed between two processes. The check predicts the iteration of
    1, 2, 4 processes of one thread (or GPU) each from these; what it leaves out is the waiting for the
    slowest at every collective. The curve then goes to 1,024 GPUs on the links given by the options.
    """
    parser.add_argument("--architecture", choices=sorted(FAMILIES), default="conv32")
    parser.add_argument("--classes", type=option_types.num_classes, default=10)
    parser.add_argument(
        "--local-batch-size", type=option_types.training_batch_size, default=32, help="per process"
    )
    parser.add_argument("--mixed_precision", choices=["auto", "no", "bf16"], default="no")
    parser.add_argument(
        "--processes",
        type=option_types.whole(1, 64),
        nargs="+",
        default=[1, 2, 4],
        help="to check the model with",
    )
    parser.add_argument("--gpus-per-node", type=option_types.whole(1, 1024), default=8)
    parser.add_argument(
        "--inside-gb",
        type=option_types.number(0, above=True),
        default=400.0,
        help="GB/s of a GPU within its node",
    )
    parser.add_argument(
        "--between-gb",
        type=option_types.number(0, above=True),
        default=50.0,
        help="GB/s of a GPU between nodes",
    )
    parser.add_argument(
        "--latency-us", type=option_types.number(0), default=10.0, help="microseconds of one hop"
    )
    parser.add_argument(
        "--compute-seconds",
        type=option_types.number(0, above=True),
        help="of an iteration on your GPU (default: --device's, else measured here)",
    )
    parser.add_argument(
        "--device",
        metavar=f"{'|'.join(DEVICES)}|FILE.json",
        help="predict the compute time of this GPU, as `roofline` does: a model, not a measurement",
    )
    parser.add_argument("--picture", type=option_types.png_file, metavar="PNG")
    parser.add_argument("--rounds", type=option_types.positive, default=7)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def scale_data(parser: argparse.ArgumentParser) -> None:
    """Opening a large split as training does: seconds to the first batch, and peak memory of a process.

    The split is made of hard links to one small tar, so a hundred thousand shards take a minute and little
    disk. Without --shards and --classes three sweeps show how both figures grow: ``growth`` has the
    exponents.
    """
    parser.add_argument("--shards", type=option_types.whole(1, 10**6))
    parser.add_argument("--classes", type=option_types.num_classes)
    parser.add_argument("--samples-per-shard", type=option_types.whole(1, 10**5), default=1000)
    parser.add_argument("--workers", type=option_types.whole(0, 64), default=1, help="reader processes")

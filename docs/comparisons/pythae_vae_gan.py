"""Another program's VAE-GAN on the quickstart's images: pythae 0.1.2's model and trainer.

    pip install pythae==0.1.2
    python docs/comparisons/pythae_vae_gan.py theirs-images --seconds 230
    dsvae build folder theirs-images shards/theirs --size 32 --channels 1
    dsvae evaluate --images shards/theirs/train --real shards/fashion-mnist-mini/test \\
        --classifier shards/fashion-mnist-mini/classifier --out theirs

Trains for so many seconds, prints images per second, and writes samples as PNG files into a new folder.
Its model has no labels, so all samples are of one class, "any". Encoder and decoder are this project's
``small``; the discriminator has the same convolutions, ends in a probability as pythae wants it, and has no
spectral norm.

A fault of pythae 0.1.2: its trainer leaves the gradient of the discriminator loss in the decoder's weights,
on top of that of the decoder's, (1 - s) * reconstruction - s * discriminator. The sum is (1 - s) *
(reconstruction + discriminator): the decoder learns to be told apart, at any s. With
``--separate-gradients`` each network gets its own loss's alone.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAEGAN, VAEGANConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.samplers import NormalSampler
from pythae.trainers import CoupledOptimizerAdversarialTrainer, CoupledOptimizerAdversarialTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn
from torchvision.utils import save_image

from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.stream import one_pass
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.encoder import GaussianEncoder

_SHAPE = ImageShape(channels=1, height=32, width=32)
_BATCH_SIZE = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("out", type=Path, help="a new folder for the samples")
    parser.add_argument("--seconds", type=float, default=230, help="of training")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--data", default="shards/fashion-mnist-mini/train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latent-dim", type=int, default=28, help="16 + 12, as the quickstart's zs and zu")
    parser.add_argument("--adversarial-loss-scale", type=float, default=0.5, help="s; pythae's default")
    parser.add_argument(
        "--reconstruction-layer", type=int, default=-1, help="of the discriminator; pythae's default"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=1e-4, help="of all three optimisers; pythae's default"
    )
    parser.add_argument("--separate-gradients", action="store_true", help="without the fault")
    options = parser.parse_args()
    try:
        options.out.mkdir(parents=True)
    except FileExistsError:
        parser.error(f"{options.out} exists already. Name a new folder for the samples, or move that away.")
    torch.manual_seed(options.seed)
    images = _images(options.data)
    config = VAEGANConfig(
        input_dim=(_SHAPE.channels, _SHAPE.height, _SHAPE.width),
        latent_dim=options.latent_dim,
        adversarial_loss_scale=options.adversarial_loss_scale,
        reconstruction_layer=options.reconstruction_layer,
    )
    model = VAEGAN(config, _Encoder(options.latent_dim), _Decoder(options.latent_dim), _Discriminator())
    clock = _Clock(options.seconds)
    chosen = _Separate if options.separate_gradients else CoupledOptimizerAdversarialTrainer
    trainer = chosen(
        model=model,
        train_dataset=BaseDataset(images, torch.zeros(len(images))),
        training_config=CoupledOptimizerAdversarialTrainerConfig(
            output_dir=str(options.out.with_name(options.out.name + "-pythae")),
            per_device_train_batch_size=_BATCH_SIZE,
            num_epochs=10**6,
            seed=options.seed,
            no_cuda=True,
            encoder_learning_rate=options.learning_rate,
            decoder_learning_rate=options.learning_rate,
            discriminator_learning_rate=options.learning_rate,
        ),
        callbacks=[clock],
    )
    with contextlib.suppress(_OverError):
        trainer.train(log_output_dir=None)
    print(f"{clock.updates} updates, {clock.updates * _BATCH_SIZE / clock.seconds:.0f} images per second")
    samples = NormalSampler(model=model.eval()).sample(num_samples=options.samples, batch_size=200)
    (options.out / "any").mkdir()
    for i, sample in enumerate((samples + 1) / 2):
        save_image(sample, options.out / "any" / f"{i:05d}.png")


def _images(split: str) -> Tensor:
    """All images of a split, [N, 1, 32, 32] in [-1, 1]."""
    pixels = torch.cat([batch.images for batch in one_pass(open_split(split), _BATCH_SIZE)])
    return pixels.movedim(-1, 1).float() / 127.5 - 1


class _Encoder(BaseEncoder):  # type: ignore[misc]
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.network = GaussianEncoder(architecture_for("small", _SHAPE), _SHAPE, latent_dim)

    def forward(self, images: Tensor) -> ModelOutput:
        gaussian = self.network(images)
        return ModelOutput(embedding=gaussian.mean, log_covariance=gaussian.log_variance)


class _Decoder(BaseDecoder):  # type: ignore[misc]
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.network = Decoder(architecture_for("small", _SHAPE), _SHAPE, latent_dim)

    def forward(self, codes: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(codes))


class _Discriminator(BaseDiscriminator):  # type: ignore[misc]
    """Convolutions, a hidden layer, a probability; each is a level that pythae can ask for."""

    def __init__(self) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        channels, size = _SHAPE.channels, _SHAPE.height
        for layer in architecture_for("small", _SHAPE).discriminator:
            convolution = nn.Conv2d(channels, layer.channels, layer.kernel_size, layer.stride, padding=1)
            levels.append(nn.Sequential(convolution, nn.LeakyReLU(0.1)))
            channels, size = layer.channels, size // layer.stride
        flat = channels * size * size
        levels.append(nn.Sequential(nn.Flatten(), nn.Linear(flat, 256), nn.LeakyReLU(0.1)))
        levels.append(nn.Sequential(nn.Linear(256, 1), nn.Sigmoid()))
        self.levels = nn.ModuleList(levels)
        self.depth = len(levels)

    def forward(self, images: Tensor, output_layer_levels: list[int] | None = None) -> ModelOutput:
        found = ModelOutput()
        features = images
        for depth, level in enumerate(self.levels, start=1):
            features = level(features)
            if depth in (output_layer_levels or ()):
                found[f"embedding_layer_{depth}"] = features
        found["embedding"] = features
        return found


class _Separate(CoupledOptimizerAdversarialTrainer):  # type: ignore[misc]
    """Each optimiser gets the gradient of its own loss alone."""

    def _optimizers_step(self, model_output: ModelOutput) -> None:
        taken = []
        for name in ("encoder", "decoder", "discriminator"):
            if model_output[f"update_{name}"]:
                parameters = list(getattr(self.model, name).parameters())
                loss = model_output[f"{name}_loss"]
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
                taken.append((getattr(self, f"{name}_optimizer"), parameters, gradients))
        for optimizer, parameters, gradients in taken:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()


class _OverError(Exception):
    """The seconds are over."""


class _Clock(TrainingCallback):  # type: ignore[misc]
    """Counts updates, and ends the training after so many seconds of it."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.updates = 0
        self.seconds = 0.0
        self._started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.monotonic()

    def on_train_step_end(self, *_: Any, **__: Any) -> None:
        self.updates += 1
        self.seconds = time.monotonic() - self._started
        if self.seconds >= self.budget:
            raise _OverError


if __name__ == "__main__":
    main()

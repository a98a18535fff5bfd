"""Everything an experiment can choose: a tree of frozen dataclasses, one section per concern.

The JSON files in configs/ hold what an experiment chooses; every default lives here.
``reading`` reads and writes the tree. A component receives its own section, never the whole.

Fields marked ``free`` may differ between a run and its resumption: they steer how long, how
often or how fast, but not what is computed. All other fields are part of the run's identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dist_dsvae.config.fields import (
    LARGE,
    LONGEST_WAIT,
    MAX_TEMPERATURE,
    WINDOW_SHARDS,
    between,
    free,
    place,
    positive,
)
from dist_dsvae.config.methods import DSVAEConfig, MethodConfig
from dist_dsvae.config.training import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The shards and how they are read.

    train: directory of the shards to train on, relative to the working directory or absolute, or the URL of
        such a directory (shards/README.md, "Shards from afar").
    test: directory or URL of shards that training does not see, for figures and pictures; null has none.
    unlabelled: shards whose labels are not looked at, for semi-supervised training (``DSVAEConfig``).
    build_command: shown when the shards are missing.
    batch_size: samples per global batch, over all processes; every update draws one.
    flip: random horizontal flip of images in training; false where left and right differ, as in writing.
    shuffle_window_shards: samples are permuted within this many (already permuted) shards, so that reading
        stays local. null: 8, or more, within 1 GiB, where shards hold classes in order (``data.mixing``).
    source: "stream" reads and decodes the shards as training goes; "resident" decodes them once into
        the device's memory. The batches are the same, bit for bit.
    corrupt_sample: "raise" stops at an undecodable sample; "replace" puts a deterministically
        chosen other sample of the same shard in its place (of the split, where it is alone) and counts it.
    num_workers: reader processes per rank of "stream"; 0 reads in the training process.
    worker_timeout_seconds: a reader process that brings nothing for so long counts as hung, and the run
        stops; 0 waits for ever.
    cache_dir: local folder for what is fetched from URLs, and for what evaluations keep of real images
        (real-images), shared by all processes of a machine; null is dist_dsvae in $XDG_CACHE_HOME or in
        ~/.cache.
    cache_gib: beyond so many GiB of shards in it, those used longest ago are removed; shards in use
        and those of the window being read stay.
    fetch_tries: attempts at a file before the run stops; two where the server says that there is none.
    fetch_pause_seconds: before the second attempt; it doubles with each further one, up to 30 s.
    fetch_timeout_seconds: a connection that brings nothing for so long counts as failed.
    allow_pipe: let "pipe:COMMAND" name a split; it runs a shell, so only for commands you trust.
    allow_redirects: follow a web server that sends requests on to another host or scheme.
    """

    # the shards' fingerprint, not their place, is what a resume compares
    train: str = field(metadata={"free": True, "path": True})
    test: str | None = place(None)
    unlabelled: str | None = place(None)
    build_command: str = free("")
    batch_size: int = between(2, LARGE, 96)
    flip: bool = True
    shuffle_window_shards: int | None = between(1, LARGE, None)
    source: Literal["stream", "resident"] = free("stream")
    corrupt_sample: Literal["raise", "replace"] = free("raise")
    num_workers: int = between(0, 1024, 2, free=True)
    worker_timeout_seconds: float = between(0, LONGEST_WAIT, 600.0, free=True)
    cache_dir: str | None = place(None)
    cache_gib: float = between(0, LARGE, 20.0, free=True)
    fetch_tries: int = positive(8, free=True)
    fetch_pause_seconds: float = between(0, 3600, 0.5, free=True)
    fetch_timeout_seconds: float = positive(30.0, free=True, up_to=LONGEST_WAIT)
    allow_pipe: bool = free(False)
    allow_redirects: bool = free(False)

    @property
    def window_shards(self) -> int:
        """The window, also where neither a file nor a run has chosen one."""
        return self.shuffle_window_shards or WINDOW_SHARDS

    @property
    def replaces_corrupt(self) -> bool:
        """Whether training goes on without undecodable samples, and whoever reads a split leaves them out."""
        return self.corrupt_sample == "replace"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Network family and the widths of the two codes.

    architecture: the first eight (``models.architectures``) are for methods that generate, the others
        for classifiers.
    zs_dim: of dsvae's label-relevant code; the baselines have the one-hot label in its place.
    zu_dim: of the label-irrelevant code; of z in the baselines.
    """

    architecture: Literal[
        "vgg",
        "small",
        "vgg64",
        "small64",
        "conv32",
        "conv32-reference",
        "small32",
        "mlp2d",
        "resnet32",
        "inception-resnet-v1",
    ]
    zs_dim: int = positive(512)
    zu_dim: int = positive(512)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Adam for every network (appendix B.4), with a schedule for the mixture's variances.

    learning_rate: of all weights but the mixture's log-variances.
    variance_learning_rate: of the mixture's log-variances, before the schedule, where gradients train them
        (method.mixture_fit).
    variance_schedule: "paper" multiplies the variances' learning rate by 0.01 after 2 epochs,
        "reference" by 0.1 at every 10th epoch, "constant" leaves it.
    beta1: Adam's decay rate of the mean of the gradients.
    beta2: Adam's decay rate of the mean square of the gradients.
    epsilon: added to Adam's denominator.
    clip_gradient_norm: largest global L2 norm of one update's gradient; 0 switches clipping off.
    decay_epochs: every learning rate falls to 0 along a half cosine over so many epochs; 0 leaves them.
    """

    learning_rate: float = positive(5e-4)
    variance_learning_rate: float = positive(5e-4)
    variance_schedule: Literal["paper", "reference", "constant"] = "paper"
    beta1: float = between(0, 0.999999, 0.0)
    beta2: float = between(0, 0.999999, 0.9)
    epsilon: float = positive(1e-8)
    clip_gradient_norm: float = between(0, LARGE, 0.0)
    decay_epochs: float = between(0, LARGE, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """The pictures drawn during training: rows are classes, columns share one zu.

    num_classes: rows of the grid, classes evenly spread over all.
    num_columns: columns of the grid, and at most so many pictures on each side of the swap grid.
    num_points: drawn of data that are points.
    """

    num_classes: int = positive(10, free=True)
    num_columns: int = positive(10, free=True)
    num_points: int = positive(3000, free=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How a run's images are scored (launch/evaluate.py); none of it changes what is trained.

    classifier: what judges them: a published classifier (launch/export.py makes one from a run of
        configs/classifier), or a file of weights, PATH or KIND=PATH (``evaluation.judging.judge`` lists the
        kinds). null takes the figures that need no judge.
    fid_network: a file of weights, PATH or KIND=PATH, whose features FID, precision and recall compare; null
        takes the classifier's.
    identity_network: a face network's file of weights, PATH or KIND=PATH: whom swaps, reconstructions and
        samples resemble (``evaluation.identity``); null does not measure it.
    identity_samples: so many pictures of a split, each giving a swap and a reconstruction, and so many of the
        generated samples are shown to identity_network; 0 takes all. Faces are enlarged to 160x160: a core of
        a CPU looks at about 16 per second, at three for a picture.
    held_out: a split of persons (classes) that training never saw, directory or URL as data.test: swaps and
        reconstructions of its pictures are measured too, by methods that encode without a label.
    samples_per_class: so many of each class are generated for the scores.
    real_samples: so many real images are compared with the generated ones, evenly spread over real_split; 0
        takes as many as are generated.
    real_split: where the real images come from that generated ones are compared with.
    diversity_samples: so many samples per class, of which diversity compares all pairs of a class.
    neighbour_samples: at most so many generated and so many real samples, for precision and recall.
    radius: of points: one is covered if a point of the other set lies within it (the data's noise).
    splits: of the customary second Inception Score.
    batch_size: samples generated and judged at a time.
    seed: of all samples and splits.
    weights: the moving average ("ema"), the last weights ("raw"), or the average where there is one.
    batch_norm: "precise" measures batch norms anew for the very weights (``sampling.statistics_codes``): the
        encoders' on training pictures, the decoder's on the kind of codes that are decoded, those of the
        prior for samples, those of pictures for reconstructions and swaps. "images": so, but samples with
        those of pictures, too, not only where they are scored but wherever they are drawn: faces are
        smoother, though scores may be lower. "running": the moving averages of training, in the decoder over
        both kinds. "batch": generate with the statistics of batches of batch_size samples of all classes, as
        the authors' code does; all else as "running".
    prior: draw codes from the method's prior ("model"), or from Gaussians fitted to the codes of training
        images ("fitted", ``sampling.fitted_prior``; for methods that encode).
    temperature_zs: the standard normals that a sample's zs is made of are multiplied by it: below 1 samples
        are more typical of their class and less diverse, above 1 the reverse. Up to 10.
    temperature_zu: the standard normals that a sample's zu (z, of the baselines) is made of are multiplied by
        it: below 1 samples are less diverse, above 1 more. Up to 10.
    every_steps: runs are scored during training, too, every so many iterations; 0 means only when asked.
    """

    classifier: str | None = place(None)
    fid_network: str | None = place(None)
    identity_network: str | None = place(None)
    identity_samples: int = between(0, LARGE, 1000, free=True)
    held_out: str | None = place(None)
    samples_per_class: int = between(2, LARGE, 100, free=True)
    real_samples: int = between(0, LARGE, 0, free=True)
    real_split: Literal["train", "test"] = free("test")
    diversity_samples: int = between(2, LARGE, 100, free=True)
    neighbour_samples: int = between(4, LARGE, 10_000, free=True)
    radius: float = positive(0.15, free=True)
    splits: int = between(1, LARGE, 10, free=True)
    batch_size: int = between(2, LARGE, 100, free=True)
    seed: int = between(0, 2**62, 0, free=True)
    weights: Literal["auto", "ema", "raw"] = free("auto")
    batch_norm: Literal["precise", "images", "running", "batch"] = free("precise")
    prior: Literal["model", "fitted"] = free("model")
    temperature_zs: float = positive(1.0, free=True, up_to=MAX_TEMPERATURE)
    temperature_zu: float = positive(1.0, free=True, up_to=MAX_TEMPERATURE)
    every_steps: int = between(0, LARGE, 0, free=True)

    @property
    def measures_batch_norm(self) -> bool:
        """Whether batch norms are measured for the weights that are scored."""
        return self.batch_norm in ("precise", "images")

    @property
    def samples_as_images(self) -> bool:
        """Whether samples are decoded with the statistics of pictures' codes."""
        return self.batch_norm == "images"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentConfig:
    """One runnable experiment: the whole of a JSON file in configs/.

    command: how to run the file; for its reader only.
    run_dir: where the run lives; ``--run-dir`` goes before it.
    seed: decides initial weights, sample order and all noise.
    init_from: a run, a checkpoint of one, or an exported model, whose weights a new run starts from;
        everything else starts afresh. Of what belongs to a class, that of classes which both know by name is
        taken, the rest starts afresh. A run that is resumed does not look at it.
    data, model, method, optimizer, train, sampling, evaluation: sections, below.
    """

    command: str = free("")
    run_dir: str = place("runs/default")
    seed: int = between(0, 2**62, 0)
    init_from: str | None = place(None)
    data: DataConfig
    model: ModelConfig
    method: MethodConfig = DSVAEConfig()  # noqa: RUF009 - frozen, so one may serve all
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()  # noqa: RUF009 - as above
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

"""Settings that contradict each other, found when a config is read, before any data are opened.

And those that another one leaves without effect: they are told, not refused, since a run's config.json, from
which others are begun and resumed, holds every key.

What a run recorded is read without these checks (``reading.from_tree``): a run that an older version
let through can still be drawn from and exported. Within one section, what could never have been trained is
refused by the dataclass itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields

from dist_dsvae.config import EvaluationConfig, ExperimentConfig
from dist_dsvae.config.methods import CGANConfig, ClassifierConfig, DSVAEConfig


def contradictions(config: ExperimentConfig) -> Iterator[str]:
    """A sentence for every pair of settings that cannot both be meant, with what to change."""
    yield from contradictions_in_evaluation(config.evaluation)
    data, method, train, evaluation = config.data, config.method, config.train, config.evaluation
    zs, zu = evaluation.temperature_zs, evaluation.temperature_zu
    if zs not in (1, zu) and not isinstance(method, DSVAEConfig):
        yield (
            f"evaluation.temperature_zs is {zs:g}, but {method.name} has one code, which "
            "evaluation.temperature_zu is of. Leave it out."
        )
    if isinstance(method, DSVAEConfig) and method.unlabelled_updates and data.unlabelled is None:
        yield (
            f"method.unlabelled_updates is {method.unlabelled_updates}, but data.unlabelled is not set. Name "
            "the shards there (shards/README.md says how to build them), or set it to 0."
        )
    if isinstance(method, DSVAEConfig) and method.joint_batch == "last" and method.joint_updates > 1:
        yield (
            f'method.joint_batch is "last", so {method.joint_updates} joint updates would see one batch, and '
            'its noise, again. Set method.joint_updates to 1, or the other to "fresh".'
        )
    if evaluation.every_steps and data.test is None:
        yield (
            "evaluation.every_steps is set, but data.test is not. Give a test split to evaluate on, or set "
            "evaluation.every_steps to 0."
        )
    if evaluation.weights == "ema" and not train.averages:
        yield (
            'evaluation.weights is "ema", but train.ema_half_life_updates is 0, so there is no moving '
            'average. Give a half-life, or set evaluation.weights to "auto".'
        )
    if evaluation.prior == "fitted" and isinstance(method, CGANConfig | ClassifierConfig):
        yield (
            f'evaluation.prior is "fitted", but method.name is "{method.name}", which does not encode '
            'images, so there are no codes to fit a prior to. Set it to "model".'
        )
    if train.keep_every_steps and not train.checkpoint_every_steps:
        yield (
            f"train.keep_every_steps is {train.keep_every_steps}, but train.checkpoint_every_steps is 0, so "
            "no checkpoint is made after such an iteration. Set that, too, or train.keep_every_steps to 0."
        )


def contradictions_in_evaluation(config: EvaluationConfig) -> Iterator[str]:
    """Those within the section, which the options of launch/evaluate.py can change."""
    if config.diversity_samples > config.samples_per_class:
        yield (
            f"evaluation.diversity_samples is {config.diversity_samples}, more than the "
            f"{config.samples_per_class} of evaluation.samples_per_class. Lower it, or raise that."
        )
    if config.fid_network is not None and config.classifier is None:
        yield (
            f"evaluation.fid_network is {config.fid_network}, but evaluation.classifier is not set, and "
            "without it no image is scored. Set it, too: the same network will do."
        )


def without_effect(config: ExperimentConfig) -> Iterator[str]:
    """A sentence for every key that is not at its default, though another one leaves it without effect.

    Numbers of updates leave none: a run is resumed, or another begun from its weights, with others.
    """
    for dotted, reason in _idle_keys(config):
        section, _, key = dotted.partition(".")
        options = getattr(config, section)
        value = getattr(options, key)
        default = next(f.default for f in fields(options) if f.name == key)
        if value != default:
            yield (
                f"{dotted} is {json.dumps(value)}, which has no effect: {reason}. Leave it out, or set it to "
                f"{json.dumps(default)}, its default."
            )


def _idle_keys(config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    """Keys that nothing reads, each with the reason."""
    method, train = config.method, config.train
    no_gradient = f'method.name is "{method.name}", which has no mixture'
    if isinstance(method, DSVAEConfig):
        no_gradient = f'method.mixture_fit is "{method.mixture_fit}", and only "gradient" trains variances'
    if not isinstance(method, DSVAEConfig) or method.mixture_fit != "gradient":
        yield "optimizer.variance_learning_rate", no_gradient
        yield "optimizer.variance_schedule", no_gradient
    if isinstance(method, DSVAEConfig) and method.mixture_fit != "moments":
        yield (
            "method.mixture_rate",
            f'method.mixture_fit is "{method.mixture_fit}", and only "moments" follows at a rate',
        )
    if isinstance(method, ClassifierConfig) and config.model.architecture != "resnet32":
        yield "method.width", f'model.architecture is "{config.model.architecture}", not "resnet32"'
    if not train.averages:
        for key in ("ema_ramp_up", "ema_networks"):
            yield f"train.{key}", "train.ema_half_life_updates is 0, so there is no moving average"
    elif train.ema_half_life_samples is not None:
        yield "train.ema_ramp_up", "the deprecated train.ema_half_life_samples has no ramp-up"

"""What can be read from the codes of the test split, and how well its images come back."""

from __future__ import annotations

from typing import Any

from torch import nn

from dist_dsvae.core import distributed
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs, Evaluator, Scored
from dist_dsvae.engine.evaluating.test_codes import TestCodes, read_test_codes
from dist_dsvae.engine.iteration.batch_norm import mean_statistics
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage, weights_applied
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.evaluation.probes import PROBE_NOISE, Share, linear_probe_accuracy, mlp_probe_accuracy
from dist_dsvae.runs.measure_statistics import Measured, measure, using


class CodeScores(Evaluator):
    """Accuracies, probes and the reconstruction error, of whatever the method's abilities allow."""

    def settings(self) -> dict[str, Any]:
        return {"probe_noise": PROBE_NOISE}

    def __call__(self, candidate: Candidate) -> Scored:
        def compute() -> Figures:
            return code_figures(candidate.codes) | more_probe_figures(candidate.codes)

        with candidate.progress.shown("reading the test split and fitting probes"):
            figures = candidate.whole("held-out", compute)
        figures["test_samples"] = int(figures["test_samples"])
        return Scored(figures)


def final_figures(
    method: nn.Module, ema: ExponentialMovingAverage | None, inputs: EvaluationInputs
) -> tuple[Figures, str]:
    """``code_figures`` at the end of training, of the weights asked for; "ema" or "raw", which these are.

    In training mode, with its own weights, after. Called by all ranks.
    """
    train, skip = inputs.train, inputs.skip_corrupt
    measured = Measured()
    method.eval()
    with weights_applied(ema, inputs.config.weights) as weights:
        if inputs.config.measures_batch_norm:
            measured = measure(method, train, skip_corrupt=skip, kinds=["images"])
        with mean_statistics(method), using(method, measured):
            codes = read_test_codes(method, train, inputs.test, inputs.runtime, skip_corrupt=skip)
    method.train()
    return code_figures(codes), weights


def code_figures(codes: TestCodes) -> Figures:
    """The figures that the method's abilities allow.

    accuracy, zs_accuracy: argmax of the posterior (dsvae: of the mixture's, given zs) on the test split.
    zu_probe_accuracy: logistic regression from zu, fitted on (at most 10,000 samples, or ten times the number
    of classes, of) the training split, on the test split; near chance where zu says nothing of the class.
    zu is what the decoder is given, a sample of its posterior; zu_mean_probe_accuracy probes the
    posterior's mean, which no network of the method ever sees without its noise.
    reconstruction_error: mean squared error per value, in [0, 4], of decode(zs, mean of zu).
    """
    test = codes.test
    figures: Figures = {}
    if "predicted" in test:
        name = "zs_accuracy" if "zu" in test else "accuracy"
        figures[name] = (test["predicted"] == test["labels"]).double().mean().item()
    if "zu" in test:
        for code in ("zu", "zu_mean"):
            figures[f"{code}_probe_accuracy"] = _linear_probe(codes, code)
        figures["reconstruction_error"] = test["squared_error"].double().mean().item()
    return figures | {"test_samples": len(test["labels"])}


def more_probe_figures(codes: TestCodes) -> Figures:
    """The linear probe from zs, and a perceptron's from zs and zu: nothing linear may hide in zu either."""
    if "zu" not in codes.test:
        return {}
    figures: Figures = {}
    if "predicted" in codes.test:  # else zs is the label itself
        figures["zs_probe_accuracy"] = _linear_probe(codes, "zs")
        figures["zs_mlp_accuracy"] = _mlp_probe(codes, "zs")
    return figures | {"zu_mlp_accuracy": _mlp_probe(codes, "zu")}


def _linear_probe(codes: TestCodes, code: str) -> float:
    """Called by all ranks, which share the work."""
    test, fit, num_classes = codes
    share = Share(distributed.rank(), distributed.world_size(), distributed.all_reduce_sum)
    return linear_probe_accuracy(
        fit[code], fit["labels"], test[code], test["labels"], num_classes, share=share
    )


def _mlp_probe(codes: TestCodes, code: str) -> float:
    test, fit, num_classes = codes
    return mlp_probe_accuracy(fit[code], fit["labels"], test[code], test["labels"], num_classes)

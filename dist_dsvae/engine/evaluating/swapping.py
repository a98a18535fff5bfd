"""Swapped images under a classifier: decoder(zs of a, zu of b) should be taken for a's class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dist_dsvae.core import distributed
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs, Evaluator, Scored
from dist_dsvae.evaluation.judging.judge import Judge
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.methods.abilities import Autoencoding
from dist_dsvae.sampling.pixels import as_saved


class SwapScores(Evaluator):
    """Shares of swapped images taken for the class of zs, and for that of zu.

    classifier: of the data set's own classes; ``ImageScores`` names it.
    """

    needs = Autoencoding

    def __init__(self, inputs: EvaluationInputs, classifier: Judge) -> None:
        self.inputs, self.classifier = inputs, classifier

    def __call__(self, candidate: Candidate) -> Scored:
        method = candidate.method
        assert isinstance(method, Autoencoding)
        with candidate.progress.shown("judging swapped images"):
            return Scored(candidate.whole("swaps", lambda: self._figures(method, candidate.codes.test)))

    @torch.no_grad()
    def _figures(self, method: Autoencoding, codes: Mapping[str, Tensor]) -> Figures:
        """codes: labels [N], zs and zu_mean [N, d] as ``test_codes.read_out`` gives them.

        Each image gives its zs once; a seeded permutation says whose zu it meets. Pairs of one class tell
        nothing and are left out; without others there are no figures.
        """
        config, runtime = self.inputs.config, self.inputs.runtime
        labels, zs, zu = codes["labels"], codes["zs"], codes["zu_mean"]
        partner = permutation(len(labels), config.seed, Draw.SWAP_PARTNER).to(labels.device)
        differing = (labels != labels[partner]).nonzero()[:, 0]
        if not len(differing):
            return {}
        counts = torch.zeros(2, dtype=torch.float64, device=runtime.device)
        for rows in torch.split(differing, config.batch_size)[runtime.rank :: runtime.world_size]:
            with runtime.autocast():
                images = method.decode(torch.cat([zs[rows], zu[partner[rows]]], dim=1), "images")
            logits = self.classifier(as_saved(images)).logits
            assert logits is not None
            taken_for = logits.argmax(dim=1)
            for i, of in enumerate((labels[rows], labels[partner[rows]])):
                counts[i] += (taken_for == of).sum()
        distributed.all_reduce_sum(counts)
        follows_zs, follows_zu = (counts / len(differing)).tolist()
        return {"swap_follows_zs": follows_zs, "swap_follows_zu": follows_zu}

"""Intra-class diversity on a CUDA device: the numbers of the CPU, also where TF32 is allowed."""

from __future__ import annotations

import pytest
import torch

from dist_dsvae.evaluation.diversity import pairwise_ms_ssim
from tests.unit.evaluation.test_diversity import on_white, random_images

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("size", [32, 64, 176])
@pytest.mark.parametrize("framed", [False, True])
def test_ms_ssim_is_that_of_the_cpu(size: int, framed: bool) -> None:
    images = random_images(12, size)
    images = on_white(images) if framed else images
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        actual = pairwise_ms_ssim(images.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(actual, pairwise_ms_ssim(images), rtol=0, atol=1e-5)

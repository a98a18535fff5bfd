"""Fetches a raw data set with torchvision, which checks its md5 sums."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.error import URLError

from dist_dsvae.core.errors import DataError

DOWNLOAD_FOLDER = "downloads"


def download(name: Literal["fashion-mnist", "cifar10", "cifar100"], beside: Path) -> Path:
    """Fetch the set into ``beside``/downloads unless it is there; returns the folder of its files."""
    from torchvision import datasets  # here, for importing it takes seconds and few runs download

    root = beside / DOWNLOAD_FOLDER
    try:
        if name == "fashion-mnist":
            return Path(datasets.FashionMNIST(root, download=True).raw_folder)
        kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        return root / str(kind(root, download=True).base_folder)
    except (URLError, RuntimeError, OSError) as error:
        raise DataError(
            f"The data set {name} could not be downloaded to {root} ({error}). If this machine has no "
            "network, fetch it elsewhere and give its folder as SOURCE."
        ) from error

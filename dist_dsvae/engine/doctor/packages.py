"""Versions of Python and of the packages that the project stands on. Needs none of them to say so."""

from __future__ import annotations

import re
import sys

from dist_dsvae.core.versions import version_of
from dist_dsvae.engine.doctor.finding import Finding, failed, ok, warning

PYTHON = (3, 11)
# pyproject.toml's own words (a test compares), which an uninstalled clone has no metadata of
SUPPORTED = {
    "torch": ">=2.11",
    "torchvision": ">=0.26",
    "accelerate": ">=1.10,<2",
    "webdataset": ">=1.0.2,<2",
    "numpy": ">=2.0",
    "pillow": ">=10.3",
    "simplejpeg": ">=1.8",
    "psutil": ">=5.9",
    "rich": ">=13.7",
    "safetensors": ">=0.4.5",
    "huggingface_hub": ">=0.34,<3",
    "matplotlib": ">=3.8",
    "tensorboard": ">=2.16",
}
# What is done without them; a missing one is no failure
WITHOUT = {
    "simplejpeg": "Pillow decodes JPEGs, more slowly",
    "tensorboard": "there are no curves for TensorBoard",
}
# Without these nothing further can be examined
NEEDED_TO_EXAMINE = ("torch", "torchvision", "accelerate", "numpy", "psutil", "rich")
_SHOWN = ("torch", "torchvision", "accelerate", "numpy", "webdataset")


def versions() -> Finding:
    """Whether every package is there, in a version that is supported."""
    found = {name: version_of(name) for name in SUPPORTED}
    return judged(found, sys.version_info[:2])


def missing() -> list[str]:
    """Packages without which nothing further can be examined."""
    return [name for name in NEEDED_TO_EXAMINE if version_of(name) is None]


def judged(found: dict[str, str | None], python: tuple[int, int]) -> Finding:
    """found: version of each of ``SUPPORTED``, None where it is not installed."""
    absent = [name for name, version in found.items() if version is None and name not in WITHOUT]
    lacking = [name for name, version in found.items() if version is None and name in WITHOUT]
    present = {name: version for name, version in found.items() if version is not None}
    old = [name for name, version in present.items() if below(version, SUPPORTED[name])]
    new = [name for name, version in present.items() if beyond(version, SUPPORTED[name])]
    wanted = " ".join(f'"{name}{SUPPORTED[name]}"' for name in [*absent, *old, *new, *lacking])
    if python < PYTHON:
        text = f"Python is {python[0]}.{python[1]}, but {PYTHON[0]}.{PYTHON[1]} or later is needed"
        return failed("versions", text, "Make the virtual environment with a newer Python.", **present)
    if absent or old:
        texts = [f"{name} is not installed" for name in absent]
        texts += [f"{name} {found[name]} is too old ({SUPPORTED[name]})" for name in old]
        return failed("versions", "; ".join(texts), f"pip install {wanted}", **present)
    if lacking:
        texts = [f"{name} is not installed, so {WITHOUT[name]}" for name in lacking]
        return warning("versions", "; ".join(texts), f"pip install {wanted}", **present)
    if new:
        texts = [f"{name} {found[name]} is newer than any that was tried ({SUPPORTED[name]})" for name in new]
        return warning("versions", "; ".join(texts), f"If something breaks: pip install {wanted}", **present)
    shown = ", ".join(f"{name} {present[name]}" for name in _SHOWN)
    return ok("versions", f"Python {python[0]}.{python[1]}, {shown}", **present)


def below(version: str, bounds: str) -> bool:
    """Whether a version is lower than ``>=`` in bounds such as ">=1.10,<2" allows."""
    return any(_release(version) < _release(low) for low in re.findall(r">=([\d.]+)", bounds))


def beyond(version: str, bounds: str) -> bool:
    """Whether a version reaches what ``<`` in bounds such as ">=1.10,<2" excludes."""
    return any(_release(version) >= _release(high) for high in re.findall(r"<([\d.]+)", bounds))


def _release(version: str) -> tuple[int, ...]:
    """ "2.11.0+cu130" -> (2, 11): numbers alone, without zeros at the end, so that 2.11 is 2.11.0."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)

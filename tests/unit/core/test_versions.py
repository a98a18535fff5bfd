"""Versions for the records: of what is installed, and of what is not."""

from __future__ import annotations

import torch

from dist_dsvae.core.versions import version_of


def test_an_installed_package() -> None:
    assert version_of("torch") in (torch.__version__, torch.__version__.split("+")[0])


def test_a_package_that_is_not_installed() -> None:
    assert version_of("no-such-package-as-this-one") is None

"""One browser, and one set of servers, for the tests of a file.

They end with the file: while Playwright is open its event loop runs, and no other test's can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dist_dsvae.pretrained.model import PretrainedModel

if TYPE_CHECKING:
    from tests.browser.serving import Pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    from tests.browser.serving import served  # skips where there is no browser

    with served(tmp_path_factory.mktemp("explore")) as pages:
        yield pages


@pytest.fixture(autouse=True)
def _nothing_else_happens(pages: Pages) -> Iterator[None]:
    yield
    outside, errors = pages.outside.copy(), pages.errors.copy()
    pages.outside.clear()
    pages.errors.clear()
    for context in pages.browser.contexts:
        context.close()
    assert outside == []
    assert errors == []


@pytest.fixture(scope="module")
def model(pages: Pages) -> PretrainedModel:
    return pages.model

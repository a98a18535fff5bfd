"""The Python of docs/use-a-model.md runs as it stands, in any directory, and gives what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs/use-a-model.md").read_text(encoding="utf-8")
BLOCK = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


def test_the_model_that_comes_with_the_package_does_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pushed: list[dict[str, bytes]]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(BLOCK, "docs/use-a-model.md", "exec"), names)
    assert names["model"].published.about["run"] == "fashion-mnist"
    for made in ("pictures", "again", "mended"):
        assert [type(picture) for picture in names[made]] == [Image.Image] * 8, made
    assert isinstance(names["crossed"], Image.Image)
    assert Image.open("bags-and-coats.png").width > 4 * 32
    assert b"license: mit" in pushed[0]["README.md"]


def test_the_page_says_in_which_range_floats_lie() -> None:
    text = " ".join(PAGE.replace("*", "").split())
    assert "uint8, or floats in [-1, 1]; not ToTensor's [0, 1]" in text
    assert "`images * 2 - 1`" in PAGE

"""docs/python-api.ipynb: a valid notebook without outputs, whose cells run in order, in any directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "docs/python-api.ipynb"
# The cells in one namespace, as a kernel has them; then what they left, and which results are pictures
PROGRAM = """
import ast, json, sys
names, shown = {"__name__": "__main__"}, []
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        result = last and eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        if hasattr(result, "_repr_png_") and result._repr_png_().startswith(b"\\x89PNG"):
            shown.append(type(result).__name__)
print(json.dumps({
    "shown": shown,
    "model": names["MODEL"],
    "samples": [picture.size for picture in names["samples"]],
    "codes": [*names["zs"].shape, *names["zu"].mean.shape],
    "likely": names["likely"],
    "grid": [len(row) for row in names["grid"]],
    "path": len(names["path"][0]),
    "mended": [
        picture.crop((0, 0, 16, 32)).tobytes() == original.crop((0, 0, 16, 32)).tobytes()
        for picture, original in zip(names["mended"], names["pictures"])
    ],
    "saved": sorted(path.name for path in (names["workplace"] / "copy").iterdir()),
}))
"""


def test_it_is_a_notebook_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    pytest.importorskip("nbformat").validate(notebook)


def test_its_cells_run(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(NOTEBOOK)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    assert left["model"] == "shards/fashion-mnist-mini/model"
    assert left["shown"] == ["ImageList", "ImageRows", "ImageRows", "ImageRows", "ImageList"]
    assert left["samples"] == [[32, 32]] * 10
    assert left["codes"] == [4, 16, 4, 12]
    assert len(left["likely"]) == 4
    assert (left["grid"], left["path"]) == ([4, 4], 8)
    assert left["mended"] == [True, True]
    assert {"config.json", "model.safetensors", "README.md"} <= set(left["saved"])

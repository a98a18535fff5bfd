"""Files that belong to one JSON document, which has their hashes: only what was written so is replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.text import read_json
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError

_PROOF = "files_sha256"


def write_proven(prefix: Path, document: Mapping[str, Any], others: Mapping[str, bytes]) -> list[Path]:
    """Write PREFIX.json and, by their endings, PREFIX.md and so on; return their paths, the JSON file last.

    The JSON file has the sha256 of the others. Raises OSError where writing is impossible, ComparisonError
    where a file of another kind is in the way.
    """
    hashes = {ending: hashlib.sha256(content).hexdigest() for ending, content in others.items()}
    text = json.dumps({**document, _PROOF: hashes}, indent=1, ensure_ascii=False) + "\n"
    contents = {**others, "json": text.encode()}
    paths = {ending: prefix.with_name(f"{prefix.name}.{ending}") for ending in contents}
    _check_replaceable(paths, str(document["format"]))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for ending, path in paths.items():
        write_atomically(path, contents[ending])
    return list(paths.values())


def _check_replaceable(paths: Mapping[str, Path], form: str) -> None:
    try:
        found = read_json(paths["json"])
        proof = found[_PROOF] if found["format"] == form else None
    except (OSError, ValueError, KeyError, TypeError):
        proof = None
    for ending, path in paths.items():
        if not path.exists():
            continue
        own = isinstance(proof, dict)
        if isinstance(proof, dict) and ending != "json":
            own = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == proof.get(ending)
        if not own:
            raise ComparisonError(
                f"{path} exists already, and is not as an earlier comparison wrote it. Choose another name "
                "with --out, or move that file away yourself."
            )

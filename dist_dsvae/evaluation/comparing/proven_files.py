"""Files that belong to one JSON document, which has their hashes: only what was written so is replaced."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from dist_dsvae.core.files import sha256_of, write_atomically
from dist_dsvae.core.text import read_json
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError

_PROOF = "files_sha256"
_NOTE = "note"  # of a person: whoever adds one has not made the document another's, and it stays
_ENDINGS = (".md", ".json", ".png")


def prefix_of(out: str, name: str) -> Path:
    """Of files that a person wants at ``out``: OUT/NAME in a directory, existing or ending in "/"; else OUT.

    An ending that the files get anyway is not repeated.
    """
    prefix = Path(out) / name if out.endswith("/") or Path(out).is_dir() else Path(out)
    return prefix.with_suffix("") if prefix.suffix in _ENDINGS else prefix


def write_proven(prefix: Path, document: Mapping[str, Any], others: Mapping[str, bytes]) -> list[Path]:
    """Write PREFIX.json and, by their endings, PREFIX.md and so on; return their paths, the JSON file last.

    The JSON file has the sha256 of its own content and of the others, while they are replaced of the old ones
    as well: what is killed between two of them can be started again. What an earlier document had besides is
    removed, but for the "note" that a person put into it.
    Raises OSError where writing is impossible, ComparisonError where a file of another kind is in the way.
    """
    hashes = {ending: hashlib.sha256(content).hexdigest() for ending, content in others.items()}
    proof = check_replaceable(prefix, str(document["format"]), (*others, "json"))
    document = {**note_in(prefix.with_name(f"{prefix.name}.json")), **document}
    hashes["json"] = own_sha256(document, without=(_PROOF, _NOTE))
    paths = {ending: prefix.with_name(f"{prefix.name}.{ending}") for ending in (*others, "json")}
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for ending in proof.keys() - paths.keys():
        left = prefix.with_name(f"{prefix.name}.{ending}")
        if _is_proven(left, ending, proof):
            left.unlink()  # of the earlier document alone
    if others:
        both = {ending: [*proof.get(ending, []), hashes[ending]] for ending in others}
        write_atomically(paths["json"], _as_json(document, {**both, "json": hashes["json"]}))
    for ending, content in others.items():
        write_atomically(paths[ending], content)
    write_atomically(paths["json"], _as_json(document, hashes))
    return list(paths.values())


def own_sha256(document: Mapping[str, Any], *, without: Collection[str]) -> str:
    """Of what a JSON document holds, however it is laid out. without: keys that do not count."""
    counted = {key: value for key, value in document.items() if key not in without}
    read_again = json.loads(json.dumps(counted))  # tuples and keys as they are in a file
    return hashlib.sha256(json.dumps(read_again, sort_keys=True).encode()).hexdigest()


def note_in(path: Path) -> dict[str, str]:
    """What a person has put into a document: {"note": text}, or nothing."""
    try:
        note = read_json(path)[_NOTE]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return {_NOTE: note} if isinstance(note, str) and note else {}


def _as_json(document: Mapping[str, Any], hashes: Mapping[str, Any]) -> bytes:
    return (json.dumps({**document, _PROOF: hashes}, indent=1, ensure_ascii=False) + "\n").encode()


def _proof_of(path: Path, form: str) -> dict[str, list[str]] | None:
    """The hashes in the JSON file that is there; None if there is none, or it is another's or changed.

    Several of a file that was being replaced: it is as one of them says. Those of before have none of the
    JSON file itself.
    """
    try:
        found = read_json(path)
        proof = found[_PROOF] if found["format"] == form else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(proof, dict):
        return None
    if proof.get("json", own := own_sha256(found, without=(_PROOF, _NOTE))) != own:
        return None
    return {ending: found if isinstance(found, list) else [found] for ending, found in proof.items()}


def _is_proven(path: Path, ending: str, proof: Mapping[str, list[str]]) -> bool:
    return path.is_file() and sha256_of(path) in proof.get(ending, [])


def check_replaceable(prefix: Path, form: str, endings: Iterable[str]) -> dict[str, list[str]]:
    """The hashes in the PREFIX.json that is there, by ending: for those who work long before they write.

    form: the document's format. Raises ComparisonError where a file of another kind is in the way, or
    nothing can be written.
    """
    folder = next(path for path in prefix.absolute().parents if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ComparisonError(
            f"{prefix}.json cannot be written: {folder} is no directory that lets this user write. Choose "
            "another place with --out."
        )
    proof = _proof_of(prefix.with_name(f"{prefix.name}.json"), form)
    for ending in sorted(endings, key=lambda ending: ending != "json"):  # by which the others are known
        path = prefix.with_name(f"{prefix.name}.{ending}")
        if not path.exists():
            continue
        if proof is None or (ending != "json" and not _is_proven(path, ending, proof)):
            raise ComparisonError(
                f"{path} exists already, and is not as this command wrote it. Choose another name with "
                "--out, or move that file away yourself."
            )
    return proof or {}

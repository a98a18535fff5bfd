"""What manifests prove to be this project's own, for shards from before there were inventories."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import sha256_as_of
from dist_dsvae.core.text import read_json
from dist_dsvae.data.shards.manifest import MANIFEST_FILE, Manifest
from dist_dsvae.data.shards.table import TABLE_FILE

REPORT_FILE = "report.json"
_REPORT_KEYS = {"command", "samples_per_class", "left_out"}


def files_of_older_shards(directory: Path) -> set[Path]:
    """The files of the split in ``directory``, or of those in its folders, and of their report.

    The tars of a split that was only indexed are whoever's made them.
    """
    own: set[Path] = set()
    for path in [directory / MANIFEST_FILE, *directory.glob(f"*/{MANIFEST_FILE}")]:
        if not path.is_file() or path.is_symlink():
            continue
        try:
            content = path.read_bytes()
            manifest = Manifest.parse(content, path.parent)
        except (DataError, OSError):
            continue
        own.add(path)
        if b'"shards_sha256"' in content:  # which was compared with the table's
            own.add(path.parent / TABLE_FILE)
        for number, shard in enumerate(manifest.shards):
            tar, index = path.parent / shard.file, path.parent / shard.index_file
            with suppress(DataError):
                manifest.index(number)
                own.add(index)
            if manifest.source != "index" and tar.is_file() and _has(tar, shard.num_bytes, shard.sha256):
                own.add(tar)
    if own and _is_report(directory / REPORT_FILE):
        own.add(directory / REPORT_FILE)
    return {path for path in own if path.is_file() and not path.is_symlink()}


def _has(tar: Path, num_bytes: int, sha256: str) -> bool:
    return tar.stat().st_size == num_bytes and sha256_as_of(tar) == sha256


def _is_report(path: Path) -> bool:
    try:
        document = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.keys() >= _REPORT_KEYS

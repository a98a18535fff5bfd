"""From a source to a finished directory of splits with a report of what was left out.

OUT/train/  OUT/test/    a split each (manifest.py); OUT/held-out/ where classes are held out
OUT/report.json          the command, counts per split and class, everything left out by name
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dist_dsvae.building.older_shards import REPORT_FILE, files_of_older_shards
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.writer import Archive, Layout, write_split
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.staging import building

_NUM_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What a build made and what it left out.

    samples_per_class: split -> class name -> samples.
    left_out: heading -> one line per thing.
    notes: sentences on what was made of the raw data.
    """

    samples_per_class: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, Sequence[str]]
    notes: Sequence[str] = ()

    def lines(self) -> list[str]:
        """For the terminal: counts, and the first examples of whatever was left out."""
        lines = []
        for split, counts in self.samples_per_class.items():
            used = sum(1 for count in counts.values() if count)
            lines.append(f"{split}: {sum(counts.values()):,} samples of {used:,} classes")
        lines += self.notes
        for heading, names in self.left_out.items():
            lines.append(f"{heading}: {len(names):,}")
            lines += [f"    {name}" for name in names[:_NUM_EXAMPLES]]
            if len(names) > _NUM_EXAMPLES:
                lines.append(f"    ... and {len(names) - _NUM_EXAMPLES:,} more, see {REPORT_FILE}")
        return lines


def build(
    source: Source,
    out: Path,
    *,
    command: str,
    samples_per_shard: int = 2000,
    archive: Archive = "none",
    num_workers: int = 1,
    overwrite: bool = False,
    apart_from: Sequence[Path] = (),
    progress: Callable[[int], None] = lambda num_samples: None,
) -> BuildReport:
    """Write all splits of ``source`` to ``out``, which appears complete or not at all.

    apart_from: what the samples are read from; may neither hold ``out`` nor lie in it.
    progress: called with the number of samples done since the last call.
    Raises DataError if ``out`` is taken, a split has no readable sample, or the disk is full.
    """
    layout = Layout(
        shape=source.shape, extension=source.extension, samples_per_shard=samples_per_shard, archive=archive
    )
    samples_per_class: dict[str, dict[str, int]] = {}
    left_out = {heading: list(names) for heading, names in source.left_out.items()}
    hashes: dict[Path, str] = {}
    with building(
        out, overwrite=overwrite, apart_from=apart_from, proof=files_of_older_shards, hashes=hashes
    ) as staging:
        for split, samples in source.splits.items():
            if not samples:
                raise DataError(
                    f"The split '{split}' has no sample. Give a source with at least one, or choose another "
                    "share for the test split."
                )
            written = write_split(
                staging / split,
                samples,
                source.encode,
                layout,
                classes=source.classes_of(split),
                command=command,
                source=source.name,
                face_crops=source.face_crops,
                num_workers=num_workers,
                progress=progress,
            )
            hashes |= {staging / split / shard.file: shard.sha256 for shard in written.manifest.shards}
            counts = written.manifest.samples_per_class
            samples_per_class[split] = dict(zip(written.manifest.classes, counts, strict=True))
            left_out.setdefault("unreadable files", []).extend(
                f"{name} ({reason})" for name, reason in written.unreadable
            )
            left_out.setdefault("classes without a sample", []).extend(
                f"{name} (in {split})" for name, count in samples_per_class[split].items() if not count
            )
        report = BuildReport(
            samples_per_class=samples_per_class,
            left_out={heading: names for heading, names in left_out.items() if names},
            notes=source.notes,
        )
        more = {} if source.companion is None else source.companion.report()
        _save(report, more, command, staging / REPORT_FILE)
        if source.companion is not None:
            source.companion.write(staging)
    if source.companion is not None:
        source.companion.finish()
    return report


def _save(report: BuildReport, more: Mapping[str, object], command: str, path: Path) -> None:
    document = {
        "command": command,
        "samples_per_class": report.samples_per_class,
        "left_out": report.left_out,
        "notes": list(report.notes),
        **more,
    }
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    write_atomically(path, text.encode())

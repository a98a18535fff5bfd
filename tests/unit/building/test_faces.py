"""The face stage on drawn faces: what is kept, splits, kinds of pictures, resuming, contact sheets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.build import build
from dist_dsvae.building.faces import contact_sheet
from dist_dsvae.building.faces.contact_sheet import Sheet, SheetEntry, sheet_file, write_sheet
from dist_dsvae.building.faces.stage import crop_faces
from dist_dsvae.building.faces.work_cache import CHUNK, WorkCache
from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.own_images.folder import any_images_in, images_in
from dist_dsvae.building.sources.own_images.found import as_unlabelled, with_labels
from dist_dsvae.building.sources.unlabelled import HeldOutChoice
from dist_dsvae.commands.build import where_to_look
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import DetectorRecord
from dist_dsvae.core.faces.face import Face, ImageOfPerson
from dist_dsvae.core.images import Codec
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.building.drawn_faces import (
    Marks,
    cropped,
    landmarks_at,
    options_of,
    photograph,
    silent,
)
from tests.unit.data.making import REPOSITORY, all_files, samples_of


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


# ---- the stage


def make_photos() -> None:
    for identity, name in ((1, "anna"), (2, "berta")):
        for number in range(6):
            # The marks move, the pattern does not: seeds far apart are other pictures.
            photograph(Path(f"photos/{name}/{number}.png"), (10 * identity + 100 * number, 80, 70, 36))
    photograph(Path("photos/anna/again.png"), (10, 90, 80, 30))
    photograph(Path("photos/berta/nobody.png"))
    photograph(Path("photos/berta/small.png"), (7, 80, 70, 8))
    Path("photos/berta/broken.jpg").write_bytes(b"<html>not here any more</html>")


def test_everything_is_kept_or_named_with_its_reason() -> None:
    make_photos()
    source = cropped(Marks())
    report = build(source, Path("out"), command="a test")
    assert report.samples_per_class == {"train": {"anna": 6, "berta": 6}}
    assert report.left_out == {
        "duplicate": ["anna/again.png (of anna/0.png)"],
        "no face": ["berta/nobody.png", "berta/small.png (no face of 24 pixels)"],
        "undecodable": ["berta/broken.jpg (not a picture of a known format)"],
    }
    (note,) = report.notes
    assert note.startswith("Duplicates (1) are pictures whose face looks like that of another one")
    assert where_to_look(Path("out"), report) == [
        "out/report.json names everything that was left out",
        "out/contact-sheets has a picture per class of what was kept, and left out and why",
    ]
    faces = json.loads(Path("out/report.json").read_text())["faces"]
    assert faces["anna"]["kept"] == [f"anna/{number}.png" for number in range(6)]
    assert faces["berta"]["undecodable"] == report.left_out["undecodable"]
    assert sum(len(names) for entry in faces.values() for names in entry.values()) == 16
    for name in ("anna", "berta"):
        with Image.open(f"out/contact-sheets/{name}.png") as sheet:
            assert sheet.width == 1152
    assert not Path("out.work").exists()
    for content, _, about in samples_of(Path("out/train")):
        assert len(about["landmarks"]) == 5
        assert content.startswith(b"\x89PNG")


def test_the_same_bytes_for_any_number_of_workers() -> None:
    make_photos()
    for number, out in ((1, "one"), (2, "two")):
        source = cropped(Marks(), num_workers=number, test_fraction=0.2)
        build(source, Path(out), command="a test", num_workers=number)
    one, two = all_files(Path("one")), all_files(Path("two"))
    assert one == two
    assert Manifest.load("one/test").num_samples == 2


def test_near_duplicates_never_straddle_given_splits_or_classes() -> None:
    photograph(Path("photos/train/anna/a.png"), (1, 80, 70, 40))
    photograph(Path("photos/train/anna/b.png"), (2, 80, 70, 40))
    photograph(Path("photos/test/anna/c.png"), (1, 90, 80, 30))
    photograph(Path("photos/train/berta/d.png"), (2, 90, 80, 30))
    photograph(Path("photos/train/berta/e.png"), (3, 90, 80, 30))
    source = cropped(Marks())
    assert {split: [sample.name for sample in members] for split, members in source.splits.items()} == {
        "train": ["train/anna/b.png", "train/berta/e.png"],
        "test": ["test/anna/c.png"],
    }
    all_kept = cropped(Marks(), duplicate_bits=-1)
    assert [len(members) for members in all_kept.splits.values()] == [4, 1]
    with pytest.raises(DataError, match=r"has the split 'test' already, so a test fraction of 0\.1"):
        cropped(Marks(), test_fraction=0.1)


def test_unlabelled_and_held_out_faces() -> None:
    """A split without labels says nothing of who is alike; each split keeps its own classes."""
    make_photos()
    photograph(Path("photos/clara/x.png"), (901, 80, 70, 36))
    photograph(Path("photos/clara/y.png"), (902, 80, 70, 36), (903, 190, 190, 20), size=240)
    encoder = FileEncoder(size=64, channels=3, resize="crop", codec=Codec())
    choice = HeldOutChoice(num_held_out=1, seed=4)
    listed = as_unlabelled("folder", any_images_in(Path("photos")), encoder, choice, min_images=1)
    held_out = listed.classes_of("held-out")
    source = crop_faces(
        listed, options_of(), Marks(), WorkCache(Path("out")), num_workers=1, progress_of=silent
    )
    report = build(source, Path("out"), command="a test")
    assert Manifest.load("out/train").classes == ("unlabelled",)
    assert Manifest.load("out/held-out").classes == held_out
    assert report.samples_per_class["held-out"] == {
        held_out[0]: {"anna": 6, "berta": 6, "clara": 2}[held_out[0]]
    }
    others = sum(count for name, count in {"anna": 6, "berta": 6, "clara": 2}.items() if name not in held_out)
    assert report.samples_per_class["train"] == {"unlabelled": others}
    faces = json.loads(Path("out/report.json").read_text())["faces"]
    assert faces.keys() == {"unlabelled", *held_out}
    assert sorted(path.name for path in Path("out/contact-sheets").iterdir()) == sorted(
        f"{name}.png" for name in faces
    )


def test_pictures_of_any_mode_and_turn() -> None:
    photograph(Path("upright.png"), (1, 60, 70, 40), size=140)
    upright = Image.open("upright.png")
    Path("photos/anna").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save("photos/anna/turned.png", exif=exif)
    palette = upright.quantize(250)
    palette.putpalette([*palette.getpalette()[:750], 255, 0, 0, 0, 255, 0])
    palette.putpixel((40, 70), 250)
    palette.putpixel((80, 70), 251)
    palette.save("photos/anna/palette.png")
    upright.convert("RGBA").save("photos/anna/alpha.png")
    upright.convert("CMYK").save("photos/anna/cmyk.tiff")
    source = cropped(Marks(), duplicate_bits=-1)
    crops = {}
    for sample in source.splits["train"]:
        content, _ = source.encode(sample)
        Path("crop.png").write_bytes(content)
        with Image.open("crop.png") as crop:
            crops[sample.name.removeprefix("anna/")] = np.asarray(crop).astype(int)
    assert sorted(crops) == ["alpha.png", "cmyk.tiff", "palette.png", "turned.png"]
    for name, crop in crops.items():
        allowed = 12 if name == "palette.png" else 1
        assert np.abs(crop - crops["alpha.png"]).mean() < allowed, name
    assert crops["alpha.png"].std() > 20


def test_a_box_is_searched_at_full_size() -> None:
    photograph(Path("large.png"), (1, 500, 400, 36), (2, 1200, 900, 30), size=1500)

    @dataclass(frozen=True)
    class Near:
        """Sees only pictures of up to 400 pixels."""

        record: DetectorRecord = Marks().record

        def __call__(self, image: Image.Image) -> list[Face]:
            return Marks()(image) if max(image.size) <= 400 else []

    Path("photos/anna").mkdir(parents=True)
    Path("large.png").rename("photos/anna/large.png")
    encoder = FileEncoder(size=64, channels=3, resize="crop", codec=Codec())
    plain = with_labels("folder", images_in(Path("photos")), encoder, test_fraction=0.0, min_images=1)
    (sample,) = plain.splits["train"]
    for box, expected in (((1160.0, 870.0, 1240.0, 950.0), 1200), ((460.0, 360.0, 540.0, 450.0), 500)):
        boxed = replace(sample, reference=ImageOfPerson(sample.reference, box))
        source = crop_faces(
            replace(plain, splits={"train": [boxed]}),
            options_of(),
            Near(),
            WorkCache(Path("out")),
            num_workers=1,
            progress_of=silent,
        )
        (found,) = source.splits["train"]
        assert np.mean([x for x, _ in found.reference.landmarks[:2]]) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_face": 0}, "smallest face is 0 pixels; it must be at least 1"),
        ({"duplicate_bits": 256}, "at most 256 bits; allowed are 0 to 255"),
        ({"channels": 2}, "Images of 2 channels"),
        ({"test_fraction": 1.0}, "test fraction is 1.0; it must be at least 0 and below 1"),
        ({"min_face": 500}, "None of the 16 pictures shows a face of 500 pixels"),
    ],
)
def test_bad_options_get_a_sentence(changes: dict[str, object], sentence: str) -> None:
    make_photos()
    with pytest.raises(DataError, match=sentence):
        cropped(Marks(), **changes)


# ---- going on after a kill

KILLED = """
from pathlib import Path
from tests.unit.building.drawn_faces import Marks, cropped
if __name__ == "__main__":
    cropped(Marks(log="log", pause_seconds=0.01))
"""


def test_a_killed_search_goes_on_where_it_was() -> None:
    count = 4 * CHUNK
    for number in range(count):
        photograph(Path(f"photos/anna/{number:03d}.png"), (number, 80, 70, 36))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", KILLED], env=environment) as process:
        deadline = time.monotonic() + 120
        while len(list(Path("out.work").glob("*.json"))) < 2:
            assert process.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finished = len(list(Path("out.work").glob("*.json")))
    assert 2 <= finished < 4
    Path("log").write_text("")
    resumed = cropped(Marks(log="log"))
    assert len(Path("log").read_text().splitlines()) == count - finished * CHUNK
    WorkCache(Path("out")).remove()
    assert resumed.splits == cropped(Marks()).splits


def test_file_names_of_sheets_are_safe_and_differ() -> None:
    names = ["Anna", "a/b", "a_b", "../x", "Zoë", "Zoé", "", ".", "x" * 300]
    files = [sheet_file(name) for name in names]
    assert files[0] == "Anna.png"
    assert len(set(files)) == len(names)
    assert all("/" not in file and file[0] not in "." and len(file) < 120 for file in files)


def test_a_sheet_of_a_large_class_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MAX_KEPT", 40)
    photograph(Path("one.png"), (1, 80, 70, 36))
    entry = SheetEntry("one.png", "anna/one.png", landmarks_at(80, 70, 36))
    write_sheet(Sheet(Path("large.png"), "anna", [entry] * 90, [entry] * 3))
    write_sheet(Sheet(Path("full.png"), "anna", [entry] * 40, [SheetEntry("gone.png", "näme")] * 3))
    with Image.open("large.png") as large, Image.open("full.png") as full:
        assert large.size == full.size
        assert full.height < 500
        assert full.convert("RGB").getpixel((30, full.height - 60)) != (255, 255, 255)  # a grey square


def test_of_two_builds_in_the_face_stage_the_second_is_refused(tmp_path: Path) -> None:
    """One that ends meanwhile does not take the other's work away."""
    cache = WorkCache(tmp_path / "out")

    def found(item: int) -> int:
        if item == CHUNK:  # in the second chunk
            cache.remove()  # another build of the same place, which has ended
            with pytest.raises(
                DataError, match=r"Another process is building .*out right now \(in out\.work\)"
            ):
                work([item])
        return item

    def work(items: list[int]) -> list[int]:
        return cache.map(
            found, items, identity="a", fingerprint=str, num_workers=1, progress=lambda number: None
        )

    items = list(range(3 * CHUNK))
    assert work(items) == items
    assert len(list(cache.directory.iterdir())) == 3
    cache.remove()
    assert not cache.directory.exists()
    cache.remove()

"""Films: there and back, in every format, and replaced only where they were written here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae.sampling.film import FRAMES_PER_SECOND, FilmError, save_film
from dist_dsvae.sampling.grids import beside_each_other
from dist_dsvae.sampling.image_file import ForeignImageError, is_own
from dist_dsvae.sampling.interpolate import places

LEVELS = (10, 90, 170, 250)
FRAMES = [Image.new("RGB", (31, 21), (level, level, level)) for level in LEVELS]
THERE_AND_BACK = [10, 90, 170, 250, 170, 90]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_frames_go_there_and_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    save_film(path, FRAMES)
    with Image.open(path) as film:
        shown = []
        for number in range(film.n_frames):
            film.seek(number)
            shown.append(int(np.asarray(film.convert("RGB")).mean()))
            assert film.info["duration"] == 1000 // FRAMES_PER_SECOND
        assert film.info.get("loop") == 0
        assert film.size == (31, 21)
    assert np.abs(np.array(shown) - THERE_AND_BACK).max() <= 3


def test_mp4_has_all_frames(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "film.mp4"
    save_film(path, FRAMES)
    decode = [
        ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-pix_fmt",
        "gray",
        "-f",
        "rawvideo",
        "-",
    ]
    raw = subprocess.run(decode, capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 22, 32)  # even, as its colours need
    assert np.abs(frames[:, 5:15, 5:25].mean(axis=(1, 2)) - THERE_AND_BACK).max() <= 6


def test_a_missing_writer_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(
        FilmError, match=r'pip install "dist_dsvae\[film\]"\. Or give a name that ends in \.gif'
    ):
        save_film(tmp_path / "film.mp4", FRAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_only_ones_own_film_is_replaced(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / f"film{suffix}"
    save_film(path, FRAMES)
    assert is_own(path)
    save_film(path, FRAMES[::-1])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert not is_own(path)
    with pytest.raises(ForeignImageError, match="exists already, and is no picture that this program drew"):
        save_film(path, FRAMES)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_persons_animation_is_not_ones_own(tmp_path: Path) -> None:
    FRAMES[0].save(tmp_path / "mine.gif", save_all=True, append_images=FRAMES[1:])
    assert not is_own(tmp_path / "mine.gif")


def test_eased_places_turn_at_one_speed() -> None:
    eased = places(9, eased=True)
    assert eased[[0, 4, 8]].tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)
    # On the spherical path the weights are the square roots: sine and cosine of an angle that grows evenly.
    assert eased.sqrt().asin().diff().tolist() == pytest.approx([torch.pi / 16] * 8, abs=1e-4)
    assert places(5).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_frame_shows_pictures_in_rows_of_five() -> None:
    images = torch.linspace(-1, 1, 7)[:, None, None, None].expand(7, 1, 32, 32)
    frame = np.asarray(beside_each_other(images))
    assert frame.shape == (2 * 132, 5 * 132, 3)
    assert frame[66, 66].tolist() == [0, 0, 0]
    assert frame[132 + 66, 132 + 66].tolist() == [255, 255, 255]

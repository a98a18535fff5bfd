"""Members of tars of every format are those that tarfile lists, and a tar that is cut off says so."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from dist_dsvae.data.shards.tar_members import members_of

NAMES = ["a.png", "folder/" + "n" * 90 + ".png", "f" * 120 + "/" + "n" * 140 + ".png", "Gänse.png", "b.png"]


def tar_of(names: list[str], tar_format: int, **about: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 500 * number
            for key, value in about.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(bytes([number + 1]) * info.size))
    return stream.getvalue()


def listed(content: bytes, *, reads: bool) -> list[tuple[object, ...]]:
    found = []
    for member in members_of(io.BytesIO(content)):
        read = member.read() if reads else content[member.offset : member.offset + member.info.size]
        found.append((member.info.name, member.info.size, member.offset, read))
    return found


def listed_by_tarfile(content: bytes) -> list[tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(content), ignore_zeros=True) as tar:
        return [
            (info.name, info.size, info.offset_data, content[info.offset_data : info.offset_data + info.size])
            for info in tar
        ]


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_format(tar_format: int, reads: bool) -> None:
    names = [name for name in NAMES if tar_format != tarfile.USTAR_FORMAT or len(name) < 200]
    one = tar_of(names, tar_format, mtime=1.0 if tar_format != tarfile.PAX_FORMAT else 1.5)
    other = tar_of(["c.png", "d.png"], tarfile.GNU_FORMAT)
    for content in (one, one + other, other + one):
        assert listed(content, reads=reads) == listed_by_tarfile(content)


def test_a_record_for_all_that_follow(tmp_path: Path) -> None:
    """A header "g", as ``git archive`` writes one, here with what means something to every member."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", pax_headers={"uname": "somebody"}) as tar:
        for name in ("a.png", "b.png"):
            tar.addfile(tarfile.TarInfo(name))
    found = [(member.info.name, member.info.uname) for member in members_of(io.BytesIO(stream.getvalue()))]
    assert found == [("a.png", "somebody"), ("b.png", "somebody")]


@pytest.mark.skipif(shutil.which("tar") is None, reason="calls the tar command")
@pytest.mark.parametrize("options", [["gnu"], ["pax"], ["pax", "0.0"], ["pax", "0.1"]])
def test_what_follows_a_sparse_file_is_found(tmp_path: Path, options: list[str]) -> None:
    with (tmp_path / "a.bmp").open("wb") as holes:
        for place in range(0, 2**22, 2**18):  # more holes than a header of the old format lists
            holes.seek(place)
            holes.write(b"x")
    (tmp_path / "b.cls").write_bytes(b"7")
    flags = [f"--format={options[0]}", *(f"--sparse-version={number}" for number in options[1:])]
    subprocess.run(["tar", "--sparse", *flags, "-cf", "x.tar", "a.bmp", "b.cls"], cwd=tmp_path, check=True)
    with (tmp_path / "x.tar").open("rb") as stream:
        found = [(m.info.name, m.is_sparse, None if m.is_sparse else m.read()) for m in members_of(stream)]
    assert [entry[1:] for entry in found] == [(True, None), (False, b"7")]
    assert found[0][0].endswith("a.bmp")


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_that_is_cut_off_anywhere(tar_format: int, reads: bool) -> None:
    content = tar_of(NAMES, tar_format)
    end = content.rindex(bytes([len(NAMES)])) + 1  # of the last content
    end += -end % 512
    for size in range(0, end + 1, 128):
        with pytest.raises(tarfile.ReadError):
            listed(content[:size], reads=reads)
    assert len(listed(content[: end + 512], reads=reads)) == len(NAMES)
    with pytest.raises(tarfile.ReadError, match="behind the end of the archive stands what is no archive"):
        listed(content + b"more" * 128, reads=reads)
    spoilt = bytearray(content)
    spoilt[content.index(b"b.png")] ^= 1  # of the last header, whose checksum tells
    with pytest.raises(tarfile.ReadError, match="bad checksum"):
        listed(bytes(spoilt), reads=reads)

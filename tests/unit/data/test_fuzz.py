"""Thousands of damaged headers: each is a corrupt sample or a damaged tar with a sentence, none escapes."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import resource
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building import tar_scan
from dist_dsvae.building.foreign_shard import scan_shard
from dist_dsvae.building.indexing import index
from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.decode import decode_into, empty_batch, shape_of
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import Slice, read_one, stream
from tests.unit.data.making import change_unnoticed, png_claiming

SHAPE = ImageShape(3, 12, 10)
EXTREMES = (0, 1, 127, 128, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def image(form: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SHAPE.height, SHAPE.width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def point() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.arange(5, dtype=np.float64))
    return stream.getvalue()


def with_sums(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, so that damage gets past them."""
    out, place = bytearray(png[:8]), 8
    while place + 8 <= len(png):
        length = struct.unpack(">I", png[place : place + 4])[0]
        body = png[place + 4 : place + 8 + length]
        out += png[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(out)


SEEDS: dict[str, tuple[bytes, ImageShape]] = {
    "png": (image("PNG"), SHAPE),
    "jpg": (image("JPEG"), SHAPE),
    "progressive jpg": (image("JPEG", progressive=True), SHAPE),
    "webp": (image("WEBP"), SHAPE),
    "lossless webp": (image("WEBP", lossless=True), SHAPE),
    "bmp": (image("BMP"), SHAPE),
    "ppm": (image("PPM"), SHAPE),
    "npy": (point(), ImageShape(5, 0, 0)),
}


def damaged(seed: bytes, chance: random.Random, header: int) -> bytes:
    """One to three changes, mostly within the first ``header`` bytes."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(min(len(content), header if chance.random() < 0.8 else len(content)) or 1)
        match chance.randrange(6):
            case 0:
                content[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                content[place : place + 1] = bytes([content[place] ^ 1 << chance.randrange(8)])
            case 2:
                number = chance.choice(EXTREMES)
                content[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)
            case 3:
                del content[place:]
            case 4:
                del content[place : place + chance.randint(1, 8)]
            case 5:
                content[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
        if not content:
            break
    return bytes(content)


def survivors(count: int, seeds: Callable[[int], bytes], use: Callable[[bytes], object]) -> tuple[int, int]:
    """(what was accepted, what was refused with a sentence) of ``count`` inputs; anything else is raised."""
    accepted = refused = 0
    for number in range(count):
        try:
            use(seeds(number))
            accepted += 1
        except DataError:
            refused += 1
    return accepted, refused


@pytest.mark.filterwarnings("ignore")  # Pillow's own remarks on what is damaged
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_samples_are_corrupt_samples(kind: str) -> None:
    seed, shape = SEEDS[kind]
    chance = random.Random(kind)
    out = empty_batch(shape, 1)[0]

    def use(content: bytes) -> None:
        with suppress(DataError):
            shape_of(memoryview(content))
        decode_into(memoryview(content), out)

    def next_one(number: int) -> bytes:
        content = damaged(seed, chance, 64)
        return with_sums(content) if kind == "png" and number % 2 else content

    decode_into(memoryview(seed), out)
    accepted, refused = survivors(1500, next_one, use)
    assert refused > 150
    assert accepted + refused == 1500


def tar_of(samples: int, form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for number in range(samples):
            for extension, content in (("png", SEEDS["png"][0]), ("cls", b"0")):
                # a long name needs a header of its own
                info = tarfile.TarInfo(f"{'long' * 30 * (number == 1)}{number:06d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_tars_get_a_sentence(form: int, packed: bool, tmp_path: Path) -> None:
    chance = random.Random(form)
    seed = tar_of(1 if form == tarfile.USTAR_FORMAT else 3, form)
    blocks = [
        place for place in range(0, len(seed) - 512, 512) if seed[place + 257 : place + 262] == b"ustar"
    ]
    path = tmp_path / ("000000.tar.gz" if packed else "000000.tar")

    def next_one(number: int) -> bytes:
        start = chance.choice(blocks)
        block = bytearray(damaged(seed[start : start + 512], chance, 512).ljust(512, b"\0")[:512])
        if number % 4:  # with the right sum, so that damage gets past it
            block[148:156] = b" " * 8
            block[148:156] = f"{sum(block):06o}\0 ".encode()
        content = seed[:start] + bytes(block) + seed[start + 512 :]
        if not packed:
            return content
        squeezed = gzip.compress(content, 1)
        return damaged(squeezed, chance, 40) if number % 3 == 0 else squeezed

    def use(content: bytes) -> None:
        path.write_bytes(content)
        scan_shard(path)

    accepted, refused = survivors(400, next_one, use)
    assert refused > 100
    assert accepted + refused == 400


def test_a_tar_damaged_after_it_was_indexed(tmp_path: Path) -> None:
    """Training finds members by the index: what is not there as promised is a corrupt sample."""
    path, seed, chance = tmp_path / "000000.tar", tar_of(3), random.Random(0)
    path.write_bytes(seed)
    index(tmp_path, command="a test")
    manifest = replace(Manifest.load(tmp_path), modified_ns=None)  # as if it had been damaged before
    out = empty_batch(manifest.shape, 1)[0]

    def use(content: bytes) -> None:
        path.write_bytes(content)
        reader = ShardReader(manifest, max_open_shards=1)
        for row in range(3):
            read_one(reader, 0, row, out)

    def next_one(number: int) -> bytes:
        content = bytearray(seed)
        for _ in range(8):
            content[chance.randrange(len(seed))] = chance.randrange(256)
        return bytes(content[: chance.randrange(1, len(seed))] if number % 5 == 0 else content)

    accepted, refused = survivors(600, next_one, use)
    assert accepted > 20
    assert refused > 100


def bombs() -> Iterator[tuple[str, bytes]]:
    yield "png", png_claiming(30_000, 30_000)
    yield "png within Pillow's own bound", png_claiming(12_000, 12_000)
    yield "ppm", b"P6 13000 13000 255\n" + b"\0" * 100
    yield "bmp", SEEDS["bmp"][0][:18] + struct.pack("<ii", 13_000, 13_000) + SEEDS["bmp"][0][26:]
    yield "webp cut off", SEEDS["webp"][0][:40]
    for shape in ("(10000000000,)", "(2147483648, 8)", "(-1,)", "(5, 0)", "()", "(1e3,)", "None"):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        yield f"npy of shape {shape}", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    objects = "{'descr': '|O', 'fortran_order': False, 'shape': (5,), }".ljust(117) + "\n"
    yield (
        "pickled npy",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(objects)) + objects.encode() + b"\x80\x04.",
    )
    deep = "[" * 50_000
    yield "nested npy header", b"\x93NUMPY\x02\x00" + struct.pack("<I", len(deep)) + deep.encode()
    yield "nothing", b""
    yield "another format of Pillow's", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 12\n%%EndComments\n"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "content"), [pytest.param(*bomb, id=bomb[0]) for bomb in bombs()])
def test_bombs_take_no_memory(name: str, content: bytes) -> None:
    out = empty_batch(ImageShape(5, 0, 0) if "npy" in name else SHAPE, 1)[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(DataError):
        shape_of(memoryview(content))  # some headers alone are sound
    with pytest.raises(DataError):
        decode_into(memoryview(content), out)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_policy_applies_to_whatever_cannot_be_decoded(tmp_path: Path) -> None:
    """A bomb in sound shards is replaced where that is the policy, and else a sentence names it."""
    path = tmp_path / "000000.tar"
    path.write_bytes(tar_of(3))
    index(tmp_path, command="a test")
    manifest = Manifest.load(tmp_path)
    offset, size, _ = manifest.index(0)[0].tolist()
    content, bomb = path.read_bytes(), png_claiming(30_000, 30_000)[:size].ljust(size, b"\0")
    change_unnoticed(path, content[:offset] + bomb + content[offset + size :])
    part = Slice(global_batch_size=2, rank=0, world_size=1)
    batches = stream(manifest, DataConfig(train="", num_workers=0, corrupt_sample="replace"), 0, part)
    assert sum(next(batches).num_replaced for _ in range(3)) == 2
    batches = stream(manifest, DataConfig(train="", num_workers=0), 0, part)
    with pytest.raises(DataError, match=r"Sample 000000.png of .* is corrupt"):
        list(itertools.islice(batches, 3))


def test_a_sample_of_many_files_is_no_way_around_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each within the bound of a file, together gigabytes, and packed next to nothing."""
    monkeypatch.setattr(tar_scan, "_MOST_MEMBER_BYTES", 2**20)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for number in range(200):
            info = tarfile.TarInfo(f"000000.{number}")
            info.size = 2**20
            tar.addfile(info, io.BytesIO(bytes(2**20)))
    path = tmp_path / "000000.tar.gz"
    path.write_bytes(stream.getvalue())
    tracemalloc.start()
    with pytest.raises(DataError, match="the files of the sample '000000' have more than 1,048,576 bytes"):
        scan_shard(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()

"""Single samples: the right ones, without decoding the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dist_dsvae.core.errors import CorruptSampleError
from dist_dsvae.data import stream
from dist_dsvae.data.pick import first_of_classes, read_samples
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from tests.unit.data.making import write_values


def pixels(split: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    """All images [N, C, H, W] and labels [N], decoded in order."""
    hosts = list(one_pass(split, 4))
    return torch.cat([host.images for host in hosts]).movedim(-1, 1), torch.cat([h.labels for h in hosts])


def test_samples_by_their_number(tmp_path: Path) -> None:
    split = write_values(tmp_path / "train", list(range(11))).manifest
    images, _ = pixels(split)
    assert torch.equal(read_samples(split, [10, 0, 5]), images[[10, 0, 5]])


def test_the_first_of_each_class_and_nothing_else_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [value for value in range(60) if value % 3 != 1]  # no sample of class 1
    split = write_values(tmp_path / "train", values).manifest
    images, labels = pixels(split)
    decoded = []
    decode = stream.decode_into
    monkeypatch.setattr(stream, "decode_into", lambda data, out: (decoded.append(1), decode(data, out)))
    found = first_of_classes(split, [2, 1, 0], skip_corrupt=False)
    assert found.keys() == {0, 2}
    for label, image in found.items():
        assert torch.equal(image, images[labels == label][:1])
    assert len(decoded) == 2


def test_the_first_few_of_each_class(tmp_path: Path) -> None:
    split = write_values(tmp_path / "train", [*range(30), 31, 34]).manifest
    images, labels = pixels(split)
    found = first_of_classes(split, [1, 0], 11, skip_corrupt=False)
    assert {label: len(several) for label, several in found.items()} == {0: 10, 1: 11}  # class 0 has ten
    for label, several in found.items():
        assert torch.equal(several, images[labels == label][:11])


def test_a_corrupt_first_picture(tmp_path: Path) -> None:
    split = write_values(tmp_path / "train", [0, 3, 6, 9]).manifest
    images, _ = pixels(split)
    offset, size, _ = split.index(0)[0].tolist()
    tar = tmp_path / "train" / split.shards[0].file
    content = bytearray(tar.read_bytes())
    content[offset : offset + size] = bytes(size)
    tar.write_bytes(content)
    with pytest.raises(CorruptSampleError):
        first_of_classes(split, [0], skip_corrupt=False)
    assert torch.equal(first_of_classes(split, [0], 2, skip_corrupt=True)[0], images[1:3])

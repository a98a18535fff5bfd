"""``PretrainedModel``: a trained model as a few functions of pictures. Whatever method it was trained with.

    model = PretrainedModel.from_pretrained("model")            a directory of launch/export.py, or a hub's id
    zs, zu = model.encode(pictures)                   zu is a distribution: mean and log-variance
    model.swap(anna, ben)                             Anna, as Ben looks in his picture

Pictures come and go as ``pretrained.image_kinds`` says; codes are float32 tensors [N, d]. Every random
number is a function of (seed, number of the sample): batch sizes and devices do not change what is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, Unpack

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from torch import Tensor

from dist_dsvae.core.files import kept_if_it_fails
from dist_dsvae.core.types import CodeKind, Codes, Gaussian
from dist_dsvae.methods.published import CONFIG_FILE, Published, check_replaceable, save_published
from dist_dsvae.pretrained import card, exploring
from dist_dsvae.pretrained.description import Described
from dist_dsvae.pretrained.hub import HubOptions, published_at
from dist_dsvae.pretrained.image_kinds import ImageList, Images, Kind, read_images
from dist_dsvae.pretrained.networks import Networks, Precision
from dist_dsvae.pretrained.photographs import Align, Photographs
from dist_dsvae.pretrained.requests import (
    ClassNames,
    Mask,
    Rows,
    Seed,
    at_least_one,
    class_ids,
    device_from,
    read_code_kind,
    read_codes,
    read_mask,
    seed_from,
)
from dist_dsvae.sampling.holes import NUM_STARTS, REFINE_STEPS
from dist_dsvae.sampling.interpolate import Path as NoisePath
from dist_dsvae.sampling.interpolate import places
from dist_dsvae.sampling.temperature import AT_ONE, Temperatures
from dist_dsvae.sampling.vary import EXTENT


class PretrainedModel(Described, ModelHubMixin, library_name="dist_dsvae"):
    """A trained model: networks, shape of the samples, names of the classes.

    published: the model. device: of the networks; None: a GPU if there is one, else the CPU. batch_size:
    pictures that go through the networks at once, at most; an attribute that may be changed.
    mixed_precision: "bf16" runs the networks under autocast; weights stay float32. align, photographs: how
    faces in photographs are found (``pretrained.photographs``), where the model is one of aligned faces.
    What a method cannot do (a cGAN encodes nothing) raises RequestError.
    """

    def __init__(
        self,
        published: Published,
        *,
        device: str | torch.device | None = "cpu",
        mixed_precision: Precision = "no",
        batch_size: int = 256,
        align: Align = "auto",
    ) -> None:
        self.published = published
        self.photographs = Photographs(published.face_crops, published.shape, align)
        self._networks = Networks(published, batch_size, mixed_precision)
        self.to(device)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no arguments are taken from the file, which may be anyone's
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | torch.device | None = "cpu",
        mixed_precision: Precision = "no",
        batch_size: int = 256,
        align: Align = "auto",
        **hub: Unpack[HubOptions],
    ) -> Self:
        """A model of a directory that launch/export.py wrote, or of a repository on the hub.

        device, mixed_precision, batch_size, align: as for the class. hub: as for ``hf_hub_download``.
        Reads model.safetensors and config.json, never anything else; raises PublishedModelError for
        pickles, archives, and damaged or missing files.
        """
        published = published_at(pretrained_model_name_or_path, **hub)
        return cls(
            published, device=device, mixed_precision=mixed_precision, batch_size=batch_size, align=align
        )

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the model, its card and the card's pictures into a folder.

        options: as ``ModelHubMixin`` has them; model_card_kwargs are those of ``generate_model_card``. Raises
        CardError for others, PublishedModelError where files that are no model's would be replaced. A
        README.md that is there stays, with a warning if it is not this model's.
        """
        directory = Path(save_directory)
        options["model_card_kwargs"] = card.read_options(options.get("model_card_kwargs"))
        check_replaceable(directory)
        card.check_kept(self, directory, **options["model_card_kwargs"])
        with kept_if_it_fails(directory / CONFIG_FILE):  # which the library removes ahead of all else
            return super().save_pretrained(directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """For ``save_pretrained`` and ``push_to_hub``: the two files, and the pictures of the card."""
        save_published(self.published, save_directory)
        card.save_samples(self, self.sample, save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Send what ``save_pretrained`` writes to a repository of the hub; returns the commit's address.

        options: as ``ModelHubMixin`` has them. Raises as ``save_pretrained`` does, before one is created.
        """
        options["model_card_kwargs"] = card.read_options(options.get("model_card_kwargs"))
        return super().push_to_hub(repo_id, **options)

    def generate_model_card(self, **options: Unpack[card.CardOptions]) -> ModelCard:
        """The README: ``save_pretrained(..., model_card_kwargs={"license": "mit"})``. Raises CardError."""
        return card.model_card(self, **card.read_options(options))

    @torch.inference_mode(False)  # as for ``published._made``
    def to(self, device: str | torch.device | None) -> Self:
        """Move the networks; results of pictures and codes on another device still go back there."""
        self._networks.device = device_from(device)
        self._networks.method.to(self._networks.device)
        return self

    # Codes and classes of pictures

    def encode(self, images: Images, labels: ClassNames | None = None) -> Codes:
        """zs [N, zs_dim], and the distribution of zu: mean and log-variance [N, zu_dim].

        images: as ``pretrained.image_kinds`` says; floats lie in [-1, 1], not in ToTensor's [0, 1].
        labels: the pictures' classes, for methods that encode with the label (cvae, cvae_gan) alone.
        Raises ImageError for what are no pictures for this model, RequestError for labels that are missing
        or wrong, and of a model that cannot encode.
        """
        return self._networks.encode(*self._read(images), labels)

    def classify(self, images: Images) -> Tensor:
        """Probability of each class [N, num_classes], in the order of ``classes``.

        images, ImageError: as for ``encode``. Raises RequestError of a model that cannot classify.
        """
        return self._networks.probabilities(*self._read(images))

    def decode(
        self, zs: Rows, zu: Rows | Gaussian, kind: str = "tensor", *, code_kind: CodeKind | None = None
    ) -> Any:
        """Pictures of codes zs [N, zs_dim] and zu [N, zu_dim] (of a distribution, its mean).

        kind: "tensor" (float in [-1, 1]), "array" (uint8) or "pil". code_kind: of "images" (the default,
        where the model encodes any) or of the "prior"; batch norm goes by it. Raises RequestError for codes
        of other shapes or kinds, and of a model that makes no pictures; ImageError for another ``kind``.
        """
        shown, whose = Kind.named(kind, self.shape), read_code_kind(code_kind, can_encode=self.can_encode)
        joined = read_codes(zs, zu.mean if isinstance(zu, Gaussian) else zu, self.code_dims)
        shown = shown._replace(device=joined.device if shown.container == "tensor" else shown.device)
        return shown.wrap(self._networks.decode(joined, shown, whose))

    # Samples of classes

    def sample(
        self,
        classes: ClassNames | None = None,
        n: int = 1,
        generator: Seed = None,
        *,
        shared_zu: bool = False,
        temperature_zs: float = 1.0,
        temperature_zu: float = 1.0,
        kind: str | None = None,
    ) -> Any:
        """``n`` samples of each of ``classes`` (default: all), class after class.

        generator: a seed, or a generator to draw one from. The k-th sample of a class depends on
        (seed, class, k) alone: neither on n nor on the other classes.
        shared_zu: the k-th samples of all classes have one zu, as in the columns of Figure 8.
        temperature_zs, temperature_zu: see ``sampling.temperature``; above 0, up to 10.
        kind: "pil" (default; a list that ``save`` writes as a PNG), "array" (uint8 [R * n, H, W, C] of R
        classes; default for points, float [R * n, 2]) or "tensor" (float [R * n, C, H, W] in [-1, 1]).
        Raises RequestError for a class, number, seed or temperature that there is not, and of a model that
        makes no pictures; ImageError for another ``kind``.
        """
        ids = class_ids(classes, self.classes)
        labels = torch.tensor(ids, dtype=torch.int64).repeat_interleave(at_least_one("n", n))
        given = torch.arange(n).repeat(len(ids)), seed_from(generator)
        temperatures = Temperatures(temperature_zs, temperature_zu)
        samples = self.sample_numbers(labels, *given, temperatures, shared_zu=shared_zu, kind=kind)
        return samples.in_rows(len(ids)) if isinstance(samples, ImageList) else samples

    def sample_numbers(
        self,
        labels: Tensor,
        numbers: Tensor,
        seed: int,
        temperatures: Temperatures = AT_ONE,
        *,
        shared_zu: bool = False,
        kind: str | None = None,
    ) -> Any:
        """For each i the numbers[i]-th sample of class labels[i] (both int64 [N]), as ``sample`` gives it."""
        shown = Kind.named(kind, self.shape)
        arguments = (self._networks, labels, numbers, seed, shown, temperatures)
        return shown.wrap(exploring.samples(*arguments, shared_zu=shared_zu))

    def interpolate(
        self,
        classes: ClassNames | None = None,
        num_steps: int = 10,
        *,
        moving: Literal["zs", "zu"] = "zs",
        path: NoisePath = "linear",
        generator: Seed = None,
        eased: bool = False,
        kind: str | None = None,
    ) -> Any:
        """Figure 4: a row per class, ``num_steps`` pictures along one random path that the rows share.

        moving: the code that moves; the other stays. path, eased: see ``sampling.interpolate``.
        Returns [R, K, ...] (lists of lists of PIL pictures). Raises as ``sample`` does, and RequestError for
        another code or path.
        """
        ids, shown = class_ids(classes, self.classes), Kind.named(kind, self.shape)
        fractions, seed = places(at_least_one("num_steps", num_steps), eased=eased), seed_from(generator)
        codes = exploring.path_codes(self._networks, ids, fractions, moving, seed, path)
        return shown.wrap_grid(self._networks.decode(codes, shown, "prior"), len(ids))

    def vary(
        self,
        dim: int,
        classes: ClassNames | None = None,
        num_steps: int = 7,
        *,
        extent: float = EXTENT,
        generator: Seed = None,
        kind: str | None = None,
    ) -> Any:
        """Figure 5: a row per class, dimension ``dim`` of zu from -extent to extent, all else fixed.

        The rows share the rest of zu. ``expressiveness`` ranks the dimensions. Returns [R, K, ...].
        Raises as ``sample`` does, and RequestError for a dimension that zu does not have.
        """
        ids, shown = class_ids(classes, self.classes), Kind.named(kind, self.shape)
        num_steps, seed = at_least_one("num_steps", num_steps), seed_from(generator)
        codes = exploring.dimension_codes(self._networks, dim, ids, num_steps, extent, seed)
        return shown.wrap_grid(self._networks.decode(codes, shown, "prior"), len(ids))

    def expressiveness(self, num_codes: int = 8, generator: Seed = 0) -> Tensor:
        """How much each dimension of zu changes pictures, over ``num_codes`` samples: [zu_dim].

        See ``sampling.vary.expressiveness``; ``.argsort(descending=True)`` ranks them.
        """
        return exploring.expressiveness(
            self._networks, at_least_one("num_codes", num_codes), seed_from(generator)
        )

    # Pictures from pictures

    def swap(
        self,
        a: Images,
        b: Images,
        a_labels: ClassNames | None = None,
        b_labels: ClassNames | None = None,
    ) -> Any:
        """Pictures with the zs of ``a`` and the zu of ``b`` (Figure 6): a's class as b looks.

        a, b: as many as each other, or one for all of the other; pictures, labels and errors as for
        ``encode``. As ``a``'s kind. Raises RequestError for other numbers of pictures, too.
        """
        first, second = (self._read(a, "a"), a_labels), (self._read(b, "b"), b_labels)
        zs, zu, kind = exploring.codes_of_two(self._networks, first, second)
        return kind.wrap(self._networks.decode(exploring.paired(zs, zu), kind, "images"))

    def swap_grid(
        self,
        rows: Images,
        columns: Images,
        row_labels: ClassNames | None = None,
        column_labels: ClassNames | None = None,
    ) -> Any:
        """Every one of ``rows`` giving zs with every one of ``columns`` giving zu: [R, K, ...].

        Raises as ``encode`` does.
        """
        first, second = self._read(rows, "rows"), self._read(columns, "columns")
        given = (first, row_labels), (second, column_labels)
        zs, zu, kind = exploring.codes_of_two(self._networks, *given)
        return kind.wrap_grid(self._networks.decode(exploring.crossed(zs, zu), kind, "images"), len(zs))

    def inpaint(
        self,
        images: Images,
        mask: Mask,
        labels: ClassNames | None = None,
        *,
        refine_steps: int = REFINE_STEPS,
        num_starts: int = NUM_STARTS,
        blend: bool = True,
    ) -> Any:
        """Paint the hole of each picture (Figure 7); outside, every bit is the given picture's.

        mask: a name of ``sampling.holes`` ("eyes" and "nose-and-mouth" for models of aligned faces alone), a
        picture, white in the hole (``cut_mask``), or an array [H, W] or [N, H, W], not 0 in the hole.
        labels: the pictures' classes where they are known; needed as for ``encode``.
        refine_steps: of Adam on the codes, towards the known pixels and under the prior (of the labels, if
        given); 0: the encoders' codes as they are. num_starts: draws of the prior to refine besides; each
        picture keeps the likeliest codes. blend: without a step at the hole's border.
        PIL pictures come back in the model's size. Raises as ``encode`` does, RequestError also for a mask of
        another size, or without a hole.
        """
        taken, mask = self.photographs.taken_with_mask(images, mask)
        how, given = exploring.Painting(refine_steps, num_starts, blend), read_images(taken, self.shape)
        return exploring.painted(self._networks, given, self.holes(mask, len(given[0])), labels, how)

    def holes(self, mask: Mask, num_images: int = 1) -> Tensor:
        """What ``inpaint`` paints for ``mask``: bool [num_images, 1, H, W]. Raises RequestError."""
        aligned_faces = self.published.face_crops is not None
        return read_mask(mask, self.shape, num_images, aligned_faces=aligned_faces)

    def _read(self, images: Images, name: str = "images") -> tuple[Tensor, Kind]:
        return read_images(self.photographs.taken(images, name), self.shape, name)

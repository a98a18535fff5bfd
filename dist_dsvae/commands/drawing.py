"""What ``dsvae generate`` does, once its options are read."""

from __future__ import annotations

import argparse

import torch

from dist_dsvae.commands.starting import command_line, say
from dist_dsvae.config import TrainConfig
from dist_dsvae.config.option_types import FILM_SUFFIXES
from dist_dsvae.core import shipped
from dist_dsvae.core.shipped import EMBEDDED_TEST
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.pretrained import figures, into_photographs
from dist_dsvae.pretrained.figures import Shown
from dist_dsvae.pretrained.image_kinds import read_image
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import cut_mask
from dist_dsvae.pretrained.requests import Mask, RequestError, class_ids
from dist_dsvae.runs.bulk_samples import write_many
from dist_dsvae.runs.open_model import open_model, shown_files, shown_of_split, split_to_show
from dist_dsvae.runs.scatter import draw_points
from dist_dsvae.sampling.film import check_writer
from dist_dsvae.sampling.generate import spread
from dist_dsvae.sampling.holes import NUM_STARTS, holes_for
from dist_dsvae.sampling.image_file import check_replaceable, write_image
from dist_dsvae.sampling.temperature import Temperatures

_A_DAY = 24 * 60 * 60


def drawn(args: argparse.Namespace, device: torch.device) -> str:
    """Draw what was asked for; what to tell about it. Raises ValueError or OSError where it cannot be."""
    if args.command == "points":
        check_replaceable(args.out)
        draw_points(args.run, args.out, args.num_points, args.seed)
        return f"Wrote {args.out}."
    return draw_many(args, device) if args.command == "many" else draw(args, device)


def draw(args: argparse.Namespace, device: torch.device) -> str:
    """Draw a figure of a model; what to tell about it."""
    check_replaceable(args.out)
    check_writer(args.out)
    if args.command in ("swap", "inpaint"):
        _check_whose_options(args)
    model = load(args, device)
    wanted = class_ids(args.classes, model.classes) if args.classes else None
    if args.command in ("swap", "inpaint"):
        return draw_real(args, model, wanted)
    classes = wanted or spread(len(model.classes), 3 if args.command in ("interpolate", "vary") else 10)
    if args.command == "grid":
        temperatures = _temperatures(args, model)
        figures.grid(model, args.out, classes, args.columns, args.seed, temperatures)
    elif args.command == "interpolate":
        is_film = args.out.suffix.lower() in FILM_SUFFIXES
        figure, default = (figures.film, 50) if is_film else (figures.interpolated, 10)
        figure(model, args.out, classes, args.steps or default, args.moving, args.path, args.seed)
    else:
        dims = args.dims or args.num_dims
        drawn = figures.varied(model, args.out, classes, dims, args.steps, args.extent, args.seed)
        changes = ", ".join(f"{dim} ({change:.3f})" for dim, change in drawn)
        return f"Dimensions of zu, and how much they change pictures: {changes}. Wrote {args.out}."
    return f"Wrote {args.out}."


def _temperatures(args: argparse.Namespace, model: PretrainedModel) -> Temperatures:
    found = Temperatures(args.temperature_zs, args.temperature_zu)
    if not found.apply_to(model.published.method):
        raise RequestError(
            f"A {model.published.config.name} has one code, which --temperature-zu is of. Leave out "
            "--temperature-zs."
        )
    return found


def _check_whose_options(args: argparse.Namespace) -> None:
    """Raises RequestError for what goes with a split's pictures beside --images, or the other way round."""
    of_split = {f"--{name}": getattr(args, name, None) for name in ("data", "rows", "columns", "pictures")}
    of_files = {"--align": args.align != "auto", "--face": args.face != [0]}
    given = [name for name, value in (of_split if args.images else of_files).items() if value]
    if given and args.images:
        raise RequestError(
            f"{given[0]} chooses pictures of a split, and --images gives files, all of which are shown: "
            "leave out one of the two."
        )
    if given:
        raise RequestError(f"{given[0]} is for photographs: name their files with --images.")
    if args.command == "inpaint" and not args.refine_steps and args.starts != NUM_STARTS:
        raise RequestError(
            "--starts are refined, which --refine-steps 0 leaves out. Leave out one of the two."
        )


def load(args: argparse.Namespace, device: torch.device) -> PretrainedModel:
    if _is_of_the_box(args) and shipped.model_in_the_box() is not None:
        say("Neither --run nor --model is given: this is the model that comes with the project.")
    return open_model(
        args.run,
        args.model,
        args.step,
        args.weights,
        device=device,
        mixed_precision=args.mixed_precision,
        batch_size=args.batch_size,
        align=getattr(args, "align", "auto"),  # of those that take pictures
    )


def _is_of_the_box(args: argparse.Namespace) -> bool:
    return args.run is None and args.model is None


def draw_many(args: argparse.Namespace, device: torch.device) -> str:
    """By all processes of the launcher, on their devices if none is named; the main one tells of it."""
    # The others wait while the main process packs and hashes what may be millions of files; where one of
    # them ends, it is the launcher that ends the rest.
    runtime = Runtime(TrainConfig(cpu_threads=1, collective_timeout_seconds=_A_DAY), "no")
    try:
        model = load(args, runtime.device if args.device is None else device)
        sentence = write_many(
            model,
            args.out,
            class_ids(args.classes, model.classes),
            args.per_class,
            args.seed,
            _temperatures(args, model),
            as_shards=args.shards,
            overwrite=args.overwrite,
            command=command_line(),
        )
        return sentence if runtime.is_main else ""
    finally:
        runtime.close()


def draw_real(args: argparse.Namespace, model: PretrainedModel, wanted: list[int] | None) -> str:
    """The figures that begin with real pictures."""
    counts = [args.rows or 6, args.columns or 8] if args.command == "swap" else [args.pictures or 4]
    if args.face != [0] and model.published.face_crops is None:
        raise RequestError(
            "--face chooses among the faces of photographs, and this model is not of aligned faces."
        )
    if args.images:
        shown = [shown_files(model, args.images, wanted, args.face)] * len(counts)
    else:
        split = split_to_show(args.run, args.data or (EMBEDDED_TEST if _is_of_the_box(args) else None))
        shown = [
            shown_of_split(model, split, wanted, count, args.seed, after=counts[:number])
            for number, count in enumerate(counts)
        ]
    notes = "".join(f"{note}\n" for note in dict.fromkeys(one.note for one in shown) if note)
    if args.paste:
        return f"{notes}{draw_into_photographs(args, model, shown[0])}"
    if args.command == "swap":
        figures.swapped(model, args.out, shown[0], shown[1])
        return f"{notes}Wrote {args.out}."
    masks = masks_of(args, model, shown[0])
    scores = figures.inpainted(
        model,
        args.out,
        shown[0],
        masks,
        refine_steps=args.refine_steps,
        num_starts=args.starts,
        blend=not args.no_blend,
    )
    errors = {name: [f"{score.error:.4f}" for score in of_mask[1:]] for name, of_mask in scores.items()}
    seams = {name: [f"{score.seam:.3f}" for score in of_mask] for name, of_mask in scores.items()}
    return (
        f"{notes}Squared error in the hole: {_listed(errors)}.\n"
        f"Step across its border, of the originals first: {_listed(seams)}. Wrote {args.out}."
    )


def masks_of(args: argparse.Namespace, model: PretrainedModel, shown: Shown) -> dict[str, Mask]:
    """The holes that were asked for, by name; by default all that suit the model's pictures.

    shown: the pictures; what is painted over a whole photograph is cut as that is.
    """
    suitable = holes_for(aligned_faces=model.published.face_crops is not None)
    masks: dict[str, Mask] = {name: name for name in args.masks or ([] if args.mask_image else suitable)}
    if args.mask_image:
        name = args.mask_image.stem
        mask = cut_mask(read_image(args.mask_image), shown.faces)
        masks[name if name not in masks else args.mask_image.name] = mask
    return masks


def draw_into_photographs(args: argparse.Namespace, model: PretrainedModel, shown: Shown) -> str:
    """Swapped or painted faces, back in their photographs; what to tell about it."""
    paths = into_photographs.numbered(args.out, len(into_photographs.aligned_faces(shown)))
    if args.command == "swap":
        photographs = into_photographs.swapped_photographs(model, shown)
        others = [*args.images[1:], args.images[0]]
        made = [
            f"{path} ({own} with the person of {other})"
            for path, own, other in zip(paths, args.images, others, strict=True)
        ]
    else:
        masks = masks_of(args, model, shown)
        if len(masks) != 1:
            raise RequestError("--paste paints one hole: name it with --masks, or give --mask-image alone.")
        how = {"refine_steps": args.refine_steps, "num_starts": args.starts, "blend": not args.no_blend}
        photographs = into_photographs.inpainted_photographs(model, shown, *masks.values(), **how)
        made = [f"{path} ({own})" for path, own in zip(paths, args.images, strict=True)]
    for path, photograph in zip(paths, photographs, strict=True):
        write_image(path, photograph)
    return f"Wrote {', '.join(made)}."


def _listed(numbers: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} " + ", then ".join(each) for name, each in numbers.items())

"""The model card: README.md and samples.png of a published model, from the model and what it says of itself.

``about`` of config.json, as ``runs.export`` fills it in from a run:

    data, num_samples, run, checkpoint, samples_seen, weights, commands {train, export}, versions {...}
    evaluation: figures; from a run's evaluation/scores.json also real, judges, settings; else a note

Any of it may be missing: a model saved from Python has a card of what is known.
"""

from __future__ import annotations

import html
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor

from dist_dsvae.core.text import one_line
from dist_dsvae.evaluation.metrics import description_of
from dist_dsvae.evaluation.printed_figures import shown
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.methods.published import PublishedModelError
from dist_dsvae.pretrained.card_programs import PROGRAM_FILES, PROGRAM_KINDS, use_of_programs
from dist_dsvae.pretrained.description import Described
from dist_dsvae.sampling.generate import spread
from dist_dsvae.sampling.grids import draw_grid, save_scatter
from dist_dsvae.sampling.image_file import ForeignImageError, check_replaceable, write_image

logger = logging.getLogger(__name__)

SAMPLES_FILE = "samples.png"
_SEED = 0
_NUM_ROWS, _NUM_COLUMNS = 10, 8
_NUM_POINTS = 3000
_MANY_CLASSES = 40
_NO_FIGURE = 1e15  # beyond what is measured of anything here
_FORMER = {"licence": "license"}


class CardError(ValueError):
    """A card was asked for with what cards do not have; the message says what they have."""


class CardOptions(TypedDict, total=False):
    """license: an identifier of the hub ("mit", "cc-by-nc-4.0", ...), by default "other". licence: the same,
    in its former spelling. programs: kinds of files beside the card (``pretrained.programs``).
    """

    license: str
    licence: str
    programs: Sequence[str]


def read_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of a card, or none, under their present names.

    Raises CardError for another name, for one that is given in both spellings, and for other programs.
    """
    options = dict(given or {})
    for former, present in _FORMER.items():
        if former in options and present in options:
            raise CardError(
                f"A model card is given {present} and {former}, which are one. Leave out {former}."
            )
        if former in options:
            options[present] = options.pop(former)
    if unknown := sorted(options.keys() - {"license", "programs"}):
        raise CardError(f"A model card has no option {unknown[0]!r}; allowed are license and programs.")
    programs = options.get("programs", ())
    if isinstance(programs, str) or not set(programs) <= set(PROGRAM_KINDS):
        raise CardError(f"programs is {programs!r}; allowed are {' and '.join(PROGRAM_KINDS)}, in a tuple.")
    return options


def check_kept(model: Described, directory: Path, **options: Any) -> None:
    """Before a model is saved to ``directory``: what is there beside the model's own files.

    options: of the card. Raises PublishedModelError for a picture that this program did not draw; warns of a
    README.md that stays, and says other things, and of another model's programs and picture.
    """
    if isinstance(model.published.method, Generative):
        try:
            check_replaceable(directory / SAMPLES_FILE)
        except ForeignImageError as error:
            raise PublishedModelError(f"A model cannot be saved to {directory}: {error}") from None
    there = directory / "README.md"
    if there.is_file() and there.read_bytes() != str(model_card(model, **options)).encode():
        logger.warning(
            "%s is there already and stays, though it is not this model's card. Remove it and save again "
            "for a new one.",
            there,
        )
    others = [] if isinstance(model.published.method, Generative) else [SAMPLES_FILE]
    if stale := [name for name in [*others, *PROGRAM_FILES] if (directory / name).exists()]:
        logger.warning(
            "%s of another model, or of this one as it was, stay in %s beside it. Remove them; dsvae export "
            "writes new ones.",
            ", ".join(stale),
            directory,
        )


def save_samples(model: Described, sample: Callable[..., Tensor], directory: Path) -> None:
    """The card's picture, if the model draws: a class per row, one zu per column; points as a cloud.

    sample: ``PretrainedModel.sample`` of the model.
    """
    if not isinstance(model.published.method, Generative):
        return
    path = directory / SAMPLES_FILE
    if not model.shape.is_image:
        per_class = -(-_NUM_POINTS // len(model.classes))
        points = sample(n=per_class, generator=_SEED, kind="tensor")
        labels = torch.arange(len(model.classes)).repeat_interleave(per_class)
        save_scatter(path, [("samples", points, labels)], model.classes)
        return
    classes = spread(len(model.classes), _NUM_ROWS)
    images = sample(classes, _NUM_COLUMNS, _SEED, shared_zu=True, kind="tensor")
    write_image(
        path,
        draw_grid(
            images.reshape(len(classes), _NUM_COLUMNS, *images.shape[1:]),
            title="samples: a class per row, one zu per column",
            row_names=[model.classes[label] for label in classes],
        ),
    )


def model_card(model: Described, license: str = "other", programs: Sequence[str] = ()) -> ModelCard:
    """The card's text. license, programs: see ``CardOptions``."""
    about = model.published.about
    is_image = model.shape.is_image
    data = ModelCardData(
        license=license,
        library_name="dist_dsvae",
        pipeline_tag="unconditional-image-generation" if is_image else None,
        tags=["dist_dsvae", model.published.config.name, "disentanglement", "vae-gan"],
    )
    use = [*_use(model), *(use_of_programs(model, kind) for kind in programs)]
    sections = [_head(model), *_data(model, about), *use, *_figures(about), *_made(about)]
    if license == "other":
        sections.append(
            "## Licence\n\nNot chosen yet: who publishes this model says on what terms, minding those of the "
            "data it was trained on."
        )
    text = "\n\n".join(sections)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def _head(model: Described) -> str:
    published = model.published
    drawn = f"\n\n![samples]({SAMPLES_FILE})" if isinstance(published.method, Generative) else ""
    about_codes = (
        "Its latent space is split into zs, which carries the label, and zu, which carries everything else."
        if isinstance(published.method, Generative)
        else "It guesses labels."
    )
    return (
        f"# {_plain(published.about.get('run', published.config.name))}\n\n"
        f"A `{published.config.name}` with the networks `{published.model.architecture}`, trained with "
        f"dist_dsvae. {about_codes}{drawn}"
    )


def _data(model: Described, about: Mapping[str, Any]) -> Iterator[str]:
    shape, classes = model.shape, model.classes
    what = f"{shape.height}x{shape.width} pixels, {shape.channels} channel(s)" if shape.is_image else "points"
    named = ", ".join(map(_plain, classes[:_MANY_CLASSES])) + (
        ", ..." if len(classes) > _MANY_CLASSES else ""
    )
    source = f"{_code(about['data'])}, " if "data" in about else ""
    count = f"{about['num_samples']:,} samples, " if isinstance(about.get("num_samples"), int) else ""
    yield f"## Data\n\n{source}{count}{what}, {len(classes)} classes: {named}."
    if model.published.face_crops is not None:
        yield (
            "They are faces, found in photographs and aligned. The model finds those of raw photographs in "
            'the same way (`pip install "dist_dsvae[faces]"`) and takes pictures of its own size as they are.'
        )


def _use(model: Described) -> Iterator[str]:
    lines = [
        "from dist_dsvae import PretrainedModel",
        "",
        'model = PretrainedModel.from_pretrained("PATH OR ID OF THIS MODEL")',
    ]
    if isinstance(model.published.method, Generative):
        lines.append(f"pictures = model.sample({_literal(model.classes[0])}, n=8, generator=0)")
    if model.can_encode:
        lines.append(f"zs, zu = model.encode(pictures{', labels=[0] * 8' if model.needs_labels else ''})")
    yield "## Use\n\n```python\n" + "\n".join(lines) + "\n```"


def _literal(text: str) -> str:
    """``repr``, in double quotes where nothing has to be escaped for them, as formatters write it."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _figures(about: Mapping[str, Any]) -> Iterator[str]:
    evaluation = about.get("evaluation")
    if not isinstance(evaluation, Mapping) or not isinstance(evaluation.get("figures"), Mapping):
        return
    real = _entries(evaluation, "real")
    rows = [
        f"| {description_of(name) or _plain(name)} | {shown(value)} | "
        f"{shown(real[name]) if _is_figure(real.get(name)) else ''} |"
        for name, value in evaluation["figures"].items()
        if _is_figure(value)
    ]
    yield "## Figures\n\n| figure | this model | real |\n|---|---|---|\n" + "\n".join(rows)
    if "note" in evaluation:
        yield _plain(evaluation["note"])
    judges = {role: _entries(evaluation["judges"], role) for role in _entries(evaluation, "judges")}
    lines = [
        f"{_plain(role.replace('_', ' '))}: {_plain(judge['name'])}, sha256 {_code(judge['sha256'])}"
        for role, judge in judges.items()
        if judge.keys() >= {"name", "sha256"}
    ]
    settings = evaluation.get("settings")
    if settings:
        lines.append(f"settings: {_code(json.dumps(settings))}")
    if lines:
        yield ("Measured by `dsvae evaluate`, on held-out data where it compares. " + "; ".join(lines) + ".")


def _made(about: Mapping[str, Any]) -> Iterator[str]:
    typed = (str(command).splitlines() for command in _entries(about, "commands").values())
    commands = "\n".join(one_line(line) for lines in typed for line in lines)
    if commands:
        fence = "`" * max(3, 1 + _longest_run(commands))
        yield f"## How it was made\n\n{fence}\n{commands}\n{fence}"
    facts = [
        f"{key.replace('_', ' ')}: {_plain(about[key])}"
        for key in ("checkpoint", "samples_seen", "weights")
        if key in about
    ]
    facts += [
        f"{_plain(package)} {_plain(version)}" for package, version in _entries(about, "versions").items()
    ]
    if facts:
        yield ", ".join(facts) + "."


def _entries(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Those of an entry of ``about``, which may be anything."""
    entries = table.get(key)
    return entries if isinstance(entries, Mapping) else {}


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _NO_FIGURE


def _plain(text: object) -> str:
    """Anybody's text as text: nothing in it is HTML, Markdown or a new line."""
    line = html.escape(one_line(text), quote=False)
    line = re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)
    # what would make a heading, a list or a rule of a paragraph that begins with it
    line = re.sub(r"^([#+=-])", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", line)


def _code(text: object) -> str:
    """Anybody's text as a span of code."""
    line = one_line(text)
    fence = "`" * (1 + _longest_run(line))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)

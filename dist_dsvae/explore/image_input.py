"""A slot for a picture: one of the examples, or a file to drop or choose; its class where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from dist_dsvae.explore import renderings
from dist_dsvae.explore.controls import MENDABLE, MODEL, SELECTING, Change, shown, warn
from dist_dsvae.explore.examples import NUM_EXAMPLES
from dist_dsvae.explore.subject import ShownModel
from dist_dsvae.explore.uploads import SUFFIXES, Given, read_upload
from dist_dsvae.pretrained.requests import RequestError

_THUMBNAIL = 96


class Slot(NamedTuple):
    """given: the state with a ``Given``, or None. label: a control, or a state that is None."""

    given: Any
    label: Any
    preview: Any
    gallery: Any
    changes: list[Any]

    @property
    def inputs(self) -> list[Any]:
        """For a function of (Given or None, class or None)."""
        return [self.given, self.label]

    @property
    def outputs(self) -> list[Any]:
        """For what ``opened`` returns."""
        return [self.gallery, self.given, self.preview, self.label]

    def then(self, *changes: Change) -> None:
        """What follows when another picture, or another class, stands in the slot."""
        for event in self.changes:
            for change in changes:
                event = event.then(change.function, change.inputs, change.outputs, **MODEL)


def opened(model: ShownModel, number: int | None) -> tuple[Any, ...]:
    """A slot as a page opens with it: the examples, and the ``number``-th of them in it, if there is one."""
    thumbnails = [renderings.enlarged(one.image, _THUMBNAIL) for one in model.examples]
    if number is None:
        return thumbnails, gr.skip(), gr.skip(), gr.skip()
    return thumbnails, *_taken(model, number)


def _taken(model: ShownModel, number: int) -> tuple[Any, ...]:
    image, class_name = model.examples[number % len(model.examples)]
    label = class_name if model.model.needs_labels else None
    return Given(image), renderings.enlarged(image), label


def image_slot(model: ShownModel, title: str, max_bytes: int, *, preview: bool = True) -> Slot:
    """Controls for one picture. preview: show it, too, where nothing else does."""
    takes_photographs = model.model.photographs.face_crops is not None

    def read(path: str | None) -> tuple[Given | None, Image.Image | None]:
        if path is None:
            return None, None
        try:
            upload = read_upload(Path(path), max_bytes, model.model.photographs, warn)
        except MENDABLE as error:
            warn(error)
            return None, None
        return upload, renderings.enlarged(upload.image)

    def take(event: gr.SelectData) -> tuple[Any, ...]:
        number = event.index
        if type(number) is not int or not 0 <= number < len(model.examples):
            raise gr.Error(f"There are {len(model.examples)} examples; choose one of them.")
        return None, *_taken(model, number)

    given = gr.State(None)
    given_image = shown(title, f"The picture given as: {title}", 280, visible=preview)
    gr.HTML("<p>Choose an example:</p>", elem_classes=["footnote", "choose"], padding=False)
    gallery = gr.Gallery(
        label=f"Examples for: {title}",
        show_label=False,
        columns=NUM_EXAMPLES // 2,
        height="auto",
        allow_preview=False,
        interactive=False,
        object_fit="contain",
        format="png",
        buttons=[],
        elem_classes=["examples"],
    )
    what = "photograph" if takes_photographs else "picture"
    file = gr.File(label=f"{title}: or your {what}", file_types=list(SUFFIXES), type="filepath", height=150)
    names = list(model.model.classes)
    label = (
        gr.Dropdown(names, value=names[0], label=f"Class of: {title}")
        if model.model.needs_labels
        else gr.State(None)
    )
    changes = [
        file.upload(read, [file], [given, given_image], **MODEL),
        file.clear(read, [file], [given, given_image], **MODEL),
        gallery.select(take, None, [file, given, given_image, label], **SELECTING),
    ]
    if model.model.needs_labels:
        changes.append(label.input(None, None, None))
    return Slot(given, label, given_image, gallery, changes)


def needed(given: Given | None) -> Given:
    """Raises RequestError where the slot is empty."""
    if given is None:
        raise RequestError("There is no picture yet. Choose one of the examples, or give one of your own.")
    return given

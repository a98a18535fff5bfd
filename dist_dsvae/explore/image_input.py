"""A slot for a picture: a file to drop or choose, or a sample of the model; its class where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from dist_dsvae.explore import renderings
from dist_dsvae.explore.controls import MENDABLE, MODEL, Change, shown, warn
from dist_dsvae.explore.uploads import SUFFIXES, read_upload
from dist_dsvae.pretrained.model import PretrainedModel


class Slot(NamedTuple):
    """picture: the state with a PIL picture of the model's size, or None. label: a control, or None."""

    picture: Any
    label: Any
    changes: list[Any]

    @property
    def inputs(self) -> list[Any]:
        """For a function of (picture, class or None)."""
        return [self.picture, self.label]

    def then(self, *changes: Change) -> None:
        """What follows when another picture, or another class, stands in the slot."""
        for event in self.changes:
            for change in changes:
                event = event.then(change.function, change.inputs, change.outputs, **MODEL)


def picture_slot(model: PretrainedModel, title: str, max_bytes: int, first_sample: int) -> Slot:
    """Controls for one picture. first_sample: which sample its button draws first."""

    def read(path: str | None) -> tuple[Image.Image | None, Image.Image | None]:
        if path is None:
            return None, None
        try:
            picture = read_upload(Path(path), model.shape, max_bytes, model.photographs, warn)
        except MENDABLE as error:
            warn(error)
            return None, None
        return picture, renderings.enlarged(picture)

    def draw(number: int) -> tuple[Any, ...]:
        picture, class_name = renderings.sample_of_all(model, number)
        return number + 1, None, picture, renderings.enlarged(picture), class_name

    number, picture = gr.State(first_sample), gr.State(None)
    file = gr.File(label=title, file_types=list(SUFFIXES), type="filepath", height=140)
    button = gr.Button(f"{title}: take a sample instead", size="sm")
    label = (
        gr.Dropdown(list(model.classes), value=model.classes[0], label=f"Class of: {title}")
        if model.needs_labels
        else gr.State(None)
    )
    preview = shown("As the model sees it", f"The picture given as: {title}", 200)
    changes = [
        file.upload(read, [file], [picture, preview], **MODEL),
        file.clear(read, [file], [picture, preview], **MODEL),
        button.click(draw, [number], [number, file, picture, preview, label], **MODEL),
    ]
    if model.needs_labels:
        changes.append(label.input(None, None, None))
    return Slot(picture, label, changes)

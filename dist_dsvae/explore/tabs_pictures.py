"""The tabs that make pictures from pictures: swap and inpaint."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dist_dsvae.explore import renderings
from dist_dsvae.explore.controls import MODEL, Change, shown, telling
from dist_dsvae.explore.image_input import picture_slot
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.sampling.holes import REFINE_STEPS, holes_for

PAINTED = "painted"
_CANVAS = 320


def swap_tab(model: PretrainedModel, max_bytes: int) -> None:
    """Two pictures; what each looks like with the other's zu."""

    def cross(
        first: Image.Image | None,
        first_label: str | None,
        second: Image.Image | None,
        second_label: str | None,
    ) -> Image.Image | None:
        if first is None or second is None:
            return None
        return renderings.crossed(model, first, second, (first_label, second_label))

    with gr.Row():
        with gr.Column(min_width=280):
            first = picture_slot(model, "First picture", max_bytes, 0)
        with gr.Column(min_width=280):
            second = picture_slot(model, "Second picture", max_bytes, 1)
    result = shown("Swapped", "Rows have the zs of the left picture, columns the zu of the top one")
    crossing = Change(telling(cross), [*first.inputs, *second.inputs], [result])
    first.then(crossing)
    second.then(crossing)


def inpaint_tab(model: PretrainedModel, max_bytes: int) -> None:
    """A picture, a hole in it (painted, or one of the named ones), and what the model puts there."""

    def lay(picture: Image.Image | None, _label: str | None) -> tuple[Any, None]:
        """The picture under the brush; the old result goes."""
        if picture is None:
            return None, None
        ground = picture.convert("RGB").resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST)
        return {"background": ground, "layers": [], "composite": None}, None

    def paint(
        picture: Image.Image | None, label: str | None, painted: Any, hole: str, refine_steps: float
    ) -> Image.Image:
        if picture is None:
            raise RequestError("There is no picture yet. Give one, or take a sample.")
        mask = hole if hole != PAINTED else _painted(painted)
        return renderings.inpainted(model, picture, mask, label, int(refine_steps))

    def _painted(painted: Any) -> Any:
        layers = painted["layers"] if painted else []
        return renderings.hole_of(layers, model.shape.height, model.shape.width)

    with gr.Row():
        with gr.Column(min_width=280):
            slot = picture_slot(model, "Picture to inpaint", max_bytes, 0)
            editor = _brush()
        with gr.Column(min_width=280):
            hole = gr.Radio(
                [PAINTED, *holes_for(aligned_faces=model.published.face_crops is not None)],
                value=PAINTED,
                label="Hole",
                info="Painted with the brush, or one of the named ones",
            )
            refine = gr.Slider(
                0,
                renderings.MAX_REFINE_STEPS,
                value=REFINE_STEPS,
                step=10,
                buttons=[],
                label="Steps of refinement",
                info="Towards the known pixels, as far as the prior allows; each takes some time",
            )
            button = gr.Button("Inpaint", variant="primary")
            result = shown("Inpainted", "The picture, its hole filled by the model", 360)
    slot.then(Change(lay, slot.inputs, [editor, result]))
    button.click(telling(paint), [*slot.inputs, editor, hole, refine], [result], **MODEL)


def _brush() -> Any:
    """Where a hole is painted on a picture that ``lay`` puts there; files come in by the slot alone."""
    return gr.ImageEditor(
        label="Paint the hole",
        sources=(),
        transforms=(),
        layers=False,
        eraser=gr.Eraser(default_size=24),
        brush=gr.Brush(default_size=24, colors=["#e00000"], color_mode="fixed"),
        type="numpy",
        image_mode="RGBA",
        format="png",
        canvas_size=(_CANVAS, _CANVAS),
        fixed_canvas=True,
        buttons=[],
        elem_id="hole-editor",
    )

"""The tabs that make pictures from pictures: swap and inpaint."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dist_dsvae.explore import renderings
from dist_dsvae.explore.controls import MODEL, SLIDING, Change, TabChanges, introduce, shown, telling
from dist_dsvae.explore.image_input import image_slot, needed, opened
from dist_dsvae.explore.subject import ShownModel
from dist_dsvae.explore.uploads import Given
from dist_dsvae.explore.words import words_for
from dist_dsvae.sampling.holes import REFINE_STEPS, holes_for

PAINTED = "painted"
_FIRST_HOLE = "right-half"
_CANVAS = 320
_PASTE = "Back into the photographs"


def swap_tab(model: ShownModel, max_bytes: int) -> TabChanges:
    """Two pictures; what each looks like with the other's zu."""
    words = words_for(model.model)

    def start() -> tuple[Any, ...]:
        """Two of the examples, of two classes, crossed."""
        slots = [opened(model, number) for number in (0, 1)]
        (_, first, _, first_label), (_, second, _, second_label) = slots
        return *slots[0], *slots[1], cross(first, first_label, second, second_label)

    def cross(
        first: Given | None, first_label: str | None, second: Given | None, second_label: str | None
    ) -> Image.Image | None:
        if first is None or second is None:
            return None
        return renderings.crossed(model.model, first.image, second.image, (first_label, second_label))

    def paste(
        first: Given | None, first_label: str | None, second: Given | None, second_label: str | None
    ) -> Any:
        pair = (needed(first), needed(second))
        return _filled(renderings.swapped_photographs(model.model, pair, (first_label, second_label)))

    introduce(
        f"Of every pair, the picture at the left says {words.what}, the one at the top {words.how}. Choose "
        "other examples, or give pictures of your own."
    )
    result = shown(
        "Swapped", f"Rows: {words.what}, by the left picture. Columns: {words.how}, by the top one."
    )
    with gr.Row():
        with gr.Column(min_width=280):
            first = image_slot(model, "First picture", max_bytes)
        with gr.Column(min_width=280):
            second = image_slot(model, "Second picture", max_bytes)
    crossing = Change(telling(cross), [*first.inputs, *second.inputs], [result])
    first.then(crossing)
    second.then(crossing)
    at_newer = [crossing]
    if model.model.photographs.face_crops is not None:
        button = gr.Button(_PASTE, variant="primary")
        pasted = _photographs("Photographs with the people swapped")
        button.click(telling(paste), crossing.inputs, [pasted], **MODEL)
        at_newer.append(Change(_emptied, [], [pasted]))
    return TabChanges([Change(start, [], [*first.outputs, *second.outputs, result])], at_newer)


def _photographs(label: str) -> Any:
    """A place for what ``_filled`` returns."""
    return gr.Gallery(
        label=label,
        columns=2,
        height="auto",
        object_fit="contain",
        interactive=False,
        visible=False,  # until there are any
        format="jpeg",
        elem_classes=["photographs"],
        buttons=["download", "fullscreen"],
    )


def _filled(photographs: list[Image.Image]) -> Any:
    return gr.update(value=photographs, visible=True)


def _emptied() -> Any:
    """As a place for photographs is until the button is pressed."""
    return gr.update(value=None, visible=False)


def inpaint_tab(model: ShownModel, max_bytes: int, tab: Any) -> TabChanges:
    """A picture, a hole in it (painted, or one of the named ones), and what the model puts there."""

    def lay(given: Given | None, _label: str | None) -> tuple[Any, None]:
        """The picture under the brush; the old result goes."""
        if given is None:
            return None, None
        ground = given.image.convert("RGB").resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST)
        return {"background": ground, "layers": [], "composite": None}, None

    def start(given: Given | None) -> tuple[Any, ...]:
        """The first example, unless there is a picture; the editor is laid out once its tab is shown."""
        if given is not None:
            return tuple(gr.skip() for _ in range(6))
        slot = opened(model, 0)
        return *slot, *lay(slot[1], None)

    def paint(
        given: Given | None, label: str | None, painted: Any, hole: str, refine_steps: float
    ) -> Image.Image:
        image = needed(given).image
        return renderings.inpainted(model.model, image, _mask(painted, hole), label, int(refine_steps))

    def choose(given: Given | None, label: str | None, painted: Any, hole: str, refine_steps: float) -> Any:
        """A named hole is filled at once; one that is yet to be painted waits for the button."""
        is_ready = given is not None and hole != PAINTED
        return paint(given, label, painted, hole, refine_steps) if is_ready else gr.skip()

    def again(given: Given | None, label: str | None, painted: Any, hole: str, refine_steps: float) -> Any:
        is_ready = given is not None and (hole != PAINTED or bool(_mask(painted, PAINTED).any()))
        return paint(given, label, painted, hole, refine_steps) if is_ready else gr.skip()

    def brushed(painted: Any) -> Any:
        """Who paints means what is painted. The editor calls laying a picture painting, too."""
        is_painted = bool(_mask(painted, PAINTED).any())
        return PAINTED if is_painted else gr.skip()

    def paste(given: Given | None, label: str | None, painted: Any, hole: str, refine_steps: float) -> Any:
        arguments = (_mask(painted, hole), label, int(refine_steps))
        return _filled([renderings.inpainted_photograph(model.model, needed(given), *arguments)])

    def _mask(painted: Any, hole: str) -> Any:
        if hole != PAINTED:
            return hole
        layers = painted["layers"] if painted else []
        return renderings.hole_of(layers, model.model.shape.height, model.model.shape.width)

    introduce("Paint over a part of the picture, or choose one of the named holes: the model fills it in.")
    holes = holes_for(aligned_faces=model.model.published.face_crops is not None)
    with gr.Row():
        with gr.Column(min_width=280):
            editor = _brush()
            hole = gr.Radio(
                [PAINTED, *holes],
                value=_FIRST_HOLE,
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
        with gr.Column(min_width=280):
            result = shown("Inpainted", "The picture, its hole filled by the model", 360)
            if model.model.photographs.face_crops is not None:
                paste_button = gr.Button("Back into the photograph")
                pasted = _photographs("The photograph with its hole filled")
            slot = image_slot(model, "Picture to inpaint", max_bytes, preview=False)
    inputs = [*slot.inputs, editor, hole, refine]
    filling = Change(telling(choose), inputs, [result])
    slot.then(Change(lay, slot.inputs, [editor, result]), filling)
    laid = tab.select(start, [slot.given], [*slot.outputs, editor, result], **MODEL)
    laid.then(*filling, **MODEL)
    editor.input(brushed, [editor], [hole], **SLIDING)
    hole.input(*filling, **MODEL)
    button.click(telling(paint), inputs, [result], **MODEL)
    at_newer = [Change(telling(again), inputs, [result])]
    if model.model.photographs.face_crops is not None:
        paste_button.click(telling(paste), inputs, [pasted], **MODEL)
        at_newer.append(Change(_emptied, [], [pasted]))
    return TabChanges([], at_newer)


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

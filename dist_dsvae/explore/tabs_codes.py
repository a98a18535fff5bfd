"""The tabs that draw from codes: samples of classes, the way between two, single dimensions of zu."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dist_dsvae.explore import renderings
from dist_dsvae.explore.controls import MODEL, SLIDING, Change, seed_control, shown, telling, whole
from dist_dsvae.explore.image_input import picture_slot
from dist_dsvae.explore.renderings import Base
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.sampling.temperature import Temperatures

_FIRST_CLASSES = 10
_HEIGHT = 360
_MAX_TEMPERATURE = 2.0


def samples_tab(model: PretrainedModel) -> list[Change]:
    """Classes, how many, seed. Returns what fills the tab when the page is opened; so do the others."""

    def draw(
        classes: list[str],
        num_samples: float,
        seed: float | None,
        shared_zu: bool,
        temperature_zs: float,
        temperature_zu: float,
    ) -> Image.Image:
        temperatures = Temperatures(temperature_zs, temperature_zu)
        return renderings.samples(
            model, classes, int(num_samples), whole(seed), temperatures, shared_zu=shared_zu
        )

    classes = gr.Dropdown(
        list(model.classes),
        value=list(model.classes[:_FIRST_CLASSES]),
        multiselect=True,
        max_choices=renderings.MAX_CLASSES,
        label="Classes",
    )
    with gr.Row():
        is_image = model.shape.is_image
        number = gr.Slider(
            1,
            renderings.MAX_SAMPLES,
            value=8,
            step=1,
            label="Samples per class",
            visible=is_image,
            buttons=[],
        )
        seed = seed_control()
        shared = gr.Checkbox(True, label="One zu per column", visible=is_image)
    with gr.Row():
        temperatures = [_temperature(code) for code in ("zs", "zu")]
    button = gr.Button("Draw samples", variant="primary")
    result = shown("Samples", "Samples of the chosen classes, a class per row")
    inputs = [classes, number, seed, shared, *temperatures]
    gr.on([button.click, seed.submit, shared.input], telling(draw), inputs, [result], **MODEL)
    gr.on([number.input, classes.change], telling(draw), inputs, [result], **SLIDING)
    # on release: batch norm is measured for every temperature
    gr.on([slider.release for slider in temperatures], telling(draw), inputs, [result], **SLIDING)
    return [Change(telling(draw), inputs, [result])]


def _temperature(code: str) -> Any:
    return gr.Slider(
        *(0.1, _MAX_TEMPERATURE),
        value=1,
        step=0.05,
        label=f"Temperature of {code}",
        info="Below 1 more typical, above 1 more diverse",
        buttons=[],
    )


def between_tab(model: PretrainedModel) -> list[Change]:
    """Two classes and a place between them."""

    def draw_way(first: str, second: str, seed: float | None) -> Image.Image:
        return renderings.between(model, first, second, whole(seed))

    def draw_place(first: str, second: str, fraction: float, seed: float | None) -> Image.Image:
        return renderings.place_between(model, first, second, fraction, whole(seed))

    names = list(model.classes)
    with gr.Row():
        first = gr.Dropdown(names, value=names[0], label="From class")
        second = gr.Dropdown(names, value=names[-1], label="To class")
        seed = seed_control()
    fraction = gr.Slider(0, 1, value=0.5, step=0.01, label="Place between the classes (zs)", buttons=[])
    place = shown("At this place", "The picture at the chosen place between the two classes", _HEIGHT)
    way = shown("The whole way", "Pictures along the way from one class to the other")
    changes = [
        Change(telling(draw_place), [first, second, fraction, seed], [place]),
        Change(telling(draw_way), [first, second, seed], [way]),
    ]
    fraction.input(*changes[0], **SLIDING)
    for change in changes:
        gr.on([first.input, second.input, seed.input], *change, **SLIDING)
    return changes


def dimensions_tab(model: PretrainedModel, max_bytes: int) -> list[Change]:
    """A base picture, and sliders for the dimensions of zu that change it most."""
    dimensions = renderings.expressive_dimensions(model)

    def start(base: Base) -> tuple[Any, ...]:
        values = renderings.slider_values(base, dimensions)
        return (
            base,
            renderings.enlarged(renderings.model_picture(base.decoded(model))),
            *values,
            _vary(base, *values),
        )

    def from_sample(class_name: str, seed: float | None) -> tuple[Any, ...]:
        return start(renderings.base_of_sample(model, class_name, whole(seed)))

    def from_picture(picture: Image.Image | None, label: str | None, *sample: Any) -> tuple[Any, ...]:
        """Where no picture is left in the slot, the sample is the base again."""
        if picture is None:
            return from_sample(*sample)
        return start(renderings.base_of_picture(model, picture, label))

    def _vary(base: Base, *values: float) -> Image.Image:
        return renderings.varied(model, base, dimensions, values)

    base = gr.State(None)
    with gr.Row():
        class_name = gr.Dropdown(list(model.classes), value=model.classes[0], label="Class of the base")
        seed = seed_control()
    with gr.Row():
        original = shown("Base", "The picture that the sliders start from", _HEIGHT)
        result = shown("With the sliders' values", "The base with the values of the sliders", _HEIGHT)
    extent = renderings.EXTENT
    with gr.Row():
        sliders = [
            gr.Slider(
                -extent, extent, value=0, step=0.01, label=f"Dimension {dim} of zu", min_width=260, buttons=[]
            )
            for dim in dimensions
        ]
    button = gr.Button("Back to the base")
    outputs = [base, original, *sliders, result]
    gr.on([class_name.input, seed.input], telling(from_sample), [class_name, seed], outputs, **SLIDING)
    gr.on([slider.input for slider in sliders], telling(_vary), [base, *sliders], [result], **SLIDING)
    button.click(telling(start), [base], outputs, **MODEL)
    if model.can_encode:
        with gr.Accordion("Start from a picture of your own", open=False):
            slot = picture_slot(model, "Picture to start from", max_bytes, 0)
        slot.then(Change(telling(from_picture), [*slot.inputs, class_name, seed], outputs))
    return [Change(telling(from_sample), [class_name, seed], outputs)]

"""The tabs that draw from codes: samples of classes, the way between two, single dimensions of zu."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dist_dsvae.explore import renderings
from dist_dsvae.explore.controls import (
    MODEL,
    ROLLING,
    SLIDING,
    Change,
    TabChanges,
    dice_button,
    introduce,
    rolled,
    seed_control,
    shown,
    strip,
    telling,
)
from dist_dsvae.explore.examples import TYPICAL
from dist_dsvae.explore.image_input import image_slot, opened
from dist_dsvae.explore.renderings import Base
from dist_dsvae.explore.subject import ShownModel
from dist_dsvae.explore.uploads import Given
from dist_dsvae.explore.words import words_for
from dist_dsvae.methods.abilities import Classifying, LabelFree
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.sampling.temperature import Temperatures
from dist_dsvae.sampling.vary import EXTENT

_HEIGHT = 360
_MAX_TEMPERATURE = 2.0


def samples_tab(model: ShownModel) -> TabChanges:
    """Classes, how many, seed: and, to begin with, those of the samples that the model knows best."""
    words, is_image = words_for(model.model), model.model.shape.is_image

    def draw(
        classes: list[str],
        num_samples: float,
        seed: float,
        shared_zu: bool,
        only_best: bool,
        temperature_zs: float,
        temperature_zu: float,
    ) -> Image.Image:
        return renderings.samples(
            model.model,
            classes,
            int(num_samples),
            int(seed),
            Temperatures(temperature_zs, temperature_zu),
            shared_zu=shared_zu,
            only_best=only_best,
        )

    what = f"A row for each {words.one}. " if is_image else ""
    introduce(f"{what}Nobody made these: the model did. Every roll of the dice draws others.")
    classes = gr.Dropdown(
        list(model.model.classes),
        value=model.first_classes,
        multiselect=True,
        max_choices=renderings.MAX_CLASSES,
        label=words.many.capitalize(),
    )
    dice = dice_button()
    result = shown("Samples", f"Samples, a row for each {words.one}")
    with gr.Accordion("More choices", open=False):
        with gr.Row():
            number = gr.Slider(
                1,
                renderings.MAX_SAMPLES,
                value=8,
                step=1,
                label=f"Samples of each {words.one}",
                visible=is_image,
                buttons=[],
            )
            seed = seed_control()
        with gr.Row():
            shared = gr.Checkbox(True, label=f"A column has one look ({words.how})", visible=is_image)
            best = gr.Checkbox(
                is_image,
                label="Only those that the model is surest of",
                visible=is_image and isinstance(model.model.published.method, Classifying),
            )
        with gr.Row():
            first = TYPICAL if is_image else Temperatures()
            both = isinstance(model.model.published.method, LabelFree)  # else the label is in the place of zs
            temperatures = [
                _temperature(f"Variety of {what}", value, is_shown)
                for what, value, is_shown in ((words.what, first.zs, both), (words.how, first.zu, True))
            ]
    inputs = [classes, number, seed, shared, best, *temperatures]
    drawing = Change(telling(draw), inputs, [result])
    # The seed at once, so that whatever is chosen while its samples are drawn is drawn with it.
    dice.click(rolled, None, [seed], **ROLLING).then(*drawing, **MODEL)
    gr.on([seed.submit, seed.blur, shared.input, best.input], *drawing, **MODEL)
    gr.on([number.input, classes.change], *drawing, **SLIDING)
    # on release: batch norm is measured for every temperature
    gr.on([slider.release for slider in temperatures], *drawing, **SLIDING)
    return TabChanges([drawing], [drawing])


def _temperature(label: str, value: float, is_shown: bool) -> Any:
    return gr.Slider(
        *(0.1, _MAX_TEMPERATURE),
        value=value,
        step=0.05,
        label=label,
        info="The temperature: 1 as the model learnt it, below more typical, above more diverse",
        visible=is_shown,
        buttons=[],
    )


def between_tab(model: ShownModel) -> TabChanges:
    """Two classes and a place between them."""
    words = words_for(model.model)

    def draw_way(first: str, second: str, seed: float) -> Image.Image:
        return renderings.between(model.model, first, second, int(seed))

    def draw_place(first: str, second: str, fraction: float, seed: float) -> Image.Image:
        return renderings.place_between(model.model, first, second, fraction, int(seed))

    introduce(f"Move the slider: {words.what} changes step by step, {words.how} stays.")
    names, opening = list(model.model.classes), model.first_classes
    with gr.Row():
        first = gr.Dropdown(names, value=opening[0], label=f"From {words.one}")
        second = gr.Dropdown(names, value=opening[-1], label=f"To {words.one}")
        seed = seed_control()
    fraction = gr.Slider(0, 1, value=0.5, step=0.01, label="Place between the two", buttons=[])
    way = shown("The whole way", "Pictures along the way from one to the other")
    place = shown("At this place", "The picture at the chosen place between the two", _HEIGHT)
    changes = [
        Change(telling(draw_place), [first, second, fraction, seed], [place]),
        Change(telling(draw_way), [first, second, seed], [way]),
    ]
    fraction.input(*changes[0], **SLIDING)
    for change in changes:
        gr.on([first.input, second.input, seed.input], *change, **SLIDING)
    return TabChanges(changes, changes)


def looks_tab(model: ShownModel, max_bytes: int) -> TabChanges:
    """A base picture, and sliders for the dimensions of zu that change it most, each with what it does."""
    words, num_sliders = words_for(model.model), len(model.dimensions)

    def start(base: Base | None) -> tuple[Any, ...]:
        base, dimensions = _needed(base), model.dimensions
        values = renderings.slider_values(base, dimensions)
        image = renderings.enlarged(base.decoded(model.model)[0])
        strips = [renderings.strip_of(model.model, base, dimension) for dimension in dimensions]
        return base, image, *values, *strips, _footnote(dimensions), vary(base, *values)

    def from_given(given: Given | None, label: str | None, class_name: str, seed: float) -> tuple[Any, ...]:
        """Where no picture is in the slot, a sample is the base."""
        if given is None:
            return start(renderings.base_of_sample(model.model, class_name, int(seed)))
        return start(renderings.base_of_image(model.model, given.image, label))

    def again(base: Base | None, *choices: Any) -> tuple[Any, ...]:
        """From what the base is of: a picture that is still in its slot may no longer be it."""
        is_picture = base is not None and base.code_kind == "images"
        return from_given(*choices) if is_picture else from_sample(*choices[2:])

    def from_sample(class_name: str, seed: float) -> tuple[Any, ...]:
        return from_given(None, None, class_name, seed)

    def vary(base: Base | None, *values: float) -> Image.Image:
        return renderings.varied(model.model, _needed(base), model.dimensions, values)

    introduce(f"{words.what.capitalize()} stays; each slider changes one thing about {words.how}.")
    base = gr.State(None)
    with gr.Row():
        class_name = gr.Dropdown(
            list(model.model.classes), value=model.first_classes[0], label=f"Sample of {words.one}"
        )
        seed = seed_control()
    with gr.Row():
        original = shown("Base", "The picture that the sliders start from", sharp=True)
        result = shown("Changed", "The base with the values of the sliders", sharp=True)
    strips, sliders = [], []
    with gr.Row():
        for number in range(1, num_sliders + 1):
            with gr.Column(min_width=300):
                strips.append(strip(f"What look {number} does, from its lowest to its highest value"))
                label = f"Look {number}"
                sliders.append(gr.Slider(-EXTENT, EXTENT, value=0, step=0.01, label=label, buttons=[]))
    button = gr.Button("Back to the base")
    footnote = gr.HTML(elem_classes=["footnote"])
    outputs = [base, original, *sliders, *strips, footnote, result]
    gr.on([class_name.input, seed.input], telling(from_sample), [class_name, seed], outputs, **SLIDING)
    gr.on([slider.input for slider in sliders], telling(vary), [base, *sliders], [result], **SLIDING)
    button.click(telling(start), [base], outputs, **MODEL)
    at_start = [Change(telling(from_sample), [class_name, seed], outputs)]
    if not model.model.can_encode:
        return TabChanges(at_start, at_start)
    with gr.Accordion("Start from another picture", open=False):
        slot = image_slot(model, "Picture to start from", max_bytes)
    given = Change(telling(from_given), [*slot.inputs, class_name, seed], outputs)
    slot.then(given)
    at_start.append(Change(lambda: opened(model, None), [], slot.outputs))
    return TabChanges(at_start, [Change(telling(again), [base, *given.inputs], outputs)])


def _needed(base: Base | None) -> Base:
    if base is None:
        raise RequestError("There is no base picture yet. Choose a sample to start from.")
    return base


def _footnote(dimensions: list[int]) -> str:
    numbers = ", ".join(map(str, dimensions))
    return f"<p>The looks are the dimensions {numbers} of zu: those that change pictures most.</p>"

"""The part of a model's card on its programs: how they run without this package, in lines that work."""

from __future__ import annotations

from dist_dsvae.pretrained.description import Described

_ABOUT = {
    "pt2": "Needs PyTorch alone. Run where this README lies; `pictures` are yours, [N, C, H, W] in [-1, 1].",
    "onnx": "Needs `pip install onnxruntime numpy`. Run where this README lies; `pictures` are yours, "
    "[N, C, H, W] in [-1, 1].",
}
PROGRAM_KINDS = tuple(_ABOUT)
PROGRAM_FILES = tuple(
    f"{part}.{kind}" for part in ("encoder", "decoder", "sampler") for kind in PROGRAM_KINDS
)


def use_of_programs(model: Described, kind: str) -> str:
    """A section with some ten lines of Python for programs of this kind (``programs.ProgramKind``)."""
    lines = _with_torch(model) if kind == "pt2" else _with_onnx(model)
    return f"## Use the `.{kind}` files\n\n{_ABOUT[kind]}\n\n```python\n" + "\n".join(lines) + "\n```"


def _names(model: Described) -> list[str]:
    return [*(["encoder"] if model.can_encode else []), "decoder", "sampler"]


def _with_torch(model: Described) -> list[str]:
    zs_dim, zu_dim = model.code_dims
    lines = ["import torch", ""]
    lines += [f'{name} = torch.export.load("{name}.pt2").module()' for name in _names(model)]
    lines += [
        "labels = torch.zeros(4, dtype=torch.int64)  # the first class",
        f"pictures, zs = sampler(labels, torch.randn(4, {zs_dim}), torch.randn(4, {zu_dim}))",
        f"_, class_mean = sampler(labels[:1], torch.zeros(1, {zs_dim}), torch.zeros(1, {zu_dim}))",
    ]
    if model.can_encode:
        given = "pictures, labels" if model.needs_labels else "pictures"
        lines += [
            f"zs, zu_mean, zu_log_variance = encoder({given})",
            "swapped = decoder(zs, zu_mean.flip(0))  # each as the other looks",
        ]
    else:
        lines.append(f"again = decoder(zs, torch.randn(4, {zu_dim}))")
    return lines


def _with_onnx(model: Described) -> list[str]:
    zs_dim, zu_dim = model.code_dims
    lines = ["import numpy as np", "from onnxruntime import InferenceSession", ""]
    lines += [f'{name} = InferenceSession("{name}.onnx")' for name in _names(model)]
    lines += [
        'draw = lambda *size: np.random.standard_normal(size).astype("float32")',
        'labels = np.zeros(4, dtype="int64")  # the first class',
        f'inputs = {{"labels": labels, "zs_noise": draw(4, {zs_dim}), "zu_noise": draw(4, {zu_dim})}}',
        "pictures, zs = sampler.run(None, inputs)  # zs_noise of zeros gives the mean of the class",
    ]
    if model.can_encode:
        given = '"images": pictures, "labels": labels' if model.needs_labels else '"images": pictures'
        lines += [
            f"zs, zu_mean, zu_log_variance = encoder.run(None, {{{given}}})",
            'swapped = decoder.run(None, {"zs": zs, "zu": zu_mean[::-1]})[0]  # each as the other looks',
        ]
    else:
        lines.append(f'again = decoder.run(None, {{"zs": zs, "zu": draw(4, {zu_dim})}})[0]')
    return lines

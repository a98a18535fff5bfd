"""What comes with the project besides its code: configs/, and the embedded data with their judge and model.

In a clone these files stand at its top level. A wheel carries them in ``dist_dsvae/box`` (setup.py), under
the same names. So whoever has nothing but the wheel says "quickstart", and configs that name the embedded
data find them from any directory.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = ("configs", "shards/fashion-mnist-mini")
EMBEDDED_TEST = "shards/fashion-mnist-mini/test"
_MODEL = "shards/fashion-mnist-mini/model"


def root() -> Path:
    """The folder that holds ``SHIPPED``."""
    box = PACKAGE / "box"
    return box if box.is_dir() else PACKAGE.parent


def at_hand(place: str | Path) -> Path:
    """A path as it was given, or what is shipped under that name where the working directory has nothing."""
    path = Path(place)
    is_shipped = any(path.is_relative_to(folder) for folder in SHIPPED) and ".." not in path.parts
    return root() / path if is_shipped and not path.exists() and (root() / path).exists() else path


def config_file(name: str | Path) -> Path:
    """The experiment file that ``name`` means: a file's path, or the name of one in configs/ without ".json".

    A file that exists goes first. What is neither comes back as it was given.
    """
    path = Path(name)
    for candidate in (path, at_hand(path), at_hand(f"configs/{path}.json")):
        if candidate.is_file():
            return candidate
    return path


def config_names() -> list[str]:
    """Of all experiments that come with the project, as ``config_file`` takes them."""
    configs = root() / "configs"
    return sorted(path.relative_to(configs).with_suffix("").as_posix() for path in configs.rglob("*.json"))


def model_in_the_box() -> Path | None:
    """The trained model that comes with the project, as a published model's directory; None without one."""
    model = root() / _MODEL
    return model if (model / "config.json").is_file() else None

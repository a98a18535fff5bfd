"""Where published models are: a directory, or a repository of the Hugging Face hub.

Of either, model.safetensors and config.json are read and nothing else: what can run code when opened
(pickles) or write where it likes (archives) is refused by name, with a sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

from huggingface_hub import hf_hub_download

from dist_dsvae.core.shipped import at_hand
from dist_dsvae.methods.published import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Published,
    PublishedModelError,
    load_published,
)

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_ARCHIVES = (".tar", ".gz", ".tgz", ".xz", ".zip", ".7z", ".rar", ".bz2", ".zst")
_REMEDY = (
    f"Give a directory with {WEIGHTS_FILE} and {CONFIG_FILE}: "
    "dsvae export --run RUN --out DIRECTORY makes one."
)


class HubOptions(TypedDict, total=False):
    """As for ``huggingface_hub.hf_hub_download``."""

    revision: str | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool
    token: str | bool | None


def published_at(place: str | Path, **options: Unpack[HubOptions]) -> Published:
    """The model of a directory or, if there is none of this name, of a hub's repository.

    Raises PublishedModelError for a file, an archive, a run directory, one that holds only pickles, a
    path that does not exist, and for what cannot be fetched; TypeError for other options.
    """
    if unknown := options.keys() - HubOptions.__annotations__.keys():
        raise TypeError(f"from_pretrained() got an unexpected keyword argument {min(unknown)!r}")
    published = load_published(_local_directory(place) or _fetched(str(place), **options))
    return published._replace(place=str(place))


def _local_directory(place: str | Path) -> Path | None:
    """``place`` if it is a directory with a published model; None if it may be an id on the hub."""
    path = at_hand(place)
    if path.is_dir():
        _check_directory(path)
        return path
    if path.suffix.lower() in (*_ARCHIVES, *_PICKLES, ".safetensors") or path.exists():
        what = "an archive" if path.suffix.lower() in _ARCHIVES else "a file"
        raise PublishedModelError(f"{place} is {what}, not a directory, and is not opened. {_REMEDY}")
    owner, _, name = str(place).partition("/")
    # Asking the hub for a mistyped path would take half a minute of attempts where there is no network.
    is_path = isinstance(place, Path) or path.is_absolute() or str(place).startswith((".", "~"))
    if is_path or not name:
        raise PublishedModelError(f"There is no directory {place}. {_REMEDY}")
    if Path(owner).is_dir():
        raise PublishedModelError(
            f"There is no directory {place}. {_REMEDY} (The hub is not asked for it, as there is a folder "
            f"{owner} here: for a repository of that name start somewhere else.)"
        )
    return None


def _check_directory(directory: Path) -> None:
    """Name what is there instead, if the two files are not."""
    missing = [name for name in (WEIGHTS_FILE, CONFIG_FILE) if not (directory / name).is_file()]
    if not missing:
        return
    if (directory / "dataset.json").is_file():
        raise PublishedModelError(
            f"{directory} is a run, whose checkpoints hold pickles. Export it first: "
            f"dsvae export --run {directory} --out {directory}/model"
        )
    names = sorted(path.name for path in directory.iterdir())
    unsafe = [name for name in names if Path(name).suffix.lower() in (*_PICKLES, *_ARCHIVES)]
    if unsafe:
        raise PublishedModelError(
            f"{directory} has no {' and no '.join(missing)}, but {unsafe[0]}: a pickle can run code when it "
            f"is read, an archive can write anywhere, so neither is opened. {_REMEDY}"
        )
    raise PublishedModelError(f"{directory} has no {' and no '.join(missing)}. {_REMEDY}")


def _fetched(model_id: str, **options: Unpack[HubOptions]) -> Path:
    """The two files of a hub's repository, in its cache: their directory."""
    try:
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            path = Path(hf_hub_download(model_id, name, **options))
    except (
        Exception
    ) as error:  # the library lets through what its HTTP client raises: proxies, what they need
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PublishedModelError(
            f"{model_id} is no directory here, and cannot be fetched from the hub as a model "
            f"({reason}). {_REMEDY}"
        ) from None
    return path.parent

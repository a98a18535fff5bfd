"""VAE-GANs with a label-relevant and a label-irrelevant latent code, trained on many GPUs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_dsvae.pretrained.model import PretrainedModel

__version__ = "0.1.0"
__all__ = ["PretrainedModel"]


def __getattr__(name: str) -> Any:
    """``PretrainedModel`` when it is first asked for: importing the package alone loads no torch."""
    if name != "PretrainedModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dist_dsvae.pretrained.model import PretrainedModel

    return PretrainedModel


def __dir__() -> list[str]:
    """The public names, for completion: what is loaded later is none of the module's yet."""
    return sorted([*__all__, "__version__"])

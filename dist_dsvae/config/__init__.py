"""Everything an experiment can choose, how it is read, and its reference."""

from dist_dsvae.config.experiment import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
)
from dist_dsvae.config.methods import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    DSVAEConfig,
    MethodConfig,
)
from dist_dsvae.config.training import TrainConfig

__all__ = [
    "CGANConfig",
    "CVAEConfig",
    "CVAEGANConfig",
    "ClassifierConfig",
    "DSVAEConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "TrainConfig",
]

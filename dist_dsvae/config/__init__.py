"""Everything an experiment can choose, how it is read, and its reference."""

from dist_dsvae.config.experiment import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
)
from dist_dsvae.config.methods import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    DSVAEConfig,
    MethodConfig,
)

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

"""Distributed training of VAE-GANs with a label-relevant and a label-irrelevant latent code."""

__version__ = "0.1.0"

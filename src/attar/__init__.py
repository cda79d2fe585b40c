"""Attar: train, export, use and measure autoencoder image codecs."""

__version__ = "0.1.0"

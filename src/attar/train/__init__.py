"""Training (``pip install 'attar[train]'``): data sets, layers, networks, losses, the trainer, export."""

import os

# Keras reads this once, when it is first imported; without it, Keras looks for TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "torch")

"""What every test runs under."""

from __future__ import annotations

import os

# Test modules that import keras before attar.train would otherwise ask Keras for its own default, TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "torch")

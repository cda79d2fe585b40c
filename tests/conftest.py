"""What every test runs under."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Test modules that import keras before attar.train would otherwise ask Keras for its own default, TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real bundle for 28 x 28 gray images."""
    import toy_bundle

    path = tmp_path_factory.mktemp("bundles") / "toy-digits.attarmodel"
    toy_bundle.write_digits(path)
    return path


@pytest.fixture(scope="session")
def photo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real bundle for RGB and gray images of any size."""
    import toy_bundle

    path = tmp_path_factory.mktemp("bundles") / "toy-photo.attarmodel"
    toy_bundle.write_photo(path)
    return path


@pytest.fixture
def only_toys(digits_bundle: Path, photo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two small bundles, and nothing else, are installed."""
    from attar.codec import bundle

    monkeypatch.setattr(bundle, "folders", lambda: [digits_bundle.parent, photo_bundle.parent])

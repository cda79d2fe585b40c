"""Exported encoders and decoders as codecs, from graphs written with the onnx package."""

from __future__ import annotations

import numpy as np
import pytest

import toy_bundle
from attar.errors import AttarError
from attar.measure import metrics
from attar.measure.anchors import Absent, find


@pytest.fixture
def parts(tmp_path):
    """Encoder and decoder of 28 x 28 digits with a vector of 50, and of photographs with a spatial latent."""

    def write(graphs):
        for name, data in graphs.items():
            (tmp_path / f"{name}.onnx").write_bytes(data)
        return f"autoencoder:{tmp_path / 'analysis.onnx'}+{tmp_path / 'synthesis.onnx'}"

    return write


def test_a_fixed_latent_costs_four_bytes_a_number(parts):
    anchor = find(parts(toy_bundle.digits_graphs()))
    image = toy_bundle.digit()[..., None] if toy_bundle.digit().ndim == 2 else toy_bundle.digit()
    data = anchor.encode(image, None)
    assert anchor.scale is None
    assert len(data) == 200  # the fifty raw floats that such autoencoders count as compressed
    decoded = anchor.decode(data)
    assert decoded.shape == image.shape
    assert metrics.psnr(image, decoded) > 15
    assert "onnxruntime" in anchor.version


def test_a_spatial_latent_says_its_shape(parts):
    anchor = find(parts(toy_bundle.photo_graphs()))
    image = toy_bundle.photo(48, 64)
    data = anchor.encode(image, None)
    latent = np.prod([48 // 8, 64 // 8, 30])
    assert len(data) == 1 + 4 * 3 + 4 * latent
    assert metrics.psnr(image, anchor.decode(data)) > 20
    for broken in (b"", data[:3], data[:-1], data + b"0", b"\xff" * 60):
        with pytest.raises(AttarError, match="its file cannot be decoded"):
            anchor.decode(broken)
    with pytest.raises(AttarError, match="has no quality setting; 5 was asked for"):
        anchor.encode(image, 5)


def test_an_image_that_the_network_refuses(parts):
    anchor = find(parts(toy_bundle.digits_graphs()))
    with pytest.raises(AttarError, match=r"the network refused \(1, 9, 9, 1\)"):
        anchor.encode(np.zeros((9, 9, 1), np.uint8), None)


def test_what_is_missing_or_misspelt(parts, tmp_path):
    name = parts(toy_bundle.digits_graphs())
    (tmp_path / "synthesis.onnx").write_bytes(b"no network")
    broken = find(name)
    assert isinstance(broken, Absent)
    assert "synthesis.onnx cannot be loaded" in broken.reason
    (tmp_path / "synthesis.onnx").unlink()
    assert "synthesis.onnx: no such file" in find(name).reason
    with pytest.raises(AttarError, match=r"is not of the form autoencoder:ENCODER\.onnx\+DECODER\.onnx"):
        find("autoencoder:model.keras")

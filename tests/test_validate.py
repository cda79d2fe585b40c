from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from attar import spec as specs
from attar.codec import tables
from attar.codec.container import Chunk
from attar.measure import metrics
from attar.train import checkpoint, datasets, export, losses, measuring, validate
from attar.train.network import Network
from training_kit import digits, numpy


@pytest.fixture(scope="module")
def net(tiny_run: Path) -> Network:
    best = tiny_run / "checkpoints" / "best.npz"
    return export.load_network(specs.parse(checkpoint.load(best).record["model"]), best)[0]


@pytest.fixture(scope="module")
def split() -> datasets.Split:
    return datasets.load("digits", limit=60).test


def test_the_loss_s_rate_is_what_real_files_cost(net: Network) -> None:
    """Within 1 % + 64 bytes over 500 digits; what the format adds to the symbols is counted exactly."""
    images = digits(500)
    codec = validate.make_codec(net)
    forward = net(images, training=False)
    target = ops.convert_to_tensor(images / np.float32(255))
    _, rate = losses.Loss()(target, forward.regenerated, forward.bits)
    estimate = float(numpy(rate)) * 784 * 500 / 8  # bytes
    symbols = numpy(forward.symbols).astype("<i4")
    payloads, whole_bytes, overhead = [], [], 0.0
    for row, data in zip(symbols, codec.compress_batch(list(images)), strict=True):
        part = codec.unpack(data)
        np.testing.assert_array_equal(codec.symbols(part), row)
        # The stream starts from 2^32 + checksum and ends with whole bytes (docs/FORMAT.md).
        start = math.log2(2**32 + zlib.crc32(part.header_bytes + bytes(4) + row.tobytes()))
        ideal = sum(tables.expected_bits(table, row[c]) for c, table in enumerate(codec.bundle.tables))
        payloads.append(len(part.chunks[Chunk.LATENTS]))
        whole_bytes.append(math.ceil((ideal + start) / 8))
        overhead += payloads[-1] - ideal / 8
        assert payloads[-1] - (ideal + start) / 8 < 1
    # But for a zero byte at the end of one file in 256, which is not written.
    assert np.mean(np.equal(payloads, whole_bytes)) > 0.98
    assert 4 * 500 < overhead < 5.1 * 500
    assert abs(sum(payloads) - overhead - estimate) <= 0.01 * estimate + 64
    # On average 32.56 bits of start and half a byte of rounding.
    assert abs(sum(payloads) - 4.57 * 500 - estimate) <= 0.01 * estimate + 64
    assert len(np.unique(symbols)) > 8  # a network that learnt something
    assert estimate / 500 > 4


def test_validation_is_of_real_files(net: Network, split: datasets.Split) -> None:
    row = validate.validate(net, losses.Loss(), split)
    codec = validate.make_codec(net)
    images = split.take(np.arange(60))
    files = codec.compress_batch(list(images))
    decoded = np.stack([codec.decompress(data) for data in files])
    assert row["images"] == 60
    assert row["bytes"] == pytest.approx(np.mean([len(data) for data in files]))
    assert row["bpp"] == pytest.approx(8 * row["bytes"] / 784)
    assert row["psnr"] == pytest.approx(metrics.psnr(images, decoded).mean())
    assert row["ssim"] == pytest.approx(metrics.ssim(images, decoded).mean())
    assert row["loss"] == pytest.approx(measuring.measure_split(net, losses.Loss(), split)["loss"])
    assert 0 < row["bytes"] - row["estimated_bytes"] < 22


def test_files_are_measured_in_pieces_as_in_one(
    net: Network, split: datasets.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = validate.make_codec(net)
    whole = validate.measure_files(codec, split)
    monkeypatch.setattr(validate, "CHUNK", 7)
    pieces = validate.measure_files(codec, split)
    assert {name: values.shape for name, values in whole.items()} == dict.fromkeys(whole, (60,))
    for name, values in whole.items():
        np.testing.assert_allclose(pieces[name], values, atol=1e-9)


def test_identical_images_have_no_psnr(
    net: Network, split: datasets.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = np.full(60, np.inf)
    monkeypatch.setattr(metrics, "psnr", lambda a, b: found[: len(a)])
    assert validate.validate(net, losses.Loss(), split)["psnr"] is None
    found[:30] = 20.0
    assert validate.validate(net, losses.Loss(), split)["psnr"] == 20.0

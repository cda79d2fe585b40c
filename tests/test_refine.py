"""Higher effort: better files of the same model, decoded by the same decoder."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

import attar
from attar.codec.refine import MAX_EFFORT, PRICE, Refiner
from attar.codec.tables import Table, expected_bits
from attar.errors import TargetError
from attar.measure import metrics

DIGITS = Path(attar.__file__).parent / "data" / "digits" / "t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    packed = gzip.decompress(DIGITS.read_bytes())
    return np.frombuffer(packed, np.uint8, count=12 * 784, offset=16).reshape(12, 28, 28, 1)


def cost(codec: attar.Codec, image: np.ndarray, data: bytes, price: float) -> float:
    """Squared error plus price times bits, of a file."""
    part = codec.unpack(data)
    symbols = codec.symbols(part)
    bits = sum(
        expected_bits(table, [value]) for table, value in zip(codec.bundle.tables, symbols, strict=True)
    )
    error = (codec.decompress(data).astype(float) - image.astype(float)) ** 2
    return float(error.mean() + price * bits)


def test_more_effort_gives_better_digits_of_the_same_size(images: np.ndarray) -> None:
    codec = attar.load("digits")
    plain = codec.compress_batch(list(images))
    better = codec.compress_batch(list(images), effort=2)
    before, after = (np.stack(codec.decompress_batch(files)) for files in (plain, better))
    assert metrics.psnr(images, after).mean() > metrics.psnr(images, before).mean() + 0.5
    assert metrics.ssim(images, after).mean() > metrics.ssim(images, before).mean()
    assert sum(map(len, better)) <= 1.02 * sum(map(len, plain))


def test_no_round_raises_the_cost_of_any_image(images: np.ndarray) -> None:
    codec = attar.load("digits")
    for image in images[:4]:
        files = [codec.compress(image, effort=effort) for effort in (0, 1, 3)]
        error = (codec.decompress(files[0]).astype(float) - image.astype(float)) ** 2
        price = PRICE * float(error.mean()) / 784
        costs = [cost(codec, image, data, price) for data in files]
        assert costs[0] > costs[1] >= costs[2] - 1e-9


def test_effort_is_deterministic_and_the_same_in_a_batch(images: np.ndarray) -> None:
    codec = attar.load("digits", threads=1)
    together = codec.compress_batch(list(images[:3]), effort=1)
    assert together == [codec.compress(image, effort=1) for image in images[:3]]


def linear(symbols: np.ndarray) -> np.ndarray:
    """A decoder that is easy to reason about: each symbol sets one of two pixels, in steps of 10."""
    return np.clip(symbols * 10, 0, 255).astype(np.uint8).reshape(-1, 1, 2, 1)


def test_finds_the_optimum_where_it_is_known() -> None:
    table = Table.from_probabilities(0, np.ones(20))  # every symbol costs the same: only the error counts
    refiner = Refiner(linear, [table, table])
    image = np.array([50, 120], np.uint8).reshape(1, 1, 2, 1)
    found = refiner.refine(image, np.array([[2, 15]], np.int32), MAX_EFFORT)
    assert found.tolist() == [[5, 12]]


def test_cheaper_symbols_win_where_the_error_is_the_same() -> None:
    table = Table.from_probabilities(0, [0.9, 0.05, 0.04, 0.01])
    refiner = Refiner(linear, [table, table])
    image = np.array([5, 5], np.uint8).reshape(1, 1, 2, 1)  # 0 and 1 are equally far
    assert refiner.refine(image, np.array([[1, 1]], np.int32), 3).tolist() == [[0, 0]]


def test_a_symbol_that_needs_an_escape_keeps_the_image_as_it_is() -> None:
    table = Table.from_probabilities(0, np.ones(4))
    refiner = Refiner(linear, [table, table])
    image = np.array([0, 0], np.uint8).reshape(1, 1, 2, 1)
    assert refiner.refine(image, np.array([[9, 2]], np.int32), 3).tolist() == [[9, 2]]


@pytest.mark.parametrize("effort", [-1, MAX_EFFORT + 1])
def test_effort_out_of_range_is_refused(images: np.ndarray, effort: int) -> None:
    with pytest.raises(TargetError, match=f"effort {effort}: expected 0 to {MAX_EFFORT}"):
        attar.load("digits").compress(images[0], effort=effort)

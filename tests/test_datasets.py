"""Data sets from arrays: the digits and IDX files; and seeded batches that can be resumed."""

from __future__ import annotations

import gzip
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.errors import DatasetError
from attar.train.datasets import Dataset, Split, batches, load
from some_images import all_of, contents, noise


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


# digits


def test_digits_are_mnist_s_test_file_split_for_good(digits: Dataset) -> None:
    assert digits.name == "digits"
    assert digits.shape == (28, 28, 1)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (8000, 1000, 1000)
    assert digits.skipped == ()
    assert digits.description == (
        "digits: 10000 images, 8000 train, 1000 validation, 1000 test (a fixed split); 0 skipped"
    )
    assert digits.train.name(123) == "digits/train/123"
    images = all_of(digits.train)
    assert images.dtype == np.uint8
    assert images.shape == (8000, 28, 28, 1)
    whole = np.concatenate([images, all_of(digits.validation), all_of(digits.test)])
    assert whole.mean() == pytest.approx(33.791, abs=1e-3)  # of the 10,000 images, as MNIST's users know it
    other = load("digits", seed=7)
    assert np.array_equal(all_of(other.test), all_of(digits.test))


def test_digits_share_no_image(digits: Dataset) -> None:
    train, validation, test = (contents(split) for split in (digits.train, digits.validation, digits.test))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train | validation | test) == 10_000


def test_digits_in_another_form(digits: Dataset) -> None:
    data = load("digits", height=32, width=24, channels=3, limit=20)
    assert data.shape == (32, 24, 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 20, 20)
    assert np.ptp(all_of(data.train), axis=3).max() == 0  # still gray
    larger = load("digits", crop=32, limit=5)
    piece = larger.test.take(np.arange(1))[0]
    assert piece.shape == (32, 32, 1)
    assert piece[2:30, 2:30].tobytes() in contents(digits.test)
    assert np.array_equal(piece[0:2], piece[2:4][::-1])  # mirrored, not stretched


# batches


@pytest.fixture(scope="module")
def augmented() -> Split:
    return load("digits", limit=300, shift=2, flip=True).train


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**63 - 1), st.integers(0, 5), st.booleans(), st.data())
def test_batches_are_a_permutation_and_resume(
    augmented: Split, size: int, seed: int, epoch: int, drop: bool, data: st.DataObject
) -> None:
    whole = list(batches(augmented, size, seed=seed, epoch=epoch, drop_last=drop))
    indices = np.concatenate([part for part, _ in whole]) if whole else np.zeros(0, int)
    kept = 300 // size * size if drop else 300
    assert len(indices) == kept == len(set(indices.tolist()))
    start = data.draw(st.integers(0, len(whole) + 1))
    rest = list(batches(augmented, size, seed=seed, epoch=epoch, start=start, drop_last=drop))
    assert len(rest) == max(0, len(whole) - start)
    for (indices, images), (expected_indices, expected) in zip(rest, whole[start:], strict=True):
        assert np.array_equal(indices, expected_indices)
        assert np.array_equal(images, expected)


def test_batches_differ_by_seed_and_epoch_and_batch(digits: Dataset) -> None:
    first = [
        next(batches(digits.train, 32, seed=seed, epoch=epoch))[0].tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len({tuple(indices) for indices in first}) == 4
    data = load("digits", shift=3, limit=1)
    moved = [next(batches(data.train, 1, seed=0, epoch=epoch))[1].tobytes() for epoch in range(40)]
    assert len(set(moved)) > 10


def test_batches_in_order_are_the_images_themselves() -> None:
    split = load("digits", limit=70, shift=3, flip=True).train
    got = list(batches(split, 32))
    assert [len(images) for _, images in got] == [32, 32, 6]
    assert np.array_equal(np.concatenate([images for _, images in got]), all_of(split))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch size 0: at least 1"),
        ({"batch_size": 8, "start": -1}, "first batch -1: none of them may be negative"),
        ({"batch_size": 8, "epoch": -1}, "epoch -1"),
        ({"batch_size": 8, "seed": -5}, "seed -5"),
    ],
)
def test_batches_refuse(digits: Dataset, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        batches(digits.train, **arguments)


def test_a_batch_from_memory_costs_next_to_nothing(digits: Dataset) -> None:
    indices = np.arange(0, 6400, 200)
    durations = []
    for _ in range(50):
        begin = time.perf_counter()
        digits.train.take(indices)
        durations.append(time.perf_counter() - begin)
    assert min(durations) < 1e-4


# augmentation


def test_shift_and_flip_are_whole_pixels_with_the_edge_repeated() -> None:
    data = load("digits", shift=2, flip=True, limit=40)
    plain = all_of(data.train)
    padded = np.pad(plain, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    seen = set()
    for epoch in range(10):
        images = data.train.take(np.arange(40), np.random.default_rng(epoch))
        assert images.flags.c_contiguous
        for number, image in enumerate(images):
            candidates = {
                (dy, dx, mirror): padded[number, 2 + dy : 30 + dy, 2 + dx : 30 + dx][
                    :, :: -1 if mirror else 1
                ]
                for dy in range(-2, 3)
                for dx in range(-2, 3)
                for mirror in (False, True)
            }
            found = [key for key, candidate in candidates.items() if np.array_equal(candidate, image)]
            assert found
            seen.update(found[:1] if len(found) == 1 else ())
    assert len(seen) == 50  # every shift, mirrored and not, occurs
    held_out = data.validation.take(np.arange(5), np.random.default_rng(0))
    assert np.array_equal(held_out, data.validation.take(np.arange(5)))


# IDX files


def idx_bytes(images: np.ndarray) -> bytes:
    return struct.pack(f">HBB{images.ndim}I", 0, 8, images.ndim, *images.shape) + images.tobytes()


def idx_folder(
    folder: Path, train: int = 60, test: int = 10, zipped: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir()
    arrays = noise(1, train * 7, 5, 1).reshape(train, 7, 5), noise(2, test * 7, 5, 1).reshape(test, 7, 5)
    for name, array in zip(("train", "t10k"), arrays, strict=True):
        data = idx_bytes(array)
        path = folder / f"{name}-images-idx3-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(b"not looked at")
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_folder_holds_out_the_whole_test_file(tmp_path: Path, zipped: bool) -> None:
    train, test = idx_folder(tmp_path / "set", zipped=zipped)
    data = load(str(tmp_path / "set"))
    assert data.name == "set"
    assert data.shape == (7, 5, 1)
    assert np.array_equal(all_of(data.test)[..., 0], test)
    assert len(data.validation) == 5  # a twelfth of the training file
    assert contents(data.train) | contents(data.validation) == {image.tobytes() for image in train}
    assert not contents(data.train) & contents(data.validation)
    assert np.array_equal(all_of(load(str(tmp_path / "set"), seed=9).validation), all_of(data.validation))


def test_idx_of_colour_images_and_a_single_file(tmp_path: Path) -> None:
    images = noise(0, 8 * 6, 4, 3).reshape(8, 6, 4, 3)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "colour-test-images.idx4-ubyte").write_bytes(idx_bytes(images))
    data = load(str(tmp_path / "set"))
    assert data.shape == (6, 4, 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 1, 1)


HOSTILE_IDX = {
    "nothing": (b"", "is no IDX file: it begins with nothing"),
    "foreign": (b"\x89PNG\r\n\x1a\n", "begins with 89 50 4e 47, expected 00 00 08 03"),
    "floats": (struct.pack(">HBB3I", 0, 13, 3, 1, 2, 2) + bytes(16), "type 0x0d, expected 0x08"),
    "labels": (struct.pack(">HBBI", 0, 8, 1, 4) + bytes(4), "1 dimensions, expected 3"),
    "header": (struct.pack(">HBB2I", 0, 8, 3, 1, 2), "truncated: it ends within its header"),
    "empty": (struct.pack(">HBB3I", 0, 8, 3, 0, 2, 2), r"dimensions \(0, 2, 2\), expected at least 1 image"),
    "channels": (struct.pack(">HBB4I", 0, 8, 4, 1, 2, 2, 2) + bytes(8), "and 1 or 3 channels"),
    "huge": (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), "more than the 2147483648 that are read"),
    "promises": (struct.pack(">HBB3I", 0, 8, 3, 2**20, 32, 32) + bytes(99), "it can hold at most 115"),
    "truncated": (struct.pack(">HBB3I", 0, 8, 3, 1, 10, 10) + bytes(99), "need 100 bytes, it holds 99"),
    "too long": (struct.pack(">HBB3I", 0, 8, 3, 1, 2, 2) + bytes(5), "goes on after the 4 bytes"),
    "zip promises": (gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**20, 32, 32)), "it can hold at most"),
    "zip bomb": (
        gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 3, 2, 2) + bytes(2**24)),
        "goes on after the 12",
    ),
    "cut zip": (
        gzip.compress(idx_bytes(noise(0, 40, 40, 1)[..., 0].reshape(4, 20, 20)))[:-40],
        "cannot be read",
    ),
    "bad zip": (b"\x1f\x8b" + bytes(30), "cannot be read"),
}


@pytest.mark.parametrize("case", HOSTILE_IDX)
def test_hostile_idx_files_are_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE_IDX[case]
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        load(str(tmp_path))
    assert "t10k-images-idx3-ubyte.gz" in str(caught.value)


def test_idx_files_that_do_not_belong_together(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((20, 3, 3), np.uint8)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((4, 3, 4), np.uint8)))
    with pytest.raises(
        DatasetError, match=r"t10k-images-idx3-ubyte \(3, 4, 1\) and train-.* \(3, 3, 1\) .* differ"
    ):
        load(str(tmp_path))
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DatasetError, match="holds several data sets"):
        load(str(tmp_path))


def test_mnist_as_it_is_downloaded() -> None:
    folder = os.environ.get("ATTAR_MNIST")
    if not folder:
        pytest.skip("ATTAR_MNIST does not name a folder with MNIST's four files")
    data = load(folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert not contents(data.train) & contents(data.validation)
    assert not contents(data.test) & (contents(data.train) | contents(data.validation))

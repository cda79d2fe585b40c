"""How images are split: no image in two splits, no split empty, nothing moves when an image is added."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.errors import DatasetError
from attar.train.datasets import load
from attar.train.datasets.assign import LEFT_OUT, TEST, TRAIN, VALIDATION, assign
from some_images import contents, fill, members, noise, save


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATTAR_CACHE", str(folder))
    return folder


def test_sub_folders_are_the_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for part, first in (("train/cat", 0), ("train/dog", 4), ("Valid", 8), ("test", 11)):
        for number in range(first, first + 3):
            save(folder / part / f"{number}.png", noise(number))
    parts = members(load(str(folder)))
    assert parts["train"] == {f"train/cat/{n}.png" for n in range(3)} | {
        f"train/dog/{n}.png" for n in range(4, 7)
    }
    assert parts["validation"] == {f"Valid/{n}.png" for n in range(8, 11)}
    assert parts["test"] == {f"test/{n}.png" for n in range(11, 14)}


def test_a_missing_split_is_split_off_training(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set" / "train", 20).parent
    for number in range(3):
        save(folder / "test" / f"{number}.png", noise(100 + number))
    parts = members(load(str(folder)))
    assert parts["test"] == {f"test/{n}.png" for n in range(3)}
    assert len(parts["train"]) + len(parts["validation"]) == 20
    assert parts["validation"]
    assert all(name.startswith("train/") for name in parts["train"] | parts["validation"])


def test_copies_of_an_image_are_never_in_two_splits(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", 30)
    for number in range(30):
        shutil.copy(folder / f"{number:03}.png", folder / f"copy of {number:03}.png")
    data = load(str(folder))
    parts = members(data)
    for number in range(30):
        assert len([p for p in parts.values() if {f"{number:03}.png", f"copy of {number:03}.png"} <= p]) == 1
    (folder / "test").mkdir()
    shutil.copy(folder / "004.png", folder / "test" / "x.png")
    data = load(str(folder))
    assert data.skipped == (
        "004.png: the same image is held out",
        "copy of 004.png: the same image is held out",
    )
    assert not contents(data.train) & contents(data.test)


def digests_of(numbers: list[int]) -> np.ndarray:
    return np.array([list(n.to_bytes(16, "big")) for n in numbers], np.uint8).reshape(-1, 16)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 2**128 - 1), min_size=300, max_size=400), st.integers(0, 2**63 - 1))
def test_adding_an_image_moves_no_other(numbers: set[int], seed: int) -> None:
    listed = list(numbers)
    before = assign("set", digests_of(listed[1:]), np.zeros(len(listed) - 1, int), seed=seed)
    after = assign("set", digests_of(listed), np.zeros(len(listed), int), seed=seed)
    assert np.array_equal(before, after[1:])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([TRAIN, VALIDATION, TEST])), min_size=1, max_size=60
    ),
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(0, 20)),
)
def test_splits_are_disjoint_and_none_is_empty(
    images: list[tuple[int, int]], seed: int, exact: int | None
) -> None:
    numbers, parts = [number for number, _ in images], np.array([part for _, part in images])
    held_out_numbers = {number for number, part in images if part != TRAIN}
    missing = sum(part not in parts for part in (VALIDATION, TEST))
    if len(set(numbers) - held_out_numbers) <= missing:
        with pytest.raises(DatasetError, match=f"at least {missing + 1} are needed"):
            assign("set", digests_of(numbers), parts, seed=seed, exact=exact)
        return
    which = assign("set", digests_of(numbers), parts, seed=seed, exact=exact)
    held_out = {(number, part) for number, part in images if part != TRAIN}
    for number, part, got in zip(numbers, parts, which, strict=True):
        assert part in (got, TRAIN) or (number, TEST) in held_out
        if got == LEFT_OUT:
            assert (number, TEST) in held_out or (number, VALIDATION) in held_out
    by_split = [
        {number for number, got in zip(numbers, which, strict=True) if got == split} for split in (0, 1, 2)
    ]
    assert by_split[0]
    assert by_split[2]
    assert not by_split[0] & by_split[1]
    assert not by_split[0] & by_split[2]
    assert not by_split[1] & by_split[2]
    assert by_split[1] or {number for number, part in held_out if part == VALIDATION} <= by_split[2]
    assert set.union(*by_split) == set(numbers)


def test_the_seed_chooses_and_the_shares_are_a_tenth() -> None:
    digests = digests_of(list(range(5000)))
    splits = [assign("set", digests, np.zeros(5000, int), seed=seed) for seed in (0, 1)]
    assert not np.array_equal(*splits)
    for which in splits:
        assert np.bincount(which) == pytest.approx([4000, 500, 500], rel=0.15)

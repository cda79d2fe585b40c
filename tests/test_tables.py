from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.codec.tables import TOTAL, Table, expected_bits, quantise_probabilities
from attar.errors import BundleError

weights = st.lists(st.floats(0, 1e300), min_size=2, max_size=200).filter(lambda w: max(w) > 0)


@given(weights)
def test_frequencies_are_positive_and_sum_to_the_total(probabilities: list[float]) -> None:
    frequencies = quantise_probabilities(probabilities)
    assert frequencies.dtype == np.int64
    assert frequencies.min() >= 1
    assert frequencies.sum() == TOTAL


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=100))
def test_frequencies_follow_the_probabilities(probabilities: list[float]) -> None:
    p = np.array(probabilities) / np.sum(probabilities)
    # One unit for the floor, one for the remainder, and the units taken from all to give everyone a 1.
    assert np.abs(quantise_probabilities(p) / TOTAL - p).max() <= (2 + p.size) / TOTAL


def test_ties_go_to_the_lower_position() -> None:
    assert quantise_probabilities([1, 1, 1]).tolist() == [5592406, 5592405, 5592405]


def test_one_certain_symbol_leaves_the_others_one_unit() -> None:
    assert quantise_probabilities([0, 1, 0]).tolist() == [1, TOTAL - 2, 1]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([1.0], "2 to 65536"),
        ([[0.5, 0.5]], "in one row"),
        ([0.5, np.nan], "finite"),
        ([0.5, np.inf], "finite"),
        ([0.5, -0.1], "not negative"),
        ([0.0, 0.0], "not all zero"),
        (np.ones(1 + (1 << 16)), "2 to 65536"),
    ],
)
def test_weights_that_are_no_distribution_are_refused(probabilities: object, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        quantise_probabilities(probabilities)


@pytest.mark.parametrize(
    ("minimum", "frequencies", "message"),
    [
        (0, [TOTAL], "2 to 65536 entries, not 1"),
        (0, [TOTAL, 0], "at least 1, not 0"),
        (0, [TOTAL, 1], "the sum is 16777217"),
        (0, [TOTAL - 2, 1], "the sum is 16777215"),
        (0, [2**62, 2**62], "one of them is 4611686018427387904"),
        (0, [[1, TOTAL - 1]], "a list of integers"),
        (0, [0.5, 0.5], "a list of integers"),
        (-(2**31) - 1, [1, TOTAL - 1], "int32"),
        (2**31 - 1, [1, 1, TOTAL - 2], "int32"),
    ],
)
def test_invariants_of_a_table(minimum: int, frequencies: list, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Table(minimum, np.array(frequencies))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"minimum": 0},
        {"minimum": 0, "frequencies": [1, TOTAL - 1], "more": 1},
        {"minimum": 0.0, "frequencies": [1, TOTAL - 1]},
        {"minimum": True, "frequencies": [1, TOTAL - 1]},
        {"minimum": 0, "frequencies": "12"},
        {"minimum": 0, "frequencies": [1, str(TOTAL - 1)]},
        {"minimum": 0, "frequencies": [10**30, -(10**30)]},
        {"minimum": 10**30, "frequencies": [1, TOTAL - 1]},
    ],
)
def test_untrusted_documents_are_refused(document: object) -> None:
    with pytest.raises(BundleError):
        Table.from_json(document)


def test_json_round_trip_and_range() -> None:
    table = Table.from_probabilities(-2, [1, 2, 4, 2, 1, 0.1])
    again = Table.from_json(table.to_json())
    assert (again.minimum, again.maximum) == (-2, 2)
    assert again.frequencies.tolist() == table.frequencies.tolist()
    with pytest.raises(ValueError, match="read-only"):
        again.frequencies[0] = 5


def test_expected_bits_of_known_cases() -> None:
    table = Table(0, np.array([TOTAL // 2, TOTAL // 4, TOTAL // 4]))
    assert expected_bits(table, [0, 0, 1]) == 4
    assert table.entropy_bits == 1.5
    # An escape costs its own two bits and one byte up to an overflow of 127, two bytes from 128 on.
    assert expected_bits(table, [2]) == expected_bits(table, [-1]) == expected_bits(table, [65]) == 10
    assert expected_bits(table, [66]) == 18
    assert expected_bits(table, [2**31 - 1]) == 2 + 5 * 8

"""Hostile JSON is refused before it costs anything; words for messages are safe to print."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar import plainjson
from attar.plainjson import NotPlainError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"model": }', "line 1, column 11: not JSON: Expecting value"),
        ('{\n "a": 1,\n}', r"line (2|3), column \d+: not JSON"),
        ("", "line 1, column 1: not JSON"),
        ("[" * 100_000, "nested too deeply; expected at most 64"),
        ("[" * 70 + "]" * 70, "nested too deeply; expected at most 64"),
        ("[" + "0," * 200_000 + "0]", "holds more than 100000 values"),
        ("9" * 5000, "holds a number that is too long"),
        (" " * ((1 << 20) + 1), "is longer than 1048576 characters"),
    ],
)
def test_hopeless_texts(text: str, line: str) -> None:
    started = time.process_time()
    with pytest.raises(NotPlainError, match=line):
        plainjson.decode(text)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": {"b": 1, "b": 2}}', "a.b: the key is given twice; expected it once"),
        ('{"a b": [1, NaN]}', '["a b"][1]: found nan; expected a finite number'),
        ('{"a": [-Infinity]}', "a[0]: found -inf; expected a finite number"),
        ('{"a": 1e999}', "a: found inf; expected a finite number"),
        ('{"a": 9007199254740993}', "a: found an integer beyond 2^53; expected a smaller number"),
        ("NaN", "the file: found nan; expected a finite number"),
    ],
)
def test_lesser_faults_are_located(text: str, fault: str) -> None:
    _, faults = plainjson.decode(text)
    assert [*faults] == [fault]


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(NotPlainError, match="nested too deeply"):
        plainjson.check(loop)


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), st.lists, max_leaves=20))
def test_plain_documents_pass_unchanged(document: object) -> None:
    again, faults = plainjson.decode(json.dumps(document))
    assert (again, [*faults]) == (document, [])


@given(st.text() | st.text(alphabet="\x1b\x00\u202e\udc80ab", min_size=1))
def test_shown_words_are_printable_and_short(word: str) -> None:
    shown = plainjson.show(word)
    assert shown.isprintable()
    assert len(shown) <= 60 * 10 + 2
    assert plainjson.join("a", word).isprintable()
    shown.encode("utf-8")


def test_nearest_ignores_case_and_gives_up() -> None:
    assert plainjson.nearest("CONV2d", ["Dense", "Conv2D", "Conv3D"]) == "Conv2D"
    assert plainjson.nearest("zzzzz", ["Dense", "Conv2D"]) is None
    assert plainjson.nearest("x" * 1_000_000, ["Dense", "x" * 999_999]) is None


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(['{"a": 1, "a": 2}'] * 40_000) + "]",
        '{"k": ' * 60 + "[" + ",".join(["NaN"] * 90_000) + "]" + "}" * 60,
        ('{"' + "k" * 10_000 + '": ') * 60 + "[" + ",".join(["NaN"] * 80_000) + "]" + "}" * 60,
    ],
    ids=["keys given twice", "numbers", "long keys"],
)
def test_many_faults_cost_little(text: str) -> None:
    started = time.process_time()
    _, faults = plainjson.decode(text)
    assert time.process_time() - started < 5
    assert len(faults.lines) == 100
    assert max(map(len, faults)) < 500
    assert [*faults][-1] == f"... and {faults.more} more faults"
    assert faults.more in (39_900, 89_900, 79_900)


def test_long_lists_of_names_are_cut() -> None:
    assert plainjson.listed(["a", "b c"]) == 'a, "b c"'
    assert plainjson.listed(map(str, range(1000, 1_000_000))).endswith('"1039", ...')

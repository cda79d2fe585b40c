"""JSON from anybody: bounded in size and depth, finite, every key once; and words for talking about it.

A document is called plain when it holds nothing but objects with string keys, lists, strings, booleans, null
and finite numbers of sane size. :func:`read`, :func:`decode` and :func:`check` raise :class:`NotPlainError`
when going on would make no sense, and return the lesser faults so that they can be reported with others.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "MAX_BYTES",
    "MAX_WORD",
    "Faults",
    "NotPlainError",
    "Reader",
    "check",
    "decode",
    "join",
    "listed",
    "nearest",
    "objects",
    "read",
    "show",
]

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_INTEGER = 1 << 53  # beyond it a reader that uses doubles sees another number
MAX_WORD = 128
MAX_FAULTS = 100
MAX_LISTED = 40
MAX_PATH = 400

Place = tuple[Any, "str | int"] | None
"""Where a value is: the place of what holds it, and its key there; None for the whole document."""


class Faults:
    """Fault lines: the first hundred in words, the rest as a number: no file can ask for much work."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.more = 0

    def add(self, path: str, found: str, expected: str, word: str = "", words: Iterable[str] = ()) -> None:
        """Where, what was found, what was expected; suggests the one of ``words`` nearest to ``word``."""
        if self.is_full:
            self.more += 1
            return
        if len(path) > MAX_PATH:
            path = f"{path[: MAX_PATH // 2]} ... {path[-MAX_PATH // 2 :]}"
        near = nearest(word, words) if word else None
        hint = f" (did you mean {show(near)}?)" if near is not None else ""
        self.lines.append(f"{path or 'the file'}: {found}; expected {expected}{hint}")

    @property
    def is_full(self) -> bool:
        """Whether further faults are only counted."""
        return len(self.lines) >= MAX_FAULTS

    def __bool__(self) -> bool:
        return bool(self.lines)

    def __iter__(self) -> Iterator[str]:
        yield from self.lines
        if self.more:
            yield f"... and {self.more} more faults"


class NotPlainError(ValueError):
    """A text or a value that is not plain JSON; the message is one fault line, without the file's name."""


def read(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file of at most ``MAX_BYTES``. Raises NotPlainError, also when unreadable."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise NotPlainError(f"cannot be read: {reason}; expected a JSON file") from error
    if len(raw) > MAX_BYTES:
        raise NotPlainError(f"is larger than {MAX_BYTES} bytes; expected a few kilobytes of JSON")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotPlainError(f"is not UTF-8 text (byte {error.start}); expected JSON") from error


def decode(text: str) -> tuple[Any, Faults]:
    """Decode JSON; returns the document and its lesser faults (keys given twice, unbounded numbers).

    Raises NotPlainError: not JSON (with line and column), too long, too deep, too many values.
    """
    if len(text) > MAX_BYTES:
        raise NotPlainError(f"is longer than {MAX_BYTES} characters; expected a few kilobytes of JSON")
    twice: dict[int, tuple[object, list[str]]] = {}  # id -> the object, held so that its id stays its own

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            counts = Counter(key for key, _ in items)
            twice[id(made)] = made, [key for key, count in counts.items() if count > 1]
        return made

    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NotPlainError(f"{where}: not JSON: {error.msg}; expected JSON") from error
    except RecursionError as error:
        raise NotPlainError(f"is nested too deeply; expected at most {MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer literal of thousands of digits
        raise NotPlainError(f"holds a number that is too long: {error}; expected a smaller one") from error
    return document, _faults(document, twice)


def check(document: object) -> Faults:
    """The lesser faults of a document that was decoded elsewhere. Raises NotPlainError as decode does."""
    return _faults(document, {})


def _faults(document: object, twice: Mapping[int, tuple[object, list[str]]]) -> Faults:
    faults = Faults()

    def report(place: Place, found: str, expected: str) -> None:
        faults.add("" if faults.is_full else _path(place), found, expected)

    todo: list[tuple[Place, object, int]] = [(None, document, 1)]
    seen = 0
    while todo:
        place, value, depth = todo.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise NotPlainError(f"is nested too deeply; expected at most {MAX_DEPTH} levels")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise NotPlainError(f"{_path(place) or 'the file'}: a key is not a string; expected JSON")
            for key in twice.get(id(value), (None, []))[1]:
                report((place, key), "the key is given twice", "it once")
            todo += [((place, key), child, depth + 1) for key, child in reversed(value.items())]
        elif isinstance(value, list):
            todo += [((place, i), child, depth + 1) for i, child in reversed([*enumerate(value)])]
        elif isinstance(value, float) and not math.isfinite(value):
            report(place, f"found {value}", "a finite number")
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            report(place, "found an integer beyond 2^53", "a smaller number")
        elif value is not None and not isinstance(value, (str, int, float)):
            where = _path(place) or "the file"
            raise NotPlainError(f"{where}: found a Python {type(value).__name__}; expected JSON")
        if seen + len(todo) > MAX_VALUES:
            raise NotPlainError(f"holds more than {MAX_VALUES} values; expected a few hundred")
    return faults


def _path(place: Place) -> str:
    keys: list[str | int] = []
    while place is not None:
        place, key = place
        keys.append(key)
    path = ""
    for key in reversed(keys):
        path = f"{path}[{key}]" if isinstance(key, int) else join(path, key)
    return path


def objects(value: Any, path: str, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object inside a plain ``value`` that has the ``key``, with its JSON path."""
    if isinstance(value, dict):
        if key in value:
            yield path, value
        for name, child in value.items():
            yield from objects(child, join(path, name), key)
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from objects(child, f"{path}[{i}]", key)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that ``word`` was probably meant to be, in any case; None if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in words}
    if len(word) > MAX_WORD:
        return None
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def join(path: str, key: str) -> str:
    """The JSON path of a key: ``a.b``, or ``a["b c"]`` where the key is not a plain word."""
    if not (key.isidentifier() and key.isascii()) or len(key) > MAX_WORD:
        return f"{path}[{show(key)}]"
    return f"{path}.{key}" if path else key


def listed(names: Iterable[str]) -> str:
    """Names for a message, separated by commas; those that are not plain words are quoted."""
    first = [*itertools.islice(names, MAX_LISTED + 1)]
    more = ["..."] if len(first) > MAX_LISTED else []
    return ", ".join([name if name.isidentifier() else show(name) for name in first[:MAX_LISTED]] + more)


def show(value: object) -> str:
    """A value for a message: as JSON, cut when long, with nothing that a terminal would act upon."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if not isinstance(value, str):
        return json.dumps(value, default=repr)
    text = value if len(value) <= 60 else f"{value[:57]}..."
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f'"{escaped}"'


class Reader:
    """Reads a document part by part and collects faults: what is wrong is reported and read as empty."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.fault = faults.add

    def record(
        self, value: Any, path: str, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> dict[str, Any]:
        """An object with exactly these keys; keys that do not belong are reported and left out."""
        if not isinstance(value, dict):
            self.fault(path, f"found {show(value)}", f"an object with {listed(required or optional)}")
            return {}
        known = (*required, *optional)
        for key in value:
            if key not in known:
                self.fault(join(path, key), "unknown key", f"one of {listed(known)}", key, known)
        for key in required:
            if key not in value:
                self.fault(path, f"{key} is missing", f"an object with {listed(required)}")
        return {key: value[key] for key in value if key in known}

    def child(
        self,
        parent: Mapping[str, Any],
        key: str,
        path: str,
        required: tuple[str, ...],
        optional: tuple[str, ...],
    ) -> dict[str, Any]:
        """The record under a key; a missing one was reported where the parent was read."""
        return self.record(parent[key], join(path, key), required, optional) if key in parent else {}

    def text(self, record: Mapping[str, Any], key: str, path: str, default: str) -> str:
        """A name: printable, not empty, without the slash that separates names in weight paths."""
        value = record.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip() or not value.isprintable() or "/" in value:
            self.fault(join(path, key), f"found {show(value)}", "a printable name without a slash")
            return default
        if len(value) > MAX_WORD:
            self.fault(join(path, key), f"{len(value)} characters", f"a name of at most {MAX_WORD}")
            return default
        return value

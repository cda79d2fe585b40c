"""JSON from anybody: bounded in size and depth, finite, every key once; and words for talking about it.

A document is called plain when it holds nothing but objects with string keys, lists, strings, booleans, null
and finite numbers of sane size. :func:`read`, :func:`decode` and :func:`check` raise :class:`NotPlainError`
when going on would make no sense, and return the lesser faults so that they can be reported with others.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "MAX_BYTES",
    "NotPlainError",
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


def decode(text: str) -> tuple[Any, list[str]]:
    """Decode JSON; returns the document and its lesser faults (keys given twice, unbounded numbers).

    Raises NotPlainError: not JSON (with line and column), too long, too deep, too many values.
    """
    if len(text) > MAX_BYTES:
        raise NotPlainError(f"is longer than {MAX_BYTES} characters; expected a few kilobytes of JSON")
    twice: list[tuple[object, str]] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in items:
            if key in made:
                twice.append((made, key))
            made[key] = value
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
    return document, list(_faults(document, twice))


def check(document: object) -> list[str]:
    """The lesser faults of a document that was decoded elsewhere. Raises NotPlainError as decode does."""
    return list(_faults(document, []))


def _faults(document: object, twice: list[tuple[object, str]]) -> Iterator[str]:
    todo: list[tuple[str, object, int]] = [("", document, 1)]
    seen = 0
    while todo:
        path, value, depth = todo.pop()
        place = path or "the file"
        seen += 1
        if depth > MAX_DEPTH:
            raise NotPlainError(f"is nested too deeply; expected at most {MAX_DEPTH} levels")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise NotPlainError(f"{place}: a key is not a string; expected JSON")
            yield from (
                f"{join(path, key)}: the key is given twice; expected it once"
                for owner, key in twice
                if owner is value
            )
            todo += [(join(path, key), child, depth + 1) for key, child in reversed(value.items())]
        elif isinstance(value, list):
            todo += [(f"{path}[{i}]", child, depth + 1) for i, child in reversed([*enumerate(value)])]
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{place}: found {value}; expected a finite number"
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            yield f"{place}: found an integer beyond 2^53; expected a smaller number"
        elif value is not None and not isinstance(value, (str, int, float)):
            raise NotPlainError(f"{place}: found a Python {type(value).__name__}; expected JSON")
        if seen + len(todo) > MAX_VALUES:
            raise NotPlainError(f"holds more than {MAX_VALUES} values; expected a few hundred")


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
    return ", ".join(name if name.isidentifier() else show(name) for name in [*names][:100])


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

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults

    def fault(self, path: str, found: str, expected: str, near: str | None = None) -> None:
        """Add a fault line: where, what was found, what was expected, the nearest valid word."""
        hint = f" (did you mean {show(near)}?)" if near is not None else ""
        self.faults.append(f"{path or 'the file'}: {found}; expected {expected}{hint}")

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
                self.fault(join(path, key), "unknown key", f"one of {listed(known)}", nearest(key, known))
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

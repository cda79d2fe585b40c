"""A look into an ONNX file without the onnx package: are all of its weights inside?

A tensor with external data names a file, and whoever loads the network would read that file. A bundle is one
file, so such a tensor is a mistake or an attack. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator

from attar.errors import BundleError

__all__ = ["check_self_contained"]

MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Message -> number of a field -> message in it, for every way that leads to a tensor."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
MAX_DEPTH = 64


class MalformedError(ValueError):
    """The bytes are no protobuf message."""


def check_self_contained(data: bytes, source: str) -> None:
    """Raise :class:`BundleError`, naming ``source``, unless ``data`` is a model without external data."""
    try:
        found = _has_external(memoryview(data), "model", 0)
    except MalformedError as error:
        raise BundleError(f"{source}: not an ONNX file, or damaged: {error}") from error
    if found:
        raise BundleError(f"{source}: a tensor lies in another file; a bundle holds all of its weights")


def _has_external(data: memoryview, message: str, depth: int) -> bool:
    """Whether a tensor anywhere in ``message`` has external data."""
    if depth > MAX_DEPTH:
        raise MalformedError(f"nested deeper than {MAX_DEPTH}")
    for number, value in _fields(data):
        if message == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
            return True
        inner = MESSAGES[message].get(number)
        if inner is not None:
            if not isinstance(value, memoryview):
                raise MalformedError(f"field {number} of a {message} is no message")
            if _has_external(value, inner, depth + 1):
                return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int for a varint, else its bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise MalformedError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise MalformedError(f"a field of {size} bytes at byte {at} of {len(data)}")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise MalformedError("cut short")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise MalformedError(f"a varint of more than ten bytes at byte {at}")

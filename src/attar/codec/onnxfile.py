"""A look into an ONNX file without the onnx package: are all of its weights inside, and what are its nodes?

A tensor with external data names a file, and whoever loads the network would read that file. A bundle is one
file, so such a tensor is a mistake or an attack. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar.errors import BundleError

__all__ = [
    "Graph",
    "MalformedError",
    "Node",
    "Tensor",
    "bodies",
    "check_self_contained",
    "fields",
    "read_graph",
    "read_node",
    "text",
]

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
INTEGERS = {6: ("<i4", 4, 5), 7: ("<i8", 8, 7)}
"""Types that sizes, axes and kernels are written in: NumPy's name, bytes, and the field that lists values."""
MOST_VALUES = 256
"""Constants of more values are weights, of which only the shape is read."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A constant: its shape, and its values where they are few integers."""

    shape: tuple[int, ...]
    values: NDArray[np.int64] | None = None


Attribute = int | float | bytes | tuple[int, ...] | Tensor


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. ``kind``: its operator, with the domain before it unless that is ONNX's own."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes in their order, the constants, and the shape of each input (-1: open)."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]


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
    for number, value in fields(data):
        if message == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
            return True
        inner = MESSAGES[message].get(number)
        if inner is not None:
            if not isinstance(value, memoryview):
                raise MalformedError(f"field {number} of a {message} is no message")
            if _has_external(value, inner, depth + 1):
                return True
    return False


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
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


def read_graph(data: bytes, source: str) -> Graph:
    """The graph of a model; raises :class:`BundleError`, naming ``source``."""
    try:
        nodes: list[Node] = []
        constants: dict[str, Tensor] = {}
        inputs: dict[str, tuple[int, ...]] = {}
        outputs: list[str] = []
        for graph in bodies(memoryview(data), 7):
            nodes += [read_node(value) for value in bodies(graph, 1)]
            constants |= {text(value, 8): _tensor(value) for value in bodies(graph, 5)}
            inputs |= {text(value, 1): _declared_shape(value) for value in bodies(graph, 11)}
            outputs += [text(value, 1) for value in bodies(graph, 12)]
    except MalformedError as error:
        raise BundleError(f"{source}: not an ONNX file, or damaged: {error}") from error
    free = {name: shape for name, shape in inputs.items() if name not in constants}
    return Graph(tuple(nodes), constants, free, tuple(outputs))


def read_node(data: memoryview) -> Node:
    """The operation in the bytes of a node; raises :class:`MalformedError`."""
    inputs = tuple(_decoded(value) for value in bodies(data, 1))
    outputs = tuple(_decoded(value) for value in bodies(data, 2))
    domain = text(data, 7)
    kind = text(data, 4) if domain in ("", "ai.onnx") else f"{domain}.{text(data, 4)}"
    attributes = {text(value, 1): _attribute(value) for value in bodies(data, 5)}
    return Node(kind, inputs, outputs, attributes)


def _attribute(data: memoryview) -> Attribute:
    """The value of an attribute; a list of floats, which nothing here asks for, becomes an empty tuple."""
    for tensor in bodies(data, 5):
        return _tensor(tensor)
    for string in bodies(data, 4):
        return bytes(string)
    for number in bodies(data, 2):
        return float(np.frombuffer(number, "<f4")[0]) if len(number) == 4 else ()
    numbers = _integers(data, 8)
    single = _integers(data, 3)
    return single[0] if single and not numbers else tuple(numbers)


def _tensor(data: memoryview) -> Tensor:
    shape = tuple(_integers(data, 1))
    if any(size < 0 for size in shape):
        raise MalformedError(f"a tensor of shape {shape}")
    kind = INTEGERS.get(next(iter(_integers(data, 2)), 0))
    count = math.prod(shape)
    if kind is None or count > MOST_VALUES:
        return Tensor(shape)
    name, size, field = kind
    raw = b"".join(bytes(part) for part in bodies(data, 9))
    if len(raw) == count * size:
        values = np.frombuffer(raw, name).astype(np.int64)
    else:
        values = np.array(_integers(data, field), dtype=np.int64)
    if values.size != count:
        raise MalformedError(f"a tensor of {count} integers has {values.size}")
    return Tensor(shape, values.reshape(shape))


def _declared_shape(data: memoryview) -> tuple[int, ...]:
    """Shape in a description of an input: of its type, the tensor, the shape, each dimension its number."""
    shape: list[int] = []
    for kind in bodies(data, 2):
        for tensor in bodies(kind, 1):
            for dimensions in bodies(tensor, 2):
                shape += [next(iter(_integers(size, 1)), -1) for size in bodies(dimensions, 1)]
    return tuple(shape)


def bodies(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """Every field of that number that has a length."""
    for number, value in fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _integers(data: memoryview, wanted: int) -> list[int]:
    """Every integer of the fields of that number, packed or one by one."""
    found: list[int] = []
    for number, value in fields(data):
        if number != wanted:
            continue
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            each, at = _varint(value, at)
            found.append(_signed(each))
    return found


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def text(data: memoryview, wanted: int) -> str:
    """The first field of that number, as text; empty where there is none."""
    return next((_decoded(value) for value in bodies(data, wanted)), "")


def _decoded(data: memoryview) -> str:
    return bytes(data).decode("utf-8", "replace")

"""Nodes that are put behind those of an ONNX graph, without the onnx package.

Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.container import write_varint
from attar.codec.onnxfile import Graph, Node, bodies, fields
from attar.codec.split import GRAPH, INITIALIZER, INPUT, NODE, OUTPUT, field

__all__ = ["FLOAT", "PARTS", "Tape", "UnknownGradientError", "extended"]

FLOAT, INT64 = 1, 7
PARTS = "parts of one axis"
"""Slices that are followed as one, in place of a node's kind."""


class UnknownGradientError(ValueError):
    """The network has an operation whose gradient is not known here."""


class Tape:
    """Collects nodes behind those of a graph: what is computed of its output, and the gradient.

    ``depends``: tensors that the input has a say in. ``last``: the output, and what is the same in another order.
    """

    def __init__(self, graph: Graph, by: str) -> None:
        self.graph = graph
        self.new: list[bytes] = []
        self.constants: list[bytes] = []
        self.after: list[Node] = []
        self.kernels: dict[str, tuple[int, ...]] = {}
        self.given: dict[str, list[str]] = {}
        self.count = 0
        self.depends = {by}
        self.last = set(graph.outputs)
        for node in reversed(graph.nodes):
            if node.kind in ("Transpose", "Reshape", "Identity") and self.last.intersection(node.outputs):
                self.last.add(node.inputs[0])
        for node in graph.nodes:
            if self.depends.intersection(node.inputs) and node.kind != "Shape":
                self.depends |= set(node.outputs)

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: int | Sequence[int]) -> str:
        """A node of one output, whose name is returned."""
        self.count += 1
        name = out or f"gradient/{self.count}"
        parts = [field(1, item.encode()) for item in inputs]
        parts += [field(2, name.encode()), field(4, kind.encode())]
        self.new.append(b"".join(parts + [_attribute(key, value) for key, value in attributes.items()]))
        return name

    def compute(self, kind: str, *inputs: str, **attributes: int | Sequence[int]) -> str:
        """:meth:`add` a node that the gradient goes back through."""
        name = self.add(kind, *inputs, out="", **attributes)
        kept = {key: value if isinstance(value, int) else tuple(value) for key, value in attributes.items()}
        self._computed(Node(kind, inputs, (name,), kept))
        return name

    def parts(self, values: str, axis: int, sizes: Sequence[int]) -> list[str]:
        """Consecutive parts of a tensor, all that the gradient goes back through."""
        edges = [0, *np.cumsum(sizes).tolist()]
        names = [
            self.add("Slice", values, *(self.constant([number]) for number in (start, end, axis)))
            for start, end in pairwise(edges)
        ]
        self._computed(Node(PARTS, (values,), tuple(names), {"axis": axis}))
        return names

    def _computed(self, node: Node) -> None:
        self.after.append(node)
        if self.depends.intersection(node.inputs):
            self.depends |= set(node.outputs)

    def constant(self, values: Sequence[int] | float) -> str:
        """A constant: int64, or a float32 without dimensions."""
        return self.array(np.asarray(values, np.float32 if isinstance(values, float) else "<i8"))

    def array(self, values: NDArray[Any]) -> str:
        """A constant of float32 or int64."""
        self.count += 1
        name = f"gradient/{self.count}"
        self.kernels[name] = values.shape
        shape = b"".join(write_varint(1 << 3) + write_varint(side) for side in values.shape)
        kind = write_varint(2 << 3) + write_varint(FLOAT if values.dtype == np.float32 else INT64)
        self.constants.append(shape + kind + field(8, name.encode()) + field(9, values.tobytes()))
        return name

    def give(self, name: str, gradient: str) -> None:
        """A part of the gradient by a tensor, which matters only if that depends on the input."""
        if name in self.depends:
            self.given.setdefault(name, []).append(gradient)

    def total(self, name: str) -> str:
        """The gradient by a tensor, of all that uses it."""
        parts = self.given.pop(name, [])
        if not parts:
            raise UnknownGradientError(f"the output does not depend on {name}")
        return parts[0] if len(parts) == 1 else self.add("Sum", *parts)


def extended(model: memoryview, tape: Tape, added: Sequence[str], results: Sequence[str]) -> bytes:
    """The model with what a tape has collected, inputs of the output's shape, and further outputs."""
    parts = []
    for number, value in fields(model):
        body = bytes(value) if not isinstance(value, int) else b""
        if number == GRAPH:
            output = next(bodies(memoryview(body), OUTPUT))
            element = field(2, next(bodies(output, 2)))  # its type
            new = [field(NODE, node) for node in tape.new]
            new += [field(INITIALIZER, constant) for constant in tape.constants]
            new += [field(INPUT, field(1, name.encode()) + element) for name in added]
            new += [field(OUTPUT, field(1, name.encode())) for name in results]
            body += b"".join(new)
        parts.append(
            write_varint(number << 3) + write_varint(value) if isinstance(value, int) else field(number, body)
        )
    return b"".join(parts)


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    parts = field(1, name.encode())
    if isinstance(value, int):
        return field(5, parts + write_varint(3 << 3) + _number(value) + _kind(2))
    return field(5, parts + b"".join(write_varint(8 << 3) + _number(each) for each in value) + _kind(7))


def _kind(number: int) -> bytes:
    return write_varint(20 << 3) + write_varint(number)


def _number(value: int) -> bytes:
    return write_varint(value & (1 << 64) - 1)

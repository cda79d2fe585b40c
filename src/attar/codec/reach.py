"""How far a network sees: which part of its input decides a part of its output, read from the ONNX graph.

A large image is sent through a network in tiles, each with a margin of real neighbours, so that every output is
that of the whole image. The margin is not tried out but derived, node by node: of every axis of every tensor
it is known how many input positions a step along it is (its *stride*), and that element k depends on no
others than ``k * stride + low .. k * stride + high``. That covers convolutions, poolings, pixel shuffles
written as Reshape and Transpose, and whatever works on each position alone. A node that may look further
(a mean over the image), or of which nothing is known, makes the network *unbounded*.

What lies beyond the border of a tensor is padding. A tile has such a border where the image has none, and its
padding must decide nothing that is kept: it lies outside of the tile by the same coordinates (checked where
padding is used), so whatever depends on it reaches beyond the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from attar.codec.onnxfile import MOST_VALUES, Graph
from attar.codec.reach_rules import RULES, SIZED_BY_INPUTS
from attar.codec.reach_values import EMPTY, Axis, State, UnboundedError, Value, constant

__all__ = ["Reach", "UnboundedError", "reach_of"]

SAMPLES = ((37, 41), (43, 50))
"""Sizes, in units of the caller, that the graph is followed with; what is derived must be the same for both."""
MOST_POSITIONS = 1 << 16
"""A reach beyond is as good as unbounded."""


@dataclass(frozen=True)
class Reach:
    """How the rows and columns of a network's output depend on those of its input.

    ``period``: shifting the input by this many positions shifts every tensor of the network by whole elements,
    so tiles begin and end at multiples of it.
    """

    rows: Axis
    columns: Axis
    period: tuple[int, int]

    def window(self, side: int, start: int, stop: int, size: int) -> tuple[int, int, int]:
        """Input positions ``first .. last - 1`` out of ``size`` that decide outputs ``start .. stop - 1``.

        With them comes the output that such a tile starts with.
        """
        axis, period = (self.rows, self.columns)[side], self.period[side]
        first = math.floor(start * axis.stride + axis.low) // period * period
        last = -(-(math.ceil((stop - 1) * axis.stride + axis.high) + 1) // period) * period
        first = min(max(first, 0), (size - 1) // period * period)
        return first, max(min(last, size), first + 1), int(first / axis.stride)


def reach_of(graph: Graph, unit: int) -> Reach:
    """The reach of a graph whose inputs are (B, H, W, C), all of one height and width, or have no rows.

    ``unit``: heights and widths are multiples of it. Raises :class:`UnboundedError`.
    """
    found = [_Walk(graph, tuple(unit * size for size in sample)).reach(unit) for sample in SAMPLES]
    if found[0] != found[1]:
        raise UnboundedError("depends on the size of the image")
    return found[0][0]


class _Walk:
    """Follows the nodes of a graph for one size of its inputs."""

    def __init__(self, graph: Graph, size: tuple[int, ...]) -> None:
        self.graph, self.size = graph, size
        self.values: dict[str, Value] = {name: constant(item) for name, item in graph.constants.items()}
        self.steps = [1, 1]
        self.state = State(size)

    def reach(self, unit: int) -> tuple[Reach, list[int]]:
        for name, shape in self.graph.inputs.items():
            self.values[name] = self._input(name, shape)
        for node in self.graph.nodes:
            rule = RULES.get(node.kind)
            if rule is None:
                raise UnboundedError(f"nothing is known of the operator {node.kind[:80]}")
            try:
                given = [self.values[name] if name else EMPTY for name in node.inputs]
                results = rule(self.state, node, given)
            except UnboundedError as error:
                raise UnboundedError(f"{node.kind}: {error}") from error
            except (LookupError, ArithmeticError, TypeError, ValueError) as error:
                raise UnboundedError(f"{node.kind}: arguments that are not understood") from error
            data = given[:1] if node.kind in SIZED_BY_INPUTS else given
            derived = node.kind == "Shape" or any(value.derived for value in data)
            for name, value in zip(node.outputs, results, strict=False):
                self.values[name] = self._kept(replace(value, derived=derived), node.kind)
        return self._result(unit), self.state.trail

    def _input(self, name: str, shape: Sequence[int]) -> Value:
        if len(shape) != 4:
            return Value(tuple(1 for _ in shape), (None,) * len(shape))
        if shape[3] < 1:
            raise UnboundedError(f"input {name}: its number of channels is open")
        sides = [Axis(side, Fraction(1), Fraction(0), Fraction(0)) for side in (0, 1)]
        return Value((1, *self.size, shape[3]), (None, *sides, None))

    def _kept(self, value: Value, kind: str) -> Value:
        if value.derived and (value.numbers is None or value.is_spatial):
            raise UnboundedError(f"{kind}: values that depend on the size of the image")
        if value.numbers is not None and value.numbers.size > MOST_VALUES:
            raise UnboundedError(f"{kind}: more than {MOST_VALUES} sizes")
        for axis in value.axes:
            if axis is not None:
                self.steps[axis.side] = math.lcm(self.steps[axis.side], axis.stride.numerator)
                far = (abs(axis.low), abs(axis.high), Fraction(self.steps[axis.side]))
                if max(far) > MOST_POSITIONS:
                    raise UnboundedError(f"{kind}: looks too far")
        if any(size < 1 for size in value.shape):
            raise UnboundedError(f"{kind}: an empty tensor")
        return value

    def _result(self, unit: int) -> Reach:
        if len(self.graph.outputs) != 1 or self.graph.outputs[0] not in self.values:
            raise UnboundedError("several outputs")
        output = self.values[self.graph.outputs[0]]
        rows, columns = output.axes[1:3] if len(output.axes) == 4 else (None, None)
        if rows is None or columns is None or (rows.side, columns.side) != (0, 1):
            raise UnboundedError("its output has no rows and columns")
        for axis, size in zip((rows, columns), output.shape[1:3], strict=True):
            if axis.stride * size != self.size[axis.side] or unit % self.steps[axis.side]:
                raise UnboundedError("sizes that do not follow the image's")
        return Reach(rows, columns, (self.steps[0], self.steps[1]))

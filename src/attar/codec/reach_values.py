"""What is known of the tensors of a network while its reach is derived; see :mod:`attar.codec.reach`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from attar.codec.onnxfile import Node, Tensor

__all__ = [
    "EMPTY",
    "Axis",
    "State",
    "UnboundedError",
    "Value",
    "constant",
    "integer_of",
    "integers_of",
    "known",
    "numbers_of",
    "places_of",
]


class UnboundedError(ValueError):
    """The text says which node looks at everything, or might."""


@dataclass(frozen=True)
class Axis:
    """Rows (``side`` 0) or columns (1) of the input, as an axis of some tensor has them.

    A step along the axis is ``stride`` input positions; element k depends on none but those from
    ``k * stride + low`` to ``k * stride + high``.
    """

    side: int
    stride: Fraction
    low: Fraction
    high: Fraction

    def shifted(self, by: int) -> Axis:
        """The axis when its element 0 becomes element ``by``."""
        return replace(self, low=self.low - by * self.stride, high=self.high - by * self.stride)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor: its shape, which of its axes are rows or columns of the input, and what it holds, if known.

    ``numbers``: of constants and of what is computed from shapes; the latter is ``derived``.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis | None, ...]
    numbers: NDArray[np.int64] | None = None
    derived: bool = False

    @property
    def is_spatial(self) -> bool:
        """Whether any of its axes is one of the input's."""
        return any(self.axes)


@dataclass(eq=False)
class State:
    """What the rules know beside the tensors. ``size``: height and width of the input.

    ``trail``: what was cut off at far ends, which no coordinate shows, and which may not depend on the size.
    """

    size: tuple[int, ...]
    trail: list[int] = field(default_factory=list)

    def pads(self, value: Value, place: int, before: int, after: int) -> None:
        """Refuse padding of an axis that would not lie outside of a tile, or that cuts off."""
        axis = value.axes[place]
        if before < 0 or after < 0:
            raise UnboundedError("negative padding")
        if axis is None:
            return
        end = value.shape[place] * axis.stride + axis.high
        if (before and axis.low >= axis.stride) or (after and end <= self.size[axis.side] - 1):
            raise UnboundedError("padding inside of the image")


EMPTY = Value((), ())


def constant(tensor: Tensor) -> Value:
    """A tensor of the graph that does not depend on the image."""
    return Value(tensor.shape, (None,) * len(tensor.shape), tensor.values)


def known(numbers: NDArray[np.int64]) -> Value:
    """Integers that have been computed."""
    return Value(numbers.shape, (None,) * numbers.ndim, numbers.astype(np.int64))


def numbers_of(given: Sequence[Value], place: int) -> list[int] | None:
    """The integers that an input holds, or None where it is not given; raises :class:`UnboundedError`."""
    if place >= len(given) or given[place] is EMPTY:
        return None
    found = given[place].numbers
    if found is None:
        raise UnboundedError("sizes that are computed from the image")
    return [int(number) for number in found.ravel()]


def integers_of(node: Node, name: str, default: Sequence[int]) -> list[int]:
    """An attribute that is a list of integers."""
    found = node.attributes.get(name, tuple(default))
    return list(found) if isinstance(found, tuple) else [int(found)]  # type: ignore[arg-type]


def integer_of(node: Node, name: str, default: int) -> int:
    """An attribute that is one integer."""
    return integers_of(node, name, [default])[0]


def places_of(axes: Sequence[int], count: int) -> list[int]:
    """Axes out of ``count``, the negative ones counted from the end; raises :class:`UnboundedError`."""
    if any(not -count <= axis < count for axis in axes):
        raise UnboundedError(f"axes {list(axes)} of {count}")
    return [axis % count for axis in axes]

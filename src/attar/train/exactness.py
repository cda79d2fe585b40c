"""A proof, node by node, that an ONNX graph computes integers exactly in float32, whatever the order of
its sums.

Of every tensor it is known which power of two its values are multiples of (``2^-bits``) and how large they
can be. A sum of such numbers is exact in float32, in any order and with every intermediate result, as long
as the sum of the magnitudes is below ``2^(24 - bits)``. Balle et al. 2019, "Integer networks for data
compression with latent-variable models", give the reason for wanting this; the bound is that of a 24-bit
significand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from attar.errors import ExportError

SIGNIFICAND_BITS = 24
ANY_INTEGER = float(1 << 31)
"""Bound of the graphs' inputs: symbols are int32."""
LARGEST_OUTPUT = 255.0

MOVES = (
    "Transpose",
    "Reshape",
    "Slice",
    "Identity",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "DepthToSpace",
    "SpaceToDepth",
)
"""Operators that move values and do not change them (a Cast here is to the float32 that it comes from)."""


@dataclass(frozen=True)
class Known:
    """Of each channel, or of all values (one entry): multiples of ``2^-bits``, at most ``bound`` in
    magnitude."""

    bits: np.ndarray
    bound: np.ndarray

    @classmethod
    def integers(cls, bound: float) -> Known:
        """Whole numbers of at most ``bound``."""
        return cls(np.zeros(1, int), np.array([bound]))


def prove(graph: bytes, name: str, bounds: Mapping[str, float]) -> None:
    """Check every node of a graph whose inputs are whole numbers, of at most ``bounds`` or else int32.

    Raises:
        ExportError: for the first node whose result might not be exact, or that no rule is known for; or
        unless
            the outputs are whole numbers of at most 255.
    """
    model = onnx.load_from_string(graph)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known: dict[str, Known | None] = {
        item.name: Known.integers(bounds.get(item.name, ANY_INTEGER)) for item in model.graph.input
    }
    for node in model.graph.node:
        tracked = [known.get(item) for item in node.input if item not in constants]
        if not any(item is not None for item in tracked) or node.op_type == "Shape":
            known.update(dict.fromkeys(node.output))  # sizes, which are computed in int64
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            raise ExportError(
                f"{name}: nothing is known of the operator {node.op_type} on integers: not written"
            )
        try:
            known[node.output[0]] = rule(node, known, constants)
        except InexactError as error:
            raise ExportError(f"{name}: {node.op_type} {node.output[0]!r} {error}: not written") from error
    for item in model.graph.output:
        result = known.get(item.name)
        if result is None or result.bits.max() > 0 or result.bound.max() > LARGEST_OUTPUT:
            raise ExportError(f"{name}: its outputs are not shown to be whole numbers of 8 bits: not written")


class InexactError(ValueError):
    """A result that float32 might round; the text continues 'the operator ...'."""


Tensors = Mapping[str, Any]


def _check(bits: np.ndarray, bound: np.ndarray) -> Known:
    """The result, if its magnitude leaves it exactly representable."""
    largest = float((bound * 2.0**bits).max())
    if not largest < 2.0**SIGNIFICAND_BITS:
        raise InexactError(
            f"can reach {largest:.4g} steps, beyond the 2^{SIGNIFICAND_BITS} that float32 holds exactly"
        )
    return Known(bits, bound)


def _bits_of(values: np.ndarray) -> np.ndarray:
    """For each row, the least number of bits below the point that its values need."""
    rows = values.astype(np.float64).reshape(len(values), -1)
    bits = np.zeros(len(rows), int)
    for place in range(SIGNIFICAND_BITS + 1):
        scaled = rows * 2.0**place
        bits[(scaled != np.rint(scaled)).any(axis=1)] = place + 1
    if bits.max(initial=0) > SIGNIFICAND_BITS:
        raise InexactError("has constants that are no integers times a power of two")
    return bits


def _single(node: Any, known: Tensors, position: int) -> Known:
    """An input that must be tracked and be one thing for all channels."""
    found = known.get(node.input[position])
    if not isinstance(found, Known) or len(found.bits) != 1:
        raise InexactError("has an input that is not known")
    return found


def _convolution(node: Any, known: Tensors, constants: Tensors) -> Known:
    given = _single(node, known, 0)
    weights = constants.get(node.input[1])
    if weights is None or (len(node.input) > 2 and node.input[2] not in constants):
        raise InexactError("has weights that are no constants")
    bias = constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weights))
    bits = np.maximum(_bits_of(weights) + given.bits, _bits_of(bias))
    total = np.abs(weights.astype(np.float64)).reshape(len(weights), -1).sum(axis=1) * given.bound
    return _check(bits, total + np.abs(bias.astype(np.float64)))


def _addition(node: Any, known: Tensors, constants: Tensors) -> Known:
    place = next((k for k, item in enumerate(node.input) if item in constants), None)
    if place is None:
        left, right = _single(node, known, 0), _single(node, known, 1)
        return _check(np.maximum(left.bits, right.bits), left.bound + right.bound)
    given, added = known[node.input[1 - place]], constants[node.input[place]].reshape(-1)
    if len(given.bits) not in (1, len(added)) and len(added) != 1:
        raise InexactError("adds constants that do not fit the channels")
    return _check(np.maximum(given.bits, _bits_of(added)), given.bound + np.abs(added.astype(np.float64)))


def _scaling(node: Any, known: Tensors, constants: Tensors) -> Known:
    place = next((k for k, item in enumerate(node.input) if item in constants), None)
    if place is None:
        raise InexactError("multiplies two results")
    factor = constants[node.input[place]].reshape(-1)
    given = _single(node, known, 1 - place)
    if len(factor) != 1:
        raise InexactError("multiplies channels by different constants")
    return _check(given.bits + _bits_of(factor), given.bound * abs(float(factor[0])))


def _clip(node: Any, known: Tensors, constants: Tensors) -> Known:
    given = known[node.input[0]]
    limits = [constants[item] for item in node.input[1:] if item in constants]
    if len(limits) != 2:
        raise InexactError("clips on one side only, or to no constants")
    ends = np.array([float(limit) for limit in limits])
    return Known(
        np.maximum(given.bits, _bits_of(ends).max()).max(keepdims=True), np.abs(ends).max(keepdims=True)
    )


def _floor(node: Any, known: Tensors, constants: Tensors) -> Known:
    del constants
    return Known.integers(float(np.ceil(known[node.input[0]].bound.max())))


def _same(node: Any, known: Tensors, constants: Tensors) -> Known:
    del constants
    found = known[node.input[0]]
    if not isinstance(found, Known):
        raise InexactError("has an input that is not known")
    return found


def _together(node: Any, known: Tensors, constants: Tensors) -> Known:
    if any(item in constants for item in node.input):
        raise InexactError("joins constants")
    parts = [_single(node, known, place) for place in range(len(node.input))]
    return Known(max(part.bits for part in parts), max(part.bound for part in parts))


RULES: Mapping[str, Callable[[Any, Tensors, Tensors], Known]] = {
    "Conv": _convolution,
    "Add": _addition,
    "Mul": _scaling,
    "Clip": _clip,
    "Floor": _floor,
    "Abs": _same,
    "Relu": _same,
    "Concat": _together,
    **dict.fromkeys(MOVES, _same),
}

"""What each ONNX operator does to the reach of a network: the rules that :mod:`attar.codec.reach` applies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from attar.codec.onnxfile import Node, Tensor
from attar.codec.reach_values import (
    EMPTY,
    Axis,
    State,
    UnboundedError,
    Value,
    constant,
    integer_of,
    integers_of,
    known,
    numbers_of,
    places_of,
)

__all__ = ["RULES", "SIZED_BY_INPUTS"]


def _joined(values: Sequence[Value]) -> Value:
    """Elementwise: shapes broadcast, rows with rows and columns with columns."""
    count = max(len(value.shape) for value in values)
    shape, axes = [], []
    for place in range(-count, 0):
        found = [(v.shape[place], v.axes[place]) for v in values if len(v.shape) >= -place]
        size = max(size for size, _ in found)
        if any(each not in (1, size) for each, _ in found):
            raise UnboundedError("shapes that do not fit")
        spatial = [axis for each, axis in found if axis is not None]
        if spatial and any(axis is None and each != 1 for each, axis in found):
            raise UnboundedError("rows or columns with something else")
        if len({(axis.side, axis.stride) for axis in spatial}) > 1:
            raise UnboundedError("rows or columns of different strides")
        shape.append(size)
        axes.append(
            replace(spatial[0], low=min(a.low for a in spatial), high=max(a.high for a in spatial))
            if spatial
            else None
        )
    return Value(tuple(shape), tuple(axes))


def _elementwise(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    arithmetic = ARITHMETIC.get(node.kind)
    present = [value for value in given if value is not EMPTY]
    if arithmetic is not None and all(value.numbers is not None for value in present):
        with np.errstate(divide="raise", invalid="raise"):
            return [known(np.asarray(arithmetic(*(value.numbers for value in present))))]
    return [_joined(present)]


def _alone(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    """What treats each element for itself."""
    del state
    return [given[0] if node.kind in ("Cast", "Identity") else replace(given[0], numbers=None)]


def _shape(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    count = len(given[0].shape)
    start, end = integer_of(node, "start", 0), integer_of(node, "end", count)
    return [known(np.array(given[0].shape[start:end], dtype=np.int64))]


def _constant_node(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state, given
    found = node.attributes.get("value")
    if isinstance(found, Tensor):
        return [constant(found)]
    whole = [node.attributes[name] for name in ("value_int", "value_ints") if name in node.attributes]
    return [known(np.array(whole[0], dtype=np.int64)) if whole else Value((), ())]


def _transpose(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    (value,) = given
    order = places_of(integers_of(node, "perm", range(len(value.shape))[::-1]), len(value.shape))
    numbers = None if value.numbers is None else value.numbers.transpose(order)
    return [Value(tuple(value.shape[k] for k in order), tuple(value.axes[k] for k in order), numbers)]


def _reshape(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    value, wanted = given[0], numbers_of(given, 1) or []
    total = math.prod(value.shape)
    if not integer_of(node, "allowzero", 0):
        wanted = [value.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    rest = math.prod(size for size in wanted if size != -1)
    wanted = [total // rest if size == -1 else size for size in wanted]
    if math.prod(wanted) != total:
        raise UnboundedError("shapes that do not fit")
    if not value.is_spatial:
        numbers = None if value.numbers is None else value.numbers.reshape(wanted)
        return [Value(tuple(wanted), (None,) * len(wanted), numbers)]
    return [Value(tuple(wanted), tuple(_regrouped(value, wanted)))]


def _regrouped(value: Value, wanted: Sequence[int]) -> list[Axis | None]:
    """Axes after a reshape: one is split into several, several become one, or nothing changes."""
    axes: list[Axis | None] = [None] * len(wanted)
    old = [place for place, size in enumerate(value.shape) if size > 1]
    new = [place for place, size in enumerate(wanted) if size > 1]
    while old:
        left, right = [old.pop(0)], [new.pop(0)]
        while (a := math.prod(value.shape[k] for k in left)) != (b := math.prod(wanted[k] for k in right)):
            (left if a < b else right).append((old if a < b else new).pop(0))
        first = value.axes[left[0]]
        if any(value.axes[place] for place in left[1:]) or (first and min(len(left), len(right)) > 1):
            raise UnboundedError("rows or columns mixed with something else")
        if first:
            inner = math.prod(wanted[k] for k in right[1:]), math.prod(value.shape[k] for k in left[1:])
            axes[right[0]] = _merged(_split(first, inner[0]), inner[1])
    return axes


def _split(axis: Axis, factor: int) -> Axis:
    """The outer of two axes, when blocks of ``factor`` become the inner."""
    return replace(axis, stride=axis.stride * factor, high=axis.high + (factor - 1) * axis.stride)


def _merged(axis: Axis, factor: int) -> Axis:
    """One axis of an axis and ``factor`` others within each of its positions."""
    fine = axis.stride / factor
    return replace(axis, stride=fine, low=axis.low - (factor - 1) * fine)


def _blocks(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    """DepthToSpace and SpaceToDepth, channels first."""
    del state
    (value,), factor = given, integer_of(node, "blocksize", 0)
    batch, channels, *sizes = value.shape
    change, up = (_merged, 1) if node.kind == "DepthToSpace" else (_split, -1)
    if value.axes[1] or factor < 1:
        raise UnboundedError("rows or columns mixed with something else")
    axes = [axis and change(axis, factor) for axis in value.axes[2:]]
    if up == 1:
        return [Value((batch, channels // factor**2, *(n * factor for n in sizes)), (None, None, *axes))]
    return [Value((batch, channels * factor**2, *(n // factor for n in sizes)), (None, None, *axes))]


def _squeeze(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    value = given[0]
    chosen = numbers_of(given, 1)
    chosen = integers_of(node, "axes", ()) if chosen is None else chosen
    shape, axes = list(value.shape), list(value.axes)
    if node.kind == "Unsqueeze":
        for place in sorted(places_of(chosen, len(shape) + len(chosen))):
            shape.insert(place, 1)
            axes.insert(place, None)
    else:
        every = chosen or [place for place, size in enumerate(shape) if size == 1]
        for place in sorted(places_of(every, len(shape)), reverse=True):
            if shape.pop(place) != 1 or axes.pop(place):
                raise UnboundedError("an axis that is not one")
    numbers = None if value.numbers is None else value.numbers.reshape(shape)
    return [Value(tuple(shape), tuple(axes), numbers)]


def _concat(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    (place,) = places_of([integer_of(node, "axis", 0)], len(given[0].shape))
    if all(value.numbers is not None for value in given):
        return [known(np.concatenate([value.numbers for value in given if value.numbers is not None], place))]
    if any(value.axes[place] for value in given):
        raise UnboundedError("joins along rows or columns")
    whole = _joined([replace(v, shape=(*v.shape[:place], 1, *v.shape[place + 1 :])) for v in given])
    if any(len(v.shape) != len(whole.shape) for v in given):
        raise UnboundedError("shapes that do not fit")
    size = sum(value.shape[place] for value in given)
    return [replace(whole, shape=(*whole.shape[:place], size, *whole.shape[place + 1 :]))]


def _gather(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    value, chosen = given[0], given[1]
    (place,) = places_of([integer_of(node, "axis", 0)], len(value.shape))
    if chosen.is_spatial or value.axes[place]:
        raise UnboundedError("picks among rows or columns")
    if value.numbers is not None and chosen.numbers is not None:
        return [known(np.take(value.numbers, chosen.numbers, axis=place))]
    shape = (*value.shape[:place], *chosen.shape, *value.shape[place + 1 :])
    return [Value(shape, (*value.axes[:place], *chosen.axes, *value.axes[place + 1 :]))]


def _split_node(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    value = given[0]
    (place,) = places_of([integer_of(node, "axis", 0)], len(value.shape))
    if value.axes[place]:
        raise UnboundedError("splits rows or columns")
    size, count = value.shape[place], len(node.outputs)
    each = -(-size // count)
    even = [min(each, size - each * k) for k in range(count)]
    sizes = numbers_of(given, 1) or integers_of(node, "split", even)
    return [Value((*value.shape[:place], each, *value.shape[place + 1 :]), value.axes) for each in sizes]


def _slice(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    value = given[0]
    starts, ends = numbers_of(given, 1), numbers_of(given, 2)
    starts, ends = starts or integers_of(node, "starts", ()), ends or integers_of(node, "ends", ())
    axes = numbers_of(given, 3) or integers_of(node, "axes", range(len(starts)))
    steps = numbers_of(given, 4) or [1] * len(starts)
    index = [slice(None)] * len(value.shape)
    shape, spread = list(value.shape), list(value.axes)
    for place, *bounds in zip(places_of(axes, len(shape)), starts, ends, steps, strict=True):
        start, end, step = (None if abs(bound) > 1 << 60 else bound for bound in bounds)
        index[place] = slice(start, end, step)
        chosen = range(shape[place])[index[place]]
        axis = spread[place]
        if axis is not None:
            if chosen.step != 1:
                raise UnboundedError("skips rows or columns")
            state.trail.append(shape[place] - chosen.stop)
            spread[place] = axis.shifted(-chosen.start)
        shape[place] = len(chosen)
    numbers = None if value.numbers is None else value.numbers[tuple(index)]
    return [Value(tuple(shape), tuple(spread), numbers)]


def _pad(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    value, count = given[0], len(given[0].shape)
    if node.attributes.get("mode", b"constant") not in (b"constant", b"edge"):
        raise UnboundedError("padding that mirrors")
    amounts = numbers_of(given, 1) or integers_of(node, "pads", ())
    places = places_of(numbers_of(given, 3) or range(count), count)
    shape, axes = list(value.shape), list(value.axes)
    for number, place in enumerate(places):
        before, after = amounts[number], amounts[number + len(places)]
        state.pads(value, place, before, after)
        axis = axes[place]
        axes[place] = axis and axis.shifted(before)
        shape[place] += before + after
    return [Value(tuple(shape), tuple(axes))]


def _sliding(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    """Convolution, its transpose, and pooling; channels first."""
    value = given[0]
    pooled = node.kind.endswith("Pool")
    weights = () if pooled else given[1].shape
    count = len(value.shape) - 2
    if value.axes[0] or value.axes[1] or any(item.is_spatial for item in given[1:]):
        raise UnboundedError("rows or columns as channels")
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UnboundedError("padding that is left to the runtime")
    if "output_shape" in node.attributes or integer_of(node, "ceil_mode", 0):
        raise UnboundedError("sizes that are rounded up or given")
    kernel = integers_of(node, "kernel_shape", weights[2:])
    steps, dilations = (integers_of(node, name, [1] * count) for name in ("strides", "dilations"))
    pads, more = integers_of(node, "pads", [0] * 2 * count), integers_of(node, "output_padding", [0] * count)
    transposed = node.kind == "ConvTranspose"
    group = integer_of(node, "group", 1)
    channels = value.shape[1] if pooled else weights[1] * group if transposed else weights[0]
    shape = [value.shape[0], channels]
    axes: list[Axis | None] = [None, None]
    for k, (axis, n) in enumerate(zip(value.axes[2:], value.shape[2:], strict=True)):
        span, before, after = (kernel[k] - 1) * dilations[k], pads[k], pads[k + count]
        if min(kernel[k], steps[k], dilations[k]) < 1 or min(before, after) < 0:
            raise UnboundedError("a kernel without extent")
        if transposed:
            state.pads(value, k + 2, 1, 1)
            shape.append((n - 1) * steps[k] + more[k] + span + 1 - before - after)
            axes.append(axis and _upsampled(axis, steps[k], before, span))
        else:
            state.pads(value, k + 2, before, after)
            shape.append((n + before + after - span - 1) // steps[k] + 1)
            axes.append(axis and _convolved(axis, steps[k], before, span))
    return [Value(tuple(shape), tuple(axes))]


def _convolved(axis: Axis, step: int, before: int, span: int) -> Axis:
    low, high = axis.low - before * axis.stride, axis.high + (span - before) * axis.stride
    return replace(axis, stride=axis.stride * step, low=low, high=high)


def _upsampled(axis: Axis, step: int, before: int, span: int) -> Axis:
    fine = axis.stride / step
    return replace(axis, stride=fine, low=axis.low + (before - span) * fine, high=axis.high + before * fine)


def _product(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    """A matrix of weights on the last axis."""
    del state, node
    value, weights = given
    if weights.is_spatial or len(weights.shape) != 2 or value.axes[-1] is not None:
        raise UnboundedError("rows or columns summed up")
    return [Value((*value.shape[:-1], weights.shape[1]), value.axes)]


def _normalised(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    """What looks at all axes from one on, and keeps the shape."""
    del state
    value = given[0]
    (first,) = places_of([integer_of(node, "axis", -1)], len(value.shape))
    if any(value.axes[first:]) or any(item.is_spatial for item in given[1:]):
        raise UnboundedError("looks at all rows or columns")
    return [value]


def _reduced(state: State, node: Node, given: Sequence[Value]) -> list[Value]:
    del state
    value = given[0]
    listed = numbers_of(given, 1) or integers_of(node, "axes", range(len(value.shape)))
    chosen = set(places_of(listed, len(value.shape)))
    if any(value.axes[place] for place in chosen):
        raise UnboundedError("looks at all rows or columns")
    keep = integer_of(node, "keepdims", 1)
    left = [place for place in range(len(value.shape)) if keep or place not in chosen]
    shape = tuple(1 if place in chosen else value.shape[place] for place in left)
    return [Value(shape, tuple(value.axes[place] for place in left))]


REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")
SIZED_BY_INPUTS = frozenset(("Reshape", "Slice", "Pad", "Split", "Squeeze", "Unsqueeze", *REDUCTIONS))
"""Operators whose inputs after the first are sizes and places, not values."""
Rule = Callable[[State, Node, Sequence[Value]], list[Value]]
ARITHMETIC: Mapping[str, Callable[..., NDArray[np.int64]]] = MappingProxyType(
    {
        "Add": np.add,
        "Sub": np.subtract,
        "Mul": np.multiply,
        "Div": lambda a, b: np.fix(a / b),
        "Mod": np.mod,
        "Max": np.maximum,
        "Min": np.minimum,
        "Neg": np.negative,
        "Abs": np.abs,
    }
)
"""What is computed with shapes."""
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys((*ARITHMETIC, "Pow", "PRelu", "Where", "Greater", "Less", "Equal"), _elementwise),
        **dict.fromkeys(
            (
                *(
                    "Cast",
                    "Identity",
                    "Relu",
                    "LeakyRelu",
                    "Elu",
                    "Selu",
                    "Gelu",
                    "HardSwish",
                    "Mish",
                    "Clip",
                ),
                *("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Exp", "Log", "Sqrt"),
                *("Floor", "Ceil", "Round", "Reciprocal", "Sign", "BatchNormalization", "Dropout"),
            ),
            _alone,
        ),
        **dict.fromkeys(("Conv", "ConvTranspose", "MaxPool", "AveragePool"), _sliding),
        "LayerNormalization": _normalised,
        **dict.fromkeys(REDUCTIONS, _reduced),
        **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
        **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
        "Shape": _shape,
        "Constant": _constant_node,
        "Transpose": _transpose,
        "Reshape": _reshape,
        "Concat": _concat,
        "Gather": _gather,
        "Split": _split_node,
        "Slice": _slice,
        "Pad": _pad,
        "MatMul": _product,
    }
)
"""Operators that are understood."""

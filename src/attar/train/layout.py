"""Rewrites of an exported graph that let ONNX Runtime stay in its blocked layout from convolution to convolution.

ONNX Runtime computes convolutions on blocks of 16 channels, and reorders tensors around every node that cannot:
a ``Split`` of channels, a ``Transpose``. A gated block has one of each, and half a dozen passes over memory with
them. So here the two halves of a gate become convolutions of their own, and sums are made where channels come
first. What is computed stays the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
"""Permutations of axes from channels first to channels last, and back."""


def blocked(graph: bytes) -> bytes:
    """The graph with split convolutions parted and transpositions moved behind sums and products."""
    for rewrite in (_part_convolutions, _sink_transpositions):
        model = onnx.load_from_string(graph)
        model = onnx.shape_inference.infer_shapes(model)
        nodes = _alive(model.graph, list(rewrite(model.graph)))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        del model.graph.value_info[:]
        onnx.checker.check_model(model)
        graph = model.SerializeToString()
    return bytes(graph)


def _alive(graph: Any, nodes: list[Any]) -> list[Any]:
    """Copies of those nodes that lead to an output; ONNX Runtime would compute the others, too."""
    wanted, kept = {item.name for item in graph.output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    return kept[::-1]


def _part_convolutions(graph: Any) -> Iterator[Any]:
    """A 1x1 and a depthwise convolution in front of a Split in two -> two convolutions of each kind.

    The gate's Sigmoid can then be computed with its convolution, and nothing is reordered.
    """
    constants = {item.name: item for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(item.name for item in graph.output)
    parted: dict[str, list[Any]] = {}
    gone: set[str] = set()
    for node in graph.node:
        spread = makers.get(node.input[0]) if node.op_type == "Split" else None
        expand = makers.get(spread.input[0]) if spread is not None else None
        if spread is None or expand is None or len(node.output) != 2 or attribute(node, "axis") != 1:
            continue
        pair = (expand, spread)
        if any(item.op_type != "Conv" or uses[item.output[0]] != 1 for item in pair):
            continue
        if any(name not in constants for item in pair for name in item.input[1:]):
            continue
        channels = constants[spread.input[1]].dims[0]
        if attribute(expand, "group", 1) != 1 or attribute(spread, "group", 1) != channels or channels % 2:
            continue
        halves = _halves(node, constants)
        if halves is not None and halves != [channels // 2] * 2:
            continue
        made = []
        for half, output in enumerate(node.output):
            middle = f"{expand.output[0]}/half{half}"
            made.append(_half(graph, constants, expand, half, expand.input[0], middle, 1))
            made.append(_half(graph, constants, spread, half, middle, output, channels // 2))
        parted[node.output[0]] = made
        gone |= {expand.output[0], spread.output[0]}
    for node in graph.node:
        if node.output[0] in parted:
            yield from parted[node.output[0]]
        elif node.output[0] not in gone:
            yield node


def _halves(split: Any, constants: dict[str, Any]) -> list[int] | None:
    """Channels of the outputs of a Split where it says them: None is equal parts."""
    sizes = split.input[1] if len(split.input) > 1 else ""
    if not sizes:
        return None
    return numpy_helper.to_array(constants[sizes]).tolist() if sizes in constants else []


def _half(
    graph: Any, constants: dict[str, Any], node: Any, half: int, given: str, made: str, groups: int
) -> Any:
    """The convolution that makes one half of the outputs of another."""
    names = []
    for name in node.input[1:]:
        values = np.split(numpy_helper.to_array(constants[name]), 2)[half]
        names.append(f"{name}/half{half}")
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), names[-1]))
    kept = {item.name: helper.get_attribute_value(item) for item in node.attribute if item.name != "group"}
    return helper.make_node("Conv", [given, *names], [made], made, group=groups, **kept)


def _sink_transpositions(graph: Any) -> Iterator[Any]:
    """Add and Mul of tensors whose channels were just moved to the end: before, and the move after them."""
    constants = {item.name: item for item in graph.initializer}
    ranks = {
        item.name: len(item.type.tensor_type.shape.dim)
        for item in (*graph.value_info, *graph.input, *graph.output)
        if item.type.tensor_type.HasField("shape")
    }
    first: dict[str, str] = {}  # tensors with channels last -> the same with channels first
    moved: set[str] = set()  # those that a Transpose made
    same: dict[str, str] = {}
    outputs = {item.name for item in graph.output}
    summed = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    channels = {
        node.input[0]: constants[node.input[1]].dims[1]
        for node in graph.node
        if node.op_type == "Conv" and attribute(node, "group", 1) == 1 and node.input[1] in constants
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        axes = attribute(node, "perm") if node.op_type == "Transpose" else None
        if axes == TO_FIRST and node.input[0] in first and node.output[0] not in outputs:
            same[node.output[0]] = first[node.input[0]]
            continue
        if axes == TO_FIRST:
            first.setdefault(node.input[0], node.output[0])
            if node.input[0] in summed and node.output[0] in channels:
                yield from _in_blocks(graph, node, channels[node.output[0]])
                continue
        elif axes == TO_LAST:
            first[node.output[0]] = node.input[0]
            moved.add(node.output[0])
        if node.op_type not in ("Add", "Mul") or not moved.intersection(node.input):
            yield node
            continue
        given = []
        for name in node.input:
            if name in constants and len(constants[name].dims) == 1:  # a bias
                given.append(f"{name}/first")
                if all(item.name != given[-1] for item in graph.initializer):
                    values = numpy_helper.to_array(constants[name]).reshape(-1, 1, 1)
                    graph.initializer.append(numpy_helper.from_array(values, given[-1]))
            elif name in first:
                given.append(first[name])
            elif ranks.get(name) == 4:
                first[name] = f"{name}/first"
                given.append(first[name])
                yield helper.make_node("Transpose", [name], [first[name]], perm=TO_FIRST)
        if len(given) < 2:
            yield node
            continue
        output = node.output[0]
        first[output] = f"{output}/first"
        moved.add(output)
        yield helper.make_node(node.op_type, given, [first[output]], node.name)
        yield helper.make_node("Transpose", [first[output]], [output], perm=TO_LAST)


def _in_blocks(graph: Any, move: Any, channels: int) -> Iterator[Any]:
    """A Transpose to channels first, and a convolution that changes nothing, whose output lies in blocks.

    A sum of one tensor in blocks and one that is not is made outside of them, and so are all that follow.
    """
    (output,) = move.output
    weights = numpy_helper.from_array(np.ones((channels, 1, 1, 1), np.float32), f"{output}/ones")
    graph.initializer.append(weights)
    yield helper.make_node("Transpose", move.input, [f"{output}/plain"], move.name, perm=TO_FIRST)
    yield helper.make_node("Conv", [f"{output}/plain", weights.name], [output], group=channels)


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    found = (helper.get_attribute_value(item) for item in node.attribute if item.name == name)
    return next(found, default)

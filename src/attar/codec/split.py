"""A network in two halves: what is the same whatever an input is, and what must be done for each of its values.

::

    image --early--> tensors of the cut --late(quality)--> latent

A search for a quality runs the early half once. The halves are made of the bytes of the network's own nodes and
weights, copied as they are, with new inputs and outputs where it is cut; field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attar.codec.container import write_varint
from attar.codec.onnxfile import MalformedError, Node, bodies, fields, read_node, text

__all__ = ["GRAPH", "INITIALIZER", "INPUT", "NODE", "OUTPUT", "Halves", "field", "split"]

NODE, INITIALIZER, SPARSE, INPUT, OUTPUT = 1, 5, 15, 11, 12
"""Fields of a graph."""
VERSION, GRAPH, OPSET, FUNCTION = 1, 7, 8, 25
"""Fields of a model."""
SUBGRAPHS = (6, 11)
"""Fields of an attribute that hold graphs, whose nodes may read any tensor outside of them."""
ELEMENTS = {
    "tensor(float)": 1,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(bool)": 9,
    "tensor(float16)": 10,
}
"""ONNX Runtime's names of the types that may be cut, and ONNX's numbers of them."""
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""An early half without any of these is not worth a second network."""
CONSTANT, EARLY, LATE = range(3)


@dataclass(frozen=True)
class Halves:
    """``early``: the model that gives the tensors ``cut``, in this order."""

    cut: tuple[str, ...]
    early: bytes
    shared: bytes
    parts: tuple[bytes, ...]

    def late(self, types: Sequence[str]) -> bytes | None:
        """The model that goes on from the cut, whose tensors have these types (ONNX Runtime's names).

        None where a type is none that can be handed over.
        """
        if any(kind not in ELEMENTS for kind in types):
            return None
        inputs = [
            field(INPUT, _declared(name, ELEMENTS[kind])) for name, kind in zip(self.cut, types, strict=True)
        ]
        return self.shared + field(GRAPH, b"".join((*self.parts, *inputs)))


def split(data: bytes, changing: str) -> Halves | None:
    """Cut an ONNX model before the first uses of the input ``changing``; None where that is not worth it.

    None also where the model cannot be followed: whoever runs it whole will say what is wrong with it.
    """
    try:
        return _split(memoryview(data), changing)
    except MalformedError:
        return None


@dataclass(frozen=True, eq=False)
class _Step:
    """A node, its bytes, and when its results are known."""

    node: Node
    raw: memoryview
    when: int


def _split(model: memoryview, changing: str) -> Halves | None:
    graphs = list(bodies(model, GRAPH))
    if len(graphs) != 1 or next(bodies(graphs[0], SPARSE), None) is not None:
        return None
    graph = graphs[0]
    weights = {text(raw, 8): raw for raw in bodies(graph, INITIALIZER)}
    inputs = {text(raw, 1): raw for raw in bodies(graph, INPUT)}
    outputs = [(text(raw, 1), raw) for raw in bodies(graph, OUTPUT)]
    known = dict.fromkeys(inputs, EARLY) | dict.fromkeys(weights, CONSTANT)
    if len(outputs) != 1 or known.get(changing) != EARLY:
        return None
    steps = _steps(graph, known | {changing: LATE})
    if steps is None:
        return None
    (result, declared), by_name = outputs[0], {name: step for step in steps for name in step.node.outputs}
    late = _needed([result], by_name, (CONSTANT, LATE))
    reads = {name: None for step in late if step.when == LATE for name in step.node.inputs}
    cut = tuple(name for name in reads if name in by_name and by_name[name].when == EARLY)
    early = _needed(cut, by_name, (CONSTANT, EARLY))
    uses_inputs = any(name in inputs and name != changing and name not in weights for name in reads)
    worth = result in by_name and any(step.when == EARLY and step.node.kind in HEAVY for step in early)
    if uses_inputs or not worth or by_name[result].when != LATE:
        return None
    shared = b"".join(
        write_varint(number << 3) + write_varint(value) if isinstance(value, int) else field(number, value)
        for number, value in fields(model)
        if number in (VERSION, OPSET, FUNCTION)
    )
    given = [field(INPUT, raw) for name, raw in inputs.items() if name not in weights and name != changing]
    made = [field(OUTPUT, field(1, name.encode())) for name in cut]
    first = field(GRAPH, b"".join((*_body(early, weights), *given, *made)))
    second = (*_body(late, weights), field(OUTPUT, declared), field(INPUT, inputs[changing]))
    return Halves(cut, shared + first, shared, second)


def _steps(graph: memoryview, known: dict[str, int]) -> list[_Step] | None:
    """The nodes in their order, or None where not all of what they read can be told. ``known`` is extended."""
    steps = []
    for raw in bodies(graph, NODE):
        if any(number in SUBGRAPHS for attribute in bodies(raw, 5) for number, _ in fields(attribute)):
            return None
        node = read_node(raw)
        given = [name for name in node.inputs if name]
        if any(name not in known for name in given) or any(name in known for name in node.outputs if name):
            return None
        steps.append(_Step(node, raw, max((known[name] for name in given), default=CONSTANT)))
        known |= dict.fromkeys((name for name in node.outputs if name), steps[-1].when)
    return steps


def _needed(names: Iterable[str], by_name: Mapping[str, _Step], when: Sequence[int]) -> list[_Step]:
    """The steps of these times that lead to ``names``, in an order in which they can be taken."""
    found: dict[int, _Step] = {}
    pending = [*names]
    while pending:
        step = by_name.get(pending.pop())
        if step is not None and step.when in when and id(step) not in found:
            found[id(step)] = step
            pending += step.node.inputs
    order = {id(step): None for step in by_name.values()}  # that of the file
    return [found[key] for key in order if key in found]


def _body(steps: Sequence[_Step], weights: Mapping[str, memoryview]) -> list[bytes]:
    """Name, nodes and weights of a graph."""
    used = {name: None for step in steps for name in step.node.inputs if name in weights}
    nodes = [field(NODE, step.raw) for step in steps]
    return [field(2, b"half"), *nodes, *(field(INITIALIZER, weights[name]) for name in used)]


def _declared(name: str, element: int) -> bytes:
    """Description of an input: its name, and its type, a tensor of any shape."""
    tensor = write_varint(1 << 3) + write_varint(element)
    return field(1, name.encode()) + field(2, field(1, tensor))


def field(number: int, body: bytes | memoryview) -> bytes:
    """The bytes of a field that has a length."""
    return write_varint(number << 3 | 2) + write_varint(len(body)) + bytes(body)

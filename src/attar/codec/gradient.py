"""The gradient of a network, as another network: an ONNX graph differentiated without the onnx package.

::

    latent, quality --synthesis--> image
    latent, quality, target, weight --of_squared_error--> image, half the gradient of the error by the latent
    latent, quality, target, weight --of_value--> image, the gradient of a value of it by the latent, the value
    means, found, seed --pulled_back--> means, the gradient by found where seed is that by the means

An encoder that seeks the best latent of one image needs to know how the image answers. The graph's own nodes and
weights are copied as they are, and behind them nodes are put for the chain rule, from the output back to one input
(Griewank and Walther 2008, chapter 3). Weights stay what they are in the file: those of a convolution are turned
round by nodes that ONNX Runtime computes once, when the network is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attar.codec.onnxfile import Node, Tensor, read_graph
from attar.codec.tape import FLOAT, PARTS, Tape, UnknownGradientError, extended

__all__ = [
    "GRADIENT",
    "SEED",
    "TARGET",
    "VALUE",
    "WEIGHT",
    "UnknownGradientError",
    "of_squared_error",
    "of_value",
    "pulled_back",
]

TARGET, WEIGHT, SEED = "gradient/target", "gradient/weight", "gradient/seed"
"""Names of inputs that are added."""
GRADIENT, VALUE = "gradient/result", "gradient/value"
"""Names of outputs that are added."""
STEEP = 1e12
"""Makes of a rectifier's result something beyond 0 and 1, but for numbers that are as good as 0."""
LARGEST = (1 << 63) - 1


def of_squared_error(data: bytes, by: str, source: str) -> bytes:
    """The model whose outputs are that of ``data`` and half the gradient of ``sum(weight (output - target)^2)``.

    ``by``: the name of the input, of floats, that the gradient is by. The inputs :data:`TARGET` and :data:`WEIGHT`,
    both of the output's shape, are added. What clips the output is taken for the identity: a value beyond its bounds is
    pushed back by what the error says.

    Raises:
        UnknownGradientError: if an operation between the two is not one of :data:`RULES`, or not in its plain form.
        BundleError: naming ``source``, for bytes that are no ONNX model.
    """
    tape, output = _begun(data, by, source)
    tape.give(output, tape.add("Mul", WEIGHT, tape.add("Sub", output, TARGET)))
    return _finished(data, by, tape, (TARGET, WEIGHT))


def pulled_back(data: bytes, by: str, source: str) -> bytes:
    """The model whose outputs are that of ``data`` and the gradient by ``by`` of ``sum(seed * output)``.

    The input :data:`SEED`, of the output's shape, is added. Raises as :func:`of_squared_error` does.
    """
    tape, output = _begun(data, by, source)
    tape.give(output, SEED)
    return _finished(data, by, tape, (SEED,))


def _begun(data: bytes, by: str, source: str) -> tuple[Tape, str]:
    graph = read_graph(data, source)
    if len(graph.outputs) != 1 or by not in graph.inputs:
        raise UnknownGradientError(f"{source}: expected one output, and an input {by}")
    return Tape(graph, by), graph.outputs[0]


def of_value(data: bytes, by: str, source: str, measure: Callable[[Tape, str], str]) -> bytes:
    """The model whose outputs are that of ``data``, the gradient by ``by`` of a value of it, and that value.

    ``measure`` computes the value, of shape (1, 1, 1, 1), from the output's name. It may use the inputs :data:`TARGET`
    and :data:`WEIGHT`, which are added as in :func:`of_squared_error`; what clips and what raises is as there, too.
    """
    tape, output = _begun(data, by, source)
    value = measure(tape, output)
    tape.add("Identity", value, out=VALUE)
    tape.give(value, tape.array(np.ones((1, 1, 1, 1), np.float32)))
    return _finished(data, by, tape, (TARGET, WEIGHT), (GRADIENT, VALUE))


def _finished(
    data: bytes, by: str, tape: Tape, added: Sequence[str], results: Sequence[str] = (GRADIENT,)
) -> bytes:
    for node in reversed((*tape.graph.nodes, *tape.after)):
        _follow(tape, node)
    tape.add("Identity", tape.total(by), out=GRADIENT)
    return extended(memoryview(data), tape, added, results)


def _follow(tape: Tape, node: Node) -> None:
    """From the outputs of a node to its inputs."""
    if not any(name in tape.given for name in node.outputs):
        return
    rule = RULES.get(node.kind)
    if rule is None or (len(node.outputs) != 1 and node.kind != PARTS):
        raise UnknownGradientError(f"no gradient is known of {node.kind[:80]}")
    try:
        rule(tape, node, tape.total(node.outputs[0]) if node.kind != PARTS else "")
    except UnknownGradientError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise UnknownGradientError(f"{node.kind}: arguments that are not understood") from error


Rule = Callable[[Tape, Node, str], None]


def _sum(tape: Tape, node: Node, gradient: str) -> None:
    # What depends on the input has all positions and channels; what is broadcast to it does not depend.
    for name in node.inputs:
        tape.give(name, gradient)


def _difference(tape: Tape, node: Node, gradient: str) -> None:
    first, second = node.inputs
    tape.give(first, gradient)
    if second in tape.depends:
        tape.give(second, tape.add("Neg", gradient))


def _product(tape: Tape, node: Node, gradient: str) -> None:
    first, second = node.inputs
    for name, other in ((first, second), (second, first)):
        if name in tape.depends:
            tape.give(name, tape.add("Mul", gradient, other))


def _quotient(tape: Tape, node: Node, gradient: str) -> None:
    first, second = node.inputs
    part = tape.add("Div", gradient, second)
    tape.give(first, part)
    if second in tape.depends:
        tape.give(second, tape.add("Neg", tape.add("Mul", part, node.outputs[0])))


def _power(tape: Tape, node: Node, gradient: str) -> None:
    base, exponent = node.inputs
    if exponent in tape.depends:
        raise UnknownGradientError("an exponent that depends on the input")
    slope = tape.add("Mul", exponent, tape.add("Div", node.outputs[0], base))
    tape.give(base, tape.add("Mul", gradient, slope))


def _mean(tape: Tape, node: Node, gradient: str) -> None:
    """Of all positions of each channel."""
    (values,), (result,) = node.inputs, node.outputs
    count = tape.add("Div", tape.add("Size", values), tape.add("Size", result))
    each = tape.add("Div", gradient, tape.add("Cast", count, to=FLOAT))
    tape.give(values, tape.add("Expand", each, tape.add("Shape", values)))


def _clip(tape: Tape, node: Node, gradient: str) -> None:
    values, (result,) = node.inputs[0], node.outputs
    if result not in tape.last:
        inside = tape.add("Equal", result, values)
        gradient = tape.add("Where", inside, gradient, tape.constant(0.0))
    tape.give(values, gradient)


def _parts(tape: Tape, node: Node, gradient: str) -> None:
    del gradient
    missing = tape.constant(0.0)
    parts = [
        tape.total(name) if name in tape.given else tape.add("Mul", name, missing) for name in node.outputs
    ]
    axis = node.attributes["axis"]
    tape.give(node.inputs[0], tape.add("Concat", *parts, axis=axis if isinstance(axis, int) else 0))


def _sigmoid(tape: Tape, node: Node, gradient: str) -> None:
    (result,) = node.outputs
    slope = tape.add("Mul", result, tape.add("Sub", tape.constant(1.0), result))
    tape.give(node.inputs[0], tape.add("Mul", gradient, slope))


def _rectifier(tape: Tape, node: Node, gradient: str) -> None:
    slope = node.attributes.get("alpha", 0.01) if node.kind == "LeakyRelu" else 0.0
    if not isinstance(slope, float) or slope < 0:
        raise UnknownGradientError(f"a {node.kind} of slope {slope!r}")
    # The sign of the result is that of the input, which need not be kept if it is fused with what makes it.
    (result,) = node.outputs
    channels = _channels(tape, node.inputs[0])
    if channels and slope < 1:
        # As a convolution of each channel by itself that is clipped, it stays in ONNX Runtime's blocked layout.
        steep = tape.array(np.full((channels, 1, 1, 1), STEEP, np.float32))
        ramp = tape.add("Conv", result, steep, group=channels, kernel_shape=(1, 1), pads=(0, 0, 0, 0))
        slopes = tape.add("Clip", ramp, tape.constant(slope), tape.constant(1.0))
    else:
        positive = tape.add("Greater", result, tape.constant(0.0))
        slopes = tape.add("Where", positive, tape.constant(1.0), tape.constant(slope))
    tape.give(node.inputs[0], tape.add("Mul", gradient, slopes))


def _convolution(tape: Tape, node: Node, gradient: str) -> None:
    """A convolution with the kernel turned round, and inputs and outputs exchanged."""
    values, weight = node.inputs[:2]
    if weight in tape.depends or values not in tape.depends:
        raise UnknownGradientError("a kernel that depends on the input")
    (channels, per_group, *sides), groups = _kernel(tape, weight), node.attributes.get("group", 1)
    pads, strides = _many(node, "pads") or (0, 0, 0, 0), _many(node, "strides")
    if not isinstance(groups, int):
        raise UnknownGradientError("a convolution in groups")
    if (
        strides == tuple(sides) and max(strides) > 1 and not any(pads)
    ):  # of sides that are multiples of the steps
        back = tape.add("ConvTranspose", gradient, weight, group=groups, strides=strides, kernel_shape=sides)
        tape.give(values, back)
        return
    stepless = all(set(_many(node, name)) <= {1} for name in ("strides", "dilations"))
    padded = len(pads) == 4 and node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    if not (stepless and padded):
        raise UnknownGradientError("a convolution with steps")
    if groups == 1:
        turned = tape.add("Transpose", weight, perm=(1, 0, 2, 3))
    elif groups == channels and per_group == 1:
        turned = weight  # one kernel for each channel
    else:
        raise UnknownGradientError("a convolution in groups")
    if any(side > 1 for side in sides):
        around = [-1, -1], [-LARGEST, -LARGEST], [2, 3], [-1, -1]
        turned = tape.add("Slice", turned, *(tape.constant(part) for part in around))
    rest = [side - 1 - pad for side, pad in zip((*sides, *sides), pads, strict=True)]
    tape.give(values, tape.add("Conv", gradient, turned, group=groups, pads=rest, kernel_shape=sides))


def _transpose(tape: Tape, node: Node, gradient: str) -> None:
    order = node.attributes.get("perm")
    if not isinstance(order, tuple):
        raise UnknownGradientError("a transposition without its order")
    tape.give(node.inputs[0], tape.add("Transpose", gradient, perm=[int(k) for k in np.argsort(order)]))


def _reshape(tape: Tape, node: Node, gradient: str) -> None:
    values = node.inputs[0]
    tape.give(values, tape.add("Reshape", gradient, tape.add("Shape", values)))


def _join(tape: Tape, node: Node, gradient: str) -> None:
    axis = node.attributes.get("axis")
    if not isinstance(axis, int):
        raise UnknownGradientError("a Concat without its axis")
    start = tape.constant([0])
    for name in node.inputs:
        end = tape.add("Add", start, tape.add("Gather", tape.add("Shape", name), tape.constant([axis])))
        if name in tape.depends:
            tape.give(name, tape.add("Slice", gradient, start, end, tape.constant([axis])))
        start = end


def _identity(tape: Tape, node: Node, gradient: str) -> None:
    tape.give(node.inputs[0], gradient)


def _channels(tape: Tape, name: str) -> int:
    """Channels of what a convolution makes; 0 for anything else."""
    for node in tape.graph.nodes:
        if name in node.outputs:
            return _kernel(tape, node.inputs[1])[0] if node.kind == "Conv" and len(node.inputs) > 1 else 0
    return 0


def _kernel(tape: Tape, name: str) -> tuple[int, ...]:
    """Shape of a constant, which may be cast from another type."""
    casts = {node.outputs[0]: node.inputs[0] for node in tape.graph.nodes if node.kind == "Cast"}
    if name in tape.kernels:
        return tape.kernels[name]
    constant = tape.graph.constants.get(casts.get(name, name))
    if not isinstance(constant, Tensor) or len(constant.shape) != 4:
        raise UnknownGradientError("a convolution whose kernel is no constant of an image's")
    return constant.shape


def _many(node: Node, name: str) -> tuple[int, ...]:
    values = node.attributes.get(name, ())
    return values if isinstance(values, tuple) else ()


RULES: Mapping[str, Rule] = {
    "Add": _sum,
    "Sub": _difference,
    "Mul": _product,
    "Sigmoid": _sigmoid,
    "Relu": _rectifier,
    "LeakyRelu": _rectifier,
    "Conv": _convolution,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Unsqueeze": _reshape,
    "Concat": _join,
    "Squeeze": _reshape,
    "Identity": _identity,
    "Clip": _clip,
    "Div": _quotient,
    "Pow": _power,
    "GlobalAveragePool": _mean,
    PARTS: _parts,
}
"""Operations that can be followed back."""

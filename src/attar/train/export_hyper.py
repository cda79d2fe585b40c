"""The networks of a hyperprior -> the graphs and tables of a bundle, refused unless they give the same.

The integer networks are frozen first, so that their weights are constants; of the exported graph it is
proven that no sum can leave the integers that float32 holds exactly, and its outputs must equal the
trained network's to the last bit, with ONNX Runtime's optimisations and without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from attar.codec import bundle
from attar.codec.codec import Codec
from attar.codec.manifest import HYPER_LEVELS, HYPER_PASSES, Hyperprior
from attar.codec.tables import Table
from attar.errors import BundleError, ExportError, FormatError
from attar.train import exactness, graphs, hyperlatents, layout
from attar.train.hyperprior import DEFAULT_QUALITY, HyperNetwork
from attar.train.tensors import to_numpy

OUTPUTS = {"analysis": "latent", "hyper_analysis": "hyper_latent", "synthesis": "image"}
INTEGER_PARTS = ("hyper_prior", "hyper_scales", "context_scales")
QUALITIES = 1, 100
FULL_TOLERANCE, HALF_TOLERANCE = 1e-4, 6e-3
"""Largest difference to the trained network, relative to its largest value where that is above 1."""
EXTREMES = 3 * 127
"""Largest symbol that the integer networks are tried with: beyond 127 they are clipped."""

FILE_TOLERANCE, FILE_BYTES = 0.02, 64.0
"""What rounding in half precision may change of error and size, and what a file has beside its symbols."""

Values = list[np.ndarray]


def entropy(net: HyperNetwork) -> Hyperprior:
    """What the manifest says of the prior."""
    channels = int(net.hyper_analysis.output_shape[-1])
    tables = hyperlatents.TABLES if net.hyper_prior else 0
    steps = None
    if net.local_steps is not None:
        quality = np.linspace(0, 1, QUALITIES[1]) if net.has_qualities else np.array([DEFAULT_QUALITY])
        steps = net.local_steps.exported(quality.astype(np.float32), net.scale_step)
    context = net.context_scales is not None
    return Hyperprior(channels, net.strides[1], net.options["scales"], context, tables, steps)


def tables(net: HyperNetwork, make: Any) -> list[Table]:
    """The integer tables of the hyper-latent, then of the latent's scales; ``make`` makes them."""
    return [*make(net.prior), *make(_Scales(net))]


def parts(
    net: HyperNetwork, batches: Sequence[np.ndarray], *, half: bool
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The bundle's graphs by name, and the largest difference of each to the trained network.

    Args:
        net: the trained network.
        batches: images uint8 (B, H, W, C), of two sizes at least.
        half: store large weights in float16 where that changes (almost) nothing.

    Raises:
        ExportError: if a graph does not reproduce its network, or an integer network cannot be proven exact.
    """
    if keras.backend.backend() != "torch":
        raise ExportError(
            "a hyperprior is exported with KERAS_BACKEND=torch; its checkpoint loads there, whatever trained it"
        )
    for layer in net.integer_layers:
        layer.freeze()
    try:
        given = _inputs(net, batches)
        found, differences = {}, {}
        for name, model in net.parts.items():
            graph = to_onnx(model, given[name][0], OUTPUTS.get(name, name))
            if name in INTEGER_PARTS:
                found[name] = _exact(name, model, graph, given[name])
                differences[name] = 0.0
            else:
                graph = graphs.folded(layout.blocked(graph))
                found[name], differences[name] = _close(name, model, graph, given[name], half)
        return found, differences
    finally:
        for layer in net.integer_layers:
            layer.thaw()


def to_onnx(model: Any, example: Values, output: str) -> bytes:
    """A Keras model of one or several inputs as an ONNX graph, whose inputs keep their Keras names.

    Raises:
        ExportError: if the model cannot be exported.
    """
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            return self.model(list(values) if len(values) > 1 else values[0], training=False)

    names = [item.name for item in model.inputs]
    axes = {
        item.name: {axis: f"{item.name}_{axis}" for axis, size in enumerate(item.shape) if size is None}
        for item in model.inputs
    }
    tensors = tuple(keras.ops.convert_to_tensor(value) for value in example)
    try:
        with tempfile.TemporaryDirectory() as folder, graphs.silence(), torch.no_grad():
            path = Path(folder) / "model.onnx"
            torch.onnx.export(
                Positional().eval(),
                tensors,
                str(path),
                input_names=names,
                output_names=[output],
                dynamic_axes=axes,
                dynamo=False,
            )
            return graphs.folded(onnx.load(path).SerializeToString())
    except Exception as error:  # the exporter and ONNX raise anything
        text = " ".join(str(error).split())[:300]
        raise ExportError(f"{model.name}: cannot be exported to ONNX: {text}") from error


def predict(model: Any, given: Values) -> np.ndarray:
    """The output of a Keras model in inference."""
    values = [keras.ops.convert_to_tensor(value) for value in given]
    found = model(values if len(values) > 1 else values[0], training=False)
    return to_numpy(found)


def _inputs(net: HyperNetwork, batches: Sequence[np.ndarray]) -> dict[str, list[Values]]:
    """Inputs of every network: what real images lead to, and, of the integer networks, random and extreme
    symbols."""
    rng = np.random.default_rng(0)
    given: dict[str, list[Values]] = {name: [] for name in net.parts}
    for images in batches:
        quality = np.linspace(0, 1, len(images) + 1, dtype=np.float32)[1:]
        given["analysis"].append([images, quality])
        latent = predict(net.analysis, [images, quality])
        given["hyper_analysis"].append([latent])
        hyper = np.rint(predict(net.hyper_analysis, [latent]))
        given["hyper_scales"].append([hyper])
        given["hyper_means"].append([hyper])
        given["synthesis"].append([np.rint(latent), quality])
        wild = rng.integers(-EXTREMES, EXTREMES + 1, hyper.shape).astype(np.float32)
        given["hyper_scales"].append([wild])
        if net.hyper_prior is not None:
            level = np.floor(99 * quality / HYPER_LEVELS)
            for symbols in (hyper, wild):
                tensors = [keras.ops.convert_to_tensor(item) for item in (symbols, level)]
                for number in range(HYPER_PASSES):
                    known = hyperlatents.known(tensors[0], number, tensors[1])
                    given["hyper_prior"].append([to_numpy(item) for item in known])
        if net.context_scales is None:
            continue
        scales, means = predict(net.hyper_scales, [hyper]), predict(net.hyper_means, [hyper])
        residual = np.rint(latent - means[..., : latent.shape[-1]])
        given["context_scales"].append([scales, residual])
        given["context_means"].append([means, np.rint(latent)])
        extreme = rng.choice(np.array([-EXTREMES, EXTREMES], np.float32), latent.shape)
        given["context_scales"].append([predict(net.hyper_scales, [wild]), extreme])
    return given


def _exact(name: str, model: Any, graph: bytes, given: Sequence[Values]) -> bytes:
    """The graph of an integer network, its constants in half precision where they are exactly so; or
    ExportError."""
    exactness.prove(graph, name, {"scales": exactness.LARGEST_OUTPUT})
    small = graphs.halved(graph)
    for values in given:
        expected = predict(model, values)
        for body in (graph, small):
            for optimised in (True, False):
                if not np.array_equal(graphs.run(body, values, optimised=optimised), expected):
                    raise ExportError(
                        f"{name}: the exported integer network differs from the trained one "
                        f"({'with' if optimised else 'without'} ONNX Runtime's optimisations): not written"
                    )
    return small


def _close(name: str, model: Any, graph: bytes, given: Sequence[Values], half: bool) -> tuple[bytes, float]:
    """The graph of a float network and its difference to the trained one; or ExportError."""
    expected = [predict(model, values) for values in given]
    difference = max(map(_difference, (graphs.run(graph, values) for values in given), expected))
    if not difference <= FULL_TOLERANCE:
        raise ExportError(
            f"{name}: the exported network differs from the trained one by {difference:.2g}, more than "
            f"{FULL_TOLERANCE:.2g}: not written"
        )
    if half:
        small = graphs.halved(graph)
        loss = max(map(_difference, (graphs.run(small, values) for values in given), expected))
        if loss <= HALF_TOLERANCE:
            return small, loss
    return graph, difference


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))


class _Scales:
    """The scales of the latent as a prior of which tables are made."""

    def __init__(self, net: HyperNetwork) -> None:
        self.net = net

    def probabilities(self, minimum: int, maximum: int) -> np.ndarray:
        """Probability of every integer in minimum..maximum at each scale, float64 (scales, count)."""
        return self.net.scale_probabilities(minimum, maximum)


def about(net: HyperNetwork) -> dict[str, Any]:
    """Members of the manifest that a hyperprior adds."""
    return {"entropy": entropy(net), "qualities": QUALITIES if net.has_qualities else None}


def check_files(net: HyperNetwork, data: bytes, batches: Sequence[np.ndarray]) -> None:
    """Read a bundle back and send images through it.

    Raises:
        ExportError: unless files decode, to images as near to the originals as the trained network's, and
        are no
            larger than it says.
    """
    try:
        codec = Codec(bundle.from_bytes(data, source="the exported bundle"))
        for quality in (1, 50, 100) if net.has_qualities else (None,):
            for images in batches:
                files = codec.compress_batch(list(images), quality=quality)
                decoded = np.stack(codec.decompress_batch(files))
                forward = net(images, training=False, quality=((quality or 50) - 1) / 99)
                pixels = np.rint(255 * to_numpy(forward.regenerated))
                bits = float(to_numpy(forward.bits).sum())
                _check_limit(_error(images, decoded), _error(images, pixels), "mean squared error", 1.0)
                # Smaller is possible: an escape is cheaper than what the prior says of a symbol far outside.
                size = float(sum(map(len, files)))
                _check_limit(size, bits / 8, "size in bytes", FILE_BYTES * len(files))
    except (BundleError, FormatError) as error:
        raise ExportError(f"the exported bundle cannot be used: {error}") from error


def _error(images: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean((images.astype(np.float64) - found) ** 2))


def _check_limit(found: float, expected: float, what: str, more: float) -> None:
    if not found <= (1 + FILE_TOLERANCE) * expected + more:
        raise ExportError(
            f"files of the exported bundle have a {what} of {found:.6g}, the trained network says {expected:.6g}: "
            "not written"
        )

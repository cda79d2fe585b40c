"""Keras networks -> ONNX graphs: export, tidying, storing weights in half precision."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from attar.errors import ExportError

HALF_FROM = 1024  # smaller tensors (biases, scales) stay float32: nothing is won there


def to_onnx(model: Any, example: np.ndarray, output: str) -> bytes:
    """One Keras model as the bytes of an ONNX graph, whose input keeps its Keras name.

    Args:
        model: a Keras model with one input and one output.
        example: an input (B, ...) of the right type, and of a size that the model is made for.
        output: name of the graph's output.

    Raises:
        ExportError: if the model cannot be exported on this backend.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            with silence():
                _export(model, example, path)
            graph = onnx.load(path)
            _rename(graph, graph.graph.output[0].name, output)
            _rename(graph, graph.graph.input[0].name, model.inputs[0].name)
            return folded(graph.SerializeToString())
        except Exception as error:  # the exporters of three backends, and ONNX itself, raise anything
            raise ExportError(f"{model.name}: cannot be exported to ONNX: {_first_line(error)}") from error


def _export(model: Any, example: np.ndarray, path: Path) -> None:
    if keras.backend.backend() != "torch":
        model(example)  # which fixes what Keras needs to know
        model.export(str(path), format="onnx", verbose=False)
        return
    import torch

    # Not by Keras, which traces open heights and widths as 1: strided convolutions would then pad every image
    # as one of odd size.
    name = model.inputs[0].name
    axes = {axis: f"{name}_{axis}" for axis, size in enumerate(model.inputs[0].shape) if size is None}
    torch.onnx.export(
        model.eval(),
        (keras.ops.convert_to_tensor(example),),
        str(path),
        input_names=[name],
        dynamic_axes={name: axes},
        dynamo=False,  # the other exporter loses track of open sizes in Keras's convolutions
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:300]


def folded(graph: bytes) -> bytes:
    """The graph with constants folded and dead nodes gone, in standard ONNX operators only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        model = onnx.load(path)
    standard = [domain for domain in model.opset_import if domain.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def halved(graph: bytes) -> bytes:
    """The graph with large weights stored as float16 behind a Cast: half the bytes, computed in float32."""
    model = onnx.load_from_string(graph)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < HALF_FROM:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=TensorProto.FLOAT))
    for position, node in enumerate(casts):
        model.graph.node.insert(position, node)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def runner(graph: bytes, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs a one-input, one-output graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda values: np.asarray(session.run(None, {name: values})[0])


def run(graph: bytes, given: Sequence[np.ndarray], *, optimised: bool = True, threads: int = 1) -> np.ndarray:
    """The output of a graph for its inputs in order, with ONNX Runtime's optimisations or without any."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    return np.asarray(session.run(None, dict(zip(names, given, strict=True)))[0])


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    if old == new:
        return
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
    for value in (*model.graph.input, *model.graph.output):
        if value.name == old:
            value.name = new


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporters' chatter off the terminal; what matters comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""A trained network -> a bundle for the codec, or Keras / ONNX / SavedModel files; refused unless it gives the same.

Every export is read back, run on sample images and held against the network it came from; only then does it get its
name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import attar
from attar import spec as specs
from attar.codec import bundle
from attar.codec.manifest import Entropy, Latent, Manifest
from attar.codec.tables import Table
from attar.errors import ExportError
from attar.train import checkpoint, graphs, network

FORMATS = ("onnx", "keras", "h5", "saved-model")
MODES = ("bundle", "full", "encoder-decoder")
# What float32 arithmetic in another order may change, and what half-precision weights may: of the latent relative to
# its largest value, of pixels absolutely (0.002 is half a level of 255).
TOLERANCE = {"latent": 1e-4, "image": 1e-4, "regenerated": 1e-4}
HALF_TOLERANCE = {"latent": 4e-3, "image": 6e-3}
TAIL = 1e-6  # probability that a table leaves to its escape
LARGEST_SYMBOL = 1 << 12  # a table's reach at most; beyond, symbols are escaped


@dataclass(frozen=True)
class Exported:
    """What was written: the paths, and the largest difference found for each part."""

    paths: tuple[Path, ...]
    differences: Mapping[str, float]
    sha256: str = ""


def load_network(spec: specs.ModelSpec, path: str | os.PathLike[str]) -> tuple[network.Network, checkpoint.Checkpoint]:
    """Build a model's network in float32 and give it a checkpoint's weights (the averaged ones, if there are).

    Raises:
        CheckpointError: if the checkpoint is of another model.
    """
    kept = checkpoint.load(path)
    net = network.build(spec, seed=0)
    checkpoint.restore_weights(net, kept, str(path), averaged=True)
    return net, kept


def sample_images(net: network.Network, count: int = 4) -> np.ndarray:
    """Seeded test images that fit the network, uint8 (B, H, W, C): smooth shapes, edges and noise."""
    geometry = network.geometry(net)
    height, width = geometry.size or (max(64, 4 * geometry.multiple),) * 2
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    images = np.empty((count, height, width, net.spec.input_shape[2]))
    for image in images:
        for channel in range(image.shape[2]):
            a, b, c = rng.uniform(-9, 9, 3)
            waves = np.sin(a * x + b * y + c) + (np.hypot(x - rng.random(), y - rng.random()) < 0.3)
            image[..., channel] = 90 * waves + rng.normal(90, 20 * rng.random(), (height, width))
    return np.clip(images, 0, 255).astype(np.uint8)


def to_bundle_bytes(
    net: network.Network,
    *,
    name: str = "model",
    version: str = "1",
    licence: str = "unknown",
    description: str = "",
    training: Mapping[str, Any] | None = None,
    half: bool = True,
) -> tuple[bytes, dict[str, float]]:
    """The bytes of a bundle, and the largest difference of each network to the trained one.

    Args:
        net: the trained network.
        name: what `attar models` lists it as.
        version: of the model, free text.
        licence: of the weights, an SPDX name where there is one.
        description: one sentence.
        training: a summary, kept in the manifest.
        half: store large weights in float16 where that changes (almost) nothing.

    Raises:
        ExportError: if the exported networks do not reproduce the trained ones.
    """
    images = sample_images(net)
    symbols = np.rint(_run(net.analysis, images)).astype(np.float32)
    parts, differences = {}, {}
    for part, model, given, output in (
        ("analysis", net.analysis, images, "latent"),
        ("synthesis", net.synthesis, symbols, "image"),
    ):
        full = graphs.to_onnx(model, given[:1], output)
        parts[part], differences[part] = _reproduced(part, full, _run(model, given), given, output, half)
    geometry = network.geometry(net)
    *spatial, channels = geometry.latent
    manifest = Manifest(
        name=name,
        version=version,
        licence=licence,
        description=description,
        channels=net.spec.input_shape[2],
        size=geometry.size,
        multiple=geometry.multiple,
        latent=Latent(channels, geometry.stride, tuple(spatial)),
        entropy=Entropy("factorized"),
        training=dict(training or {}),
        model=dict(net.spec.document),
        created_by={"attar": attar.__version__, "keras": keras.__version__, "backend": keras.backend.backend()},
    )
    return bundle.to_bytes(manifest=manifest, graphs=parts, tables=make_tables(net.prior)), differences


def to_bundle(net: network.Network, path: str | os.PathLike[str], **options: Any) -> Exported:
    """Write a bundle; the options are those of :func:`to_bundle_bytes`.

    Raises:
        ExportError: if the exported networks do not reproduce the trained ones, or the file cannot be written.
    """
    import hashlib

    data, differences = to_bundle_bytes(net, **options)
    _install(Path(path), lambda target: target.write_bytes(data))
    return Exported((Path(path),), differences, hashlib.sha256(data).hexdigest())


def make_tables(prior: Any) -> list[Table]:
    """One integer table for each channel of a factorized prior; all but ``TAIL`` of its probability has a symbol."""
    reach = 64
    while True:
        mass = prior.probabilities(-reach, reach)  # (C, 2 reach + 1)
        if reach >= LARGEST_SYMBOL or mass.sum(-1).min() > 1 - TAIL / 2:
            break
        reach *= 2
    tables = []
    for row in mass:
        below = np.cumsum(row)
        first = int(np.searchsorted(below, TAIL / 2))
        last = max(first, int(np.searchsorted(below, below[-1] - TAIL / 2)))
        kept = row[first : last + 1]
        tables.append(Table.from_probabilities(first - reach, np.append(kept, max(1.0 - kept.sum(), TAIL))))
    return tables


def to_files(net: network.Network, mode: str, file_format: str, paths: Sequence[str | os.PathLike[str]]) -> Exported:
    """Export the whole network (``full``), or encoder and decoder apart (``encoder-decoder``), as Keras or ONNX files.

    The whole network takes uint8 images and gives regenerated ones in [0, 1], through rounded latents; the encoder
    gives unrounded latents.

    Args:
        net: the trained network.
        mode: ``full`` or ``encoder-decoder``.
        file_format: ``onnx``, ``keras``, ``h5`` or ``saved-model`` (needs the TensorFlow backend).
        paths: one path for ``full``, two for ``encoder-decoder``.

    Raises:
        ExportError: if an export does not reproduce the network, or cannot be written.
    """
    images = sample_images(net)
    symbols = np.rint(_run(net.analysis, images)).astype(np.float32)
    models = {
        "full": [(whole(net), images, "regenerated")],
        "encoder-decoder": [(net.analysis, images, "latent"), (net.synthesis, symbols, "image")],
    }[mode]
    if len(paths) != len(models):
        raise ExportError(f"mode {mode} writes {len(models)} files, got {len(paths)} paths in --save-path (A,B for two)")
    differences = {}
    for path, (model, given, output) in zip(paths, models, strict=True):
        found: list[float] = []

        def write(target: Path, model: Any = model, given: Any = given, output: str = output, found: Any = found) -> None:
            _write(model, target, file_format, given, output)
            found.append(_difference(read_back(target, file_format)(given), _run(model, given), output))
            if found[0] > TOLERANCE[output]:
                raise ExportError(
                    f"{model.name}: the {file_format} export differs from the trained network by {found[0]:.2g}, "
                    f"more than {TOLERANCE[output]:.2g}: not written"
                )

        _install(Path(path), write, suffix=_suffix(file_format))
        differences[model.name] = found[0]
    return Exported(tuple(Path(p) for p in paths), differences)


def whole(net: network.Network) -> Any:
    """Analysis, rounding and synthesis as one Keras model: images (B, H, W, C) uint8 -> (B, H, W, C) in [0, 1]."""
    rounded, _ = net.quantizer(net.analysis.output)
    return keras.Model(net.analysis.input, net.synthesis(rounded), name="autoencoder")


def read_back(path: Path, file_format: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs an exported network of :func:`to_files`."""
    if file_format == "onnx":
        return graphs.runner(path.read_bytes())
    if file_format == "saved-model":
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))
        return lambda values: np.asarray(loaded.serve(values))
    from attar.train import layers  # noqa: F401 - registers the custom layers that the file names

    model = keras.models.load_model(path, compile=False)
    return lambda values: _run(model, values)


def _write(model: Any, target: Path, file_format: str, given: np.ndarray, output: str) -> None:
    if file_format == "onnx":
        target.write_bytes(graphs.to_onnx(model, given[:1], output))
    elif file_format == "saved-model":
        if keras.backend.backend() != "tensorflow":
            raise ExportError("saved-model needs KERAS_BACKEND=tensorflow; attar export sets it where TensorFlow is installed")
        model.export(str(target), format="tf_saved_model", verbose=False)
    else:
        with graphs.silence():
            model.save(target)


def _suffix(file_format: str) -> str:
    return {"onnx": ".onnx", "keras": ".keras", "h5": ".h5", "saved-model": ""}[file_format]


def _install(path: Path, write: Callable[[Path], Any], suffix: str = "") -> None:
    """Let ``write`` make a file or folder beside ``path``, then give it its name: all or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            target = Path(folder) / f"export{suffix}"
            write(target)
            if path.is_dir() and target.is_dir():
                shutil.rmtree(path)
            target.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error


def _reproduced(
    part: str, full: bytes, expected: np.ndarray, given: np.ndarray, output: str, half: bool
) -> tuple[bytes, float]:
    """The graph to ship, in half precision if that is harmless, and its difference to the trained network."""
    difference = _difference(graphs.runner(full)(given), expected, output)
    if difference > TOLERANCE[output]:
        raise ExportError(
            f"{part}: the exported network differs from the trained one by {difference:.2g}, "
            f"more than {TOLERANCE[output]:.2g}: not written"
        )
    if half:
        small = graphs.halved(full)
        loss = _difference(graphs.runner(small)(given), expected, output)
        if loss <= HALF_TOLERANCE[output]:
            return small, loss
    return full, difference


def _difference(found: np.ndarray, expected: np.ndarray, output: str) -> float:
    scale = max(1.0, float(np.abs(expected).max())) if output == "latent" else 1.0
    return float(np.abs(found - expected).max()) / scale


def _run(model: Any, values: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(values, training=False)))

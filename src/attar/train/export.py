"""A trained network -> a bundle for the codec, or Keras / ONNX / SavedModel files; refused unless they agree.

Every export is read back, run on sample images and held against the network it came from; only then does it
get its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

import attar
from attar import spec as specs
from attar.codec import bundle
from attar.codec.codec import Codec
from attar.codec.manifest import Entropy, Latent, Manifest
from attar.codec.tables import Table
from attar.errors import AttarError, BundleError, CheckpointError, ExportError
from attar.train import checkpoint, export_hyper, graphs, network
from attar.train.hyperprior import HyperNetwork
from attar.train.readback import read_back, run_keras

FORMATS = ("onnx", "keras", "h5", "saved-model")
MODES = ("bundle", "full", "encoder-decoder")
SUFFIXES = MappingProxyType({"onnx": ".onnx", "keras": ".keras", "h5": ".h5", "saved-model": ""})
# What float32 arithmetic in another order may change, and what half-precision weights may: of the latent
# relative to its largest value, of pixels absolutely (0.002 is half a level of 255).
TOLERANCE = MappingProxyType({"latent": 1e-4, "image": 1e-4, "regenerated": 1e-4})
HALF_TOLERANCE = MappingProxyType({"latent": 4e-3, "image": 6e-3})
TAIL = 1e-6  # probability that a table leaves to its escape
LARGEST_SYMBOL = 1 << 12  # a table's reach at most; beyond, symbols are escaped


@dataclass(frozen=True)
class Exported:
    """What was written: the paths, and the largest difference found for each part."""

    paths: tuple[Path, ...]
    differences: Mapping[str, float]
    sha256: str = ""


def load_network(
    spec: specs.ModelSpec, path: str | os.PathLike[str]
) -> tuple[network.Network, checkpoint.Checkpoint]:
    """Build a model's network in float32 and give it a checkpoint's weights, the averaged ones if there are.

    Raises:
        CheckpointError: if the checkpoint is of another model.
    """
    kept = checkpoint.load(path)
    if kept.record["digest"] != spec.digest():
        raise CheckpointError(
            f"{path}: checkpoint of another model than {spec.name!r} as it is given: layers, arguments, "
            "entropy or latent dimensions differ; without --model, the checkpoint's own is taken"
        )
    net = network.build(spec, seed=0)
    checkpoint.restore_weights(net, kept, str(path), averaged=True)
    return net, kept


def sample_images(net: network.Network, count: int = 4) -> np.ndarray:
    """Seeded test images that fit the network, uint8 (B, H, W, C): smooth shapes, edges and noise."""
    geometry = network.geometry(net)
    return _drawn(geometry.size or (max(64, 4 * geometry.multiple),) * 2, net.spec.input_shape[2], count)


def _drawn(size: tuple[int, int], channels: int, count: int) -> np.ndarray:
    (height, width), rng = size, np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    images = np.empty((count, height, width, channels))
    for image in images:
        for channel in range(channels):
            a, b, c = rng.uniform(-9, 9, 3)
            waves = np.sin(a * x + b * y + c) + (np.hypot(x - rng.random(), y - rng.random()) < 0.3)
            image[..., channel] = 90 * waves + rng.normal(90, 20 * rng.random(), (height, width))
    return np.clip(images, 0, 255).astype(np.uint8)


def _samples(net: network.Network) -> list[np.ndarray]:
    """Batches of test images: of the network's one size, or of two sizes where it takes any."""
    geometry = network.geometry(net)
    batches = [sample_images(net)]
    if geometry.size is None:  # a graph may be right for the size that it was traced with, and for no other
        size = (3 * geometry.multiple, 5 * geometry.multiple)
        batches.append(_drawn(size, net.spec.input_shape[2], 1))
    return batches


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
    net = network.in_float32(net)
    images = _samples(net)
    if isinstance(net, HyperNetwork):
        parts, differences = export_hyper.parts(net, images, half=half)
        tables, extra = export_hyper.tables(net, make_tables), export_hyper.about(net)
        lowest, highest = net.options["lambda"]
        training = {**(training or {}), "lambda_lowest": lowest, "lambda_highest": highest}
    else:
        parts, differences = _factorized_parts(net, images, half)
        tables, extra = make_tables(net.prior), {"entropy": Entropy("factorized")}
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
        **extra,
        training=dict(training or {}),
        model=dict(net.spec.document),
        created_by={
            "attar": attar.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        },
    )
    data = bundle.to_bytes(manifest=manifest, graphs=parts, tables=tables)
    if isinstance(net, HyperNetwork):
        export_hyper.check_files(net, data, images)
    else:
        _check_bundle(data, images)
    return data, differences


def _factorized_parts(
    net: network.Network, images: Sequence[np.ndarray], half: bool
) -> tuple[dict[str, bytes], dict[str, float]]:
    parts, differences = {}, {}
    for part, model, given, output in (
        ("analysis", net.analysis, images, "latent"),
        ("synthesis", net.synthesis, _symbols(net, images), "image"),
    ):
        full = graphs.to_onnx(model, given[0][:1], output)
        parts[part], differences[part] = _reproduced(model, full, given, output, half)
    return parts, differences


def _check_bundle(data: bytes, batches: Sequence[np.ndarray]) -> None:
    """Read a bundle back and send images through it. Raises ExportError unless its files come out right."""
    try:
        codec = Codec(bundle.from_bytes(data, source="the exported bundle"))
        for images in batches:
            expected = codec.synthesise(codec.analyse(images))
            decoded = codec.decompress_batch(codec.compress_batch(list(images)))
            if not np.array_equal(np.stack(decoded), expected):
                raise ExportError("the exported bundle does not decode what it coded: not written")
    except BundleError as error:
        raise ExportError(f"the exported bundle cannot be used: {error}") from error


def to_bundle(net: network.Network, path: str | os.PathLike[str], **options: Any) -> Exported:
    """Write a bundle; the options are those of :func:`to_bundle_bytes`.

    Raises:
        ExportError: if the exported networks do not reproduce the trained ones, or cannot be written.
    """
    try:
        data, differences = to_bundle_bytes(net, **options)
    except BundleError as error:  # a name or a text that no manifest can hold
        raise ExportError(f"{path}: cannot be made: {error}") from error
    _install([(Path(path), lambda target: target.write_bytes(data))], Path(path).suffix)
    return Exported((Path(path),), differences, hashlib.sha256(data).hexdigest())


def make_tables(prior: Any) -> list[Table]:
    """One integer table for each channel of a factorized prior; all but ``TAIL`` of it has a symbol."""
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


def to_files(
    net: network.Network, mode: str, file_format: str, paths: Sequence[str | os.PathLike[str]]
) -> Exported:
    """Export the whole network (``full``), or encoder and decoder apart (``encoder-decoder``).

    The whole network takes uint8 images and gives regenerated ones in [0, 1], through rounded latents; the
    encoder gives unrounded latents.

    Args:
        net: the trained network.
        mode: ``full`` or ``encoder-decoder``.
        file_format: ``onnx``, ``keras``, ``h5`` or ``saved-model`` (needs the TensorFlow backend).
        paths: one path for ``full``, two for ``encoder-decoder``.

    Raises:
        ExportError: if an export does not reproduce the network, or cannot be written.
    """
    if isinstance(net, HyperNetwork):
        raise ExportError(f"mode {mode}: a model with a hyperprior is exported as a bundle only")
    net = network.in_float32(net)
    images = _samples(net)
    models = {
        "full": [(whole(net), images, "regenerated")],
        "encoder-decoder": [
            (net.analysis, images, "latent"),
            (net.synthesis, _symbols(net, images), "image"),
        ],
    }[mode]
    _check_paths(mode, file_format, [Path(path) for path in paths], len(models))
    differences: dict[str, float] = {}

    def writer(model: Any, given: Sequence[np.ndarray], output: str) -> Callable[[Path], None]:
        def write(target: Path) -> None:
            _write(model, target, file_format, given[0], output)
            found = _difference(read_back(target, file_format), model, given, output)
            _refuse_beyond(TOLERANCE[output], found, f"{model.name}: the {file_format} export")
            differences[model.name] = found

        return write

    writes = [writer(*model) for model in models]
    _install(list(zip(map(Path, paths), writes, strict=True)), SUFFIXES[file_format])
    return Exported(tuple(Path(path) for path in paths), differences)


def _check_paths(mode: str, file_format: str, paths: Sequence[Path], count: int) -> None:
    if len(paths) != count:
        raise ExportError(
            f"mode {mode} writes {count} file{'s' * (count > 1)}, got {len(paths)} paths in --save-path "
            "(A,B for two)"
        )
    if len({os.path.realpath(path) for path in paths}) != count:
        raise ExportError(f"{paths[0]}: encoder and decoder cannot both be written to it")
    for path in paths:
        if path.suffix != SUFFIXES[file_format] and SUFFIXES[file_format]:
            raise ExportError(
                f"{path}: expected a name that ends in {SUFFIXES[file_format]} for {file_format}"
            )


def whole(net: network.Network) -> Any:
    """Analysis, rounding and synthesis as one Keras model: (B, H, W, C) uint8 -> (B, H, W, C) in [0, 1]."""
    rounded, _ = net.quantizer(net.analysis.output)
    return keras.Model(net.analysis.input, net.synthesis(rounded), name="autoencoder")


def _write(model: Any, target: Path, file_format: str, example: np.ndarray, output: str) -> None:
    if file_format == "onnx":
        target.write_bytes(graphs.to_onnx(model, example[:1], output))
    elif file_format == "saved-model":
        if keras.backend.backend() != "tensorflow":
            raise ExportError(
                "saved-model needs KERAS_BACKEND=tensorflow; attar export sets it where that is installed"
            )
        with graphs.silence():
            model.export(str(target), format="tf_saved_model", verbose=False)
    else:
        with graphs.silence():
            model.save(target)


def _install(writes: Sequence[tuple[Path, Callable[[Path], Any]]], suffix: str) -> None:
    """Let each function make a file or folder beside its path; give them their names when all are made."""
    path = writes[0][0]
    try:
        with contextlib.ExitStack() as stack:
            made = []
            for number, (path, write) in enumerate(writes):
                path.parent.mkdir(parents=True, exist_ok=True)
                folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:100]}.")
                target = Path(stack.enter_context(folder)) / f"export{number}{suffix}"
                write(target)
                _check_replaceable(path, target)
                made.append((target, path))
            for target, path in made:
                if path.is_dir():
                    shutil.rmtree(path)
                target.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error


def _check_replaceable(path: Path, target: Path) -> None:
    """A folder is replaced only by a SavedModel, and only if it is one itself."""
    if path.is_dir() and not (target.is_dir() and (path / "saved_model.pb").is_file()):
        raise ExportError(f"{path}: is a folder, and no earlier export: not overwritten")


def _reproduced(
    model: Any, full: bytes, given: Sequence[np.ndarray], output: str, half: bool
) -> tuple[bytes, float]:
    """The graph to ship, in half precision if that is harmless, and its difference to the trained network."""
    difference = _difference(graphs.runner(full), model, given, output)
    _refuse_beyond(TOLERANCE[output], difference, f"{model.name}: the exported network")
    if half:
        small = graphs.halved(full)
        loss = _difference(graphs.runner(small), model, given, output)
        if loss <= HALF_TOLERANCE[output]:
            return small, loss
    return full, difference


def _refuse_beyond(tolerance: float, difference: float, what: str) -> None:
    if not difference <= tolerance:  # NaN is refused too
        raise ExportError(
            f"{what} differs from the trained network by {difference:.2g}, more than {tolerance:.2g}: "
            "not written"
        )


def _difference(
    run: Callable[[np.ndarray], np.ndarray], model: Any, given: Sequence[np.ndarray], output: str
) -> float:
    """Largest difference of an export to the Keras model over all batches; infinite where shapes differ."""
    worst = 0.0
    for values in given:
        expected = run_keras(model, values)
        try:
            found = run(values)
        except AttarError:
            raise
        except Exception as error:  # three runtimes, each with exceptions of its own
            raise ExportError(
                f"{model.name}: the export does not run on {list(values.shape)}: {error}"
            ) from error
        if found.shape != expected.shape:
            return float("inf")
        scale = max(1.0, float(np.abs(expected).max())) if output == "latent" else 1.0
        worst = float(np.maximum(worst, np.abs(found - expected).max() / scale))  # keeps a NaN
    return worst


def _symbols(net: network.Network, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rounded latents of images, float32."""
    return [np.rint(run_keras(net.analysis, images)).astype(np.float32) for images in batches]

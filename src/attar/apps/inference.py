"""``attar infer``: images through a bundle or an exported network, and back as image files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from attar.apps.cli import common
from attar.codec import images
from attar.errors import AttarError, BundleError, ImageError, ModelMissingError

FORMATS = {".onnx": "onnx", ".keras": "keras", ".h5": "h5", "": "saved-model"}


@dataclass(frozen=True)
class Model:
    """Something that regenerates images: (H, W, C) uint8 -> ((H, W, C) float in 0..1, bytes of the file or None)."""

    regenerate: Callable[[np.ndarray], tuple[np.ndarray, int | None]]
    channels: int | None
    size: tuple[int | None, int | None]


def run(
    model: str,
    data: str,
    folder: str,
    *,
    postprocess: bool,
    channels: int | None,
    size: tuple[int | None, int | None],
    force: bool,
    as_json: bool,
) -> None:
    """Regenerate every image below ``data`` into ``folder``; see ``attar infer --help``."""
    found = find_images(Path(data))
    loaded = open_model(model)
    channels = channels or loaded.channels
    height, width = size[0] or loaded.size[0], size[1] or loaded.size[1]
    targets: dict[Path, Path] = {}
    jobs = []
    for source, relative in found:
        target = Path(folder) / relative.with_suffix(".png")
        if target in targets:  # a.jpg beside a.png: keep both
            target = Path(folder) / relative.parent / f"{relative.name}.png"
        targets[target] = source
        jobs.append((str(source), str(target)))

    def work(job: common.Job) -> dict[str, Any]:
        source, target = job
        pixels = fitted(images.read(source, convert=True).pixels, channels, height, width)
        values, size_in_bytes = loaded.regenerate(pixels)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if not postprocess:
            np.save(Path(target).with_suffix(".npy"), values)
        regenerated = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        images.write(target, images.from_array(regenerated), overwrite=force)
        return {"input": source, "output": target, "ok": True, **quality(pixels, regenerated, size_in_bytes)}

    common.run_jobs(jobs, work, label="infer", show=lambda row: click.echo(words(row), err=True), as_json=as_json)


def quality(original: np.ndarray, regenerated: np.ndarray, size_in_bytes: int | None) -> dict[str, Any]:
    """PSNR in dB (None: identical), SSIM, and bytes and bits per pixel of the whole file where there is one."""
    from attar.measure import metrics

    row: dict[str, Any] = {"psnr": metrics.psnr(original, regenerated), "ssim": metrics.ssim(original, regenerated)}
    if size_in_bytes is not None:
        row |= {"bytes": size_in_bytes, "bpp": 8 * size_in_bytes / (original.shape[0] * original.shape[1])}
    return row


def words(row: dict[str, Any]) -> str:
    """One regenerated image in words."""
    psnr = "identical" if row["psnr"] is None else f"PSNR {row['psnr']:.2f} dB"
    size = f"{row['bytes']} bytes, " if "bytes" in row else ""
    return f"{row['input']} -> {row['output']}: {size}{psnr}, SSIM {row['ssim']:.4f}"


def find_images(path: Path) -> list[tuple[Path, Path]]:
    """Every image at or below a path, with its name relative to it."""
    if path.is_file():
        return [(path, Path(path.name))]
    if not path.is_dir():
        raise ImageError(f"{path}: no such image or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in images.SUFFIXES and p.is_file())
    if not found:
        raise ImageError(f"{path}: no images below it; expected {' '.join(sorted(images.SUFFIXES))}")
    return [(p, p.relative_to(path)) for p in found]


def fitted(pixels: np.ndarray, channels: int | None, height: int | None, width: int | None) -> np.ndarray:
    """Pixels (H, W, C) uint8 in the model's channels and size."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if channels:
        image = image.convert("L" if channels == 1 else "RGB")
    wanted = (width or image.width, height or image.height)
    if wanted != image.size:
        image = image.resize(wanted, Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def open_model(model: str) -> Model:
    """Open a bundle (file or installed name), a whole exported network, or an exported pair ``encoder,decoder``."""
    paths = [part for part in model.split(",") if part]
    first = Path(paths[0]) if paths else Path()
    if len(paths) == 1 and (not first.exists() or (first.is_file() and first.suffix not in FORMATS)):
        return _bundle(model)
    if not 1 <= len(paths) <= 2:
        raise ModelMissingError(f"--model {model}: expected one path, or an encoder and a decoder as A,B")
    for path in paths:
        if not Path(path).exists():
            raise ModelMissingError(f"{path}: no such exported network")
    parts = [_exported(Path(path)) for path in paths]

    def regenerate(pixels: np.ndarray) -> tuple[np.ndarray, None]:
        values: Any = pixels[None]
        for position, part in enumerate(parts):
            values = part(np.rint(values).astype(np.float32) if position else values)
        if values.shape[1:] != pixels.shape:
            raise ImageError(f"{model}: gave {list(values.shape[1:])} for an image of {list(pixels.shape)}")
        return values[0], None

    shape = _input_shape(first)
    return Model(regenerate, shape[2], (shape[0], shape[1]))


def _bundle(model: str) -> Model:
    import attar

    codec = attar.load(model)

    def regenerate(pixels: np.ndarray) -> tuple[np.ndarray, int]:
        data = codec.compress(pixels)
        return codec.decompress(data).astype(np.float32) / 255.0, len(data)

    height, width = codec.manifest.size or (None, None)
    return Model(regenerate, codec.manifest.channels, (height, width))


def _exported(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs one exported network; what does not fit it is an :class:`AttarError`."""
    from attar.train import export

    try:
        runner = export.read_back(path, FORMATS[path.suffix if path.is_file() else ""])
    except AttarError:
        raise
    except Exception as error:  # noqa: BLE001 - three loaders, each with exceptions of its own
        raise BundleError(f"{path}: not an exported network that can be loaded: {_brief(error)}") from error

    def run_checked(values: np.ndarray) -> np.ndarray:
        try:
            return runner(values)
        except Exception as error:  # noqa: BLE001 - see above
            raise ImageError(f"{path}: does not take an input of shape {list(values.shape)}: {_brief(error)}") from error

    return run_checked


def _input_shape(path: Path) -> Sequence[int | None]:
    """Height, width and channels that an exported network was made for, None where it does not say."""
    if path.suffix == ".onnx":
        import onnx

        dims = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
        sizes = [d.dim_value or None for d in dims[1:]]
        return sizes if len(sizes) == 3 else [None] * 3
    if path.suffix in (".keras", ".h5"):
        import keras

        from attar.train import layers  # noqa: F401 - registers the custom layers

        return list(keras.models.load_model(path, compile=False).input_shape[1:])
    return [None, None, None]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

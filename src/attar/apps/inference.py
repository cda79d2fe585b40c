"""``attar infer``: images through a bundle or an exported network, and back as image files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from attar.apps.cli import common, runs
from attar.codec import images
from attar.codec.files import atomic
from attar.errors import AttarError, BundleError, ImageError, ModelMissingError
from attar.train.datasets.form import Form, conform, opaque

FORMATS = {".onnx": "onnx", ".keras": "keras", ".h5": "h5", "": "saved-model"}


@dataclass(frozen=True)
class Model:
    """Something that regenerates images: (H, W, C) uint8 -> (H, W, C) float in 0..1, and the bytes."""

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
        pixels = fitted(images.read(source, convert=True), channels, height, width)
        values, size_in_bytes = loaded.regenerate(pixels)
        regenerated = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        _write(Path(target), regenerated, None if postprocess else values, force)
        return {"input": source, "output": target, "ok": True, **quality(pixels, regenerated, size_in_bytes)}

    common.run_jobs(
        jobs, work, label="infer", show=lambda row: click.echo(words(row), err=True), as_json=as_json
    )


def _write(target: Path, regenerated: np.ndarray, values: np.ndarray | None, force: bool) -> None:
    """Write an image, and the network's own ``values`` beside it where they are wanted; both or none."""
    common.make_folder(str(target))
    if values is None:
        images.write(target, images.from_array(regenerated), overwrite=force)
        return
    with atomic(target.with_suffix(".npy"), overwrite=force) as temporary:
        np.save(temporary, values)
        images.write(target, images.from_array(regenerated), overwrite=force)


def quality(original: np.ndarray, regenerated: np.ndarray, size_in_bytes: int | None) -> dict[str, Any]:
    """PSNR in dB (None: identical), SSIM, and bytes and bits per pixel of the file where there is one."""
    from attar.measure import metrics

    row: dict[str, Any] = {
        "psnr": metrics.psnr(original, regenerated),
        "ssim": metrics.ssim(original, regenerated),
    }
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


def fitted(
    picture: images.Picture, channels: int | None, height: int | None, width: int | None
) -> np.ndarray:
    """Pixels (H, W, C) uint8 of a picture over white, in the model's channels and size."""
    pixels = opaque(picture)
    return conform(pixels, Form(height or pixels.shape[0], width or pixels.shape[1], channels))


def open_model(model: str) -> Model:
    """Open a bundle (file or installed name), a whole exported network, or a pair ``encoder,decoder``."""
    paths = [Path(part) for part in model.split(",") if part]
    if len(paths) == 1 and not _is_export(paths[0]):
        return _bundle(model)
    if not 1 <= len(paths) <= 2:
        raise ModelMissingError(f"--model {model}: expected one path, or an encoder and a decoder as A,B")
    for path in paths:
        if not path.exists():
            raise ModelMissingError(f"{path}: no such exported network")
        if not _is_export(path):
            raise BundleError(f"{path}: not an exported network; expected {', '.join(filter(None, FORMATS))}")
    runs.need_training("tensorflow" if any(path.is_dir() for path in paths) else "torch")
    parts, shape = [_exported(path) for path in paths], _made_for(paths[0])

    def regenerate(pixels: np.ndarray) -> tuple[np.ndarray, None]:
        values: Any = pixels[None]
        for position, part in enumerate(parts):
            values = part(np.rint(values).astype(np.float32) if position else values)
        if values.shape[1:] != pixels.shape:
            raise ImageError(
                f"{model}: gave {list(values.shape[1:])} for an image of {list(pixels.shape)}; "
                "resize with --height and --width"
            )
        return values[0], None

    height, width, channels = shape
    return Model(regenerate, channels, (height, width))


def _is_export(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix in FORMATS and path.suffix != "")


def _bundle(model: str) -> Model:
    import attar

    codec = attar.load(model)

    def regenerate(pixels: np.ndarray) -> tuple[np.ndarray, int]:
        data = codec.compress(pixels)
        return codec.decompress(data).astype(np.float32) / 255.0, len(data)

    height, width = codec.manifest.size or (None, None)
    return Model(regenerate, codec.manifest.channels, (height, width))


def _format(path: Path) -> str:
    return FORMATS["" if path.is_dir() else path.suffix]


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Translate what the loaders of three formats raise."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise AttarError(f"{path}: needs {error.name} to run: pip install {error.name}") from error
    except Exception as error:
        raise BundleError(f"{path}: not an exported network that can be loaded: {_brief(error)}") from error


def _made_for(path: Path) -> Sequence[int | None]:
    from attar.train import readback

    with _loading(path):
        return readback.input_shape(path, _format(path))


def _exported(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs one exported network; what does not fit it is an :class:`AttarError`."""
    from attar.train import readback

    with _loading(path):
        runner = readback.read_back(path, _format(path))

    def run_checked(values: np.ndarray) -> np.ndarray:
        try:
            return runner(values)
        except Exception as error:
            shape = list(values.shape)
            raise ImageError(f"{path}: does not take an input of shape {shape}: {_brief(error)}") from error

    return run_checked


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

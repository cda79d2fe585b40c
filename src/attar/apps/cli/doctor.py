"""``attar doctor``: what is installed, where models are looked for, and whether each of them works here."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import click

from attar import __version__
from attar.apps.cli import common
from attar.errors import AttarError

__all__ = ["doctor"]

Row = dict[str, Any]

EXTRAS = {
    "train": ("keras", "torch", "onnx", "onnxscript", "tensorboard"),
    "measure": ("matplotlib", "bjontegaard", "imagecodecs"),
    "web": ("fastapi", "uvicorn"),
    "cluster": ("ray",),
    "tfds": ("tensorflow-datasets", "array-record"),
}
RUNTIME = ("numpy", "pillow", "onnxruntime", "constriction", "click", "rich")


@click.command()
@common.json_option
def doctor(as_json: bool) -> None:
    """Say what is installed, and try every model: one line for each fault."""
    from attar.codec import bundle

    models = [check_model(name, str(path)) for name, path in bundle.installed().items()]
    row: Row = {
        "attar": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in RUNTIME},
        "extras": {extra: {name: version(name) for name in names} for extra, names in EXTRAS.items()},
        "model_folders": [str(folder) for folder in bundle.folders()],
        "models": models,
        "ok": all(model["ok"] for model in models) and all(version(name) for name in RUNTIME),
    }
    if as_json:
        common.echo_json(row)
    else:
        click.echo("\n".join(in_words(row)))
    if not row["ok"]:
        raise click.exceptions.Exit(1)


def version(package: str) -> str | None:
    """Version of an installed package, without importing it; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_model(name: str, path: str) -> Row:
    """Load a bundle, compress a picture with it and decompress the file, which checks its symbols."""
    import numpy as np

    from attar.codec import codec as codecs

    try:
        codec = codecs.load(path)
        height, width = codec.manifest.size or (96, 128)
        ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
        picture = np.repeat(ramp.astype(np.uint8)[..., None], codec.manifest.channels, axis=2)
        codec.decompress(codec.compress(picture))
    except AttarError as error:
        return {"name": name, "path": path, "ok": False, "error": str(error)}
    return {
        "name": name,
        "path": path,
        "ok": True,
        "id": codec.bundle.sha256[:8],
        "accepts": codec.manifest.accepts,
    }


def in_words(row: Row) -> list[str]:
    """The row as lines."""
    packages = ", ".join(f"{name} {found or 'MISSING'}" for name, found in row["packages"].items())
    machine = f"{row['platform']}, {row['cores']} cores"
    lines = [
        f"attar {row['attar']}, Python {row['python']} ({sys.executable}), {machine}",
        f"  packages: {packages}",
    ]
    for extra, found in row["extras"].items():
        there = ", ".join(f"{name} {one}" for name, one in found.items() if one) or "nothing"
        missing = ", ".join(name for name, one in found.items() if one is None)
        advice = f"; {missing} missing: pip install 'attar[{extra}]'" if missing else ""
        lines.append(f"  {extra}: {there}{advice}")
    lines.append(f"  models are looked for in {', '.join(row['model_folders'])}")
    for model in row["models"]:
        state = f"works ({model['id']}, {model['accepts']})" if model["ok"] else f"FAILS: {model['error']}"
        lines.append(f"  model {model['name']} {state}")
    if not row["models"]:
        lines.append("  no model is installed")
    return lines

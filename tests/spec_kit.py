"""A small model.json and what changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attar.spec import Catalogue, LayerInfo

ROOT = Path(__file__).parents[1]
SEEDS = [ROOT / "models" / "model.json", ROOT / "models" / "model2.json"]
CATALOGUE = Catalogue(
    {
        "Conv2D": LayerInfo(
            frozenset({"filters", "kernel_size", "strides"}), frozenset({"filters", "kernel_size"})
        ),
        "Dense": LayerInfo(frozenset({"units", "activation"}), frozenset({"units"})),
        "Flatten": LayerInfo(frozenset()),
    }
)


def small() -> dict[str, Any]:
    """The smallest sound document that has every required part."""
    return {
        "model": {
            "name": "small",
            "layers": {
                "inputs": [{"Input": {"shape": [8, 8, 1]}}],
                "generator": {
                    "layers": {
                        "encoder": {
                            "layers": [
                                {"Conv2D": {"filters": 2, "kernel_size": 3, "name": "first"}},
                                {"Flatten": {}},
                                {"Dense": {"units": None, "name": "compressed_representation"}},
                            ]
                        },
                        "decoder": {"layers": [{"Dense": {"units": 64}}]},
                    }
                },
            },
        }
    }


def at(document: dict[str, Any], *keys: str | int) -> Any:
    here: Any = document
    for key in keys:
        here = here[key]
    return here


def encoder_of(document: dict[str, Any]) -> list[Any]:
    return at(document, "model", "layers", "generator", "layers", "encoder", "layers")


def set_layer(document: dict[str, Any], value: Any) -> None:
    encoder_of(document)[0] = value


def conv(**arguments: Any) -> dict[str, Any]:
    return {"Conv2D": {"filters": 2, "kernel_size": 3, **arguments}}

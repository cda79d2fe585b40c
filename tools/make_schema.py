"""Write the JSON Schema of model.json from the layers there are: ``python tools/make_schema.py [--check]``.

Editors complete and check a model.json that says ``"$schema": ".../model.schema.json"``. The schema knows
structure, layer names and argument names; ``attar train --check`` knows everything.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attar import spec
from attar.plainjson import MAX_WORD
from attar.spec import Catalogue, LayerInfo

TARGET = Path(__file__).parents[1] / "src" / "attar" / "models" / "model.schema.json"
SIZES = {"units", "filters"}  # what --latent-dims fills in
DESCRIPTIONS = {
    "encoder": "The analysis transform: image to latents. One layer is named compressed_representation.",
    "decoder": "The synthesis transform: latents to an image of the input's shape.",
    "hyper_encoder": "Latents to hyper-latents (hyperprior).",
    "hyper_decoder": "Hyper-latents to the latents' means, and features for the context (hyperprior).",
    "hyper_prior": "Hyper-latents that are known to tables and means of the others, in integers (hyperprior).",
    "hyper_scales": "Hyper-latents to the indexes of the latents' tables, in integers (hyperprior).",
    "context": "Means and latents of the first pass to a change of the second pass's means (hyperprior).",
    "context_scales": "Indexes and symbols of the first pass to a change of the second's, in integers.",
    "discriminator": "For adversarial training: image to a score.",
}
NAME = {"$ref": "#/$defs/name"}


def schema(catalogue: Catalogue, versions: str) -> dict[str, Any]:
    """The schema as a JSON document, draft 2020-12; ``versions`` says what the layers were looked up in."""
    blocks = {name: {"$ref": "#/$defs/block", "description": text} for name, text in DESCRIPTIONS.items()}
    blocks["encoder"]["properties"] = {"layers": {"contains": {"$ref": "#/$defs/latent"}}}
    entropy = {"type": "object", "description": "The prior of the latents; without it, a factorized one."}
    layers = closed(
        {
            "inputs": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": closed({"Input": image()}, "Input"),
            },
            "generator": closed({"name": NAME, "layers": closed(blocks, *spec.REQUIRED_BLOCKS)}, "layers"),
            "discriminator": blocks["discriminator"],
        },
        "inputs",
        "generator",
    )
    model = closed({"name": NAME, "layers": layers, "entropy": entropy}, "layers")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Attar model.json",
        "description": "An autoencoder image codec, as layers of Keras and Attar.",
        **closed({"$schema": {"type": "string"}, "model": model, "entropy": entropy}, "model"),
        "$comment": f"Made by tools/make_schema.py of {versions}.",
        "$defs": {
            "name": {
                "description": "Unique among the layers; one is made up where it is missing.",
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": MAX_WORD,
                "pattern": "^[^/]*$",
            },
            "block": closed(
                {"name": NAME, "layers": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}}},
                "layers",
            ),
            "step": {
                "description": "Exactly one layer: its name, and its arguments.",
                **closed({name: {"$ref": f"#/$defs/layers/{name}"} for name in sorted(catalogue.layers)}),
                "minProperties": 1,
                "maxProperties": 1,
            },
            "latent": {
                "description": "The layer whose output is quantised and coded.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {
                    "properties": {"name": {"const": spec.LATENT_LAYER}},
                    "required": ["name"],
                },
            },
            "layers": {name: layer(catalogue.layers[name]) for name in sorted(catalogue.layers)},
        },
    }


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """An object with these keys and no others."""
    kind = {"type": "object", "properties": properties, "additionalProperties": False}
    return kind | ({"required": list(required)} if required else {})


def image() -> dict[str, Any]:
    size = {"type": ["integer", "null"], "minimum": 1}
    shape = {
        "description": "Height, width, channels; null for a height or width that may vary.",
        "type": "array",
        "prefixItems": [size, size, {"type": "integer", "minimum": 1}],
        "minItems": 3,
        "maxItems": 3,
    }
    dtype = {
        "enum": [*spec.INPUT_DTYPES, None],
        "description": "Pixels are 0..255; the network divides by 255.",
    }
    return closed({"shape": shape, "name": NAME, "dtype": dtype}, "shape")


def layer(info: LayerInfo) -> dict[str, Any]:
    arguments = dict.fromkeys(sorted(info.arguments), True) | {"name": NAME}
    made = {"description": info.description} | closed(arguments, *sorted(info.required - SIZES))
    open_sizes = sorted(info.required & SIZES)
    if open_sizes:  # only the latent layer may leave its size to --latent-dims
        made["anyOf"] = [
            {"required": open_sizes},
            {"properties": {"name": {"const": spec.LATENT_LAYER}}, "required": ["name"]},
        ]
    return made


def made_now() -> dict[str, Any]:
    """The schema of the layers that are installed."""
    from attar.train.catalogue import catalogue

    return schema(catalogue(), f"keras {version('keras')}")


def main(arguments: list[str]) -> int:
    made = json.dumps(made_now(), indent=1) + "\n"
    if arguments == ["--check"]:
        current = TARGET.exists() and TARGET.read_text("utf-8") == made
        print(f"{TARGET}: {'current' if current else 'not current: run make schema'}")
        return 0 if current else 1
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    new = TARGET.with_suffix(".new")
    new.write_text(made, "utf-8")
    new.replace(TARGET)
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The JSON Schema that is shipped: it is current, it accepts what loads, and it refuses what does not."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from jsonschema import Draft202012Validator

from attar import spec
from attar.errors import SpecError
from attar.train.catalogue import catalogue
from attar.train.layers import LAYERS

ROOT = Path(__file__).parents[1]
SEEDS = [ROOT / "models" / "model.json", ROOT / "models" / "model2.json"]


def maker() -> Any:
    found = importlib.util.spec_from_file_location("make_schema", ROOT / "tools" / "make_schema.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return json.loads((ROOT / "src" / "attar" / "models" / "model.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def validator(shipped: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(shipped)
    return Draft202012Validator(shipped)


def without_keras_layers(schema: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the installed Keras: everything but the layers of Keras."""
    schema = copy.deepcopy(schema)
    del schema["$comment"]
    for layers in (schema["$defs"]["layers"], schema["$defs"]["step"]["properties"]):
        for name in set(layers) - set(LAYERS):
            del layers[name]
    return schema


def test_the_shipped_schema_is_current(shipped: dict[str, Any]) -> None:
    now = maker().made_now()
    assert without_keras_layers(shipped) == without_keras_layers(now), "run make schema"
    if keras.__version__ in shipped["$comment"]:
        assert shipped == now, "run make schema"
    assert set(LAYERS) <= set(shipped["$defs"]["layers"])
    assert not set(spec.FORBIDDEN_LAYERS) & set(shipped["$defs"]["layers"])


def test_a_stale_schema_is_noticed(shipped: dict[str, Any]) -> None:
    """A layer of Attar's that lost an argument, or a block that is gone."""
    stale = copy.deepcopy(shipped)
    stale["$defs"]["layers"][next(iter(LAYERS))]["properties"].pop("dtype")
    assert without_keras_layers(stale) != without_keras_layers(shipped)
    stale = copy.deepcopy(shipped)
    generator = stale["properties"]["model"]["properties"]["layers"]["properties"]["generator"]
    generator["properties"]["layers"]["properties"].pop("context")
    assert without_keras_layers(stale) != without_keras_layers(shipped)


@pytest.fixture(scope="module")
def live() -> spec.Catalogue:
    return catalogue()


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_the_shipped_models_are_valid(validator: Draft202012Validator, path: Path) -> None:
    document = json.loads(path.read_text())
    assert not [*validator.iter_errors(document)]
    assert not [*validator.iter_errors(spec.load(path).with_latent_dims(50).document)]


def in_encoder(document: dict[str, Any], index: int, layer: Any) -> None:
    document["model"]["layers"]["generator"]["layers"]["encoder"]["layers"][index] = layer


FAULTS: list[Callable[[dict[str, Any]], Any]] = [
    lambda d: d.pop("model"),
    lambda d: d["model"].update(nam="x"),
    lambda d: d["model"].update(name="a/b"),
    lambda d: d["model"]["layers"]["inputs"].append({}),
    lambda d: d["model"]["layers"]["inputs"][0]["Input"].update(shape=[28, 28]),
    lambda d: d["model"]["layers"]["inputs"][0]["Input"].update(shape=[28, 28, None]),
    lambda d: d["model"]["layers"]["inputs"][0]["Input"].update(dtype="uint16"),
    lambda d: d["model"]["layers"]["generator"]["layers"].pop("decoder"),
    lambda d: d["model"]["layers"]["generator"]["layers"]["decoder"].update(layers=[]),
    lambda d: in_encoder(d, 0, {}),
    lambda d: in_encoder(d, 0, {"Flatten": {}, "Dense": {"units": 1}}),
    lambda d: in_encoder(d, 0, {"conv2d": {"filters": 1, "kernel_size": 1}}),
    lambda d: in_encoder(d, 0, {"Conv2D": {"filters": 1}}),
    lambda d: in_encoder(d, 0, {"Conv2D": {"filter": 1, "kernel_size": 1}}),
    lambda d: in_encoder(d, 0, {"Dense": {"name": "no_units"}}),
    lambda d: in_encoder(d, 0, {"Lambda": {"function": "x"}}),
    lambda d: in_encoder(d, -1, {"Dense": {"units": 3, "name": "another"}}),
]


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_what_does_not_load_is_not_valid(
    validator: Draft202012Validator, live: spec.Catalogue, number: int
) -> None:
    document = json.loads(SEEDS[0].read_text())
    FAULTS[number](document)
    assert [*validator.iter_errors(document)]
    with pytest.raises(SpecError):
        spec.parse(document, catalogue=live)


def test_optional_parts_are_valid(validator: Draft202012Validator, live: spec.Catalogue) -> None:
    document = json.loads(SEEDS[0].read_text())
    block = {"layers": [{"Dense": {"units": 3, "dtype": "float32"}}]}
    document["$schema"] = "model.schema.json"
    document["entropy"] = {"kind": "factorized"}
    document["model"]["layers"]["discriminator"] = block
    document["model"]["layers"]["generator"]["layers"]["hyper_encoder"] = block
    in_encoder(document, -1, {"Dense": {"name": spec.LATENT_LAYER}})
    assert not [*validator.iter_errors(document)]
    spec.parse(document, catalogue=live)

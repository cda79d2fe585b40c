"""The live catalogue: what it says of a layer is what the layer's constructor does."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from attar import spec
from attar.errors import SpecError
from attar.train import catalogue as door
from attar.train.layers import LAYERS


@pytest.fixture(scope="module")
def live() -> spec.Catalogue:
    return door.catalogue()


@pytest.mark.parametrize("name", ["model.json", "model2.json"])
def test_the_shipped_files_pass(live: spec.Catalogue, name: str, request: pytest.FixtureRequest) -> None:
    spec.load(request.config.rootpath / "models" / name, live)


def test_layers_of_attar_and_of_keras_are_there(live: spec.Catalogue) -> None:
    assert set(LAYERS) <= set(live.layers)
    assert {"Conv2D", "Dense", "MaxPool2D", "LeakyReLU", "BatchNormalization"} <= set(live.layers)
    assert len(live.layers) > 120
    assert not set(live.layers) & {*spec.FORBIDDEN_LAYERS, "Layer", "Wrapper", "InputLayer"}


def test_an_attar_layer_hides_the_keras_layer_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dense(keras.layers.Layer):
        """Another one. Really."""

        def __init__(self, width: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    monkeypatch.setattr("attar.train.layers.LAYERS", {"Dense": Dense, "Lambda": Dense})
    info = door.catalogue().layers["Dense"]
    assert info.required == {"width"}
    assert "units" not in info.arguments
    assert "dtype" in info.arguments
    assert info.description == "Another one"
    assert "Lambda" not in door.catalogue().layers


def test_arguments_are_those_of_the_constructor(live: spec.Catalogue) -> None:
    conv = live.layers["Conv2D"]
    assert conv.required == {"filters", "kernel_size"}
    assert {
        "strides",
        "padding",
        "activation",
        "dtype",
        "trainable",
        "activity_regularizer",
    } <= conv.arguments
    assert not conv.arguments & {"rank", "name", "self", "kwargs", "args"}
    assert live.layers["SpatialDropout2D"].arguments == {"rate", "data_format", "seed", "dtype"}
    assert live.layers["Flatten"].required == frozenset()
    assert "zero_output_for_mask" in live.layers["LSTM"].arguments


SOUND: dict[str, dict[str, Any]] = {
    "Conv2D": {"filters": 2, "kernel_size": 3},
    "Conv2DTranspose": {"filters": 2, "kernel_size": 3},
    "DepthwiseConv2D": {"kernel_size": 3},
    "Dense": {"units": 4},
    "Reshape": {"target_shape": [1, 2]},
    "Flatten": {},
    "UpSampling2D": {},
    "MaxPool2D": {},
    "LeakyReLU": {},
    "BatchNormalization": {},
    "Quantizer": {},
}


@pytest.mark.parametrize("kind", SOUND)
def test_the_constructor_agrees(live: spec.Catalogue, kind: str) -> None:
    """The required arguments are enough, those of every layer are taken, a made-up one is not."""
    info, cls = live.layers[kind], door.classes()[kind]
    assert info.required == set(SOUND[kind])
    base = {"trainable": False, "dtype": "float32", "activity_regularizer": "l2"}
    assert set(base) <= info.arguments
    assert cls(**SOUND[kind], **base).trainable is False
    with pytest.raises((TypeError, ValueError)):
        cls(**SOUND[kind], no_such_argument=1)


def test_faults_against_the_live_catalogue(live: spec.Catalogue) -> None:
    encoder = [
        {"conv2d": {"filters": 2, "kernel_size": 3}},
        {"Conv2D": {"filter": 2, "kernel_size": 3}},
        {"Dense": {"name": "compressed_representation"}},
    ]
    blocks = {"encoder": {"layers": encoder}, "decoder": {"layers": [{"Lambda": {"function": "x"}}]}}
    layers = {"inputs": [{"Input": {"shape": [8, 8, 1]}}], "generator": {"layers": blocks}}
    with pytest.raises(SpecError) as caught:
        spec.parse({"model": {"layers": layers}}, "mine.json", live)
    at = "model.layers.generator.layers"
    unknown, argument, missing, code = caught.value.faults
    assert unknown.startswith(
        f"{at}.encoder.layers[0].conv2d: unknown layer; expected the name of an attar.train"
    )
    assert unknown.endswith('(did you mean "Conv2D"?)')
    assert argument.startswith(
        f"{at}.encoder.layers[1].Conv2D.filter: unknown argument; expected an argument of Conv2D"
    )
    assert argument.endswith('(did you mean "filters"?)')
    assert (
        missing
        == f"{at}.encoder.layers[1].Conv2D: the argument filters is missing; expected it, as Conv2D needs it"
    )
    assert code.startswith(f"{at}.decoder.layers[0].Lambda: Lambda carries code")

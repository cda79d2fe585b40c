"""model.json: the two shipped files load unchanged, and every fault is found, located and explained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from attar import spec
from attar.errors import SpecError
from attar.spec import Catalogue, LayerInfo
from spec_kit import CATALOGUE, SEEDS, at, conv, encoder_of, set_layer, small

GENERATOR = "model.layers.generator.layers"
ENCODER = f"{GENERATOR}.encoder.layers"


def faults_of(document: object, catalogue: Catalogue | None = CATALOGUE) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        spec.parse(document, "my.json", catalogue)
    assert str(caught.value).startswith("my.json: ")
    return caught.value.faults


@pytest.mark.parametrize(
    ("path", "shape", "encoder", "decoder"),
    [(SEEDS[0], (28, 28, 1), 5, 5), (SEEDS[1], (32, 32, 3), 8, 8)],
)
def test_the_shipped_files_load(path: Path, shape: tuple[int, int, int], encoder: int, decoder: int) -> None:
    model = spec.load(path)
    assert (model.name, model.input_name, model.input_shape) == ("Image_Compressor", "Input_Layer", shape)
    assert {block: len(layers) for block, layers in model.blocks.items()} == {
        "encoder": encoder,
        "decoder": decoder,
    }
    assert model.block_names == {"encoder": "Encoder", "decoder": "Decoder"}
    assert model.entropy == {}
    assert model.document == json.loads(path.read_text())
    first = model.blocks["encoder"][0]
    assert (first.kind, first.name, first.path) == ("Conv2D", "encoder_layer_1", f"{ENCODER}[0].Conv2D")
    assert "name" not in first.arguments
    assert first.arguments["activation"] == "leaky_relu"
    assert model.latent_layer is model.blocks["encoder"][-1]
    assert model.latent_layer.arguments == {"units": None, "activation": None}


def test_latent_dims_go_into_the_layer_and_the_document() -> None:
    model = spec.load(SEEDS[0])
    sized = model.with_latent_dims(50)
    assert (model.latent_dims, sized.latent_dims) == (None, 50)
    assert encoder_of(dict(sized.document))[-1]["Dense"]["units"] == 50
    assert encoder_of(dict(model.document))[-1]["Dense"]["units"] is None
    assert sized.with_latent_dims(8) == model.with_latent_dims(8)
    assert len({model.digest(), sized.digest(), model.with_latent_dims(51).digest()}) == 3


def test_latent_dims_are_the_filters_of_a_convolution() -> None:
    document = small()
    encoder_of(document)[2] = {"Conv2D": {"kernel_size": 1, "name": "compressed_representation"}}
    model = spec.parse(document, catalogue=CATALOGUE).with_latent_dims(24)
    assert model.latent_layer.arguments == {"kernel_size": 1, "filters": 24}


@pytest.mark.parametrize("bad", [0, -3, True, 2.0, "50", None])
def test_latent_dims_must_be_a_positive_integer(bad: Any) -> None:
    with pytest.raises(SpecError, match=r"--latent-dims is .*; expected an integer of at least 1"):
        spec.load(SEEDS[0]).with_latent_dims(bad)


def test_latent_dims_cannot_size_every_layer() -> None:
    document = small()
    encoder_of(document)[2] = {"Flatten": {"name": "compressed_representation"}}
    with pytest.raises(
        SpecError, match=r"layers\[2\]\.Flatten: --latent-dims cannot size a Flatten; expected .*units"
    ):
        spec.parse(document).with_latent_dims(4)


def test_layers_without_a_name_get_one_from_their_place() -> None:
    model = spec.parse(small())
    assert [layer.name for layer in model.blocks["encoder"]] == [
        "first",
        "encoder_1_flatten",
        spec.LATENT_LAYER,
    ]
    assert [layer.name for layer in model.blocks["decoder"]] == ["decoder_0_dense"]
    assert (model.input_name, model.block_names["encoder"]) == ("input", "encoder")


def test_optional_blocks_and_entropy_are_read_from_either_place() -> None:
    document = small()
    layers = document["model"]["layers"]
    layers["discriminator"] = {"name": "Critic", "layers": [{"Dense": {"units": 1}}]}
    layers["generator"]["layers"]["hyper_encoder"] = {"layers": [{"Dense": {"units": 3}}]}
    document["entropy"] = {"kind": "hyperprior"}
    model = spec.parse(document)
    assert list(model.blocks) == ["encoder", "decoder", "hyper_encoder", "discriminator"]
    assert model.block_names["discriminator"] == "Critic"
    document["model"]["entropy"] = document.pop("entropy")
    assert spec.parse(document).entropy == model.entropy == {"kind": "hyperprior"}
    layers["generator"]["layers"]["discriminator"] = layers.pop("discriminator")
    assert spec.parse(document).digest() == model.digest()


def test_a_fully_convolutional_input_may_have_any_height_and_width() -> None:
    document = small()
    document["model"]["layers"]["inputs"][0]["Input"]["shape"] = [None, None, 3]
    assert spec.parse(document).input_shape == (None, None, 3)


def set_input(document: dict[str, Any], value: Any) -> None:
    document["model"]["layers"]["inputs"] = value


def image(shape: Any, **more: Any) -> list[Any]:
    return [{"Input": {"shape": shape, **more}}]


PLANTED = [
    # where the fault is planted, the fault, the one line that must be reported
    (set_input, [], r"model\.layers\.inputs: found an empty list; expected a list of exactly one"),
    (set_input, image([8, 8]), r"Input\.shape: found a list of 2; expected \[height, width, channels\]"),
    (set_input, image([8, 8, 0]), r"Input\.shape: found \[8, 8, 0\]; expected .*positive integers"),
    (set_input, image([8, 8, None]), r"Input\.shape: found \[8, 8, null\]"),
    (set_input, image([8, True, 1]), r"Input\.shape: found \[8, true, 1\]"),
    (
        set_input,
        image([65536, 65536, 3]),
        r"Input\.shape: found \[65536, 65536, 3\]; expected at most 268435456",
    ),
    (set_input, image([8, 8, 1], dtype="uint7"), r'dtype: found "uint7"; expected .*mean "uint8"'),
    (set_input, image([8, 8, 1], dtyp="uint8"), r'Input\.dtyp: unknown key; expected one of .*mean "dtype"'),
    (
        set_input,
        [{"Inptu": {}}],
        r'inputs\[0\]\.Inptu: unknown key; expected one of Input \(did you mean "Input"',
    ),
    (set_layer, {}, r"layers\[0\]: found an empty object; expected exactly one layer"),
    (
        set_layer,
        {"Dense": {}, "Conv2D": {}},
        r"layers\[0\]: found an object with the keys Dense, Conv2D; expected exac",
    ),
    (set_layer, "Conv2D", r'layers\[0\]: found "Conv2D"; expected exactly one layer'),
    (set_layer, {"Conv2D": None}, r"layers\[0\]\.Conv2D: found null; expected an object of arguments"),
    (set_layer, {"conv2d": {}}, r'conv2d: unknown layer; expected .* \(did you mean "Conv2D"\?\)'),
    (
        set_layer,
        {"Zzz": {}},
        r"layers\[0\]\.Zzz: unknown layer; expected the name of an attar\.train or keras",
    ),
    (set_layer, conv(strdies=2), r'Conv2D\.strdies: unknown argument; expected an arg.*mean "strides"'),
    (set_layer, {"Conv2D": {"filters": 2}}, r"Conv2D: the argument kernel_size is missing; expected it"),
    (set_layer, conv(name="a/b"), r'Conv2D\.name: found "a/b"; expected a printable name without a slash'),
    (set_layer, conv(name="\x1b[2J"), r'Conv2D\.name: found "\\x1b\[2J"; expected a printable'),
    (set_layer, conv(name=7), r"Conv2D\.name: found 7; expected a printable name"),
    (set_layer, conv(name="n" * 200), r"Conv2D\.name: 200 characters; expected a name of at most 128"),
    (
        set_layer,
        conv(name="decoder_0_dense"),
        r'Dense\.name: "decoder_0_dense" is already the name of .*\[0\]\.Conv2D',
    ),
    (set_layer, conv(strides=float("nan")), r"Conv2D\.strides: found nan; expected a finite number"),
    (set_layer, conv(strides=10**30), r"Conv2D\.strides: found an integer beyond 2\^53"),
]


@pytest.mark.parametrize(("plant", "value", "line"), PLANTED)
def test_a_planted_fault_is_the_only_one_found(plant: Any, value: Any, line: str) -> None:
    document = small()
    spec.parse(document, catalogue=CATALOGUE)
    plant(document, value)
    faults = faults_of(document)
    assert any(re.search(line, fault) for fault in faults), faults
    assert len(faults) == 1 + any("Input is missing" in fault for fault in faults)


@pytest.mark.parametrize("kind", spec.FORBIDDEN_LAYERS)
def test_layers_that_carry_code_are_refused_by_name(kind: str) -> None:
    everything = LayerInfo(frozenset({"function"}))
    catalogue = Catalogue({**CATALOGUE.layers, kind: everything})
    document = small()
    set_layer(document, {kind: {"function": "x"}})
    for chosen in (None, catalogue):
        (fault,) = faults_of(document, chosen)
        assert fault.startswith(f"{ENCODER}[0].{kind}: {kind} carries code")


@pytest.mark.parametrize(
    ("nested", "line"),
    [
        ({"class_name": "Lambda", "config": {}}, "Lambda carries code"),
        (
            {"class_name": "__lambda__", "config": {}},
            'class_name: found "__lambda__"; expected the name of a Keras',
        ),
        ({"class_name": "function", "config": "system", "module": "keras"}, 'class_name: found "function"'),
        (
            {"class_name": "Popen", "module": "subprocess"},
            r'module: found "subprocess"; expected a module of keras',
        ),
        ({"class_name": "Popen", "module": "kerasx"}, r'module: found "kerasx"'),
    ],
)
def test_code_inside_an_argument_is_refused_too(nested: dict[str, Any], line: str) -> None:
    document = small()
    set_layer(document, conv(strides=[1, {"deeper": nested}]))
    (fault,) = faults_of(document)
    assert fault.startswith(f"{ENCODER}[0].Conv2D.strides[1].deeper")
    assert re.search(line, fault)


def test_a_keras_object_inside_an_argument_is_accepted() -> None:
    document = small()
    initializer = {"class_name": "HeNormal", "module": "keras.initializers", "config": {"seed": 1}}
    set_layer(document, conv(strides=initializer))
    assert spec.parse(document, catalogue=CATALOGUE).blocks["encoder"][0].arguments["strides"] == initializer


def test_only_names_of_layers_can_be_looked_up() -> None:
    for kind in ("keras.layers.Lambda", "__class__", "Conv2D ", ""):
        document = small()
        set_layer(document, {kind: {}})
        (fault,) = faults_of(document, None)
        assert "not the name of a layer; expected" in fault


def test_the_latent_layer_must_be_in_the_encoder() -> None:
    document = small()
    latent = encoder_of(document).pop()
    (fault,) = faults_of(document)
    assert fault.startswith(f"{ENCODER}: no layer is named compressed_representation; expected")
    encoder_of(document).append({"Dense": {"units": None, "name": "compresed_representation"}})
    (fault,) = faults_of(document)
    assert fault.endswith('(did you mean "compresed_representation" to be it?)')
    encoder_of(document).pop()
    at(document, "model", "layers", "generator", "layers", "decoder", "layers").append(latent)
    (fault,) = faults_of(document)
    assert (
        "compressed_representation is not in the encoder but at model.layers.generator.layers.decoder"
        in fault
    )


def test_all_faults_are_reported_at_once() -> None:
    document = small()
    set_input(document, image([8, 0, 1]))
    set_layer(document, {"Conv3D": {}})
    layers = document["model"]["layers"]["generator"]["layers"]
    layers["decodr"] = layers.pop("decoder")
    layers["hyper_encoder"] = {"layers": []}
    document["model"]["nam"] = 3
    faults = faults_of(document)
    expected = [
        r'^model\.nam: unknown key; expected .*mean "name"',
        r"^model\.layers\.inputs\[0\]\.Input\.shape: ",
        r'^model\.layers\.generator\.layers\.decodr: unknown key; expected .*mean "decoder"',
        r"^model\.layers\.generator\.layers: decoder is missing; expected an object with encoder, decoder",
        r'^model\.layers\..*encoder\.layers\[0\]\.Conv3D: unknown layer; .*mean "Conv2D"',
        r"^model\.layers\..*hyper_encoder\.layers: found an empty list; expected a list of at least one",
    ]
    for line in expected:
        assert any(re.search(line, fault) for fault in faults), line
    assert len(faults) == len(expected)


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ([], "the file: found an empty list; expected an object with model"),
        ({}, "the file: model is missing"),
        ({"model": {"layers": 3}}, "model.layers: found 3; expected an object with inputs, generator"),
        ({"model": {"layers": {}, "name": []}}, "model.name: found an empty list; expected a printable name"),
        ({"model": {"layers": {}}, "entropy": 3}, "entropy: found 3; expected an object"),
        ({"model": {"layers": {}, "entropy": {}}, "entropy": {}}, "entropy is also given at the top level"),
        ({"model": {1: 2}}, "model: a key is not a string"),
        ({"model": {"layers": {1, 2}}}, "model.layers: found a Python set; expected JSON"),
    ],
)
def test_wrong_documents(document: object, line: str) -> None:
    assert any(line in fault for fault in faults_of(document))


def test_a_discriminator_is_given_once() -> None:
    document = small()
    block = {"layers": [{"Dense": {"units": 1}}]}
    document["model"]["layers"]["discriminator"] = block
    document["model"]["layers"]["generator"]["layers"]["discriminator"] = block
    assert any(
        "the generator has a discriminator too; expected one" in fault for fault in faults_of(document)
    )


def test_a_thousand_faults_stay_readable() -> None:
    document = small()
    encoder_of(document)[:0] = [{"Nope": {}} for _ in range(1000)]
    faults = faults_of(document)
    assert len(faults) == 101
    assert faults[-1] == "... and 900 more faults"

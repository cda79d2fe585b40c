from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

from attar import spec as specs
from attar.codec.manifest import Latent, Manifest
from attar.errors import BundleError, SpecError
from attar.train import losses, network, steps
from attar.train.geometry import Geometry
from training_kit import ROOT, SEED_MODEL, build, convolutional, dense, digits, document, numpy, with_layers


def faults(content: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        build(content)
    return str(caught.value)


def test_the_seed_model_builds_unchanged() -> None:
    net = network.build(specs.load(SEED_MODEL).with_latent_dims(50), seed=0)
    assert network.geometry(net) == Geometry((28, 28), 1, (50,), None)
    forward = net(digits(3), training=False)
    assert forward.regenerated.shape == (3, 28, 28, 1)
    assert forward.bits.shape == (3,)
    assert forward.symbols.shape == (3, 50)
    assert set(network.parameters(net)) == {"analysis", "synthesis", "prior"}
    assert network.parameters(net)["prior"] == 50 * 3 * 3


def test_the_second_seed_model_builds_and_trains_a_step() -> None:
    """Its 39 million weights are too many for more than one image at a time here."""
    net = network.build(specs.load(ROOT / "models" / "model2.json").with_latent_dims(64), seed=0)
    assert network.geometry(net).size == (32, 32)
    step = steps.make_step(net, losses.Loss())
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    before = numpy(net.trainable_variables[0]).copy()
    assert np.isfinite(numpy(step(images, 1e-3))).all()
    assert not np.array_equal(before, numpy(net.trainable_variables[0]))


def test_a_seed_decides_the_weights() -> None:
    first, same, other = build(dense(), seed=3), build(dense(), seed=3), build(dense(), seed=4)
    images = digits(4)
    outputs = [numpy(net(images).regenerated) for net in (first, same, other)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_geometry_of_an_open_size_is_found_by_asking() -> None:
    net = build(convolutional())
    assert network.geometry(net) == Geometry(None, 4, (6,), 4)
    forward = net(np.zeros((2, 8, 20, 3), np.uint8))
    assert forward.symbols.shape == (2, 2, 5, 6)
    assert forward.regenerated.shape == (2, 8, 20, 3)


def test_geometry_of_a_latent_with_a_fixed_size() -> None:
    assert network.geometry(build(convolutional(28, 1))) == Geometry((28, 28), 1, (7, 7, 6), None)


def test_bits_are_the_sum_over_the_whole_latent() -> None:
    net = build(convolutional(28, 1))
    forward = net(digits(3))
    each = numpy(net.prior(forward.symbols))
    np.testing.assert_allclose(numpy(forward.bits), each.sum((1, 2, 3)), rtol=1e-5)


WRAPPED = with_layers(
    convolutional(28, 1),
    encoder=[
        {"TimeDistributed": {"layer": {"Dense": {"units": 5, "activation": "relu"}}}},
        {"BatchNormalization": {"momentum": 0.5}},
        {"Dropout": {"rate": 0.5}},
    ],
    decoder=[{"TimeDistributed": {"layer": {"Conv1D": {"filters": 4, "kernel_size": 3, "padding": "same"}}}}],
)


def test_a_wrapper_takes_a_layer_as_its_argument() -> None:
    net = build(WRAPPED)
    wrapper = net.analysis.layers[2]
    assert isinstance(wrapper.layer, keras.layers.Dense)
    assert wrapper.layer.units == 5
    assert net(digits(2)).regenerated.shape == (2, 28, 28, 1)


def test_a_list_argument_may_hold_layers() -> None:
    cells = {"StackedRNNCells": {"cells": [{"LSTMCell": {"units": 9}}, {"GRUCell": {"units": 7}}]}}
    content = document(
        [28, 28, 1],
        [
            {"Reshape": {"target_shape": [28, 28]}},
            {"RNN": {"cell": cells}},
            {"Dense": {"units": 4, "name": "compressed_representation"}},
        ],
        [{"Dense": {"units": 784}}, {"Reshape": {"target_shape": [28, 28, 1]}}],
    )
    assert build(content)(digits(2)).symbols.shape == (2, 4)


def test_names_of_variables_are_the_same_in_every_process_and_build() -> None:
    first, again = build(WRAPPED), build(WRAPPED)
    assert [v.path for v in first.variables] != [v.path for v in again.variables]  # Keras counts
    assert list(first.named_variables()) == list(again.named_variables())
    assert len(first.named_variables()) == len(first.variables)
    names = list(first.named_variables())
    assert any(name.endswith("moving_mean") for name in names)
    assert sum("seed_generator" in name for name in names) == 2  # the dropout's and the quantiser's


def test_training_is_passed_to_the_layers() -> None:
    net, images = build(WRAPPED), digits(16)
    mean = next(v for name, v in net.named_variables().items() if name.endswith("moving_mean"))
    latents = [numpy(net.analysis(images, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*latents)
    np.testing.assert_array_equal(numpy(mean), 0)
    dropped = [numpy(net.analysis(images, training=True)) for _ in range(2)]
    assert not np.array_equal(*dropped)
    net(images, training=True)
    assert abs(numpy(mean)).max() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_bfloat16"])
def test_a_layer_may_have_a_dtype_of_its_own(dtype: str) -> None:
    content = with_layers(
        dense(),
        encoder=[{"Conv2D": {"filters": 1, "kernel_size": 1, "dtype": dtype}}],
        decoder=[{"Dense": {"units": 12, "dtype": dtype}}],
    )
    forward = build(content)(digits(2), training=True)
    for tensor in forward[:3]:
        assert numpy(tensor).dtype == np.float32


def test_mixed_precision_is_for_the_transforms_only() -> None:
    net = build(dense(), dtype="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert net.analysis.layers[-1].compute_dtype == "bfloat16"
    assert {str(v.dtype) for v in net.trainable_variables} == {"float32"}
    assert net.prior.compute_dtype == "float32"
    forward = net(digits(2), training=True)
    assert {numpy(tensor).dtype for tensor in forward[:3]} == {np.dtype("float32")}


def test_the_dtype_policy_is_put_back_after_a_fault() -> None:
    broken = with_layers(dense(), encoder=[{"Conv2D": {"filters": -1, "kernel_size": 3}}])
    with pytest.raises(SpecError):
        build(broken, dtype="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


def test_the_model_json_rebuilds_the_network() -> None:
    net = build(dense(), seed=1)
    again = type(net).from_config(json.loads(json.dumps(net.get_config())))
    assert list(again.named_variables()) == list(net.named_variables())
    assert again.spec.digest() == net.spec.digest()


def test_all_faults_of_all_layers_are_reported_at_once() -> None:
    text = faults(
        with_layers(
            dense(),
            encoder=[{"Conv2D": {"filters": -3, "kernel_size": 3}}, {"Dropout": {"rate": 7}}],
            decoder=[{"Dense": {"units": 4, "activation": "leeky_relu"}}],
        )
    )
    assert "3 faults" in text
    for word in ("encoder.layers[0].Conv2D", "encoder.layers[1].Dropout", "leeky_relu"):
        assert word in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            with_layers(dense(), decoder=[{"Reshape": {"target_shape": [5, 5]}}]),
            ["decoder.layers[0].Reshape: does not fit an input of shape [12]"],
        ),
        (
            document(
                [28, 28, 1],
                [{"Flatten": {}}, {"Dense": {"units": 4, "name": "compressed_representation"}}],
                [{"Dense": {"units": 700}}, {"Reshape": {"target_shape": [25, 28, 1]}}],
            ),
            ["the decoder ends with shape [25, 28, 1], expected the input's [28, 28, 1]"],
        ),
        (dense(None), ["its size is open (null)", "--latent-dims"]),
        (dense(5000), ["the latent has 5000 channels, expected 1 to 4096"]),
        (
            document(
                [28, 28, 1],
                [{"Reshape": {"target_shape": [7, 4, 7, 4], "name": "compressed_representation"}}],
                [{"Reshape": {"target_shape": [28, 28, 1]}}],
            ),
            ["the latent has shape [7, 4, 7, 4], expected (C,), (N, C) or (H, W, C)"],
        ),
        (
            document(
                [None, None, 3],
                [
                    {"GlobalAveragePooling2D": {}},
                    {"Dense": {"units": 4, "name": "compressed_representation"}},
                ],
                [{"Dense": {"units": 3}}],
            ),
            ["the latent has shape [4], expected (H, W, C), as the input's height and width are open"],
        ),
        (
            document(
                [None, None, 3],
                [
                    {
                        "Conv2D": {
                            "filters": 4,
                            "kernel_size": 3,
                            "strides": 2,
                            "name": "compressed_representation",
                        }
                    }
                ],
                [{"Conv2DTranspose": {"filters": 3, "kernel_size": 4}}],
            ),
            ["the decoder ends with shape"],
        ),
        (convolutional(28, 4), ["4 channels, expected 1 (gray) or 3 (RGB)"]),
        (
            {**dense(), "entropy": {"kind": "arithmetic", "components": 99, "spread": "wide", "colour": 1}},
            [
                "4 faults",
                "entropy.kind",
                "entropy.components: 99",
                "entropy.spread: 'wide'",
                "entropy.colour",
            ],
        ),
        (
            with_layers(dense(), encoder=[{"TimeDistributed": {"layer": {"Lambda": {"function": "x"}}}}]),
            ["Lambda is no layer of Attar or Keras that a model.json may name"],
        ),
        (
            with_layers(dense(), decoder=[{"Quantizer": {}}]),
            ["decoder.layers[0].Quantizer: gives tuple, expected one tensor"],
        ),
    ],
)
def test_what_cannot_be_built_or_coded_is_refused(content: dict, words: list[str]) -> None:
    text = faults(content)
    for word in words:
        assert word in text


def test_one_open_side_is_refused() -> None:
    content = convolutional()
    content["model"]["layers"]["inputs"][0]["Input"]["shape"] = [28, None, 3]
    assert "expected both or neither to be null" in faults(content)


def test_a_block_that_nothing_would_use_is_refused() -> None:
    content = dense()
    blocks = content["model"]["layers"]["generator"]["layers"]
    blocks["hyper_encoder"] = {"layers": [{"Dense": {"units": 4}}]}
    assert "the block hyper_encoder has no use beside a factorized prior" in faults(content)


def test_the_limit_of_latent_channels_is_the_bundle_s() -> None:
    def manifest(channels: int) -> Manifest:
        return Manifest(
            name="m", version="1", licence="x", channels=1, size=(28, 28), latent=Latent(channels)
        )

    manifest(network.MOST_LATENT_CHANNELS)
    with pytest.raises(BundleError, match="latent"):
        manifest(network.MOST_LATENT_CHANNELS + 1)

"""A discriminator beside the network: what it may be, whose gradient goes where, and whether the game stays level."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from attar import spec as specs
from attar.errors import CheckpointError, SpecError, TrainingError
from attar.train import adversarial, checkpoint, datasets, journal, losses, network, steps
from attar.train.adversarial import Adversary
from attar.train.config import TrainConfig
from attar.train.trainer import Trainer
from training_kit import ROOT, attar, convolutional, dense, digits, history, numpy, refused, write_model

GAN = ROOT / "models" / "digits-gan.json"
IMAGES = digits(16)
KINDS = ("hinge", "non-saturating")
needs_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="a discriminator trains on PyTorch only"
)


def judged(*layers: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """A small model.json with a discriminator of these layers, or of two convolutions."""
    made = copy.deepcopy(dense() if base is None else base)
    convolution = {
        "filters": 6,
        "kernel_size": 4,
        "strides": 4,
        "padding": "same",
        "activation": "leaky_relu",
    }
    chosen = [*layers] or [{"Conv2D": convolution}, {"Conv2D": {"filters": 1, "kernel_size": 1}}]
    made["model"]["layers"]["discriminator"] = {"layers": chosen}
    return made


def made(content: dict[str, Any], **options: Any) -> tuple[Any, Adversary, Any]:
    """Network, adversary and step."""
    spec = specs.parse(content)
    net = network.build(spec, seed=2)
    adversary = Adversary(spec, TrainConfig(**options))
    return net, adversary, steps.make_step(net, losses.Loss(), adversary=adversary)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_losses_are_those_of_the_papers() -> None:
    real = np.random.default_rng(0).normal(size=(3, 4, 5, 1)).astype("float32") * 2
    fake = -real[::-1] + 0.3
    expected = {
        "hinge": (-fake, np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)),
        "non-saturating": (-np.log(sigmoid(fake)), -np.log(sigmoid(real)) - np.log(1 - sigmoid(fake))),
    }
    for kind, (deceive, detect) in expected.items():
        np.testing.assert_allclose(
            numpy(adversarial.deceive(kind, fake)), deceive.mean((1, 2, 3)), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            numpy(adversarial.detect(kind, real, fake)), detect.mean((1, 2, 3)), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(("kind", "blind"), [("hinge", 2.0), ("non-saturating", 2 * math.log(2))])
def test_who_cannot_tell_and_who_always_can(kind: str, blind: float) -> None:
    nothing, sure = np.zeros((2, 1), "float32"), np.full((2, 1), 30.0, "float32")
    assert numpy(adversarial.detect(kind, nothing, nothing)) == pytest.approx(blind)
    assert numpy(adversarial.detect(kind, sure, -sure)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            [{"Conv2D": {"filters": 2, "kernel_size": 3}}],
            "ends with shape [26, 26, 2], expected one logit, [1]",
        ),
        ([{"GlobalAveragePooling2D": {}}, {"Reshape": {"target_shape": [1, 1]}}], "ends with shape [1, 1]"),
        ([{"Flatten": {}}, {"Dense": {"units": 1, "activation": "sigmoid"}}], "a logit has no bounds"),
        ([{"Dense": {"units": -4}}], "discriminator.layers[0].Dense"),
        ([{"Reshape": {"target_shape": [5]}}], "does not fit an input of shape [28, 28, 1]"),
    ],
)
def test_what_gives_no_logits_is_refused(layers: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        adversarial.build(specs.parse(judged(*layers)))
    assert words in str(caught.value)
    path = write_model(tmp_path / "model.json", judged(*layers))
    refused(attar("train", "--check", "--model", path), 2, words, str(path))


def test_a_discriminator_gives_one_logit_or_one_for_each_patch() -> None:
    whole = adversarial.build(specs.parse(judged({"Flatten": {}}, {"Dense": {"units": 1}})))
    assert whole(IMAGES / 255.0).shape == (16, 1)
    assert adversarial.build(specs.load(GAN))(IMAGES / 255.0).shape == (16, 7, 7, 1)


def test_the_discriminator_is_no_part_of_the_network() -> None:
    plain, with_one = (network.build(specs.parse(content), seed=4) for content in (dense(), judged()))
    assert list(plain.named_variables()) == list(with_one.named_variables())
    for name, variable in plain.named_variables().items():
        np.testing.assert_array_equal(numpy(variable), numpy(with_one.named_variables()[name]), err_msg=name)
    assert plain.parts.keys() == with_one.parts.keys()


def test_the_shipped_model_is_sound_and_its_discriminator_is_counted() -> None:
    result = attar("train", "--check", "--model", GAN)
    assert (result.code, result.err) == (0, "")
    assert "discriminator 33,953 weights" in result.out
    without = attar("train", "--check", "--model", GAN, "--adversarial-weight", 0)
    assert "discriminator" not in without.out


def test_options_of_a_discriminator_need_one(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.json")
    for option, value in (("weight", 1), ("warmup", 5), ("weight", 0)):
        words = ("train", "--model", model, "-o", tmp_path / "run", f"--adversarial-{option}", value)
        refused(attar(*words), 2, f"--adversarial-{option}: test has no block discriminator")


def test_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(TrainingError, match="trains on PyTorch only, and KERAS_BACKEND is jax"):
        Adversary(specs.parse(judged()), TrainConfig())


def gradient(net: Any, adversary: Adversary, weight: float, *, distortion: bool) -> np.ndarray:
    """Gradient of the network's loss over all its weights, with the adversarial term in it."""
    import torch

    from attar.train.adversarialstep import AdversarialStep

    step = AdversarialStep(adversary, net, losses.Loss(lmbda=0.0), None, 0.0, False)
    adversary.learns(False)
    noise = {"noise": torch.zeros((len(IMAGES), 12))}
    (value, term, *_), _ = step.measure(torch.from_numpy(IMAGES), noise)
    loss = weight * term + (value if distortion else 0.0)
    found = torch.autograd.grad(loss, step.weights, allow_unused=True)
    return np.concatenate(
        [
            np.zeros(w.numel()) if g is None else numpy(g).ravel()
            for g, w in zip(found, step.weights, strict=True)
        ]
    )


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_the_discriminator_s_gradient_reaches_the_network(kind: str) -> None:
    net, adversary, _ = made(judged(), adversarial=kind)
    alone = gradient(net, adversary, 1.0, distortion=False)
    without, light, heavy = (gradient(net, adversary, weight, distortion=True) for weight in (0.0, 0.5, 2.0))
    names = list(steps.trained_variables(net))
    assert np.linalg.norm(alone) > 1e-6
    # The change is the adversarial gradient, and in proportion to the weight.
    np.testing.assert_allclose(light - without, 0.5 * alone, atol=1e-6)
    np.testing.assert_allclose(heavy - without, 2.0 * alone, atol=1e-6)
    # It comes through the decoder as far as the first layer of the encoder, though not to the prior.
    sizes = np.cumsum([0, *(numpy(v).size for v in steps.trained_variables(net).values())])
    reached = {n: np.abs(alone[a:b]).max() > 0 for n, a, b in zip(names, sizes, sizes[1:], strict=False)}
    assert reached["encoder_1_dense/kernel"]
    assert not any(there for name, there in reached.items() if name.startswith("prior"))


def values(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: numpy(variable).copy() for name, variable in variables.items()}


def moved(before: dict[str, np.ndarray], variables: dict[str, Any]) -> bool:
    return any(not np.array_equal(value, numpy(variables[name])) for name, value in before.items())


@needs_torch
def test_each_player_s_step_moves_only_that_player() -> None:
    net, adversary, step = made(judged())
    before = values(adversary.variables)
    adversary.learns(False)
    (value, term, *both), metrics = step.forward(*step.prepare(IMAGES))
    step.descend(value + term, metrics, 1e-2)
    assert not moved(before, adversary.variables)
    assert all(weight.grad is None for weight in adversary.weights)
    settled = values(net.named_variables())
    adversary.learns(True)
    adversary.descend(adversary.detect(*both), 1e-2, step.team)
    assert not moved(settled, net.named_variables())
    assert moved(before, adversary.variables)


@needs_torch
def test_through_the_warm_up_only_the_distortion_trains() -> None:
    net, adversary, step = made(judged(), adversarial_warmup=3, adversarial_weight=5.0)
    plain = network.build(net.spec, seed=2)
    alone = steps.make_step(plain, losses.Loss())
    before = values(adversary.variables)
    for _ in range(3):
        found, expected = numpy(step(IMAGES, 1e-3)), numpy(alone(IMAGES, 1e-3))
        np.testing.assert_array_equal(found[:4], expected)
        assert found.shape == (len(steps.ALL_METRICS),)
        assert found[5] == pytest.approx(2.0, abs=0.5)  # it cannot tell, and is told so
    assert not moved(before, adversary.variables)
    for _ in range(2):
        step(IMAGES, 1e-3)
        alone(IMAGES, 1e-3)
    assert moved(before, adversary.variables)
    assert moved(values(net.named_variables()), plain.named_variables())


@needs_torch
@pytest.mark.parametrize(("kind", "model"), [("hinge", "shipped"), ("non-saturating", "small")])
def test_a_short_run_stays_stable(kind: str, model: str) -> None:
    """Nobody wins: images get better all the while, and the discriminator neither gives up nor sees through all."""
    strided = {"kernel_size": 4, "strides": 2, "padding": "same", "activation": "leaky_relu"}
    layers = [{"Conv2D": {"filters": filters, **strided}} for filters in (8, 16)]
    normalised = [{"SpectralNormalization": {"layer": layer}} for layer in layers]
    logit = {"Conv2D": {"filters": 1, "kernel_size": 3}}
    small = specs.parse(judged(*normalised, logit, base=convolutional(28, 1)))
    spec = specs.load(GAN).with_latent_dims(50) if model == "shipped" else small
    net = network.build(spec, seed=0)
    config = TrainConfig(adversarial=kind, adversarial_weight=0.02, adversarial_warmup=80)
    step = steps.make_step(net, losses.Loss(lmbda=0.0), adversary=Adversary(spec, config))
    images, rng = digits(640), np.random.default_rng(0)
    found = np.stack([numpy(step(images[rng.permutation(640)[:32]], 1e-3)) for _ in range(170)])
    assert np.isfinite(found).all()
    columns = dict(zip(steps.ALL_METRICS, found[-30:].mean(0), strict=True))
    before = dict(zip(steps.ALL_METRICS, found[50:80].mean(0), strict=True))
    assert columns["ssim"] > {"shipped": 0.65, "small": 0.5}[model] > before["ssim"]
    assert columns["psnr"] > 12
    blind = {"hinge": 2.0, "non-saturating": 2 * math.log(2)}[kind]
    assert 0.1 * blind < columns["discriminator"] < 0.99 * blind
    assert abs(columns["adversarial"]) < 3


def trainer(run: Path, content: dict[str, Any] | None = None, **options: Any) -> Trainer:
    config = TrainConfig(**{"limit": 96, "batch_size": 8, "epochs": 2, "adversarial_warmup": 3, **options})
    spec = specs.parse(judged() if content is None else content)
    return Trainer(config, spec, datasets.load("digits", limit=config.limit), run, watch=None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No drawings but that of the model."""
    monkeypatch.setattr(journal.pictures, "curves", lambda *_: None)
    monkeypatch.setattr(journal.pictures, "regenerated", lambda *arguments: arguments[-1].write_bytes(b""))


@needs_torch
@pytest.mark.usefixtures("quick")
def test_a_run_with_a_discriminator_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    spectral = judged(
        {"SpectralNormalization": {"layer": {"Conv2D": {"filters": 6, "kernel_size": 4, "strides": 4}}}},
        {"BatchNormalization": {}},
        {"Conv2D": {"filters": 1, "kernel_size": 1}},
    )
    whole = trainer(tmp_path / "whole", spectral)
    whole.fit()
    halved = trainer(tmp_path / "halved", spectral)
    halved.watch = lambda progress: progress.steps == 7 and halved._interrupt.set()
    with pytest.raises(KeyboardInterrupt):
        halved.fit()
    again = trainer(tmp_path / "halved", spectral)
    again.resume()
    again.fit()
    rows = history(tmp_path / "halved")
    assert rows == history(tmp_path / "whole")
    assert list(rows[0])[3:9] == list(steps.ALL_METRICS)
    for name in ("best.npz", "last.npz"):
        found, expected = (
            checkpoint.load(tmp_path / run / "checkpoints" / name).arrays for run in ("halved", "whole")
        )
        assert found.keys() == expected.keys()
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name} {key}")
    assert any(key.startswith("discriminator/optimizer/") for key in found)
    (events,) = (tmp_path / "whole" / "tensorboard").iterdir()
    assert b"training/adversarial" in events.read_bytes()
    assert b"training/discriminator" in events.read_bytes()
    drawing = (tmp_path / "whole" / "model.svg").read_text("utf-8")
    assert "discriminator, for training" in drawing
    assert "108 weights" in drawing  # of the discriminator's first layer


@needs_torch
@pytest.mark.usefixtures("quick")
def test_once_the_discriminator_is_at_work_the_last_epoch_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(tmp_path, epochs=4, patience=1, adversarial_warmup=12)
    losses_told = iter([0.5, 0.6, 0.7, 0.9])
    monkeypatch.setattr(
        Trainer, "_validation", lambda _: {"loss": next(losses_told), "rate": 0.1, "psnr": 9.0, "ssim": 0.1}
    )
    progress = made.fit()
    assert progress.epoch == 4  # an adversarial epoch is not waited upon
    assert made.kept()["epoch"] == 4
    assert checkpoint.load(made.best_path).record["progress"]["epoch"] == 4


@needs_torch
@pytest.mark.usefixtures("quick")
def test_checkpoints_with_and_without_a_discriminator(tmp_path: Path) -> None:
    made = trainer(tmp_path / "a", epochs=1)
    made.fit()
    best, last = (tmp_path / "a" / "checkpoints" / name for name in ("best.npz", "last.npz"))
    assert checkpoint.load(best).part("discriminator/weights")
    assert not checkpoint.load(best).part("discriminator/optimizer")
    other = trainer(tmp_path / "b")
    other.transfer(best)
    for name, value in checkpoint.load(best).part("discriminator/weights").items():
        np.testing.assert_array_equal(numpy(other.adversary.variables[name]), value)
    plain = trainer(tmp_path / "c", dense())
    plain.transfer(best)  # the network is the same
    kept = checkpoint.load(last).part("discriminator")
    place = next(name for name in kept if name.startswith("optimizer/") and kept[name].ndim == 1)
    for fault, words in (
        ({}, "holds no discriminator, or another one"),
        ({k: v for k, v in kept.items() if k != place}, "optimizer is incomplete"),
    ):
        with pytest.raises(CheckpointError, match=words):
            other.adversary.restore(fault, "last.npz")


@needs_torch
@pytest.mark.usefixtures("quick")
def test_the_bundle_of_a_run_with_a_discriminator_holds_the_same_networks(tmp_path: Path) -> None:
    from attar.codec import bundle

    sizes = {}
    for name, content in (("with", judged()), ("without", dense())):
        trainer(tmp_path / name, content, epochs=1).fit()
        path = tmp_path / f"{name}.attarmodel"
        best = tmp_path / name / "checkpoints" / "best.npz"
        result = attar("export", "--ckpt-path", best, "--save-path", path)
        assert result.code == 0, result.err
        sizes[name] = {
            part: len(data) for part, data in bundle.from_bytes(path.read_bytes(), source=name).graphs.items()
        }
    assert sizes["with"].keys() == sizes["without"].keys() == {"analysis", "synthesis"}
    assert sizes["with"] == sizes["without"]

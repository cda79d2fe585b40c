"""Steps of quantisation by place: the same integers in training and in files, which decode whole and in parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import attar
from attar import spec as specs
from attar.codec import bundle, container
from attar.codec import codec as codec_module
from attar.codec.container import Header
from attar.codec.localsteps import LARGEST_SHIFT, Steps
from attar.codec.manifest import Hyperprior, LocalSteps, Manifest
from attar.errors import BundleError, SpecError
from attar.train import export_hyper, localsteps, network
from training_kit import numpy

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny_photo.json"
UNIT = 0.106


def photograph(height: int, width: int) -> np.ndarray:
    with Image.open(Path(attar.__file__).parent / "data" / "photos" / "mountain.jpg") as image:
        return np.asarray(image.convert("RGB"))[-height:, :width].copy()


def with_steps(manifest: Manifest, gain: float, offset: float) -> Manifest:
    """Steps that grow with the mean of all table indexes, and are 1 where that is ``-offset / gain``."""
    channels = manifest.latent.channels
    steps = LocalSteps(
        (round(2**20 / channels),) * channels,
        tuple(round(gain * level / 100 * 2**12) for level in range(1, 101)),
        (round(offset * 2**32),) * 100,
        UNIT,
    )
    assert isinstance(manifest.entropy, Hyperprior)
    return replace(manifest, entropy=replace(manifest.entropy, steps=steps))


@pytest.fixture(scope="module")
def codec() -> attar.Codec:
    plain = attar.load("photo").bundle
    manifest = with_steps(plain.manifest, 2.0, -3.0)
    data = bundle.to_bytes(manifest=manifest, graphs=plain.graphs, tables=plain.tables)
    return attar.Codec(bundle.from_bytes(data, source="photo with steps"), threads=1)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).mean())


def steps_of(codec: attar.Codec, quality: int) -> Steps:
    header = container.write_header(Header(3, 64, 64, codec.bundle.short_id, quality))
    assert isinstance(codec.manifest.entropy, Hyperprior)
    return Steps(codec.manifest, codec.manifest.entropy, header)


def test_shifts_are_whole_numbers_in_range_that_rise_with_the_tables(codec: attar.Codec) -> None:
    channels = codec.manifest.latent.channels
    index = np.arange(64, dtype=np.uint8)[None, :, None].repeat(channels, 2)
    shift = steps_of(codec, 50).shift(index)[0, :, 0]
    assert shift.dtype == np.int64
    assert np.abs(shift[:LARGEST_SHIFT] - np.arange(LARGEST_SHIFT) + 3).max() <= 1
    assert shift.max() == LARGEST_SHIFT
    assert (np.diff(shift) >= 0).all()
    step = steps_of(codec, 50).step(shift)
    assert np.allclose(step, np.exp(UNIT * shift), rtol=1e-6)


@pytest.mark.parametrize("effort", [0, 2])
def test_files_hold_what_the_encoder_says_they_do(codec: attar.Codec, effort: int) -> None:
    plain = attar.load("photo", threads=1)
    for size in ((96, 160), (33, 47), (1, 1)):
        pixels = photograph(*size)
        prepared = codec.prepared(pixels)
        data = prepared.compress(60, effort=effort)
        told = np.concatenate(list(prepared.strips(data)))
        decoded = codec.decompress(data)
        assert decoded.shape == pixels.shape
        assert np.abs(told.astype(int) - decoded).max() <= 1
        assert error(decoded, pixels) < 5 * error(
            plain.decompress(plain.compress(pixels, quality=60)), pixels
        )


def test_steps_change_the_symbols_of_detail_and_flat_parts_against_each_other(codec: attar.Codec) -> None:
    """What detail saves in bits, a flat part gets in error."""
    pixels = photograph(256, 384)
    plain = attar.load("photo", threads=1)
    found = []
    for each in (plain, codec):
        data = each.compress(pixels, quality=50)
        error = np.square(each.decompress(data).astype(float) - pixels).mean(2)
        blocks = error.reshape(8, 32, 12, 32).mean((1, 3)).ravel()
        busy = np.argsort(pixels.astype(float).mean(2).reshape(8, 32, 12, 32).std((1, 3)).ravel())
        found.append((blocks[busy[:24]].mean(), blocks[busy[-24:]].mean()))
    assert found[1][1] / found[0][1] > 1.1 * found[1][0] / found[0][0]


def test_regions_and_tiles_are_parts_of_the_whole(
    codec: attar.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photograph(192, 320)
    data = codec.compress(pixels, quality=40)
    whole = codec.decompress(data).astype(int)
    part = codec.decompress(data, region=(100, 50, 90, 60)).astype(int)
    assert np.abs(part - whole[50:110, 100:190]).max() <= 1
    monkeypatch.setattr(codec_module, "MAX_WHOLE_PIXELS", 1 << 14)
    monkeypatch.setattr(codec_module, "NETWORK_TILE", 64)
    assert np.abs(codec.decompress(data).astype(int) - whole).max() <= 1
    tiled = codec.compress(pixels, quality=40, effort=1)
    monkeypatch.undo()
    assert error(codec.decompress(tiled), pixels) < 1.1 * error(whole, pixels)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": (1,)},
        {"weights": (1.5,) * 384},
        {"weights": (1 << 21,) * 384},
        {"gains": (1,) * 99},
        {"gains": (True,) * 100},
        {"offsets": (1 << 45,) * 100},
        {"unit": float("nan")},
        {"unit": 0.0},
        {"unit": 1},
    ],
)
def test_a_manifest_with_other_steps_is_refused(codec: attar.Codec, change: dict[str, Any]) -> None:
    entropy = codec.manifest.entropy
    assert isinstance(entropy, Hyperprior)
    assert entropy.steps is not None
    with pytest.raises(BundleError, match="a gain and an offset for each quality"):
        replace(codec.manifest, entropy=replace(entropy, steps=replace(entropy.steps, **change)))


def test_json_has_them_whole_and_nothing_of_them_where_there_are_none(codec: attar.Codec) -> None:
    document = json.loads(json.dumps(codec.manifest.to_json()))
    assert Manifest.from_json(document, "x") == codec.manifest
    assert "steps" not in attar.load("photo").manifest.to_json()["entropy"]
    document["entropy"]["steps"]["units"] = document["entropy"]["steps"].pop("unit")
    with pytest.raises(BundleError, match="did you mean 'unit'"):
        Manifest.from_json(document, "x")
    document["entropy"]["steps"] = [1]
    with pytest.raises(BundleError, match="steps"):
        Manifest.from_json(document, "x")


def tiny(steps: int, **more: Any) -> Any:
    document = json.loads(TINY.read_text())
    document["entropy"] |= {"steps": steps, **more}
    return network.build(specs.parse(document, "tiny"), seed=0, dtype="float32")


def test_without_steps_and_with_steps_of_1_networks_are_the_same() -> None:
    images = torch.from_numpy(photograph(64, 64)[None])
    plain, stepped = tiny(0), tiny(4)
    values = plain.named_variables()
    for name, variable in stepped.named_variables().items():
        if not name.startswith("steps/"):
            variable.assign(values[name].value)
    for training in (False, True):
        a, b = (net(images, training=training, quality=0.4) for net in (plain, stepped))
        assert torch.equal(a.bits, b.bits)
        assert torch.equal(a.regenerated, b.regenerated)


def test_a_file_has_the_shifts_of_training() -> None:
    rng, channels = np.random.default_rng(0), 24
    layer = localsteps.LocalSteps(4)
    layer.build((None, None, None, channels))
    layer.local_weights.assign(rng.uniform(-1, 3, channels))
    layer.set(rng.uniform(0.2, 2, 4), rng.uniform(-9, 1, 4))
    manifest = replace(attar.load("photo").manifest, qualities=(1, 100))
    manifest = replace(
        manifest,
        latent=replace(manifest.latent, channels=channels),
        entropy=replace(
            manifest.entropy, steps=layer.exported(np.linspace(0, 1, 100).astype(np.float32), UNIT)
        ),  # type: ignore[arg-type]
    )
    index = rng.integers(0, 64, (5, 7, channels)).astype(np.uint8)
    for quality in (1, 17, 50, 100):
        header = container.write_header(Header(3, 64, 64, b"12345678"[:4], quality))
        assert isinstance(manifest.entropy, Hyperprior)
        found = Steps(manifest, manifest.entropy, header).shift(index)
        level = torch.tensor([(quality - 1) / 99])
        assert np.array_equal(found, numpy(layer(torch.from_numpy(index[None]).float(), level))[0])


def test_a_single_rate_has_the_steps_that_it_was_trained_with() -> None:
    net = tiny(4, **{"lambda": [0.01, 0.01]})
    net.local_steps.set(np.array([0.5, 1.5, 3.0, 9.0]), np.array([-2.0, -3.0, -7.0, 5.0]))
    steps = export_hyper.entropy(net).steps
    assert steps is not None
    assert (len(steps.gains), len(steps.offsets)) == (1, 1)
    seen = []
    choose = net.local_steps.call
    net.local_steps.call = lambda index, quality, training: seen.append(quality) or choose(index, quality)
    with torch.no_grad():
        net(torch.from_numpy(photograph(64, 64)[None]), training=False)
    trained = net.local_steps.exported(numpy(seen[0]), net.scale_step)
    assert (steps.gains, steps.offsets) == (trained.gains, trained.offsets)


def test_steps_learn_what_their_gradients_say() -> None:
    """A move of the offsets changes bits and error as gradients foretell, on the mean of some images."""
    net = tiny(4)
    images = torch.from_numpy(np.stack([photograph(64, 64), photograph(64, 64)[:, ::-1]]))
    offsets = net.local_steps.local_offsets
    bits = net(images, training=True, quality=0.6).bits.sum()
    (slope,) = torch.autograd.grad(bits, offsets.value)
    assert slope.sum() < 0

    def counted(move: float) -> float:
        offsets.assign(np.full((4, 1), move, np.float32))
        return float(net(images, training=False, quality=0.6).bits.sum().detach())

    change = counted(1.0) - counted(-1.0)
    assert change < 0
    assert 0.3 < change / (2 * float(slope.sum())) < 3


def test_they_are_trained_with_the_encoder_alone_and_told_by_the_manifest() -> None:
    net = tiny(4)
    for what, trained in (("prior", False), ("synthesis", False), ("encoder", True)):
        net.train_only(what)
        names = [variable.path for variable in net.trainable_variables]
        assert any("steps" in name for name in names) == trained
    steps = export_hyper.entropy(net).steps
    assert steps is not None
    assert len(steps.weights) == net.latent_channels
    assert steps.unit == net.scale_step
    with pytest.raises(SpecError, match=r"entropy\.steps"):
        tiny(65)

"""The best latent of one image: a lower cost, the same decoder, and nothing where the cost is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import attar
from attar.codec import annealing
from attar.codec import codec as codec_module
from attar.codec import latents as latents_module
from attar.codec.annealing import Annealer, can_anneal
from attar.codec.container import Header
from attar.codec.hyperprior import HyperCoder
from attar.codec.tiling import Held
from attar.errors import BundleError
from attar.measure import metrics

PHOTOS = Path(attar.__file__).parent / "data" / "photos"


def photograph(height: int, width: int, name: str = "mountain.jpg") -> np.ndarray:
    with Image.open(PHOTOS / name) as image:
        return np.asarray(image.convert("RGB"))[:height, :width].copy()


@pytest.fixture(scope="module")
def codec() -> attar.Codec:
    return attar.load("photo", threads=1)


def squared_error(codec: attar.Codec, pixels: np.ndarray, data: bytes) -> float:
    return float(np.square(codec.decompress(data).astype(float) - pixels).sum())


def annealer(codec: attar.Codec, pixels: np.ndarray, quality: int, steps: int) -> Annealer:
    assert isinstance(codec.latents, HyperCoder)
    image = codec.prepare(pixels)
    header = Header(3, pixels.shape[1], pixels.shape[0], codec.bundle.short_id, quality)
    plain = codec.analyse(image[None], quality)[0]
    return Annealer(codec.latents, Held(image), Held(plain), header, steps)


def cost(codec: attar.Codec, pixels: np.ndarray, quality: int, data: bytes) -> float:
    """Bits and error, as the encoder weighs them."""
    return 8 * len(data) + annealer(codec, pixels, quality, 0).price / 3 * squared_error(codec, pixels, data)


@pytest.mark.parametrize("quality", [15, 85])
def test_effort_lowers_the_cost_and_the_bytes_at_equal_psnr(codec: attar.Codec, quality: int) -> None:
    pixels = photograph(192, 256)
    files = [codec.compress(pixels, quality=quality, effort=effort) for effort in (0, 1, 4)]
    costs = [cost(codec, pixels, quality, data) for data in files]
    assert (
        costs[0] >= costs[1] > costs[2]
    )  # where the ten steps of effort 1 find nothing, the file is the plain one
    plain = [codec.compress(pixels, quality=quality + step) for step in (-12, 0, 12)]
    psnr = [-10 * np.log10(squared_error(codec, pixels, data)) for data in (*plain, files[2])]
    assert psnr[0] < psnr[3] < psnr[2]
    assert len(files[2]) < 0.96 * np.exp(np.interp(psnr[3], psnr[:3], np.log([len(data) for data in plain])))


@pytest.mark.parametrize(("shape", "quality"), [((192, 256), 20), ((192, 200), 80)])
def test_effort_lowers_what_a_bundle_was_trained_for(shape: tuple[int, int], quality: int) -> None:
    """That of similarity: fewer bytes for more of it than between two plain files."""
    codec, pixels = attar.load("photo-msssim", threads=1), photograph(*shape)
    plain = [codec.compress(pixels, quality=quality + step) for step in (-15, 0, 15)]
    better = codec.compress(pixels, quality=quality, effort=4)
    similar = [-np.log(1 - metrics.ms_ssim(pixels, codec.decompress(data))) for data in (*plain, better)]
    assert similar[0] < similar[3] < similar[2]
    assert len(better) < 0.95 * np.exp(
        np.interp(similar[3], similar[:3], np.log([len(data) for data in plain]))
    )


def test_effort_is_deterministic_the_same_in_a_batch_and_when_prepared(codec: attar.Codec) -> None:
    images = [photograph(64, 128), photograph(64, 128, "kitten.png")]
    together = codec.compress_batch(images, quality=40, effort=1)
    assert together == [codec.compress(image, quality=40, effort=1) for image in images]
    assert codec.prepared(images[0]).compress(40, effort=1) == together[0]


def test_what_the_decoder_will_find_is_known_without_decoding(codec: attar.Codec) -> None:
    prepared = codec.prepared(photograph(64, 64))
    data = prepared.compress(30, effort=1)
    strips = np.concatenate(list(prepared.strips(data)))
    assert np.abs(strips.astype(int) - codec.decompress(data)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 80, 1), (70, 64, 4)])
def test_any_image_can_be_refined(codec: attar.Codec, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    plain, better = (codec.compress(pixels, effort=effort) for effort in (0, 1))
    assert codec.decompress(better).shape == shape
    colours = {1: 1, 4: 3}.get(shape[2], 3)
    pair = [
        np.square(codec.decompress(data).astype(float) - pixels)[..., :colours].sum()
        for data in (plain, better)
    ]
    worth = annealer(codec, photograph(*shape[:2]), 50, 0).price / colours
    assert 8 * len(better) + worth * pair[1] <= 1.01 * (8 * len(plain) + worth * pair[0])


def test_padding_costs_nothing_that_it_need_not(codec: attar.Codec) -> None:
    """Of 65 x 65 pixels, 128 x 128 are coded: what is beyond the image is no reason for bits."""
    pixels = photograph(65, 65)
    plain, better = (codec.compress(pixels, quality=70, effort=effort) for effort in (0, 4))
    assert len(better) < 0.9 * len(plain)
    assert squared_error(codec, pixels, better) < 1.05 * squared_error(codec, pixels, plain)


@pytest.mark.parametrize("effort", [1, 2])
def test_large_images_are_found_in_windows(
    codec: attar.Codec, monkeypatch: pytest.MonkeyPatch, effort: int
) -> None:
    pixels, quality = photograph(384, 320), 85
    monkeypatch.setattr(latents_module, "TILE", 128)  # of the format, which has 1024
    whole = codec.compress(pixels, quality=quality, effort=effort)
    monkeypatch.setattr(codec_module, "MAX_WHOLE_PIXELS", 0)
    monkeypatch.setattr(codec_module, "NETWORK_TILE", 128)
    monkeypatch.setattr(annealing, "WINDOW", 128)
    told: list[tuple[int, int]] = []
    plain = codec.compress(pixels, quality=quality)
    tiled = codec.compress(pixels, quality=quality, effort=effort, watch=lambda *done: told.append(done))
    costs = [cost(codec, pixels, quality, data) for data in (plain, tiled, whole)]
    assert costs[1] < 0.99 * costs[0]
    assert costs[1] == pytest.approx(costs[2], rel=0.02)
    steps = told[-1][1]
    assert steps >= 6 * annealing.STEPS[effort]
    assert told == [(done, steps) for done in range(1, steps + 1)]


def test_a_bundle_whose_cost_is_not_known_is_left_alone(
    codec: attar.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photograph(64, 64)
    plain, known = codec.compress(pixels), codec.manifest.training
    assert can_anneal(codec.latents)
    for training in (
        {**known, "loss": "ssim-l1"},
        {},
        {**known, "lambda_lowest": "much"},
        {**known, "lambda_highest": 10**400},
        {**known, "lambda_lowest": float("nan")},
    ):
        other = replace(codec.bundle, manifest=replace(codec.manifest, training=training))
        monkeypatch.setattr(codec.networks, "bundle", other)
        assert not can_anneal(codec.latents)
        assert codec.compress(pixels, effort=3) == plain


def test_an_error_is_worth_what_the_bundle_was_trained_for(
    codec: attar.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weight in (1.0, 2.0):
        training = {"lambda_lowest": 0.01, "lambda_highest": 0.16, "weight": weight}
        other = replace(codec.bundle, manifest=replace(codec.manifest, training=training))
        monkeypatch.setattr(codec.networks, "bundle", other)
        for quality, expected in ((1, 0.01), (100, 0.16)):
            price = annealer(codec, photograph(64, 64), quality, 0).price
            assert price == pytest.approx(weight * expected)


def test_an_image_that_was_left_with_its_plain_latent_costs_no_more(codec: attar.Codec) -> None:
    """Nothing is gained in a step that goes too far; then the plain latent is kept."""
    pixels = photograph(64, 64)
    found = annealer(codec, pixels, 60, 2)
    window = annealing._Window(found, annealing.everything(found.plain.shape))
    latent = found.plane.read(annealing.everything(found.plain.shape))
    assert window.cost(latent) <= window.cost(window.plain)


def test_what_a_window_says_it_costs_is_what_a_file_costs(codec: attar.Codec) -> None:
    pixels = photograph(128, 192)
    found = annealer(codec, pixels, 60, 0)
    window = annealing._Window(found, annealing.everything(found.plain.shape))
    data = codec.compress(pixels, quality=60)
    error = found.price / 3 * squared_error(codec, pixels, data)
    hyper = 8 * len(data) + error - window.cost(window.plain)  # and its frame
    assert 0 < hyper < 8 * 0.2 * len(data)


@pytest.mark.parametrize("name", ["context_means", "context_scales", "synthesis"])
@pytest.mark.parametrize("fault", ["nan", "shape", "channels"])
def test_a_network_that_misbehaves_is_an_error_or_changes_nothing(
    codec: attar.Codec, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    pixels = photograph(64, 64)
    plain = codec.compress(pixels)
    run = codec.networks.finish

    def wrong(network: str, begun: Any, inputs: Any, *, frugal: bool = False) -> Any:
        values = run(network, begun, inputs, frugal=frugal)
        if network != name:
            return values
        if fault == "nan":
            return np.full_like(values, np.nan)
        return values[:, :-1] if fault == "shape" else values[..., :2]

    monkeypatch.setattr(codec.networks, "finish", wrong)
    if name == "synthesis" and fault == "nan":
        assert (
            len(codec.compress(pixels, effort=1)) <= len(plain) * 1.1
        )  # what is seen is black, for all latents
        return
    with pytest.raises(BundleError):
        codec.compress(pixels, effort=1)

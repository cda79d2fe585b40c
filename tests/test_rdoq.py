"""Symbols chosen for one image: a lower cost, the same decoder, and nothing where there is no choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
from attar.codec import codec as codec_module
from attar.codec import latents as latents_module
from attar.codec import rdoq
from attar.codec.hyperprior import HyperCoder
from attar.codec.rdoq import Chooser, Response
from attar.codec.tiling import Area, Held, everything

PHOTOS = Path(attar.__file__).parent / "data" / "photos"
SIDE = 3


def photograph(height: int, width: int, name: str = "mountain.jpg") -> np.ndarray:
    with Image.open(PHOTOS / name) as image:
        return np.asarray(image.convert("RGB"))[:height, :width].copy()


@pytest.fixture(scope="module")
def codec() -> attar.Codec:
    return attar.load("photo", threads=1)


def squared_error(codec: attar.Codec, pixels: np.ndarray, data: bytes) -> float:
    return float(np.square(codec.decompress(data).astype(float) - pixels).sum())


def price(codec: attar.Codec, pixels: np.ndarray, quality: int) -> float:
    """Bits for a squared level, as the encoder weighs them."""
    assert isinstance(codec.latents, HyperCoder)
    image = codec.prepare(pixels)
    latent = Held(codec.analyse(image[None], quality)[0])
    chooser = Chooser(codec.latents, Held(image), quality, whole=True)
    return chooser.worth(chooser.measured(latent, everything(latent.shape)))


@pytest.mark.parametrize("quality", [85, 91])
def test_effort_lowers_the_cost_and_the_bytes_at_equal_psnr(codec: attar.Codec, quality: int) -> None:
    pixels = photograph(192, 256)
    files = [codec.compress(pixels, quality=quality, effort=effort) for effort in (0, 1, 2)]
    worth = price(codec, pixels, quality)
    costs = [8 * len(data) + worth * squared_error(codec, pixels, data) for data in files]
    assert costs[0] > costs[1] >= costs[2]
    plain = [codec.compress(pixels, quality=quality + step) for step in (-9, 0, 9)]
    psnr = [-10 * np.log10(squared_error(codec, pixels, data)) for data in (*plain, files[1])]
    assert psnr[0] < psnr[3] < psnr[2]
    assert len(files[1]) < 0.99 * np.exp(np.interp(psnr[3], psnr[:3], np.log([len(data) for data in plain])))


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
    assert codec.decompress(codec.compress(pixels, effort=1)).shape == shape


def test_large_images_are_refined_tile_by_tile(codec: attar.Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, quality = photograph(384, 320), 85
    worth = price(codec, pixels, quality)
    monkeypatch.setattr(latents_module, "TILE", 128)  # of the format, which has 1024
    whole = codec.compress(pixels, quality=quality, effort=1)
    monkeypatch.setattr(codec_module, "MAX_WHOLE_PIXELS", 0)
    monkeypatch.setattr(codec_module, "NETWORK_TILE", 128)
    plain, tiled = (codec.compress(pixels, quality=quality, effort=effort) for effort in (0, 1))
    costs = [8 * len(data) + worth * squared_error(codec, pixels, data) for data in (plain, tiled, whole)]
    assert costs[1] < 0.995 * costs[0]
    assert costs[1] == pytest.approx(costs[2], rel=0.02)  # a tile does not see its neighbours


def test_models_for_other_metrics_are_left_alone(codec: attar.Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photograph(64, 64)
    plain = codec.compress(pixels)
    assert rdoq.can_choose(codec.latents)
    other = replace(codec.bundle, manifest=replace(codec.manifest, training={"loss": "ms-ssim"}))
    monkeypatch.setattr(codec.networks, "bundle", other)
    assert not rdoq.can_choose(codec.latents)
    assert codec.compress(pixels, effort=3) == plain


def test_an_error_is_worth_what_the_bundle_was_trained_for(
    codec: attar.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(codec.latents, HyperCoder)
    response = linear()
    for training, expected in (
        ({"lambda_lowest": 0.01, "lambda_highest": 0.16}, 0.04),
        ({"lambda_lowest": 0.01, "lambda_highest": 0.16, "weight": 2.0}, 0.08),
        ({}, rdoq.PRICE / response.median * 3),
        ({"lambda_lowest": "much", "lambda_highest": 10**400}, rdoq.PRICE / response.median * 3),
        ({"lambda_lowest": 0.01, "lambda_highest": float("nan")}, rdoq.PRICE / response.median * 3),
    ):
        other = replace(codec.bundle, manifest=replace(codec.manifest, training=training))
        monkeypatch.setattr(codec.networks, "bundle", other)
        chooser = Chooser(codec.latents, Held(photograph(64, 64)), 1, whole=True)
        chooser.level = 0.5
        assert chooser.worth(response) * 3 == pytest.approx(expected)


def linear(channels: int = 4) -> Response:
    rng = np.random.default_rng(1)
    kernels = np.zeros((channels, 3 * SIDE, 3 * SIDE, 3), np.float32)
    kernels[:, 2:-2, 2:-2] = rng.normal(
        size=(channels, 3 * SIDE - 4, 3 * SIDE - 4, 3)
    )  # of a trained one's reach
    return Response(kernels)


def painted(response: Response, latent: np.ndarray) -> np.ndarray:
    """The image of a decoder that is nothing but its responses, with a margin of one position."""
    height, width, channels = latent.shape
    image = np.zeros(((height + 2) * SIDE, (width + 2) * SIDE, 3), np.float32)
    kernels = response.kernels.reshape(channels, 3 * SIDE, 3 * SIDE, 3)
    for row in range(height):
        for column in range(width):
            here = Area(row, row + 3, column, column + 3).scaled(SIDE).within()
            image[here] += np.tensordot(latent[row, column], kernels, 1)
    return image


def test_the_gradient_and_its_updates_are_those_of_a_linear_decoder() -> None:
    response, rng = linear(), np.random.default_rng(2)
    latent, moves = (rng.normal(size=(5, 6, 4)).astype(np.float32) for _ in range(2))
    gradient = response.gradient(painted(response, latent))
    step = np.zeros_like(latent)
    step[2, 3, 1] = 1e-1
    lower, upper = (np.square(painted(response, latent + sign * step)).sum() for sign in (-1, 1))
    assert gradient[2, 3, 1] == pytest.approx((upper - lower) / 4e-1, rel=1e-2)
    part = np.array([1, 3])
    response.move(gradient, moves[..., part], part)
    moved = latent.copy()
    moved[..., part] += moves[..., part]
    expected = response.gradient(painted(response, moved))
    assert np.allclose(gradient, expected, atol=1e-3 * np.abs(expected).max())


def test_dead_channels_do_no_harm() -> None:
    kernels = linear().kernels.reshape(4, 9, 9, 3).copy()
    kernels[2] = 0
    response = Response(kernels)
    assert response.median > 0
    assert np.isfinite(1 / response.energy).all()
    assert Response(np.zeros_like(kernels)).median == 0

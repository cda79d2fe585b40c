"""Images that are compressed at several qualities: the same files, with less work."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
import toy_bundle
from attar.apps.reaching import compress_to
from attar.codec import codec as codecs
from attar.codec import container, images, latents, prepared
from attar.codec.codec import Codec
from attar.codec.images import Picture
from attar.codec.networks import Networks
from attar.codec.targets import Target
from attar.codec.tiling import Tiled
from attar.errors import TargetError
from attar.measure import metrics

PHOTOS = Path(attar.__file__).parent / "data" / "photos"
TILE = 64


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    path = tmp_path_factory.mktemp("rated") / "rated.attarmodel"
    toy_bundle.write_rated(path)
    return attar.load(path, threads=1)


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return attar.load("photo", threads=1)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each network has run."""
    counted: Counter[str] = Counter()
    results = Networks._results

    def counting(self: Networks, network: str, *rest: object) -> list:
        counted[network] += 1
        return results(self, network, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Networks, "_results", counting)
    return counted


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(latents, "TILE", TILE)
    monkeypatch.setattr(codecs, "MAX_WHOLE_PIXELS", 1)
    monkeypatch.setattr(codecs, "NETWORK_TILE", TILE)
    return monkeypatch


def kitten(height: int, width: int) -> np.ndarray:
    with Image.open(PHOTOS / "kitten.png") as picture:
        return np.asarray(picture.convert("RGB"))[40 : 40 + height, 40 : 40 + width]


def check(codec: Codec, image: np.ndarray | Picture, qualities: tuple[int, ...]) -> None:
    """The files of every quality, in an order that goes back and forth, and the pixels of each."""
    ready = codec.prepared(image)
    files = [ready.compress(quality) for quality in qualities]
    assert files == [codec.compress(image, quality=quality) for quality in qualities]
    for data in files:
        np.testing.assert_array_equal(np.concatenate([*ready.strips(data)]), codec.decode(data).pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_files_and_pixels_are_those_of_the_codec(rated: Codec, shipped: Codec, channels: int) -> None:
    image = kitten(61, 83)[..., :channels]
    check(rated, image, (1, 80, 30, 100))
    check(shipped, image, (90, 5))


def test_alpha_and_metadata_are_in_every_file(rated: Codec) -> None:
    pixels = kitten(24, 40)
    check(rated, Picture(pixels, alpha=pixels[..., 1], exif=b"II*\0", xmp=b"<x/>"), (1, 50))
    stripped = rated.prepared(Picture(pixels, xmp=b"<x/>"), strip=True).compress(9)
    assert stripped == rated.compress(pixels, quality=9)


def test_a_single_rate_and_its_search_for_better_symbols(digits_bundle: Path) -> None:
    codec, image = attar.load(digits_bundle), toy_bundle.digit()
    ready = codec.prepared(image)
    for effort in (0, 2):
        data = ready.compress(effort=effort)
        assert data == codec.compress(image, effort=effort)
        np.testing.assert_array_equal(np.concatenate([*ready.strips(data)]), codec.decode(data).pixels)
    with pytest.raises(TargetError, match="single rate"):
        ready.compress(50)
    with pytest.raises(TargetError, match="effort 10: expected 0 to 9"):
        ready.compress(effort=10)


@pytest.mark.parametrize("kept", [0, 40_000, 1 << 30])
def test_tiles_are_kept_as_far_as_there_is_room(
    rated: Codec, tiled: pytest.MonkeyPatch, runs: Counter[str], kept: int
) -> None:
    image = kitten(130, 200)
    tiled.setattr(prepared, "KEPT_BYTES", image.nbytes + kept)
    expected = [rated.compress(image, quality=quality) for quality in (20, 70)]
    assert runs["analysis, begun"] == 24
    runs.clear()
    ready = rated.prepared(image)
    assert [ready.compress(quality) for quality in (20, 70)] == expected
    begun = {0: 24, 40_000: 17, 1 << 30: 12}[kept]  # five tiles of 7,680 bytes have room, and two cut ones
    assert (runs["analysis, begun"], runs["analysis, finished"], runs["analysis"]) == (begun, 24, 0)
    np.testing.assert_array_equal(
        np.concatenate([*ready.strips(expected[0])]), rated.decode(expected[0]).pixels
    )
    strips = [strip.shape for strip in rated.strips(expected[1])]
    assert strips == [(64, 200, 3), (64, 200, 3), (2, 200, 3)]


def test_the_shipped_codec_in_tiles(shipped: Codec, tiled: pytest.MonkeyPatch) -> None:
    check(shipped, kitten(70, 130), (30, 60))


@pytest.mark.parametrize("kind", ["bytes", "bpp", "psnr", "ssim"])
def test_a_search_finds_the_file_of_its_quality_and_analyses_once(
    rated: Codec, runs: Counter[str], kind: str
) -> None:
    picture = images.from_array(kitten(64, 96))
    files = {quality: rated.compress(picture, quality=quality) for quality in (39, 40, 41)}
    decoded = rated.decode(files[40]).pixels
    score = {
        "bytes": len(files[40]),
        "bpp": 8 * len(files[40]) / (64 * 96),
        "psnr": metrics.psnr(picture.pixels, decoded),
        "ssim": metrics.ssim(picture.pixels, decoded),
    }[kind]
    margin = 0 if kind in ("bytes", "bpp") else -1e-9
    runs.clear()
    found = compress_to(Target(kind, score + margin), rated, picture)
    quality = container.unpack(found).header.quality
    assert found == rated.compress(picture, quality=quality)
    if kind in ("bytes", "bpp"):
        assert quality >= 40
        assert len(found) <= len(files[40])
    else:
        again = getattr(metrics, kind)(picture.pixels, rated.decode(found).pixels)
        assert again >= score + margin
        assert quality <= 40
    assert runs["analysis"] == 0


def test_a_search_begins_the_analysis_once_and_decodes_nothing(
    rated: Codec, runs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("symbols were decoded")

    monkeypatch.setattr(Codec, "symbols", never)
    compress_to(Target("psnr", 30), rated, images.from_array(kitten(64, 96)))
    assert runs["analysis, begun"] == 1
    assert runs["analysis, finished"] == runs["synthesis"] > 5


def test_nothing_of_a_coded_image_stays_in_circles(shipped: Codec, tiled: pytest.MonkeyPatch) -> None:
    """Planes refer to each other: without care, each attempt would leave its tiles until Python looks for circles."""
    gc.collect()
    gc.disable()
    try:
        ready = shipped.prepared(kitten(70, 130))
        data = ready.compress(40)
        assert sum(strip.shape[0] for strip in shipped.strips(data)) == 70
        shipped.verify(data)
        # By type: isinstance would ask objects of other libraries, some of which warn when they are asked.
        left = [plane for plane in gc.get_objects() if issubclass(type(plane), Tiled)]
        assert left  # the circles are there
        assert not any(plane.kept for plane in left)
    finally:
        gc.enable()

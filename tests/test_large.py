"""Large images: tiles of the networks change no symbol, and a region is decoded alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
from attar.codec import codec as codecs
from attar.codec import container, latents
from attar.codec.codec import Codec
from attar.codec.container import Chunk
from attar.codec.images import Picture
from attar.codec.manifest import Hyperprior
from attar.errors import AttarError, BundleError, FormatError, ImageError

PHOTOS = Path(attar.__file__).parent / "data" / "photos"
VALIDATION = Path(__file__).parents[2] / "shared" / "data" / "photos" / "val"
SIZE = (150, 201)
TILE = 64
KINDS = ("factorized", "convolutional", "hyperprior")


def image(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    with Image.open(PHOTOS / "kitten.png") as picture:
        return np.asarray(picture.convert("RGB"))[40 : 40 + height, 40 : 40 + width]


@pytest.fixture(scope="module")
def bundles(photo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained networks see as far as trained ones; a factorized prior, with and without margins; a hyperprior."""
    import training_kit
    from attar import spec
    from attar.train import export, network

    folder = tmp_path_factory.mktemp("large")
    tiny = spec.load(Path(__file__).parent / "data" / "tiny_photo.json")
    nets = {
        "convolutional": training_kit.build(training_kit.convolutional()),
        "hyperprior": network.build(tiny, seed=0),
    }
    found = {"factorized": photo_bundle}
    for name, net in nets.items():
        found[name] = folder / f"{name}.attarmodel"
        found[name].write_bytes(export.to_bundle_bytes(net, name=name)[0])
    return found


@pytest.fixture(params=KINDS)
def codec(request: pytest.FixtureRequest, bundles: dict[str, Path]) -> Codec:
    return attar.load(bundles[request.param], threads=1)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams in tiles of 64 pixels; the networks see the image whole."""
    monkeypatch.setattr(latents, "TILE", TILE)


@pytest.fixture
def tiled(small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The networks work in such tiles, too."""
    monkeypatch.setattr(codecs, "MAX_WHOLE_PIXELS", 1)
    monkeypatch.setattr(codecs, "NETWORK_TILE", TILE)
    return monkeypatch


def whole(codec: Codec, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, np.ndarray]:
    """The file and its pixels, by networks that see the image whole."""
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "MAX_WHOLE_PIXELS", 1 << 30)
        data = codec.compress(pixels)
        return data, codec.decompress(data)


def distance(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


def check_same_symbols(codec: Codec, data: bytes, other: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same symbols, but for those that rounding may put on either side where sums differ in their last bit."""
    if data == other:
        return
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "MAX_WHOLE_PIXELS", 1 << 30)
        first, second = (codec.symbols(codec.unpack(each)) for each in (data, other))
    assert np.count_nonzero(np.abs(first - second) > 1e-3) <= 1e-4 * first.size


@pytest.mark.parametrize("size", [SIZE, (64, 65), (1, 300), (129, 64)])
def test_tiles_change_no_symbol_and_no_pixel(codec: Codec, size: tuple, tiled: pytest.MonkeyPatch) -> None:
    pixels = image(*size)
    data, decoded = whole(codec, pixels, tiled)
    check_same_symbols(codec, codec.compress(pixels), data, tiled)
    assert distance(codec.decompress(data), decoded) <= 1
    assert codec.verify(data) == codec.symbols(codec.unpack(data)).size


@pytest.mark.skipif(not VALIDATION.is_dir(), reason="the validation photographs are not there")
def test_tiles_change_no_symbol_of_real_photographs(codec: Codec, tiled: pytest.MonkeyPatch) -> None:
    for path in sorted(VALIDATION.glob("*.png"))[::8]:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))[-SIZE[0] :, -SIZE[1] :]
        data, decoded = whole(codec, pixels, tiled)
        check_same_symbols(codec, codec.compress(pixels), data, tiled)
        assert distance(codec.decompress(data), decoded) <= 1


@pytest.mark.parametrize("threads", [2, None])
def test_threads_change_nothing_in_tiles(
    bundles: dict[str, Path], codec: Codec, threads: int | None, tiled: pytest.MonkeyPatch
) -> None:
    other = Codec(codec.bundle, threads=threads)
    pixels = image()
    data = codec.compress(pixels)
    check_same_symbols(codec, other.compress(pixels), data, tiled)
    assert distance(other.decompress(data), codec.decompress(data)) <= 1


@pytest.mark.usefixtures("small_tiles")
def test_a_region_is_the_crop_of_the_whole(codec: Codec) -> None:
    rng = np.random.default_rng(0)
    data = codec.compress(image())
    pixels = codec.decompress(data)
    regions = [(0, 0, 201, 150), (0, 0, 1, 1), (200, 149, 1, 1), (63, 64, 2, 1), (0, 140, 201, 10)]
    for _ in range(6):
        left, top = int(rng.integers(200)), int(rng.integers(149))
        regions.append((left, top, int(rng.integers(1, 202 - left)), int(rng.integers(1, 151 - top))))
    for left, top, width, height in regions:
        found = codec.decompress(data, region=(left, top, width, height))
        assert distance(found, pixels[top : top + height, left : left + width]) <= 1


def with_damage(codec: Codec, data: bytes, tile: int) -> bytes:
    """The file with one bit changed in the stream of a tile."""
    part = codec.unpack(data)
    shape = codec.manifest.latent_shape(part.header.height, part.header.width)
    streams = latents.split_streams(
        part.chunks[Chunk.LATENTS], latents.tile_count(shape, codec.manifest.latent.stride)
    )
    body = bytearray(streams[tile])
    body[len(body) // 2] ^= 16
    streams[tile] = bytes(body)
    return container.pack(part.header, {Chunk.LATENTS: latents.join_streams(streams)})


def test_a_region_needs_no_more_of_a_file_than_its_surroundings(codec: Codec, small_tiles: None) -> None:
    pixels = image(80, 330)  # 2 rows of 6 tiles
    data = codec.compress(pixels)
    damaged = with_damage(codec, data, 11)
    with pytest.raises(FormatError):
        codec.decompress(damaged)
    for right in (60, 150):
        found = codec.decompress(damaged, region=(10, 5, right - 10, 50))
        assert distance(found, codec.decompress(data)[5:55, 10:right]) <= 1
    with pytest.raises(FormatError):
        codec.decompress(damaged, region=(322, 70, 5, 5))
    if codec.manifest.name != "toy-photo":  # which has no margins: the next tile does not matter
        with pytest.raises(FormatError):
            codec.decompress(damaged, region=(318, 70, 1, 1))
    with pytest.raises(FormatError):
        codec.verify(damaged)


def test_what_can_reach_a_region_is_checked(bundles: dict[str, Path], tiled: pytest.MonkeyPatch) -> None:
    """Whatever tile is damaged: a region is refused, or it is what it was."""
    codec = attar.load(bundles["hyperprior"], threads=1)
    pixels = image(129, 330)
    data = codec.compress(pixels)
    region = (70, 10, 40, 30)
    expected = codec.decompress(data, region=region)
    refused = set()
    for tile in range(3 * 6):
        try:
            found = codec.decompress(with_damage(codec, data, tile), region=region)
        except FormatError:
            refused.add(tile)
        else:
            assert np.array_equal(found, expected)
    assert {0, 1, 2, 6, 7, 8} <= refused
    assert not refused & {5, 11, 17}


def test_regions_that_are_none_are_refused(codec: Codec) -> None:
    data = codec.compress(image(40, 50))
    for region in ((0, 0, 51, 1), (50, 0, 1, 1), (0, 0, 0, 1), (-1, 0, 2, 2), (0, 39, 1, 2)):
        with pytest.raises(
            ImageError, match=r"region .* is not inside of the image, which has 50 x 40 pixels"
        ):
            codec.decompress(data, region=region)
    for wrong in ((1, 2, 3), (0, 0, 1.5, 1), ("0", 0, 1, 1)):
        with pytest.raises(ImageError, match="four whole numbers expected: left, top, width and height"):
            codec.decompress(data, region=wrong)


def test_alpha_gray_metadata_and_turned_images_by_region(
    bundles: dict[str, Path], tiled: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    codec = attar.load(bundles["convolutional"], threads=1)
    alpha = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    data = codec.compress(Picture(image()[..., :1], alpha, icc=b"profile"))
    found = codec.decode(data, region=(100, 50, 70, 90))
    assert np.array_equal(found.alpha, alpha[50:140, 100:170])
    assert found.icc == b"profile"
    assert distance(found.pixels, codec.decode(data).pixels[50:140, 100:170]) <= 1
    assert found.to_array().shape == (90, 70, 2)
    turned = Image.fromarray(image())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = codec.decompress(codec.compress(tmp_path / "turned.png"))
    assert upright.shape == (201, 150, 3)
    part = codec.decompress(codec.compress(tmp_path / "turned.png"), region=(5, 10, 100, 180))
    assert distance(part, upright[10:190, 5:105]) <= 1


def test_a_region_of_an_image_of_fixed_size(digits_bundle: Path) -> None:
    import toy_bundle

    codec = attar.load(digits_bundle)
    data = codec.compress(toy_bundle.digit())
    assert np.array_equal(codec.decompress(data, region=(3, 5, 20, 10)), codec.decompress(data)[5:15, 3:23])


def test_only_some_rows_of_tiles_are_in_memory(bundles: dict[str, Path], tiled: pytest.MonkeyPatch) -> None:
    """However long an image is."""
    from attar.codec import tiling

    most = 0
    make = tiling._apart

    def watched(array: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, sum(len(plane.kept) for plane in planes))
        return make(array)

    planes: list[tiling.Tiled] = []
    create = tiling.Tiled.__init__

    def noted(self: tiling.Tiled, *arguments: object) -> None:
        create(self, *arguments)  # type: ignore[arg-type]
        if self.shape[0] > 8 * 3:  # not the hyper-latent, which is small
            planes.append(self)

    tiled.setattr(tiling, "_apart", watched)
    tiled.setattr(tiling.Tiled, "__init__", noted)
    codec = attar.load(bundles["hyperprior"], threads=1)
    counts = []
    for rows in (8, 16):
        pixels = np.tile(image(64, 64), (rows, 1, 1))
        planes.clear()
        most = 0
        data = codec.compress(pixels)
        counts.append(most)
        planes.clear()
        most = 0
        codec.decompress(data)
        counts.append(most)
    assert counts[2:] == counts[:2]
    assert max(counts) < 5 * 6


def unbounded(bundles: dict[str, Path]) -> Codec:
    """A codec whose analysis subtracts the mean of the whole image, times zero."""
    import onnx
    from onnx import helper, numpy_helper

    from attar.codec import bundle

    plain = attar.load(bundles["factorized"]).bundle
    model = onnx.load_from_string(plain.graphs["analysis"])
    first = model.graph.node[-1]
    (output,) = first.output
    first.output[0] = "own"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero_"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["own"], ["mean"], axes=[1, 2], keepdims=1),
            helper.make_node("Mul", ["mean", "zero_"], ["nothing"]),
            helper.make_node("Sub", ["own", "nothing"], [output]),
        ]
    )
    graphs = {**plain.graphs, "analysis": model.SerializeToString()}
    data = bundle.to_bytes(manifest=plain.manifest, graphs=graphs, tables=plain.tables)
    return Codec(bundle.from_bytes(data, source="mean.attarmodel"), threads=1)


def test_a_network_that_sees_everything_is_run_whole_up_to_a_size(
    bundles: dict[str, Path], tiled: pytest.MonkeyPatch
) -> None:
    codec = unbounded(bundles)
    pixels = image()
    latent = attar.load(bundles["factorized"], threads=1).compress(pixels)
    part, other = (container.unpack(data).chunks[Chunk.LATENTS] for data in (codec.compress(pixels), latent))
    assert len(part) == len(other)
    tiled.setattr("attar.codec.networks.MOST_WHOLE_PIXELS", 150 * 200)
    with pytest.raises(
        BundleError,
        match=r"mean.attarmodel: analysis looks at the whole image \(ReduceMean: looks at all rows or columns\), "
        r"and would need the memory for 31616 pixels at once; at most 30000",
    ):
        codec.compress(pixels)


def test_bits_add_up_to_the_file(codec: Codec, tiled: pytest.MonkeyPatch) -> None:
    """But for the checksum and the rounding of each stream, 4 bytes and 1 at most, its length, and 0.1 %."""
    data = codec.compress(image())
    tally, part = codec.bits(data), codec.unpack(data)
    coded = len(part.chunks[Chunk.LATENTS])
    tiles = 3 * 4
    assert tally.total / 8 == pytest.approx(coded - 5 * tiles, rel=1e-3, abs=3 * tiles)
    shape = codec.manifest.latent_shape(*SIZE)
    assert tally.channels.shape == shape[2:]
    assert tally.places is not None
    assert tally.places.shape == shape[:2]
    assert tally.places.sum() == pytest.approx(tally.total)
    hyper = codec.manifest.entropy
    assert tally.hyper_channels.size == (hyper.channels if isinstance(hyper, Hyperprior) else 0)
    if isinstance(hyper, Hyperprior):
        assert 0 < tally.hyper_channels.sum() < tally.channels.sum()
    tiled.setattr(codecs, "MAX_WHOLE_PIXELS", 1 << 30)
    again = codec.bits(data)
    assert np.allclose(again.channels, tally.channels)
    assert np.allclose(again.places, tally.places)


def test_every_damage_is_refused_in_tiles(bundles: dict[str, Path], tiled: pytest.MonkeyPatch) -> None:
    codec = attar.load(bundles["hyperprior"], threads=1)
    data = codec.compress(image(70, 140))
    rng = np.random.default_rng(1)
    for place in rng.choice(len(data), 40, replace=False):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(AttarError):
            codec.decompress(bytes(damaged), max_pixels=1 << 20)
    for end in (5, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(AttarError):
            codec.decompress(data[:end])

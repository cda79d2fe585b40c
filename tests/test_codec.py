from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
import toy_bundle
from attar.codec import bundle, container
from attar.codec.bundle import Latent
from attar.codec.codec import MAX_BATCH_PIXELS
from attar.codec.images import Picture
from attar.errors import BundleError, FormatError, ImageError, ModelMissingError, TargetError
from toy_bundle import digit, photo


@pytest.fixture(scope="module")
def digits(digits_bundle: Path) -> attar.Codec:
    return attar.load(digits_bundle, threads=1)


@pytest.fixture(scope="module")
def photos(photo_bundle: Path) -> attar.Codec:
    return attar.load(photo_bundle, threads=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_a_digit_becomes_a_small_file_and_comes_back(digits: attar.Codec) -> None:
    data = digits.compress(digit())
    pixels = digits.decompress(data)
    assert pixels.shape == (28, 28, 1)
    assert pixels.dtype == np.uint8
    assert psnr(pixels[..., 0], digit()) > 15
    assert len(data) < 80


def test_a_photograph_of_any_size_comes_back(photos: attar.Codec) -> None:
    for height, width in ((1, 1), (1, 100), (45, 70), (64, 64)):
        image = photo(height, width)
        pixels = photos.decompress(photos.compress(image))
        assert pixels.shape == image.shape
        if height > 1:
            assert psnr(pixels, image) > 30


def test_a_gray_image_stays_gray_in_a_model_for_colour(photos: attar.Codec) -> None:
    gray = photo()[..., 0]
    pixels = photos.decompress(photos.compress(gray))
    assert pixels.shape == (45, 70, 1)
    assert psnr(pixels[..., 0], gray) > 30


def test_overhead_of_a_digit_is_at_most_twenty_bytes(digits: attar.Codec) -> None:
    """Whole files against the ideal code length of their symbols."""
    from attar.codec.tables import expected_bits

    images = [digit(seed) for seed in range(200)]
    symbols = digits.analyse(np.stack(images)[..., None])
    for row, data in zip(symbols, digits.compress_batch(images), strict=True):
        ideal = sum(
            expected_bits(table, value) for table, value in zip(digits.bundle.tables, row, strict=True)
        )
        assert 17.9 < len(data) - ideal / 8 <= 20


def test_overhead_of_a_photograph_is_at_most_48_bytes(photos: attar.Codec) -> None:
    from attar.codec.tables import expected_bits

    image = photo(1000, 1000)
    symbols = photos.analyse(image[None])[0].reshape(-1, 30)
    ideal = sum(expected_bits(table, row) for table, row in zip(photos.bundle.tables, symbols.T, strict=True))
    assert len(photos.compress(image)) - ideal / 8 <= 48


def test_every_source_of_an_image_gives_the_same_file(digits: attar.Codec, tmp_path: Path) -> None:
    array = digit()
    path = tmp_path / "digit.png"
    Image.fromarray(array).save(path)
    sources = [array, array[..., None], Image.fromarray(array), path, str(path), path.read_bytes()]
    sources += [io.BytesIO(path.read_bytes()), Picture(array[..., None])]
    assert len({digits.compress(source) for source in sources}) == 1


def test_alpha_is_lossless_and_metadata_kept_unless_stripped(photos: attar.Codec) -> None:
    rng = np.random.default_rng(3)
    alpha = rng.integers(0, 256, (45, 70), dtype=np.uint8)
    picture = Picture(photo(), alpha, icc=b"profile" * 50, exif=b"II*\0exif", xmp=b"<xmp/>")
    data = photos.compress(picture)
    found = photos.decode(data)
    assert np.array_equal(found.alpha, alpha)
    assert (found.icc, found.exif, found.xmp) == (picture.icc, picture.exif, picture.xmp)
    assert photos.decompress(data).shape == (45, 70, 4)
    stripped = photos.decode(photos.compress(picture, strip=True))
    assert (stripped.icc, stripped.exif, stripped.xmp) == (None, None, None)
    assert np.array_equal(stripped.alpha, alpha)
    gray = photos.compress(np.dstack([photo()[..., 0], alpha]))
    assert np.array_equal(photos.decompress(gray)[..., 1], alpha)


def test_a_batch_gives_what_single_calls_give(photos: attar.Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(16, 24, seed) for seed in range(5)] + [photo(9, 9), photo(16, 24, 9)[..., :1]]
    single = [photos.compress(image) for image in images]
    assert photos.compress_batch(images) == single
    monkeypatch.setattr("attar.codec.codec.MAX_BATCH_PIXELS", 2 * 16 * 24)
    assert photos.compress_batch(images) == single
    for one, many in zip(map(photos.decompress, single), photos.decompress_batch(single), strict=True):
        assert np.array_equal(one, many)
    assert photos.compress_batch([]) == []
    assert photos.decompress_batch([]) == []
    assert MAX_BATCH_PIXELS >= 1000 * 28 * 28


def test_images_that_the_model_cannot_take_are_refused_with_those_it_can(
    digits: attar.Codec, tmp_path: Path
) -> None:
    with pytest.raises(
        ImageError, match=r"^RGB, 45 x 70 .* model 'toy-digits' takes gray, 28 x 28 \(height x width\)"
    ):
        digits.compress(photo())
    with pytest.raises(ImageError, match=r"^RGB, 28 x 28"):
        digits.compress(photo(28, 28))
    with pytest.raises(ImageError, match=r"^gray, 27 x 28"):
        digits.compress(digit()[:27])
    path = tmp_path / "large.png"
    Image.fromarray(photo()).save(path)
    with pytest.raises(ImageError, match=r"large\.png: RGB, 45 x 70"):
        digits.compress(path)
    with pytest.raises(ImageError, match="not list"):
        digits.compress([1, 2, 3])


def test_files_of_another_model_are_refused(digits: attar.Codec, photos: attar.Codec) -> None:
    with pytest.raises(
        ModelMissingError, match=f"made with model {digits.bundle.sha256[:8]}, and 'toy-photo' is"
    ):
        photos.decompress(digits.compress(digit()))


def test_headers_that_the_model_contradicts_are_refused(digits: attar.Codec) -> None:
    part = container.unpack(digits.compress(digit()))
    for changes, message in (
        ({"width": 29}, "gray, 28 x 29 .* takes gray, 28 x 28"),
        ({"channels": 3}, "RGB, 28 x 28 .* takes gray"),
        ({"quality": 50}, "quality 50; its model has a single rate"),
    ):
        fields = {
            name: getattr(part.header, name) for name in ("channels", "width", "height", "model", "quality")
        }
        forged = container.pack(container.Header(**(fields | changes)), part.chunks)
        with pytest.raises(FormatError, match=message):
            digits.decompress(forged)


def test_pixels_are_capped(photos: attar.Codec) -> None:
    data = photos.compress(photo())
    with pytest.raises(FormatError, match=r"70 x 45 = 3150 pixels; at most 100"):
        photos.decompress(data, max_pixels=100)


def test_a_huge_declared_size_costs_no_memory(photos: attar.Codec) -> None:
    import tracemalloc

    header = container.Header(3, 16000, 16000, photos.bundle.short_id)
    forged = container.pack(header, {container.Chunk.LATENTS: b"\1" * 9})
    tracemalloc.start()
    with pytest.raises(FormatError, match="9 bytes of latents cannot hold 256 tiles"):
        photos.decompress(forged)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_verify_checks_without_a_network(photos: attar.Codec) -> None:
    data = photos.compress(np.dstack([photo(), photo()[..., 0]]))
    fresh = attar.Codec(photos.bundle)
    assert fresh.verify(data) == 6 * 9 * 30
    assert "synthesis" not in fresh.networks.sessions
    with pytest.raises(FormatError):
        fresh.verify(data[:-1])


def test_decompressing_does_not_load_the_analysis(digits: attar.Codec) -> None:
    fresh = attar.Codec(digits.bundle)
    fresh.decompress(digits.compress(digit()))
    assert set(fresh.networks.sessions) == {"synthesis"}


def test_threads_and_batches_change_neither_symbols_nor_pixels_by_more_than_one(photos: attar.Codec) -> None:
    image = photo(200, 300)
    data = photos.compress(image)
    for threads in (1, 2, None):
        other = attar.Codec(photos.bundle, threads=threads)
        difference = other.decompress(data).astype(int) - photos.decompress(data)
        assert np.abs(difference).max() <= 1
        assert other.compress(image) == data


def broken(**graphs: bytes) -> attar.Codec:
    data = bundle.to_bytes(
        manifest=toy_bundle.digits_manifest(),
        graphs=toy_bundle.digits_graphs() | graphs,
        tables=toy_bundle.digits_tables(),
    )
    return attar.Codec(bundle.from_bytes(data, source="broken.attarmodel"))


def test_networks_that_contradict_the_manifest_are_refused_by_name(digits: attar.Codec) -> None:
    good = digits.compress(digit())
    part = container.unpack(good)
    other = toy_bundle.digits_graphs(channels=49)
    with pytest.raises(BundleError, match=r"broken.attarmodel: analysis gave a latent of shape \(1, 49\)"):
        broken(analysis=other["analysis"]).compress(digit())
    with pytest.raises(BundleError, match=r"broken.attarmodel: analysis\.onnx cannot be loaded"):
        broken(analysis=b"").compress(digit())
    with pytest.raises(BundleError, match=r"broken.attarmodel: the network failed on image"):
        broken(analysis=other["synthesis"]).compress(digit())
    codec = broken(synthesis=other["synthesis"])
    fields = {name: getattr(part.header, name) for name in ("channels", "width", "height")}
    header = container.Header(**fields, model=codec.bundle.short_id)
    symbols = digits.symbols(part)
    forged = container.pack(
        header,
        {container.Chunk.LATENTS: codec.latents.encode(symbols, container.write_header(header))},
    )
    with pytest.raises(BundleError, match=r"the network failed on symbols \(1, 50\)"):
        codec.decompress(forged)


def test_a_model_of_variable_rate_takes_the_qualities_of_its_range(photos: attar.Codec) -> None:
    manifest = toy_bundle.photo_manifest(qualities=(10, 90))
    data = bundle.to_bytes(manifest=manifest, graphs=photos.bundle.graphs, tables=photos.bundle.tables)
    codec = attar.Codec(bundle.from_bytes(data, source="rate.attarmodel"))
    image = toy_bundle.photo()
    assert container.read_header(codec.compress(image)).quality == 50
    best = codec.compress(image, quality=90)
    assert container.read_header(best).quality == 90
    assert codec.decompress(best).shape == image.shape
    for quality in (9, 91, 50.5):
        with pytest.raises(TargetError, match=rf"quality {quality}: .*whole numbers from 10 to 90"):
            codec.compress(image, quality=quality)
    with pytest.raises(TargetError, match="'toy-photo' has a single rate and takes no quality"):
        photos.compress(image, quality=50)
    part = codec.unpack(best)
    header = container.Header(3, image.shape[1], image.shape[0], codec.bundle.short_id, 9)
    with pytest.raises(FormatError, match="declares quality 9; its model takes 10 to 90"):
        codec.unpack(container.pack(header, part.chunks))


def test_latents_that_are_not_finite_are_an_error() -> None:
    codec = broken(analysis=toy_bundle.digits_graphs(step=1e-12)["analysis"])
    with pytest.raises(BundleError, match="not finite or exceed int32"):
        codec.compress(digit())
    codec = broken(analysis=toy_bundle.digits_graphs(step=1e-39)["analysis"])
    with pytest.raises(BundleError, match="not finite or exceed int32"):
        codec.compress(digit())


def test_a_latent_of_fixed_grid() -> None:
    """28 x 28 in blocks of 7: a latent of shape (4, 4, channels) without a stride."""
    graphs = toy_bundle.photo_graphs(per_colour=4, stride=7)
    manifest = toy_bundle.photo_manifest(size=(28, 28), multiple=1, latent=Latent(12, shape=(4, 4)))
    tables = [toy_bundle.laplacian_table(5.0)] * 12
    codec = attar.Codec(
        bundle.from_bytes(bundle.to_bytes(manifest=manifest, graphs=graphs, tables=tables), source="x")
    )
    image = photo(28, 28)
    assert psnr(codec.decompress(codec.compress(image)), image) > 20


@pytest.mark.usefixtures("only_toys")
def test_the_module_functions_find_the_model_by_name_and_by_id(photo_bundle: Path) -> None:
    data = attar.compress(digit(), model="toy-digits")
    assert attar.decompress(data).shape == (28, 28, 1)
    assert attar.decompress(attar.compress(photo(), model=photo_bundle), model="toy-photo").shape == (
        45,
        70,
        3,
    )
    with pytest.raises(FormatError, match=r"not an \.attar file"):
        attar.decompress(b"no file")


@pytest.mark.usefixtures("only_toys")
def test_the_default_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits_bundle: Path) -> None:
    for name in ("digits", "photo", "another"):
        (tmp_path / f"{name}.attarmodel").write_bytes(digits_bundle.read_bytes())
    monkeypatch.setattr(bundle, "folders", lambda: [tmp_path])
    for name in ("photo", "digits", "another"):
        assert Path(attar.load().bundle.source).stem == name
        (tmp_path / f"{name}.attarmodel").unlink()
    with pytest.raises(ModelMissingError, match=r"no model is installed; put one \(\*\.attarmodel\) into"):
        attar.load()


def test_the_door_is_lazy_and_complete() -> None:
    script = (
        "import sys, attar\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'constriction', 'keras', 'torch', 'matplotlib', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert set(attar.__all__) <= set(dir(attar))\n"
        "assert all(hasattr(attar, name) for name in attar.__all__)\n"
        "assert attar.Codec.__module__ == 'attar.codec.codec'\n"
        "try: attar.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('no error')\n"
        "assert not {'keras', 'torch', 'matplotlib', 'rich', 'click'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_repr_says_what_it_takes(digits: attar.Codec) -> None:
    assert repr(digits) == f"Codec('toy-digits', {digits.bundle.sha256[:8]}: gray, 28 x 28 (height x width))"

"""The photo codec's machinery from end to end, on a tiny model: it learns, resumes, exports, and its files decode."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import attar
from attar.codec import bundle, container
from attar.codec.annealing import Annealer
from attar.codec.container import Chunk, Header
from attar.codec.hyperlatents import HyperLatents
from attar.codec.hyperprior import HyperCoder
from attar.codec.tiling import Held
from attar.errors import AttarError, BundleError, FormatError
from training_kit import attar as run

TINY = Path(__file__).parent / "data" / "tiny_photo.json"
PHOTOS = Path(attar.__file__).parent / "data" / "photos"
POINTS = 6
OPTIONS = {
    "--model": TINY,
    "--crop": 64,
    "--loss": "mse",
    "--batch-size": 4,
    "--epochs": 2,
    "--steps-per-epoch": 100,
    "--learning-rate": 0.004,
    "--warmup": 20,
    "--schedule": "wsd",
    "--average": 0.95,
    "--verbosity": 0,
}


def train(folder: Path, out: Path, *more: object) -> None:
    options = [item for pair in OPTIONS.items() for item in pair]
    result = run("train", *options, "--dataset", folder, "--run-dir", out, *more)
    assert result.code == 0, result.err


def history(out: Path) -> list[dict[str, float]]:
    with (out / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Halved photographs, the left of each to train on and the right to validate."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "val").mkdir()
    sources = sorted([*PHOTOS.glob("*.png"), *PHOTOS.glob("*.jpg")])
    for number, path in enumerate(sources):
        with Image.open(path) as image:
            half = image.convert("RGB").reduce(2)
        split = half.width * 2 // 3
        half.crop((0, 0, split, half.height)).save(folder / f"{number}.png")
        half.crop((split, 0, half.width, half.height)).save(folder / "val" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(photographs, out)
    return out


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    path = trained / "tiny.attarmodel"
    checkpoint = trained / "checkpoints" / "best.npz"
    result = run("export", "--ckpt-path", checkpoint, "--save-path", path)
    assert result.code == 0, result.err
    return path


@pytest.fixture(scope="module")
def codec(exported: Path) -> attar.Codec:
    return attar.load(exported, threads=1)


def picture(height: int, width: int) -> np.ndarray:
    with Image.open(PHOTOS / "kitten.png") as image:
        return np.asarray(image.convert("RGB"))[100 : 100 + height, 200 : 200 + width]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_a_short_training_moves_the_rate_distortion_points_past_a_bound(trained: Path) -> None:
    last = history(trained)[-1]
    rates = [last[f"rd_bpp_{k}"] for k in range(POINTS)]
    quality = [last[f"rd_psnr_{k}"] for k in range(POINTS)]
    # Untrained, the same points lie at 8 dB and 0.3 to 8 bits per pixel.
    assert rates[0] < 0.4
    assert max(quality) > 21
    assert rates == sorted(rates)
    for name in ("rd.png", "rivals.json", "model.svg", "curves.png"):
        assert (trained / name).stat().st_size > 100


def test_effort_finds_files_of_lower_cost_that_decode(codec: attar.Codec) -> None:
    pixels = picture(128, 128)  # a multiple of what is padded to
    assert isinstance(codec.latents, HyperCoder)
    header = Header(3, 128, 128, codec.bundle.short_id, 70)
    price = (
        Annealer(codec.latents, Held(pixels), Held(codec.analyse(pixels[None], 70)[0]), header, 0).price / 3
    )
    files = [codec.compress(pixels, quality=70, effort=effort) for effort in (0, 1, 3)]
    errors = [np.square(codec.decompress(data).astype(float) - pixels).sum() for data in files]
    costs = [8 * len(data) + price * error for data, error in zip(files, errors, strict=True)]
    assert costs[0] > costs[1] >= costs[2]


def test_a_resumed_training_gives_the_numbers_of_an_uninterrupted_one(
    photographs: Path, tmp_path: Path
) -> None:
    short = {"--epochs": 2, "--steps-per-epoch": 4}
    both = [item for pair in short.items() for item in pair]
    train(photographs, tmp_path / "whole", *both, "--schedule", "constant")
    train(photographs, tmp_path / "parts", *both, "--schedule", "constant", "--epochs", 1)
    result = run("train", "--run-dir", tmp_path / "parts", "--resume", "--epochs", 2, "--verbosity", 0)
    assert result.code == 0, result.err
    whole, parts = history(tmp_path / "whole"), history(tmp_path / "parts")
    for name in ("loss", "rate", "val_loss", "rd_bpp_0", "rd_psnr_5"):
        assert parts[1][name] == pytest.approx(whole[1][name], rel=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (65, 130), (128, 192)])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_files_of_any_size_decode_to_what_they_hold(codec: attar.Codec, size: tuple, quality: int) -> None:
    for image in (picture(*size), noise(*size)):
        data = codec.compress(image, quality=quality)
        assert container.read_header(data).quality == quality
        decoded = codec.decompress(data)
        assert decoded.shape == image.shape
        assert np.array_equal(decoded, codec.decompress(data))
        assert codec.verify(data) > 0


def test_the_symbols_do_not_depend_on_threads_or_on_optimisation(exported: Path, codec: attar.Codec) -> None:
    import onnxruntime

    others = [attar.load(exported, threads=2), attar.load(exported, threads=1)]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graphs = others[1].bundle.graphs
    others[1].networks.sessions = {
        name: onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
        for name, body in graphs.items()
    }
    for image in (picture(130, 190), noise(65, 130)):
        data = codec.compress(image, quality=80)
        latent = codec.symbols(codec.unpack(data))
        for other in others:
            # The checksum over all symbols has passed; the means are floats and may differ in their last bits.
            assert np.allclose(other.symbols(other.unpack(data)), latent, atol=1e-3)
            assert np.abs(other.decompress(data).astype(int) - codec.decompress(data)).max() <= 1
            codec.decompress(other.compress(image, quality=80))


def test_quality_raises_bytes_and_psnr(codec: attar.Codec) -> None:
    image = picture(128, 192)
    files = [codec.compress(image, quality=quality) for quality in (1, 40, 100)]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert psnr(image, codec.decompress(files[0])) < psnr(image, codec.decompress(files[2])) + 0.5


def test_sizes_are_those_that_the_network_estimates(trained: Path, codec: attar.Codec) -> None:
    from attar import spec
    from attar.train import export

    model = spec.load(TINY)
    net, _ = export.load_network(model, trained / "checkpoints" / "best.npz")
    image = picture(128, 128)
    for quality in (1, 50, 100):
        forward = net(image[None], training=False, quality=(quality - 1) / 99)
        estimate = float(forward.bits.detach().cpu().numpy()[0]) / 8
        size = len(codec.compress(image, quality=quality))
        assert abs(size - estimate) <= 0.01 * estimate + 64


def test_large_images_are_coded_in_tiles(codec: attar.Codec) -> None:
    image = np.tile(picture(128, 128), (1, 10, 1))
    data = codec.compress(image, quality=30)
    assert np.array_equal(codec.decompress(data), codec.decompress(data))
    part = codec.unpack(data)
    body = bytearray(part.chunks[Chunk.LATENTS])
    body[-3] ^= 4
    with pytest.raises(FormatError, match=r"checksum|cut short|damaged|cannot hold"):
        codec.verify(container.pack(part.header, {Chunk.LATENTS: bytes(body)}))


def test_every_damage_is_refused(codec: attar.Codec) -> None:
    data = codec.compress(picture(65, 130), quality=60)
    rng = np.random.default_rng(1)
    for place in rng.choice(len(data), 60, replace=False):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(AttarError):
            codec.decompress(bytes(damaged), max_pixels=1 << 20)
    for end in (0, 5, 12, 40, len(data) - 1):
        with pytest.raises(AttarError):
            codec.decompress(data[:end])
    with pytest.raises(AttarError):
        codec.decompress(data + b"\1")


def test_the_command_line_takes_a_quality_and_a_target(exported: Path, tmp_path: Path) -> None:
    source = tmp_path / "kitten.png"
    Image.fromarray(picture(128, 192)).save(source)

    def size(*options: object) -> int:
        result = run("compress", source, "-o", tmp_path / "a.attar", "-f", "-m", exported, *options)
        assert result.code == 0, result.err
        return (tmp_path / "a.attar").stat().st_size

    assert size("-q", 5) < size() < size("-q", 95)
    limit = size("-q", 50) - 1
    assert size("--target-bytes", limit) <= limit


def test_a_bundle_without_one_of_its_networks_is_refused(codec: attar.Codec) -> None:
    graphs = {name: body for name, body in codec.bundle.graphs.items() if name != "context_scales"}
    with pytest.raises(BundleError, match=r"not a bundle, context_scales\.onnx missing"):
        bundle.to_bytes(manifest=codec.manifest, graphs=graphs, tables=codec.bundle.tables)


def test_networks_that_choose_no_table_are_refused(codec: attar.Codec) -> None:
    graphs: dict[str, Any] = dict(codec.bundle.graphs)
    graphs["hyper_scales"] = graphs["hyper_means"]  # the right shapes, and no integers
    data = bundle.to_bytes(manifest=codec.manifest, graphs=graphs, tables=codec.bundle.tables)
    forged = attar.Codec(bundle.from_bytes(data, source="forged"))
    with pytest.raises(BundleError, match=r"its networks (chose tables|gave)"):
        forged.compress(picture(64, 64))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (16, 16)])
def test_hyper_latents_of_any_size_and_value_come_back(codec: attar.Codec, shape: tuple) -> None:
    coder, header = codec.latents, container.write_header(container.Header(3, 1, 1, codec.bundle.short_id, 7))
    assert isinstance(coder, HyperCoder)
    latents = HyperLatents(coder.prior, codec.networks, header)
    size = (*shape, coder.prior.channels)
    limit = np.iinfo(np.int32)
    rng = np.random.default_rng(0)
    for symbols in (
        np.zeros(size, np.int32),
        rng.integers(-300, 300, size, dtype=np.int32),
        rng.choice(np.array([limit.min, limit.max, 0], np.int32), size),
    ):
        sections = latents.sections(symbols)
        decoder = coder.coder.decoder(coder.coder.encode(sections, header), header)
        found, coded, tables = latents.take(shape, decoder.take)
        decoder.finish()
        assert len(sections) == 4
        assert np.array_equal(found, symbols)
        assert coded.shape == tables.shape == size


def test_networks_that_choose_no_table_of_a_hyper_latent_are_refused(codec: attar.Codec) -> None:
    graphs: dict[str, Any] = dict(codec.bundle.graphs)
    for other in (
        "hyper_scales",
        "hyper_means",
        "hyper_analysis",
    ):  # another shape, no integers, another input
        graphs["hyper_prior"] = graphs[other]
        data = bundle.to_bytes(manifest=codec.manifest, graphs=graphs, tables=codec.bundle.tables)
        with pytest.raises(BundleError, match=r"hyper_prior gave|network failed"):
            attar.Codec(bundle.from_bytes(data, source="forged")).compress(picture(64, 64))


def test_in_bfloat16_only_what_rounding_does_not_harm_is_bfloat16() -> None:
    from attar import spec
    from attar.train import network

    net = network.build(spec.load(TINY), seed=0, dtype="mixed_bfloat16")
    kinds = {
        type(layer).__name__: layer.compute_dtype for part in net.parts.values() for layer in part.layers
    }
    assert kinds["GatedBlock"] == "bfloat16"
    assert {kinds[name] for name in ("QualityGain", "IntegerConv2D", "AddIndex", "AddMean")} == {"float32"}
    forward = net(picture(64, 64)[None], training=True)
    assert {str(value.dtype) for value in (forward.bits, forward.symbols)} == {"torch.float32"}


def test_the_shipped_architecture_is_sound(tmp_path: Path) -> None:
    result = run("train", "--model", TINY.parents[2] / "models" / "photo.json", "--check")
    assert result.code == 0, result.err
    assert "latent [384]" in result.out
    shutil.rmtree(tmp_path, ignore_errors=True)

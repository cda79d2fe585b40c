from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from attar import spec as specs
from attar.codec import bundle
from attar.codec.codec import Codec
from attar.errors import CheckpointError, ExportError
from attar.train import checkpoint, export, graphs, measuring, network, trainer
from attar.train.config import TrainConfig
from attar.train.readback import input_shape, read_back, run_keras
from training_kit import attar, build, convolutional, dense, digits, numpy, unchanged, with_layers

RNG = np.random.default_rng(1)
STATEFUL = with_layers(
    dense(),
    encoder=[{"BatchNormalization": {"momentum": 0.5}}, {"Dropout": {"rate": 0.3}}],
    decoder=[{"BatchNormalization": {"momentum": 0.5}}],
)


@pytest.fixture(scope="module")
def net(tiny_run: Path) -> network.Network:
    best = tiny_run / "checkpoints" / "best.npz"
    return export.load_network(specs.parse(checkpoint.load(best).record["model"]), best)[0]


def codec_of(net: network.Network, **options: Any) -> Codec:
    data, _ = export.to_bundle_bytes(net, **options)
    return Codec(bundle.from_bytes(data, source="test"))


def test_a_bundle_is_the_trained_network(net: network.Network, tmp_path: Path) -> None:
    done = export.to_bundle(
        net, tmp_path / "d.attarmodel", name="d", licence="CC0-1.0", training={"epochs": 2}
    )
    assert done.paths == (tmp_path / "d.attarmodel",)
    assert set(done.differences) == {"analysis", "synthesis"}
    assert max(done.differences.values()) < 6e-3
    read = bundle.read(tmp_path / "d.attarmodel")
    assert read.sha256 == done.sha256
    assert read.manifest.model == net.spec.document
    assert (read.manifest.licence, read.manifest.training) == ("CC0-1.0", {"epochs": 2})
    images = digits(20)
    decoded = Codec(read).decompress_batch(Codec(read).compress_batch(list(images)))
    expected, _ = measuring.regenerate(net, images)
    # A latent beside .5 may round the other way in half precision: a few levels in few pixels.
    assert abs(np.stack(decoded).astype(int) - expected).mean() < 0.1


def test_full_precision_is_closer_and_larger(net: network.Network) -> None:
    half, half_found = export.to_bundle_bytes(net)
    full, found = export.to_bundle_bytes(net, half=False)
    assert max(found.values()) < 1e-5 < max(half_found.values())
    assert len(half) < 0.6 * len(full)
    assert full == export.to_bundle_bytes(net, half=False)[0]  # the same network, the same bundle


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (64, 48), (3, 130)])
def test_a_model_of_open_size_codes_images_of_every_size(size: tuple[int, int]) -> None:
    net = build(convolutional())
    codec = codec_of(net, half=False)
    manifest = codec.manifest
    assert (manifest.size, manifest.multiple, manifest.latent.stride) == (None, 4, 4)
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    decoded = codec.decompress(codec.compress(image))
    assert decoded.shape == image.shape
    padded = codec.prepare(image)[None]
    expected = np.rint(255 * numpy(net(padded).regenerated))[0, : size[0], : size[1]]
    assert abs(decoded - expected).max() <= 1


def test_a_latent_of_fixed_size_is_coded() -> None:
    codec = codec_of(build(convolutional(28, 1)))
    assert codec.manifest.latent.shape == (7, 7)
    image = digits(1)[0]
    assert codec.decompress(codec.compress(image)).shape == image.shape


def test_statistics_of_normalisation_are_trained_kept_and_exported(tmp_path: Path) -> None:
    """Batch statistics are not weights: they must reach the checkpoint, and the bundle, all the same."""
    data = _small_data()
    config = TrainConfig(epochs=1, warmup=0, learning_rate=3e-3, save_minutes=1e6)
    made = trainer.Trainer(config, specs.parse(STATEFUL), data, tmp_path / "run")
    for _, images in made._batches():
        made.step(images, 3e-3)
    path = tmp_path / "c.npz"
    checkpoint.save(path, checkpoint.weights(made.network), made._record())
    net, _ = export.load_network(specs.parse(STATEFUL), path)
    statistics = {name: numpy(v) for name, v in net.named_variables().items() if "moving" in name}
    assert len(statistics) == 4
    assert all(abs(value - value.round()).max() > 1e-4 for value in statistics.values())
    images = digits(10)
    np.testing.assert_array_equal(numpy(net(images).symbols), numpy(made.network(images).symbols))
    codec = codec_of(net, half=False)
    assert (codec.analyse(images) == numpy(net(images).symbols)).mean() > 0.99
    done = export.to_files(net, "full", "onnx", [tmp_path / "a.onnx"])
    assert done.differences["autoencoder"] < 1e-5


def _small_data() -> Any:
    from attar.train import datasets

    return datasets.load("digits", limit=160)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_layers_with_their_own_dtype_are_exported(dtype: str) -> None:
    content = with_layers(
        dense(),
        encoder=[
            {"Conv2D": {"filters": 2, "kernel_size": 3, "padding": "same", "dtype": dtype}},
            {"TimeDistributed": {"layer": {"Dense": {"units": 2, "dtype": dtype}}}},
        ],
        decoder=[{"Dense": {"units": 12, "dtype": dtype}}],
    )
    net = build(content)
    codec = codec_of(net)
    assert codec.manifest.model == net.spec.document
    images = digits(8)
    assert (codec.analyse(images) == numpy(net(images).symbols)).mean() > 0.9
    assert codec.decompress(codec.compress(images[0])).shape == (28, 28, 1)


def test_a_network_that_was_trained_in_bf16_is_exported_in_float32(tmp_path: Path) -> None:
    net = build(convolutional(28, 1), dtype="mixed_bfloat16")
    codec = codec_of(net, half=False)
    images = digits(8)
    expected = build(convolutional(28, 1))
    for name, variable in expected.named_variables().items():
        variable.assign(net.named_variables()[name].value)
    np.testing.assert_array_equal(codec.analyse(images), numpy(expected(images).symbols))
    assert max(export.to_files(net, "full", "keras", [tmp_path / "a.keras"]).differences.values()) == 0


def test_a_float32_network_is_exported_as_it_is() -> None:
    net = build(STATEFUL)
    assert network.in_float32(net) is net


@pytest.mark.parametrize("file_format", ["onnx", "keras", "h5"])
@pytest.mark.parametrize("content", [dense(), convolutional(), STATEFUL], ids=["dense", "open", "stateful"])
def test_files_read_back_are_the_network(tmp_path: Path, file_format: str, content: dict) -> None:
    net, suffix = build(content, seed=2), export.SUFFIXES[file_format]
    paths = [tmp_path / f"{name}{suffix}" for name in ("all", "e", "d")]
    done = export.to_files(net, "full", file_format, paths[:1])
    pair = export.to_files(net, "encoder-decoder", file_format, paths[1:])
    assert done.differences.keys() | pair.differences.keys() == {"autoencoder", "analysis", "synthesis"}
    assert max({**done.differences, **pair.differences}.values()) < 1e-5
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    whole, encoder, decoder = (read_back(path, file_format) for path in paths)
    size = (28, 28) if net.spec.input_shape[0] else (20, 36)
    images = RNG.integers(0, 256, (3, *size, net.spec.input_shape[2]), dtype=np.uint8)
    expected = numpy(net(images).regenerated)
    np.testing.assert_allclose(whole(images), expected, atol=1e-5)
    latent = encoder(images)
    np.testing.assert_allclose(latent, run_keras(net.analysis, images), atol=1e-5)
    np.testing.assert_allclose(decoder(np.rint(latent).astype("float32")), expected, atol=1e-5)
    assert list(input_shape(paths[0], file_format)) == list(net.spec.input_shape)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_a_saved_model_is_exported_where_tensorflow_is(tiny_run: Path, tmp_path: Path) -> None:
    from training_kit import start

    best = tiny_run / "checkpoints" / "best.npz"
    target = tmp_path / "saved"
    for force in ("--json", "-f"):
        process = start(
            "export", "--ckpt-path", best, "--mode", "full", "--format", "saved-model", "--save-path", target, force
        )  # fmt: skip
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert (target / "saved_model.pb").is_file()
    process = start("infer", "--model", target, "--path-to-data", tmp_path, "--save-dir", tmp_path / "out")
    process.communicate(timeout=300)
    assert process.returncode == 1  # no images, but the model is only looked at after them


def test_a_saved_model_needs_tensorflow(net: network.Network, tmp_path: Path) -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("this is the TensorFlow backend")
    with unchanged(tmp_path), pytest.raises(ExportError, match="needs KERAS_BACKEND=tensorflow"):
        export.to_files(net, "full", "saved-model", [tmp_path / "x"])


def tampered(original: Callable[..., bytes]) -> Callable[..., bytes]:
    """An exporter that changes one weight of every graph."""
    import onnx
    from onnx import numpy_helper

    def to_onnx(*arguments: Any) -> bytes:
        model = onnx.load_from_string(original(*arguments))
        weight = max(model.graph.initializer, key=lambda w: int(np.prod(w.dims)))
        values = numpy_helper.to_array(weight).copy()
        values.flat[np.abs(values).argmax()] += 30.0
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        return bytes(model.SerializeToString())

    return to_onnx


@pytest.mark.parametrize("content", [dense(), convolutional()], ids=["dense", "open"])
@pytest.mark.parametrize("what", ["bundle", "full", "encoder-decoder"])
def test_a_planted_fault_is_found_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict, what: str
) -> None:
    net = build(content, seed=4)
    for variable in net.trainable_variables:  # weights that all matter
        variable.assign(RNG.normal(0, 0.2, variable.shape))
    monkeypatch.setattr(graphs, "to_onnx", tampered(graphs.to_onnx))
    names = {"bundle": ["a.attarmodel"], "full": ["a.onnx"], "encoder-decoder": ["a.onnx", "b.onnx"]}[what]
    paths = [tmp_path / name for name in names]

    def write() -> None:
        export.to_bundle(net, paths[0]) if what == "bundle" else export.to_files(net, what, "onnx", paths)

    with unchanged(tmp_path), pytest.raises(ExportError, match=r"differs from the trained .* not written"):
        write()


def test_a_fault_for_another_size_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Keras's own export does with open sizes: right for the size that it traced, wrong for others."""
    original = graphs.runner

    def runner(graph: bytes, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
        run = original(graph, threads)
        return lambda values: run(values) + (0.5 if values.shape[1] != values.shape[2] else 0)

    monkeypatch.setattr(graphs, "runner", runner)
    with unchanged(tmp_path), pytest.raises(ExportError, match="differs from the trained network by"):
        export.to_bundle(build(convolutional()), tmp_path / "x.attarmodel")


def test_an_export_that_gives_no_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "runner", lambda *_: lambda values: np.full((len(values), 12), np.nan))
    with unchanged(tmp_path), pytest.raises(ExportError, match="by nan, more than"):
        export.to_bundle(build(dense()), tmp_path / "x.attarmodel")


def test_an_export_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "runner", lambda *_: lambda values: np.zeros((len(values), 1)))
    with unchanged(tmp_path), pytest.raises(ExportError, match="by inf, more than"):
        export.to_bundle(build(dense()), tmp_path / "x.attarmodel")


def test_wrong_tables_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = export.make_tables(build(dense(5)).prior)
    monkeypatch.setattr(export, "make_tables", lambda _: tables)
    with unchanged(tmp_path), pytest.raises(ExportError, match="5 tables for 12 latent channels"):
        export.to_bundle(build(dense()), tmp_path / "x.attarmodel")


def test_the_second_of_two_files_that_fails_takes_the_first_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = build(dense())
    export.to_files(net, "encoder-decoder", "onnx", [tmp_path / "e.onnx", tmp_path / "d.onnx"])
    original = export._write

    def second_fails(model: Any, *rest: Any) -> None:
        if model.name == "synthesis":
            raise OSError(28, "No space left on device")
        original(model, *rest)

    monkeypatch.setattr(export, "_write", second_fails)
    with unchanged(tmp_path), pytest.raises(ExportError, match=r"d\.onnx: cannot be written: No space left"):
        export.to_files(
            build(dense(), seed=8), "encoder-decoder", "onnx", [tmp_path / "e.onnx", tmp_path / "d.onnx"]
        )


@pytest.mark.parametrize(
    ("mode", "file_format", "names", "words"),
    [
        ("full", "onnx", ["a.onnx", "b.onnx"], "mode full writes 1 file, got 2 paths"),
        ("encoder-decoder", "onnx", ["a.onnx"], "mode encoder-decoder writes 2 files, got 1 paths"),
        ("encoder-decoder", "onnx", ["a.onnx", "a.onnx"], "encoder and decoder cannot both be written to it"),
        ("full", "onnx", ["a.keras"], "a.keras: expected a name that ends in .onnx for onnx"),
        ("full", "h5", ["a"], "expected a name that ends in .h5 for h5"),
    ],
)
def test_paths_that_do_not_fit_are_refused(
    tmp_path: Path, mode: str, file_format: str, names: list[str], words: str
) -> None:
    with unchanged(tmp_path), pytest.raises(ExportError) as caught:
        export.to_files(build(dense()), mode, file_format, [tmp_path / name for name in names])
    assert words in str(caught.value)


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.attarmodel"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("x")
    with unchanged(tmp_path), pytest.raises(ExportError, match="is a folder, and no earlier export"):
        export.to_files(build(dense()), "full", "onnx", [tmp_path / "a.onnx"])
    with unchanged(tmp_path), pytest.raises(ExportError, match="is a folder, and no earlier export"):
        export.to_bundle(build(dense()), tmp_path / "b.attarmodel")


def test_a_folder_of_somebody_is_never_replaced_by_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("x")

    def write(target: Path) -> None:
        target.mkdir()
        (target / "saved_model.pb").write_text("new")

    with unchanged(tmp_path), pytest.raises(ExportError, match="not overwritten"):
        export._install([(tmp_path / "home", write)], "")
    (tmp_path / "home" / "saved_model.pb").write_text("old")
    export._install([(tmp_path / "home", write)], "")
    assert [path.read_text() for path in (tmp_path / "home").iterdir()] == ["new"]


def test_a_name_that_no_bundle_may_have_is_refused(tmp_path: Path) -> None:
    with unchanged(tmp_path), pytest.raises(ExportError, match="name is 'a b'"):
        export.to_bundle(build(dense()), tmp_path / "x.attarmodel", name="a b")


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with unchanged(tmp_path), pytest.raises(ExportError, match=r"x\.attarmodel: cannot be written"):
        export.to_bundle(build(dense()), tmp_path / "file" / "x.attarmodel")


def test_a_checkpoint_of_another_model_is_refused(tiny_run: Path) -> None:
    best = tiny_run / "checkpoints" / "best.npz"
    content = json.loads((tiny_run / "model.json").read_text())
    layers = content["model"]["layers"]["generator"]["layers"]["encoder"]["layers"]
    layers[1]["Dense"]["activation"] = "relu"  # weights of the same shapes that mean something else
    with pytest.raises(CheckpointError, match="checkpoint of another model"):
        export.load_network(specs.parse(content), best)


def test_tables_leave_almost_nothing_to_the_escape(net: network.Network) -> None:
    tables = export.make_tables(net.prior)
    assert len(tables) == 12
    for channel, table in enumerate(tables):
        mass = net.prior.probabilities(table.minimum, table.maximum)[channel]
        assert mass.sum() > 1 - 2 * export.TAIL
        np.testing.assert_allclose(table.frequencies[:-1] / table.frequencies.sum(), mass, atol=2e-6)


def test_the_bundle_in_the_package_format_holds_no_code(net: network.Network, tmp_path: Path) -> None:
    export.to_bundle(net, tmp_path / "m.attarmodel")
    with zipfile.ZipFile(tmp_path / "m.attarmodel") as archive:
        assert set(archive.namelist()) == {"manifest.json", "analysis.onnx", "synthesis.onnx", "tables.json"}


def test_the_command_exports_and_says_the_difference(tiny_run: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.attarmodel"
    result = attar(
        "export", "--ckpt-path", tiny_run / "checkpoints" / "best.npz", "--save-path", target, "--json"
    )
    assert (result.code, result.err) == (0, "")
    assert result.row["paths"] == [str(target)]
    assert result.row["sha256"] == bundle.read(target).sha256
    assert bundle.read(target).manifest.training["epochs"] == 2
    assert bundle.read(target).manifest.training["steps"] == 32

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import attar as package
from attar import spec as specs
from attar.train import checkpoint, export
from toy_bundle import digit
from training_kit import attar, build, convolutional, digits, numpy, refused, unchanged


@pytest.fixture(scope="module")
def exports(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained network in every format that needs no TensorFlow."""
    folder = tmp_path_factory.mktemp("exports")
    best = tiny_run / "checkpoints" / "best.npz"
    net, _ = export.load_network(specs.parse(checkpoint.load(best).record["model"]), best)
    export.to_bundle(net, folder / "digits.attarmodel", half=False)
    for suffix, name in ((".onnx", "onnx"), (".keras", "keras"), (".h5", "h5")):
        export.to_files(net, "full", name, [folder / f"full{suffix}"])
        export.to_files(net, "encoder-decoder", name, [folder / f"e{suffix}", folder / f"d{suffix}"])
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Digits at two depths, and something that is no image by its name."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(digit(0)).save(folder / "a.png")
    Image.fromarray(digit(1)).save(folder / "deep" / "b.bmp")
    (folder / "notes.txt").write_text("x")
    return folder


def infer(model: Any, data: Path, target: Path, *more: Any) -> Any:
    return attar("infer", "--model", model, "--path-to-data", data, "--save-dir", target, *more)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


MODELS = {
    "bundle": "digits.attarmodel",
    **{f"full {kind}": f"full.{kind}" for kind in ("onnx", "keras", "h5")},
    **{f"pair {kind}": f"e.{kind},d.{kind}" for kind in ("onnx", "keras", "h5")},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_export_regenerates_the_same_images(
    exports: Path, images: Path, tmp_path: Path, name: str
) -> None:
    model = ",".join(str(exports / part) for part in MODELS[name].split(","))
    result = infer(model, images, tmp_path / "out", "--json")
    assert (result.code, result.err) == (0, "infer: 2 of 2 done\n")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["output"] for row in rows] == [str(tmp_path / "out" / p) for p in ("a.png", "deep/b.png")]
    codec = package.load(exports / "digits.attarmodel")
    for row, seed in zip(rows, (0, 1), strict=True):
        found = pixels(Path(row["output"]))
        expected = codec.decompress(codec.compress(digit(seed)[..., None]))[..., 0]
        assert found.shape == (28, 28)
        assert abs(found.astype(int) - expected).max() <= 1
        assert row["psnr"] > 5
        assert -1 <= row["ssim"] < 1
        assert ("bytes" in row) == (name == "bundle")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.png", "b.png"]


def test_bytes_are_those_of_the_file(exports: Path, images: Path, tmp_path: Path) -> None:
    row = infer(exports / "digits.attarmodel", images / "a.png", tmp_path / "out", "--json").row
    codec = package.load(exports / "digits.attarmodel")
    assert row["bytes"] == len(codec.compress(digit(0)[..., None]))
    assert row["bpp"] == pytest.approx(8 * row["bytes"] / 784)


def test_an_image_is_brought_into_the_model_s_form(exports: Path, tmp_path: Path) -> None:
    """Colour, another size, transparency, several channels: over white, as in training."""
    large = Image.fromarray(digit(3)).resize((280, 140)).convert("RGBA")
    large.putalpha(128)
    large.save(tmp_path / "c.png")
    for model in ("digits.attarmodel", "full.onnx"):
        row = infer(exports / model, tmp_path / "c.png", tmp_path / model, "--json").row
        assert pixels(Path(row["output"])).shape == (28, 28)


def test_without_postprocessing_the_network_s_own_values_are_kept(
    exports: Path, images: Path, tmp_path: Path
) -> None:
    result = infer(exports / "full.onnx", images / "a.png", tmp_path / "out", "--postprocess", "false")
    assert result.code == 0
    values = np.load(tmp_path / "out" / "a.npy")
    assert values.shape == (28, 28, 1)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(
        np.rint(255 * np.clip(values[..., 0], 0, 1)), pixels(tmp_path / "out" / "a.png")
    )
    with unchanged(tmp_path):
        again = infer(exports / "full.onnx", images / "a.png", tmp_path / "out", "--postprocess", "false")
    refused(again, 1, "exists already")
    (tmp_path / "out" / "a.npy").unlink()
    with unchanged(tmp_path):  # the image is there, so its values are not written either
        again = infer(exports / "full.onnx", images / "a.png", tmp_path / "out", "--postprocess", "false")
    refused(again, 1, "exists already")


def test_an_export_of_open_size_takes_the_sizes_it_can(tmp_path: Path) -> None:
    net = build(convolutional())
    export.to_files(net, "full", "onnx", [tmp_path / "m.onnx"])
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (20, 32, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "fits.png")
    Image.fromarray(array[:17, :31]).save(tmp_path / "odd.png")
    assert infer(tmp_path / "m.onnx", tmp_path / "fits.png", tmp_path / "out").code == 0
    expected = np.rint(255 * numpy(net(array[None]).regenerated))[0]
    assert abs(pixels(tmp_path / "out" / "fits.png") - expected).max() <= 1
    odd = infer(tmp_path / "m.onnx", tmp_path / "odd.png", tmp_path / "out")
    refused(odd, 1, "odd.png", "gave [20, 32, 3] for an image of [17, 31, 3]", "--height and --width")
    words = ("--height", 16, "--width", 24, "--channels", 3)
    assert infer(tmp_path / "m.onnx", tmp_path / "odd.png", tmp_path / "out", *words).code == 0
    assert pixels(tmp_path / "out" / "odd.png").shape == (16, 24, 3)


def test_two_images_of_one_stem_become_two(exports: Path, images: Path, tmp_path: Path) -> None:
    Image.fromarray(digit(4)).save(images / "a.gif")
    assert infer(exports / "full.onnx", images, tmp_path / "out").code == 0
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert names == ["a.png", "a.png.png", "deep/b.png"]


def test_a_broken_image_is_named_and_the_others_are_done(exports: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes(b"no image")
    result = infer(exports / "digits.attarmodel", images, tmp_path / "out")
    assert result.code == 1
    lines = result.err.splitlines()
    assert sum(line.startswith("attar: ") for line in lines) == 1
    assert any("broken.png" in line for line in lines)
    assert lines[-1] == "infer: 2 of 3 done, 1 failed"
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_nothing_is_overwritten_without_force(exports: Path, images: Path, tmp_path: Path) -> None:
    words = (exports / "full.onnx", images / "a.png", tmp_path / "out")
    assert infer(*words).code == 0
    with unchanged(tmp_path):
        refused(infer(*words), 1, "a.png", "not overwritten")
    assert infer(*words, "-f").code == 0


def test_what_is_no_model_is_refused(exports: Path, images: Path, tmp_path: Path, only_toys: None) -> None:
    for suffix in ("onnx", "keras", "h5", "txt"):
        (tmp_path / f"m.{suffix}").write_bytes(b"something else\n" * 20)
    (tmp_path / "folder").mkdir()
    half = tmp_path / "half.onnx"
    half.write_bytes((exports / "full.onnx").read_bytes()[:5000])
    shutil.copy(exports / "digits.attarmodel", tmp_path / "renamed.onnx")
    out = tmp_path / "out"
    with unchanged(tmp_path):
        for name in ("m.onnx", "m.keras", "m.h5", "half.onnx", "renamed.onnx"):
            result = infer(tmp_path / name, images, out)
            refused(result, 4, str(tmp_path / name), "not an exported network that can be loaded")
        refused(infer(tmp_path / "m.txt", images, out), 4, "m.txt", "not a bundle")
        refused(infer(tmp_path / "none.onnx", images, out), 4, "none.onnx", "neither a file nor installed")
        refused(infer("toy-digit", images, out), 4, "did you mean 'toy-digits'?")
        refused(infer(f"{tmp_path}/none.onnx,{tmp_path}/m.onnx", images, out), 4, "no such exported network")
        refused(
            infer(f"{tmp_path}/m.txt,{tmp_path}/m.onnx", images, out), 4, "m.txt: not an exported network"
        )
        refused(infer("a,b,c", images, out), 4, "expected one path, or an encoder and a decoder as A,B")
        result = infer(tmp_path / "folder", images, out)
        assert result.code in (1, 4)  # without TensorFlow it is that which is missing
        assert len(result.err.strip().splitlines()) == 1


def test_networks_that_do_not_go_together_are_refused(exports: Path, images: Path, tmp_path: Path) -> None:
    result = infer(f"{exports}/d.onnx,{exports}/e.onnx", images / "a.png", tmp_path / "out")
    refused(result, 1, "a.png", "does not take an input of shape [1, 28, 28, 1]")
    result = infer(exports / "e.onnx", images / "a.png", tmp_path / "out")
    refused(result, 1, "a.png", "gave [12] for an image of [28, 28, 1]")
    result = infer(exports / "full.onnx", images / "a.png", tmp_path / "out", "--height", 14, "--width", 14)
    refused(result, 1, "a.png", "does not take an input of shape [1, 14, 14, 1]")
    assert list((tmp_path / "out").rglob("*.*")) == []


def test_data_that_is_not_there_is_refused(exports: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    model = exports / "full.onnx"
    with unchanged(tmp_path):
        refused(infer(model, tmp_path / "empty", tmp_path / "out"), 1, "empty", "no images below it")
        refused(infer(model, tmp_path / "none", tmp_path / "out"), 1, "none: no such image or folder")
        refused(infer(model, images / "a.png", images / "a.png" / "x"), 1, "a.png", "cannot be made")
        refused(infer(model, images / "a.png", tmp_path / "out", "--height", 0), 2, "--height")
        refused(infer(model, images / "a.png", tmp_path / "out", "--channels", 2), 2, "--channels")


def test_the_shared_kit_has_real_digits() -> None:
    assert digits(3).shape == (3, 28, 28, 1)
    assert digits(3).std() > 50

"""``attar benchmark`` and ``attar compare``, as typed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from attar.apps.cli import main
from attar.measure.rows import read_rows


def picture(seed=0, height=30, width=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    picture().save(path)
    return str(path)


@pytest.fixture
def attar(capsys):
    """Run a command line; give its exit code, stdout and stderr."""

    def run(*arguments):
        code = 0
        try:
            code = main([str(argument) for argument in arguments]) or 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def test_compare_prints_the_metrics(attar, image, tmp_path):
    coded = tmp_path / "coded.jpg"
    picture().save(coded, quality=50)
    code, out, _ = attar("compare", image, coded)
    assert code == 0
    assert "PSNR of luma" in out
    assert f"40 x 30, {coded.stat().st_size:,} bytes" in out
    assert "MS-SSIM                - (the image is too small)" in out
    code, out, _ = attar("compare", image, coded, "--json")
    row = json.loads(out)
    assert row["bpp"] == 8 * coded.stat().st_size / 1200
    assert 15 < row["psnr"] < 60
    assert row["ms_ssim"] is None


def test_compare_calls_identical_images_identical(attar, image):
    assert json.loads(attar("compare", image, image, "--json")[1])["psnr"] == "identical"
    assert "PSNR                   identical" in attar("compare", image, image)[1]


def test_compare_reads_attar_files(attar, tmp_path, photo_bundle, only_toys):
    import attar as package
    import toy_bundle

    Image.fromarray(toy_bundle.photo()).save(tmp_path / "photo.png")
    (tmp_path / "photo.attar").write_bytes(package.load(photo_bundle).compress(toy_bundle.photo()))
    code, out, _ = attar("compare", tmp_path / "photo.png", tmp_path / "photo.attar", "--json")
    assert code == 0
    assert json.loads(out)["psnr"] > 20
    (tmp_path / "photo.attar").write_bytes((tmp_path / "photo.attar").read_bytes()[:-1])
    code, _, err = attar("compare", tmp_path / "photo.png", tmp_path / "photo.attar")
    assert code == 1
    assert "photo.attar" in err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: picture(height=31).save(p),
            "images of unequal size cannot be compared: .*40 x 30 pixels, .*40 x 31",
        ),
        (lambda p: p.write_text("text"), r"other\.png: .*not an image"),
        (lambda p: None, r"other\.png: no such file"),
        (lambda p: Image.new("RGBA", (40, 30)).save(p), "has an alpha channel"),
    ],
)
def test_compare_refuses(attar, image, tmp_path, make, message):
    import re

    make(tmp_path / "other.png")
    code, out, err = attar("compare", image, tmp_path / "other.png")
    assert (code, out) == (1, "")
    assert re.search(message, err)
    assert err.count("\n") == 1


def test_benchmark_makes_a_report(attar, image, tmp_path):
    out = tmp_path / "out"
    arguments = (
        "benchmark",
        image,
        "--codecs",
        "jpeg,webp-m0",
        "--codecs",
        "ext:cp {in} {out} :: cp {in} {out}",
    )
    code, text, err = attar(
        *arguments, "-o", out, "--repeats", 1, "-j", 2, "--qualities", "jpeg=5,20,40,60,95"
    )
    assert code == 0
    assert (out / "report.html").is_file()
    assert text.splitlines()[0].startswith("codec ")
    assert "(against jpeg)" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["jpeg", "webp-m0", "ext:cp"]
    assert "report: " in err
    rows = read_rows(out / "rows.csv")
    assert len(rows) == 5 + 10 + 1
    assert all("attar" in row.command for row in rows)
    code, text, _ = attar("benchmark", image, "--codecs", "jpeg", "-o", out, "--json", "--no-pictures")
    assert code == 0
    assert json.loads(text)["codecs"][0]["name"] == "jpeg"


def test_benchmark_measures_installed_bundles_of_any_size(attar, image, tmp_path, only_toys, monkeypatch):
    monkeypatch.setattr("attar.apps.cli.measuring.DEFAULT_CODECS", ("png",))
    code, text, _ = attar("benchmark", image, "-o", tmp_path / "out", "--no-pictures", "--json")
    names = [codec["name"] for codec in json.loads(text)["codecs"]]
    assert names == ["png", "attar:toy-photo"]
    assert code in {0, 1}


def test_benchmark_exits_with_1_when_something_failed(attar, image, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    code, _, err = attar(
        "benchmark", image, tmp_path / "bad.png", "--codecs", "png,attar:nothing", "-o", tmp_path / "out"
    )
    assert code == 1
    assert "bad.png: not an image" in err
    assert "attar:nothing is absent: " in err
    assert "1 of 2 measurements failed" in err
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--codecs", "jpg"), "no codec is called 'jpg': did you mean 'jpeg'?"),
        (("--codecs", "jpeg", "--qualities", "jpeg=0"), "jpeg takes a quality from 1 to 100, not 0"),
        (
            ("--codecs", "jpeg", "--qualities", "webp=5"),
            "given for 'webp', which is not among the codecs: jpeg",
        ),
        (("--codecs", "jpeg", "--qualities", "high"), "'high' is not of the form CODEC=Q,Q,..."),
        (("--codecs", "jpeg,webp", "--reference", "wepb"), "none of jpeg, webp; did you mean 'webp'?"),
        (("--codecs", "ext:cp {in}"), "is not of the form ext:ENCODE"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error_before_any_work(attar, image, tmp_path, arguments, message):
    code, _, err = attar("benchmark", image, "-o", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_not_used(attar, image, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    code, _, err = attar("benchmark", image, "--codecs", "png", "-o", tmp_path / "out")
    assert code == 2
    assert "out is not empty and holds no rows.csv" in err
    assert attar("benchmark", image, "--codecs", "png", "-o", tmp_path / "out", "-f")[0] == 0
    assert attar("benchmark", image, "--codecs", "png", "-o", tmp_path / "out")[0] == 0


def test_published_curves_that_cannot_be_read(attar, image, tmp_path):
    (tmp_path / "curve.json").write_text("{}")
    code, _, err = attar("benchmark", image, "-o", tmp_path / "out", "--published", tmp_path / "curve.json")
    assert code == 1
    assert "curve.json: expected an object with 'name' and 'results'" in err


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with torch
def test_benchmark_takes_the_folder_of_a_training_run(attar, tmp_path):
    """A model of a few weights, trained for an instant, is on the same page as JPEG."""
    pytest.importorskip("keras")
    import toy_bundle

    encoder = [{"Flatten": {}}, {"Dense": {"units": None, "name": "compressed_representation"}}]
    decoder = [{"Dense": {"units": 784, "activation": "sigmoid"}}, {"Reshape": {"target_shape": [28, 28, 1]}}]
    layers = {
        "inputs": [{"Input": {"shape": [28, 28, 1], "dtype": "uint8", "name": "image"}}],
        "generator": {
            "name": "tiny",
            "layers": {
                "encoder": {"name": "encoder", "layers": encoder},
                "decoder": {"name": "decoder", "layers": decoder},
            },
        },
    }
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"model": {"name": "tiny", "layers": layers}}))
    run = tmp_path / "my-run"
    options = ("--limit", "64", "--epochs", "1", "--latent-dims", "4", "--verbosity", "0")
    command = [sys.executable, "-m", "attar", "train", "--model", model, "-o", run, *options]
    subprocess.run(command, check=True, capture_output=True)
    Image.fromarray(np.squeeze(toy_bundle.digit())).save(tmp_path / "digit.png")
    out = tmp_path / "out"
    code, text, err = attar(
        "benchmark", tmp_path / "digit.png", "--codecs", f"jpeg,{run}", "-o", out, "--no-pictures", "--json"
    )
    assert code == 0, err
    (_, mine) = json.loads(text)["codecs"]
    assert mine["name"] == "my-run"
    assert (out / "bundles" / "my-run.attarmodel").is_file()
    assert "my-run 1" in mine["version"]
    rows = {row.codec: row for row in read_rows(out / "rows.csv")}
    assert rows["my-run"].bytes < rows["jpeg"].bytes

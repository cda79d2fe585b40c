from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attar
from attar.apps.cli import common, main
from attar.codec import bundle, images
from toy_bundle import digit, photo


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def attar_cli(capsys: pytest.CaptureFixture[str], only_toys: None) -> object:
    def call(*arguments: str) -> Result:
        try:
            code = int(main(list(arguments)) or 0)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file_each_way_beside_the_input(work: Path, attar_cli) -> None:
    result = attar_cli("compress", "d0.png", "-m", "toy-digits")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("d0.png -> d0.attar: 28 x 28, ")
    (work / "d0.png").rename(work / "before.png")
    assert attar_cli("decompress", "d0.attar").code == 0
    codec = attar.load("toy-digits")
    expected = codec.decompress((work / "d0.attar").read_bytes())
    assert np.array_equal(images.read(work / "d0.png").pixels, expected)


def test_many_files_into_a_folder_with_a_summary(work: Path, attar_cli) -> None:
    result = attar_cli("compress", "d0.png", "d1.png", "d2.png", "-m", "toy-digits", "-o", "out/")
    assert result.code == 0
    assert result.err.endswith("compress: 3 of 3 done\n")
    assert names(work / "out") == ["d0.attar", "d1.attar", "d2.attar"]
    back = attar_cli(
        "decompress", *(f"out/d{n}.attar" for n in range(3)), "-o", "back/", "--format", "bmp", "--quiet"
    )
    assert (back.code, back.err) == (0, "")
    assert names(work / "back") == ["d0.bmp", "d1.bmp", "d2.bmp"]


def test_failures_are_reported_and_the_others_done(work: Path, attar_cli) -> None:
    (work / "broken.png").write_bytes(b"no image")
    result = attar_cli(
        "compress", "d0.png", "broken.png", "photo.jpg", "none.png", "d1.png", "-m", "toy-digits", "--json"
    )
    assert result.code == 1
    lines = result.err.splitlines()
    assert lines[0] == "attar: broken.png: not an image, or of an unknown kind"
    assert lines[1].startswith(
        "attar: photo.jpg: RGB, 45 x 70 (height x width); model 'toy-digits' takes gray, 28 x 28"
    )
    assert lines[2] == "attar: none.png: no such file"
    assert lines[3] == "compress: 2 of 5 done, 3 failed"
    assert [row["ok"] for row in result.rows] == [True, False, False, False, True]
    assert result.rows[1]["error"] == "broken.png: not an image, or of an unknown kind"
    first = result.rows[0]
    assert first["bytes"] == (work / "d0.attar").stat().st_size
    assert first["bpp"] == pytest.approx(8 * first["bytes"] / 784)
    assert {"d0.attar", "d1.attar"} == {name for name in names(work) if name.endswith(".attar")}


def test_workers_do_the_same(work: Path, attar_cli) -> None:
    inputs = [f"d{n}.png" for n in range(3)]
    for workers in ("1", "2", "0"):
        result = attar_cli(
            "compress", *inputs, "-m", "toy-digits", "-j", workers, "-o", f"w{workers}/", "--json"
        )
        assert {row["input"] for row in result.rows} == set(inputs)
    files = [[path.read_bytes() for path in sorted((work / f"w{w}").iterdir())] for w in "120"]
    assert files[0] == files[1] == files[2]


def test_nothing_is_overwritten_without_force(work: Path, attar_cli) -> None:
    (work / "d0.attar").write_bytes(b"precious")
    result = attar_cli("compress", "d0.png", "d1.png", "-m", "toy-digits")
    assert result.code == 1
    assert "d0.png: d0.attar exists already: overwrite it with -f, or pass --skip-existing" in result.err
    assert (work / "d0.attar").read_bytes() == b"precious"
    skipped = attar_cli("compress", "d0.png", "d1.png", "-m", "toy-digits", "--skip-existing")
    assert (skipped.code, skipped.err.count("exists, skipped")) == (0, 2)
    assert (work / "d0.attar").read_bytes() == b"precious"
    assert attar_cli("compress", "d0.png", "-m", "toy-digits", "--force").code == 0
    assert (work / "d0.attar").read_bytes() != b"precious"


def test_wrong_usage_is_told_before_anything_is_done(work: Path, attar_cli) -> None:
    (work / "d0.jpg").write_bytes(b"")
    (work / "sub").mkdir()
    (work / "sub" / "d0.png").write_bytes(b"")
    cases = {
        (
            "d0.png",
            "d1.png",
            "-o",
            "one.attar",
        ): "2 inputs and one output, 'one.attar': name a folder, -o one.attar/",
        ("d0.png", "d1.png", "-o", "-"): "2 inputs and one output, '-': name a folder, -o DIR/",
        ("d0.png", "d0.jpg"): "d0.png and d0.jpg would both become d0.attar",
        ("d0.png", "sub/d0.png", "-o", "out/"): "d0.png and sub/d0.png would both become out/d0.attar",
        ("-", "-"): "stdin (-) can be read only once",
        ("x*.png",): "no file matches 'x*.png'",
        ("d0.png", "-o", "-", "--json"): "--json and -o - would both write to stdout",
        (): "Missing argument 'FILE...'",
    }
    for arguments, message in cases.items():
        result = attar_cli("compress", *arguments, "-m", "toy-digits")
        assert result.code == 2
        assert message in result.err
    assert not [name for name in names(work) if name.endswith(".attar")]


def test_patterns_are_expanded_where_the_shell_does_not(work: Path, attar_cli) -> None:
    (work / "d[1].png").write_bytes((work / "d0.png").read_bytes())
    result = attar_cli("compress", "d?.png", "d[1].png", "-m", "toy-digits", "--json")
    assert [row["input"] for row in result.rows] == ["d0.png", "d1.png", "d2.png", "d[1].png"]


def test_exit_codes_and_messages_of_single_failures(work: Path, attar_cli, digits_bundle: Path) -> None:
    good = attar.load("toy-digits").compress(digit())
    files = {
        "cut.attar": good[:-3],
        "foreign.attar": b"\x89PNG\r\n\x1a\n",
        "empty.attar": b"",
        "other.attar": good[:7] + bytes(4) + good[11:],
        "flipped.attar": good[:-1] + bytes([good[-1] ^ 64]),
        "half.attarmodel": digits_bundle.read_bytes()[:1000],
    }
    for name, data in files.items():
        (work / name).write_bytes(data)
    before = names(work)
    cases = {
        ("decompress", "cut.attar"): (1, "cut.attar: the file ends inside the chunk 0x7f"),
        ("decompress", "foreign.attar"): (1, "foreign.attar: not an .attar file: it starts with 89 50 4e 47"),
        ("decompress", "empty.attar"): (1, "empty.attar: the file is empty"),
        ("decompress", "flipped.attar"): (1, "flipped.attar: the checksum of the symbols does not match"),
        ("decompress", "other.attar"): (4, "other.attar: model 00000000 is needed and not installed"),
        ("decompress", "none.attar"): (1, "none.attar: no such file"),
        ("decompress", "."): (1, ".: a folder, not a file; name its files"),
        ("decompress", "cut.attar", "-o", "x.xyz"): (1, "x.xyz: no image format to write is known"),
        ("compress", "d0.png", "-m", "half.attarmodel"): (4, "half.attarmodel: not a bundle, or damaged"),
        ("compress", "d0.png", "-m", "nothing"): (4, "no model 'nothing': neither a file nor installed"),
        ("compress", "d0.png", "-m", "toy-digits", "-o", "d1.png/x.attar"): (
            1,
            "d0.png: d1.png/x.attar: its folder cannot",
        ),
        ("compress", "d0.png", "-m", "toy-digits", "--max-pixels", "783"): (
            1,
            "d0.png: 28 x 28 pixels, at most 783",
        ),
        ("verify", "flipped.attar"): (1, "flipped.attar: the checksum of the symbols"),
        ("info", "cut.attar"): (1, "cut.attar: the file ends inside"),
        ("info", "half.attarmodel"): (4, "half.attarmodel: not a bundle"),
        ("models", "show", "nothing"): (4, "no model 'nothing'"),
    }
    for arguments, (code, message) in cases.items():
        result = attar_cli(*arguments)
        assert (result.code, result.out) == (code, "")
        assert f"attar: {message}" in result.err
        assert result.err.count("\n") == 1
        assert names(work) == before


def test_an_unwritable_folder_is_an_error(work: Path, attar_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: bool) -> None:
        raise PermissionError(13, "Permission denied", str(work / "x"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = attar_cli("compress", "d0.png", "-m", "toy-digits", "-o", "locked/x.attar")
    assert (result.code, result.err) == (
        1,
        "attar: d0.png: locked/x.attar: its folder cannot be made: Permission denied\n",
    )


def test_failures_of_one_kind_share_their_exit_code(work: Path, attar_cli) -> None:
    good = attar.load("toy-digits").compress(digit())
    for number in range(2):
        (work / f"{number}.attar").write_bytes(good[:7] + bytes([number] * 4) + good[11:])
    assert attar_cli("verify", "0.attar", "1.attar").code == 4
    (work / "2.attar").write_bytes(b"text")
    assert attar_cli("verify", "0.attar", "1.attar", "2.attar").code == 1


def test_metadata_and_alpha_go_through_and_strip_drops_them(work: Path, attar_cli) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    picture = Image.fromarray(np.dstack([photo(), photo()[..., 0]]))
    picture.save(work / "alpha.png", exif=exif, icc_profile=b"profile")
    attar_cli("compress", "alpha.png", "-m", "toy-photo")
    attar_cli("decompress", "alpha.attar", "-o", "back.png")
    back = images.read(work / "back.png")
    assert np.array_equal(back.alpha, photo()[..., 0])
    assert back.icc == b"profile"
    assert b"A camera" in back.exif
    attar_cli("compress", "alpha.png", "-m", "toy-photo", "-o", "bare.attar", "--strip")
    row = attar_cli("info", "bare.attar", "--json").rows[0]
    assert list(row["chunks"]) == ["alpha", "latents"]


def test_targets_are_kept_or_refused_with_what_can_be_reached(work: Path, attar_cli) -> None:
    size = len(attar.load("toy-photo").compress(work / "photo.jpg"))
    command = ("compress", "photo.jpg", "-m", "toy-photo", "-f")
    met = {"bytes": str(size), "bpp": str(8 * size / (45 * 70)), "psnr": "30", "ssim": "0.8"}
    for kind, value in met.items():
        assert attar_cli(*command, f"--target-{kind}", value).code == 0
    (work / "photo.attar").unlink()
    missed = {
        "bytes": (
            str(size - 1),
            f"at most {size - 1} bytes wanted; the model reaches {size} at its only",
        ),
        "bpp": ("0.5", "at most 0.5 bpp wanted; the model reaches 1."),
        "psnr": ("60", "at least 60 dB PSNR wanted; the model reaches 3"),
        "ssim": ("0.9999", "at least 0.9999 SSIM wanted; the model reaches 0.9"),
    }
    for kind, (value, message) in missed.items():
        result = attar_cli(*command, f"--target-{kind}", value)
        assert result.code == 3
        assert f"attar: photo.jpg: {message}" in result.err
    assert not (work / "photo.attar").exists()


def test_quality_and_targets_exclude_each_other(work: Path, attar_cli) -> None:
    one = attar_cli("compress", "d0.png", "-m", "toy-digits", "--target-psnr", "9", "--target-bytes", "9")
    assert (one.code, "one of --quality and the --target options" in one.err) == (2, True)
    rate = attar_cli("compress", "d0.png", "-m", "toy-digits", "-q", "50")
    assert (rate.code, "'toy-digits' has a single rate and takes no --quality" in rate.err) == (2, True)


def test_convert_is_asked_for(work: Path, attar_cli) -> None:
    Image.fromarray(photo()).convert("CMYK").save(work / "cmyk.jpg")
    refused = attar_cli("compress", "cmyk.jpg", "-m", "toy-photo")
    assert refused.code == 1
    assert "cmyk.jpg: colour space CMYK, which would be converted to RGB; pass --convert" in refused.err
    assert attar_cli("compress", "cmyk.jpg", "-m", "toy-photo", "--convert").code == 0


def test_info_of_files_and_bundles(work: Path, attar_cli, photo_bundle: Path) -> None:
    attar_cli("compress", "photo.jpg", "-m", "toy-photo")
    words = attar_cli("info", "photo.attar").out
    assert "  width          70\n" in words
    assert "  model_name     toy-photo\n" in words
    row = attar_cli("info", "photo.attar", "--json").rows[0]
    assert (row["kind"], row["width"], row["height"], row["channels"]) == ("attar", 70, 45, 3)
    assert row["bytes"] == (work / "photo.attar").stat().st_size
    row = attar_cli("info", str(photo_bundle), "--json").rows[0]
    assert row["id"] == bundle.read(photo_bundle).sha256
    assert row["accepts"] == "RGB or gray, any size"
    assert row["latent"] == {"channels": 30, "stride": 8, "shape": []}


def test_verify_says_ok(work: Path, attar_cli) -> None:
    attar_cli("compress", "d0.png", "d1.png", "-m", "toy-digits")
    result = attar_cli("verify", "d0.attar", "d1.attar")
    assert (result.code, result.out) == (0, "d0.attar: ok\nd1.attar: ok\n")
    assert attar_cli("verify", "d0.attar", "--json").rows[0]["symbols"] == 50
    assert attar_cli("verify", "d0.attar", "-m", "toy-photo").code == 4


def test_models_are_listed_and_shown(attar_cli, digits_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = attar_cli("models")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["toy-digits", "toy-photo"]
    assert listed.err == ""
    rows = attar_cli("models", "list", "--json").rows
    assert rows[0]["input"] == str(digits_bundle)
    assert "  licence        CC0-1.0\n" in attar_cli("models", "show", rows[0]["id"][:8]).out
    assert attar_cli("models", "show", "toy-photo", "--json").rows[0]["name"] == "toy-photo"
    monkeypatch.setattr(bundle, "folders", lambda: [Path("nowhere")])
    none = attar_cli("models")
    assert (none.code, none.out, none.err) == (0, "", "no model is installed; looked in nowhere\n")


def test_binary_data_is_kept_from_a_terminal(work: Path, attar_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    result = attar_cli("compress", "d0.png", "-m", "toy-digits", "-o", "-")
    assert (result.code, result.err) == (
        1,
        "attar: d0.png: binary data is not written to a terminal: use -o FILE, or redirect stdout\n",
    )


@pytest.mark.parametrize("quiet", [False, True])
def test_a_long_search_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    told: list[tuple[int, int]] = []
    with common.watching("search", quiet=quiet) as watch:
        assert (watch is None) == quiet
        if watch:
            watch(5, 10)
            watch(10, 10)
            told.append((10, 10))
    shown = capsys.readouterr().err
    assert ("search" in shown) == (not quiet)
    assert ("100%" in shown) == bool(told)

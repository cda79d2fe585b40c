from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from attar import spec
from attar.errors import TrainingError
from attar.train import diagram, pictures

pytest.importorskip("matplotlib")
pytest.importorskip("keras")

MODELS = Path(__file__).resolve().parent.parent / "models"
SVG = "{http://www.w3.org/2000/svg}"


def history(epochs: int) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"loss": 1 / epoch, "psnr": 20.0 + epoch, "ssim": 1 - 1 / (2 + epoch), "bytes": 60.0 - epoch}
        rows.append({"epoch": epoch, **row, **{f"val_{key}": value * 1.01 for key, value in row.items()}})
    return rows


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def drawn(array: np.ndarray, colour: str) -> int:
    """How many pixels are of a colour, nearly."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(array.astype(int) - wanted).max(-1) < 8).sum())


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of every figure that is drawn in the test."""
    seen: list[Any] = []
    png = pictures._png

    def spy(figure: Any) -> bytes:
        seen.extend(figure.axes)
        return png(figure)

    monkeypatch.setattr(pictures, "_png", spy)
    return seen


def lines(panel: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in panel.get_lines()
        if not line.get_label().startswith("_")
    }


class TestCurves:
    def test_draws_both_lines_of_each_quantity(self, tmp_path: Path, axes: list[Any]) -> None:
        rows = history(12)
        pictures.curves(rows, tmp_path / "curves.png")
        assert pixels(tmp_path / "curves.png").shape == (768, 1200, 3)
        assert [panel.get_title("left") for panel in axes] == ["Loss", "SSIM", "PSNR (dB)", "Bytes per image"]
        for panel, key in zip(axes, ("loss", "ssim", "psnr", "bytes"), strict=True):
            assert lines(panel)["training"] == ([r["epoch"] for r in rows], [r[key] for r in rows])
            assert lines(panel)["validation"][1] == [r[f"val_{key}"] for r in rows]

    def test_marks_the_epoch_of_the_lowest_validation_loss(self, tmp_path: Path, axes: list[Any]) -> None:
        rows = history(6)
        rows[3]["val_loss"] = 0.001
        pictures.curves(rows, tmp_path / "curves.png")
        for panel, key in zip(axes, ("loss", "ssim", "psnr", "bytes"), strict=True):
            assert lines(panel)["best epoch"] == ([4], [rows[3][f"val_{key}"]])
        assert [panel.get_title("right") for panel in axes][::2] == [
            "0.001 at epoch 4",
            "24.24 dB at epoch 4",
        ]

    def test_one_epoch_shows_a_marker_for_each_line(self, tmp_path: Path, axes: list[Any]) -> None:
        pictures.curves(history(1), tmp_path / "curves.png")
        image = pixels(tmp_path / "curves.png")
        assert drawn(image, pictures.TRAINING) > 4 * 15  # a marker in each panel, and the legend
        assert drawn(image, pictures.VALIDATION) > 4 * 15
        assert list(axes[0].get_xticks()) == [1]
        assert [line.get_marker() for line in axes[0].get_lines()][:2] == ["o", "o"]

    def test_takes_the_text_of_a_csv_with_missing_and_empty_columns(
        self, tmp_path: Path, axes: list[Any]
    ) -> None:
        rows = [
            {"epoch": "1", "loss": "0.5", "val_loss": ""},
            {"epoch": "2", "loss": "0.25"},
            {"loss": "nan"},
        ]
        pictures.curves(rows, tmp_path / "curves.png")
        assert lines(axes[0]) == {"training": ([1, 2], [0.5, 0.25])}
        assert [panel.texts[0].get_text() for panel in axes[1:]] == ["not recorded"] * 3

    def test_a_validation_of_some_epochs_is_one_line(self, tmp_path: Path, axes: list[Any]) -> None:
        rows: list[dict[str, Any]] = list(history(5))
        rows[1]["val_loss"] = rows[3]["val_loss"] = ""
        pictures.curves(rows, tmp_path / "curves.png")
        assert lines(axes[0])["validation"][0] == [1, 3, 5]

    def test_an_empty_history_is_drawn_empty(self, tmp_path: Path, axes: list[Any]) -> None:
        pictures.curves([], tmp_path / "curves.png")
        assert [panel.texts[0].get_text() for panel in axes] == ["not recorded"] * 4

    def test_a_value_that_is_no_number_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="row 2: psnr is 'high', expected a number"):
            pictures.curves([{"psnr": 3}, {"psnr": "high"}], tmp_path / "curves.png")
        assert not any(tmp_path.iterdir())

    def test_the_same_history_gives_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.png"):
            pictures.curves(history(3), tmp_path / name)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def images(count: int, height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)


def captions(count: int) -> list[str]:
    return [f"{38 + n} bytes, 29.1 dB, SSIM 0.987" for n in range(count)]


def runs(dark: np.ndarray) -> int:
    """How many runs of True there are."""
    return int(np.diff(np.concatenate([[False], dark, [False]]).astype(int)).clip(0).sum())


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, Any]]]:
    """The texts of the last figure drawn, with the boxes that they take, and the figure's own."""
    from matplotlib.backends.backend_agg import RendererAgg

    seen: list[Any] = []
    png = pictures._png

    def spy(figure: Any) -> bytes:
        seen.append(figure)
        return png(figure)

    monkeypatch.setattr(pictures, "_png", spy)

    def placed() -> list[tuple[str, Any]]:
        renderer = RendererAgg(2000, 2000, pictures.DPI)
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in seen[-1].texts]
        return [*boxes, ("", seen[-1].bbox)]

    return placed


class TestRegenerated:
    @pytest.mark.parametrize("count", [1, 8, 16])
    def test_shows_input_output_and_difference(self, tmp_path: Path, count: int) -> None:
        original = np.full((count, 28, 28, 1), 250, np.uint8)
        output = original - 10
        pictures.regenerated(original, output, captions(count), tmp_path / "r.png")
        shown = pixels(tmp_path / "r.png")
        area = count * 112 * 112
        assert [int((shown == value).all(-1).sum()) // area for value in (250, 240, 160)] == [1, 1, 1]

    def test_enlarges_without_interpolation_exactly(self, tmp_path: Path) -> None:
        original = images(1, 28, 28, 1)
        pictures.regenerated(original, original, ["x"], tmp_path / "r.png")
        shown = pixels(tmp_path / "r.png")
        left = shown.shape[1] - pictures.MARGIN - 112
        tile = shown[pictures.MARGIN : pictures.MARGIN + 112, left : left + 112]
        assert np.array_equal(tile[::4, ::4, :1], original[0])
        assert np.array_equal(tile, tile[::4, ::4].repeat(4, 0).repeat(4, 1))

    @pytest.mark.parametrize(
        ("shape", "text"),
        [
            ((16, 28, 28, 1), "38 bytes, 29.1 dB, SSIM 0.987"),
            ((5, 32, 32, 3), "1,234,567 bytes, infinitely many dB, averyveryveryverylongwordwithoutanyspace"),
            ((2, 7, 300, 3), "costs $10 and_more^2 at {every} \\level"),
            ((3, 1, 1, 1), "x"),
            ((2, 3, 200, 3), ""),
        ],
    )
    def test_no_text_is_clipped_or_overlaps(
        self, tmp_path: Path, texts: Callable[[], list[tuple[str, Any]]], shape: tuple[int, ...], text: str
    ) -> None:
        array = images(*shape)
        pictures.regenerated(array, 255 - array, [text] * len(array), tmp_path / "r.png")
        *placed, (_, page) = texts()
        words = "".join(word for word, _ in placed if "put" not in word and "difference" not in word)
        expected = text.replace(", ", "").replace(" ", "") * len(array)
        assert words.replace(" ", "").replace(",", "") == expected.replace(",", "")
        for number, (word, box) in enumerate(placed):
            outside = (page.x0 - box.x0, box.x1 - page.x1, page.y0 - box.y0, box.y1 - page.y1)
            assert max(outside) <= 0, word
            for other, there in placed[number + 1 :]:
                assert not box.overlaps(there), (word, other)

    def test_writes_the_factor_of_the_difference(
        self, tmp_path: Path, texts: Callable[[], list[tuple[str, Any]]]
    ) -> None:
        original = np.full((1, 20, 20, 3), 100, np.uint8)
        for error, factor in ((0, 1), (1, 128), (7, 32), (60, 4), (155, 1)):
            pictures.regenerated(original, original + np.uint8(error), ["x"], tmp_path / "r.png")
            assert f"difference\n\N{MULTIPLICATION SIGN} {factor}" in [text for text, _ in texts()]

    def test_a_single_wrong_pixel_is_seen(self) -> None:
        original = np.zeros((1, 28, 28, 1), np.uint8)
        wrong = original.copy()
        wrong[0, 5, 5] = 3
        difference = pictures.strip(original, wrong)[-112:]
        assert difference.max() == 192
        assert (difference == 192).all(-1).sum() == 16

    def test_reduces_large_images(self, tmp_path: Path) -> None:
        large = images(1, 500, 1001, 3) // 8 + 100
        pictures.regenerated(large, large, ["x"], tmp_path / "r.png")
        height, width, _ = pixels(tmp_path / "r.png").shape
        assert height < 620
        assert width < 460

    def test_shows_the_first_channels_of_more(self) -> None:
        four = images(2, 28, 28, 4)
        assert np.array_equal(pictures.strip(four, four), pictures.strip(four[..., :3], four[..., :3]))
        assert np.array_equal(
            pictures.strip(four[..., :2], four[..., :2]), pictures.strip(four[..., :1], four[..., :1])
        )

    def test_strip_is_three_rows(self) -> None:
        original, output = np.full((3, 28, 28, 1), 200, np.uint8), np.full((3, 28, 28, 1), 190, np.uint8)
        shown = pictures.strip(original, output)
        assert shown.dtype == np.uint8
        assert shown.shape == (3 * 112 + 2 * pictures.GAP, 3 * 112 + 2 * pictures.GAP, 3)
        rows = shown[:, 0, 0].tolist()
        assert list(dict.fromkeys(rows)) == [200, 255, 190, 160]
        assert runs(shown[0, :, 0] == 200) == 3

    @pytest.mark.parametrize(
        ("original", "output", "message"),
        [
            (
                images(2, 8, 8, 1),
                images(2, 8, 9, 1),
                r"originals \(2, 8, 8, 1\) and regenerated \(2, 8, 9, 1\)",
            ),
            (images(17, 8, 8, 1), images(17, 8, 8, 1), "at most 16 images"),
            (
                images(1, 8, 8, 1) / 255,
                images(1, 8, 8, 1),
                r"originals: float64 \(1, 8, 8, 1\), expected uint8",
            ),
            (images(1, 8, 8, 1), images(1, 8, 8, 1)[0], r"regenerated: uint8 \(8, 8, 1\), expected uint8"),
            (images(0, 8, 8, 1), images(0, 8, 8, 1), r"originals: uint8 \(0, 8, 8, 1\), expected"),
        ],
    )
    def test_refuses_arrays_that_do_not_fit(
        self, tmp_path: Path, original: np.ndarray, output: np.ndarray, message: str
    ) -> None:
        with pytest.raises(TrainingError, match=message):
            pictures.strip(original, output)
        with pytest.raises(TrainingError, match=message):
            pictures.regenerated(original, output, captions(len(original)), tmp_path / "r.png")

    def test_refuses_too_few_captions(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="1 captions for 2 images, expected one for each"):
            pictures.regenerated(images(2, 8, 8, 1), images(2, 8, 8, 1), ["x"], tmp_path / "r.png")


def conv(kind: str, filters: int, **more: Any) -> dict[str, Any]:
    return {kind: {"filters": filters, "kernel_size": 3, "strides": 2, "padding": "same", **more}}


def document(encoder: list[Any], decoder: list[Any], shape: list[Any], **blocks: list[Any]) -> dict[str, Any]:
    parts = {"encoder": encoder, "decoder": decoder, **blocks}
    generator = {"layers": {name: {"layers": layers} for name, layers in parts.items()}}
    return {
        "model": {
            "name": "<a> & 'b'",
            "layers": {"inputs": [{"Input": {"shape": shape}}], "generator": generator},
        }
    }


def built(model: spec.ModelSpec) -> Any:
    from attar.train import network

    return network.build(model, seed=1)


@pytest.fixture(scope="module")
def digits() -> Any:
    return built(spec.load(MODELS / "model.json").with_latent_dims(50))


@pytest.fixture(scope="module")
def hyper() -> Any:
    """A fully convolutional model with further blocks, names that XML must escape, and nested layers."""
    latent = conv("Conv2D", 8, name="compressed_representation")
    strange = conv("Conv2D", 16, name='<script>alert("&") ' + "W" * 60)
    inner = {"layer": {"Dense": {"units": 16}}, "name": "spread"}
    encoder = [strange, {"LayerNormalization": {}}, latent]
    decoder = [conv("Conv2DTranspose", 16), {"TimeDistributed": inner}, conv("Conv2DTranspose", 3)]
    more = {
        "hyper_encoder": [conv("Conv2D", 16, name="hyper_one")],
        "hyper_decoder": [conv("Conv2DTranspose", 16)],
        "hyper_scales": [
            {"PixelShuffle": {"factor": 2}},
            {"IntegerConv2D": {"filters": 8, "input_bits": 0, "maximum": 63}},
        ],
        "discriminator": [{"Dense": {"units": 1}}],
    }
    model = document(encoder, decoder, [None, None, 3], **more)
    return built(spec.parse(model | {"entropy": {"kind": "hyperprior"}}))


def tree(data: bytes) -> ET.Element:
    root = ET.fromstring(data)
    assert root.tag == f"{SVG}svg"
    return root


def said(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def boxes(root: ET.Element) -> list[list[float]]:
    found = [group.find(f"{SVG}rect") for group in root.iter(f"{SVG}g")]
    return [[float(r.get(k, "")) for k in ("x", "y", "width", "height")] for r in found if r is not None]


def check_layout(root: ET.Element) -> None:
    """Boxes are on the page and apart; no text leaves its box or meets another, set in DejaVu Sans."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    wide, tall = float(root.get("width", "")), float(root.get("height", ""))
    assert root.get("viewBox") == f"0 0 {wide:g} {tall:g}"
    placed = boxes(root)
    for number, (x, y, w, h) in enumerate(placed):
        assert x >= 0
        assert y >= 0
        assert x + w <= wide
        assert y + h <= tall
        for a, b, c, d in placed[number + 1 :]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
    renderer = RendererAgg(1, 1, 72)
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        if box is None:
            continue
        left, right = float(box.get("x", "")), float(box.get("x", "")) + float(box.get("width", ""))
        spans: dict[str, list[tuple[float, float]]] = {}
        for text in group.iter(f"{SVG}text"):
            weight, size = text.get("font-weight"), float(text.get("font-size", ""))
            font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
            length = renderer.get_text_width_height_descent(text.text, font, ismath=False)[0]
            x = float(text.get("x", ""))
            span = (x - length, x) if text.get("text-anchor") == "end" else (x, x + length)
            assert left < span[0]
            assert span[1] < right
            spans.setdefault(text.get("y", ""), []).append(span)
        for first, *rest in spans.values():
            assert all(first[1] < second[0] for second in rest)


class TestDrawing:
    def test_tells_kinds_arguments_shapes_and_weights(self, digits: Any, tmp_path: Path) -> None:
        pictures.drawing(digits, tmp_path / "model.svg")
        root = tree((tmp_path / "model.svg").read_bytes())
        words = said(root)
        for word in (
            "Image_Compressor",
            "20 filters, 5\N{MULTIPLICATION SIGN}5, stride 2, leaky_relu, same",
            "14 \N{MULTIPLICATION SIGN} 14 \N{MULTIPLICATION SIGN} 20",
            "to 7\N{MULTIPLICATION SIGN}7\N{MULTIPLICATION SIGN}50",
            "1 filter, 5\N{MULTIPLICATION SIGN}5, stride 2, leaky_relu, same",
            "1,225,500 weights",
            "compressed_representation",
            "50 units",
            "Factorized prior",
            ".attar",
        ):
            assert word in words, word
        weights = sum(int(np.prod(weight.shape)) for weight in digits.trainable_variables)
        assert f"{weights:,} weights" in words[1]

    @pytest.mark.parametrize("name", ["model.json", "model2.json"])
    def test_encoder_goes_down_the_left_and_decoder_up_the_right(self, name: str) -> None:
        model = spec.load(MODELS / name).with_latent_dims(8)
        root = tree(diagram.svg(built(model)))
        check_layout(root)
        at = {
            text.text: (float(text.get("x", "")), float(text.get("y", "")))
            for text in root.iter(f"{SVG}text")
        }
        middle = float(root.get("width", "")) / 2
        down = [at["Image"], *(at[layer.name] for layer in model.blocks["encoder"]), at["Quantiser"]]
        up = [at["Symbols"], *(at[layer.name] for layer in model.blocks["decoder"]), at["Regenerated image"]]
        assert all(x < middle for x, _ in down)
        assert all(x > middle for x, _ in up)
        assert [y for _, y in down] == sorted(y for _, y in down)
        assert [y for _, y in up] == sorted((y for _, y in up), reverse=True)

    def test_further_blocks_make_a_third_column(self, hyper: Any, digits: Any) -> None:
        root, without = tree(diagram.svg(hyper)), tree(diagram.svg(digits))
        check_layout(root)
        assert len({x for x, *_ in boxes(without)}) == 3  # two columns and the prior between them
        assert len({x for x, *_ in boxes(root)}) == 4
        for heading in ("hyper-analysis", "hyper-synthesis", "discriminator, for training", "hyper_one"):
            assert heading in said(root)
            assert heading not in said(without)

    def test_writes_open_sizes_as_parts_of_the_image(self, hyper: Any) -> None:
        words = said(tree(diagram.svg(hyper)))
        times = " \N{MULTIPLICATION SIGN} "
        assert times.join(["H/2", "W/2", "16"]) in words
        assert times.join(["H/4", "W/4", "8"]) in words
        assert times.join(["H", "W", "3"]) in words

    def test_escapes_and_shortens_names(self, hyper: Any) -> None:
        data = diagram.svg(hyper)
        root = tree(data)
        assert b"<script>" not in data
        assert (root.findtext(f"{SVG}title") or "").endswith("<a> & 'b'")
        shortened = [word for word in said(root) if word.startswith("<script>")]
        assert len(shortened) == 1
        assert shortened[0].endswith("\N{HORIZONTAL ELLIPSIS}")
        tips = [title.text or "" for title in root.iter(f"{SVG}title")]
        assert any('alert("&") ' + "W" * 60 in tip for tip in tips)

    def test_has_title_description_and_its_own_background(self, digits: Any) -> None:
        root = tree(diagram.svg(digits))
        ids = {element.get("id"): element for element in root.iter() if element.get("id")}
        assert root.get("aria-labelledby", "").split() == ["title", "description"]
        assert ids["title"].text == "Architecture of Image_Compressor"
        assert "Conv2D" in (ids["description"].text or "")
        background = root.find(f"{SVG}rect")
        assert background is not None
        assert background.get("fill") == "#ffffff"
        assert float(background.get("width", "")) == float(root.get("width", "")) - 1

    def test_draws_sixty_layers(self) -> None:
        encoder = [{"Dense": {"units": 4}} for _ in range(59)]
        latent = {"Dense": {"units": 4, "name": "compressed_representation"}}
        model = document(
            [{"Flatten": {}}, *encoder, latent],
            [{"Dense": {"units": 4}}, {"Reshape": {"target_shape": [2, 2, 1]}}],
            [2, 2, 1],
        )
        root = tree(diagram.svg(built(spec.parse(model))))
        check_layout(root)
        assert said(root).count("Dense") == 61

    def test_copes_with_layers_that_tell_nothing(self) -> None:
        layer = SimpleNamespace(name="odd", layers=None)
        one = spec.LayerSpec(
            "Mystery", {"deep": {"Dense": {"units": 3}}, "rate": 0.5, "note": "\x00\x1b\ud800"}, "odd", ""
        )
        model = SimpleNamespace(
            name="odd\x00",
            input_name="in",
            input_shape=(None, None, 3),
            entropy={},
            blocks={"encoder": (one,), "decoder": (one,)},
        )
        prior = SimpleNamespace(name="prior", weights=())
        analysis = SimpleNamespace(name="analysis", layers=[layer], output_shape=(None, None, None, 7))
        root = tree(
            diagram.svg(
                SimpleNamespace(name="n", spec=model, layers=[analysis], analysis=analysis, prior=prior)
            )
        )
        assert any(word.startswith("deep Dense, rate 0.5, note") for word in said(root))

    def test_cuts_arguments_without_end(self, digits: Any) -> None:
        layer = spec.LayerSpec("Dense", {"units": 3, "list": list(range(100_000))}, "long", "")
        model = SimpleNamespace(
            name="n" * 100_000,
            input_name="in",
            input_shape=(28, 28, 1),
            entropy={},
            blocks={"encoder": (layer,), "decoder": (layer,)},
        )
        parts = {"analysis": digits.analysis, "prior": digits.prior}
        data = diagram.svg(SimpleNamespace(name="n", spec=model, layers=[], **parts))
        check_layout(tree(data))
        assert len(data) < 40_000

    def test_the_same_network_gives_the_same_bytes(self, digits: Any) -> None:
        again = built(spec.load(MODELS / "model.json").with_latent_dims(50))
        assert diagram.svg(digits) == diagram.svg(again)


WRITERS: list[Callable[[Any, Path], None]] = [
    lambda _, path: pictures.curves(history(2), path),
    lambda _, path: pictures.regenerated(images(1, 8, 8, 1), images(1, 8, 8, 1), ["x"], path),
    pictures.drawing,
]


class TestWriting:
    @pytest.mark.parametrize("write", WRITERS)
    def test_an_unwritable_path_is_named(
        self, digits: Any, tmp_path: Path, write: Callable[[Any, Path], None]
    ) -> None:
        path = tmp_path / "no such folder" / "picture"
        with pytest.raises(TrainingError, match=re.escape(str(path))):
            write(digits, path)
        (tmp_path / "folder").mkdir()
        with pytest.raises(TrainingError, match="folder cannot be written"):
            write(digits, tmp_path / "folder")
        assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]

    @pytest.mark.parametrize("write", WRITERS)
    def test_replaces_the_last_one_and_leaves_nothing_else(
        self, digits: Any, tmp_path: Path, write: Callable[[Any, Path], None]
    ) -> None:
        path = tmp_path / "picture.x"
        path.write_bytes(b"old")
        write(digits, path)
        assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
        assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never() -> None:
    code = (
        "import sys, numpy as np\n"
        "from attar.train import pictures\n"
        "assert not {'matplotlib', 'keras', 'torch'} & set(sys.modules)\n"
        "import io; pictures._write = lambda path, data: None\n"
        "pictures.curves([{'loss': 1.0}], 'x')\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_written_pngs_are_whole() -> None:
    from matplotlib.figure import Figure

    with Image.open(io.BytesIO(pictures._png(Figure(figsize=(1, 1), dpi=50)))) as image:
        image.load()
        assert image.size == (50, 50)

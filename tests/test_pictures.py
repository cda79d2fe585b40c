from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attar.errors import TrainingError
from attar.train import pictures

pytest.importorskip("matplotlib")
pytest.importorskip("keras")


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


WRITERS: list[Callable[[Any, Path], None]] = [
    lambda _, path: pictures.curves(history(2), path),
    lambda _, path: pictures.regenerated(images(1, 8, 8, 1), images(1, 8, 8, 1), ["x"], path),
    pictures.drawing,
]


class TestWriting:
    @pytest.mark.parametrize("write", WRITERS)
    def test_an_unwritable_path_is_named(
        self, digits_network: Any, tmp_path: Path, write: Callable[[Any, Path], None]
    ) -> None:
        path = tmp_path / "no such folder" / "picture"
        with pytest.raises(TrainingError, match=re.escape(str(path))):
            write(digits_network, path)
        (tmp_path / "folder").mkdir()
        with pytest.raises(TrainingError, match="folder cannot be written"):
            write(digits_network, tmp_path / "folder")
        assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]

    @pytest.mark.parametrize("write", WRITERS)
    def test_replaces_the_last_one_and_leaves_nothing_else(
        self, digits_network: Any, tmp_path: Path, write: Callable[[Any, Path], None]
    ) -> None:
        path = tmp_path / "picture.x"
        path.write_bytes(b"old")
        write(digits_network, path)
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

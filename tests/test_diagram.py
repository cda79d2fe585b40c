from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from attar import spec
from attar.train import diagram, pictures

pytest.importorskip("matplotlib")
pytest.importorskip("keras")

MODELS = Path(__file__).resolve().parent.parent / "models"
SVG = "{http://www.w3.org/2000/svg}"


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
    def test_tells_kinds_arguments_shapes_and_weights(self, digits_network: Any, tmp_path: Path) -> None:
        pictures.drawing(digits_network, tmp_path / "model.svg")
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
        weights = sum(int(np.prod(weight.shape)) for weight in digits_network.trainable_variables)
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

    def test_further_blocks_make_a_third_column(self, hyper: Any, digits_network: Any) -> None:
        root, without = tree(diagram.svg(hyper)), tree(diagram.svg(digits_network))
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

    def test_has_title_description_and_its_own_background(self, digits_network: Any) -> None:
        root = tree(diagram.svg(digits_network))
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

    def test_cuts_arguments_without_end(self, digits_network: Any) -> None:
        layer = spec.LayerSpec("Dense", {"units": 3, "list": list(range(100_000))}, "long", "")
        model = SimpleNamespace(
            name="n" * 100_000,
            input_name="in",
            input_shape=(28, 28, 1),
            entropy={},
            blocks={"encoder": (layer,), "decoder": (layer,)},
        )
        parts = {"analysis": digits_network.analysis, "prior": digits_network.prior}
        data = diagram.svg(SimpleNamespace(name="n", spec=model, layers=[], **parts))
        check_layout(tree(data))
        assert len(data) < 40_000

    def test_the_same_network_gives_the_same_bytes(self, digits_network: Any) -> None:
        again = built(spec.load(MODELS / "model.json").with_latent_dims(50))
        assert diagram.svg(digits_network) == diagram.svg(again)

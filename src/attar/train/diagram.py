"""A network -> a drawing of its architecture as SVG text.

::

    image                                 regenerated image
      | analysis                                 ^
      v                                          | synthesis
    quantiser         prior ----+--------.    symbols
      v                  '------|-.      v       |
    entropy encoder --> .attar file --> entropy decoder

Optional blocks of the model.json (hyperprior, context, discriminator) make a third column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

__all__ = ["svg"]

WIDTH, HEIGHT, PITCH, MIDDLE, GAP, MARGIN, HEAD, SECTION = 320, 62, 82, 200, 40, 24, 104, 24  # pixels
PADDING = 14
LETTERS = {  # about the width of a letter in DejaVu Sans, the widest of the fonts, in font sizes
    "[ijl.,:;'|!I]": 0.32,
    r"[frt()\[\]/ -]": 0.40,
    "[mwMW@%]": 1.0,
    "[A-Z]": 0.72,
    "[ -~]": 0.63,
    "": 1.0,
}
BOLD = 1.13  # times wider
LONGEST = 5000  # letters of a description
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
INK, QUIET, LINE = "#0f172a", "#64748b", "#94a3b8"
COLOURS = {  # accent and fill by what a layer does; the first pattern found in its kind counts
    "Conv": ("#2563eb", "#eff6ff"),
    "Dense": ("#7c3aed", "#f5f3ff"),
    "Pool|UpSampling|Crop|Padding|DepthToSpace|SpaceToDepth": ("#059669", "#ecfdf5"),
    "Flatten|Reshape|Permute": ("#64748b", "#f8fafc"),
    "^(Quantiser|Entropy|Symbols|Factorized|Prior|Hyper)": ("#d97706", "#fffbeb"),
    "[Ii]mage": ("#0f172a", "#f1f5f9"),
    "": ("#0891b2", "#ecfeff"),
}
PROBE = 2304  # stands for an open height or width; divisible by 256 and by 9
TIMES = "\N{MULTIPLICATION SIGN}"
PLAIN = {"activation": "linear", "strides": "1", "dilation_rate": "1", "groups": "1", "use_bias": "True"}
WORDS = {"strides": "stride", "pool_size": "pool", "size": "times", "target_shape": "to"}
MAIN = ("filters", "units", "kernel_size", "pool_size", "size", "strides", "target_shape", "activation")
SIDE = {  # block of the third column -> (heading, where its input is from, where its output goes)
    "hyper_encoder": ("hyper-analysis", "the latent, before rounding", "hyper-latent, rounded and coded"),
    "hyper_decoder": ("hyper-synthesis", "hyper-latent symbols", "parameters of the prior"),
    "hyper_prior": (
        "prior of the hyper-latent, integers",
        "its symbols that are known",
        "tables and means of the next pass",
    ),
    "hyper_scales": ("hyper-synthesis, integers", "hyper-latent symbols", "tables of the first pass"),
    "context": ("context model", "symbols decoded so far", "parameters of the prior"),
    "context_scales": ("context model, integers", "symbols of the first pass", "tables of the second pass"),
    "discriminator": (
        "discriminator, for training",
        "an original or regenerated image",
        "which of the two it is",
    ),
}


@dataclass(frozen=True)
class Box:
    """One box: what it is, its name, its arguments, the shape that leaves it, its number of weights."""

    kind: str
    name: str = ""
    arguments: str = ""
    shape: str = ""
    weights: int | None = None


def svg(network: Any, discriminator: Any = None) -> bytes:
    """Draw a :class:`attar.train.network.Network`: an SVG in UTF-8, the same bytes for the same network.

    ``discriminator``: the Keras model of its block, where it is trained with one; its weights are not counted.
    """
    spec, blocks = network.spec, _blocks(network, discriminator)
    latent = blocks["encoder"][-1].shape
    size = _written([n or letter for n, letter in zip(spec.input_shape, "HWC", strict=True)])
    analysis = [
        Box("Image", spec.input_name, "pixels 0..255, divided by 255", size),
        *blocks["encoder"],
        Box("Quantiser", "", "rounds to the nearest integer", latent),
        Box("Entropy encoder", "", "ANS over integer tables, and a checksum"),
    ]
    synthesis = [
        Box("Regenerated image", "", "clipped to 0..1, times 255, rounded", size),
        *reversed(blocks["decoder"]),
        Box("Symbols", "", "the coded integers, checksum verified", latent),
        Box("Entropy decoder", "", "the same integer tables"),
    ]
    side = [(block, SIDE[block], blocks[block]) for block in SIDE if block in blocks]
    counted = [box for block, boxes in blocks.items() if block != "discriminator" for box in boxes]
    total = sum(box.weights or 0 for box in counted) + _weights(network.prior)
    summary = f"image {size}, latent {latent}, {total:,} weights"
    return _page(spec.name, summary, [analysis, synthesis], side, _prior(network))


def _page(title: str, summary: str, columns: Sequence[list[Box]], side: Sequence[Any], prior: Box) -> bytes:
    analysis, synthesis = columns
    middle = MARGIN + WIDTH + GAP
    right = middle + MIDDLE + GAP
    third = right + WIDTH + GAP
    wide = third + WIDTH + MARGIN if side else third - GAP + MARGIN
    bottom = HEAD + (max(map(len, columns)) - 1) * PITCH
    starts = [HEAD]  # of the blocks in the third column, and the end
    for _, _, boxes in side:
        starts.append(starts[-1] + (len(boxes) + 2) * PITCH + SECTION)
    tall = max(bottom + HEIGHT, starts[-1] - SECTION - PITCH + HEIGHT) + MARGIN
    size = {"width": str(wide), "height": str(tall), "viewBox": f"0 0 {wide} {tall}", "font-family": FONT}
    described = {"role": "img", "aria-labelledby": "title description"}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **described})
    _add(root, "title", _plain(f"Architecture of {title}"), id="title")
    _add(root, "desc", _plain(_description(summary, analysis, synthesis, side)), id="description")
    head: dict[str, Any] = {
        "viewBox": "0 0 8 8",
        "refX": 7,
        "refY": 4,
        "markerWidth": 7,
        "markerHeight": 7,
        "orient": "auto",
    }
    _add(_add(_add(root, "defs"), "marker", id="arrow", **head), "path", d="M0 0 L8 4 L0 8 z", fill=QUIET)
    _add(root, "rect", x=0.5, y=0.5, width=wide - 1, height=tall - 1, rx=12, fill="#ffffff", stroke="#cbd5e1")
    _text(root, MARGIN, 38, title, 20, wide - 2 * MARGIN, weight="bold")
    _text(root, MARGIN, 60, summary, 13, wide - 2 * MARGIN, QUIET)
    _column(root, MARGIN, bottom - (len(analysis) - 1) * PITCH, "analysis", analysis)
    _column(root, right, bottom - (len(synthesis) - 1) * PITCH, "synthesis", synthesis, up=True)
    _exchange(root, middle, bottom, prior)
    for y, (_, (heading, source, target), boxes) in zip(starts, side, strict=False):
        _column(root, third, y, heading, [Box("Input", "", source), *boxes, Box("Output", "", target)])
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _column(
    root: ET.Element, x: float, y: float, heading: str, boxes: Sequence[Box], up: bool = False
) -> None:
    """Draw boxes below each other from ``y``, joined by arrows down, or up."""
    _text(root, x, y - 12, heading, 13, WIDTH, QUIET, weight="bold")
    for row, box in enumerate(boxes):
        top = y + row * PITCH
        _box(root, x, top, box)
        if row:
            ends = (top - (PITCH - HEIGHT) + 1, top - 2)
            start, end = (ends[1] + 1, ends[0] + 1) if up else ends
            _arrow(root, f"M{x + WIDTH / 2:g} {start:g} V{end:g}")


def _box(root: ET.Element, x: float, y: float, box: Box, width: float = WIDTH) -> None:
    accent, fill = next(colours for pattern, colours in COLOURS.items() if re.search(pattern, box.kind))
    group = _add(root, "g")
    weights = "" if not box.weights else f"{box.weights:,} weights"
    whole = [box.kind, box.name, box.arguments, box.shape, weights]
    _add(group, "title", _plain(", ".join(text for text in whole if text)))
    _add(group, "rect", x=x, y=y, width=width, height=HEIGHT, rx=6, fill=fill, stroke=accent)
    bar = f"M{x + 3:g} {y + 7:g} V{y + HEIGHT - 7:g}"
    _add(group, "path", d=bar, stroke=accent, stroke_width=3, stroke_linecap="round")
    left, right, room = x + PADDING, x + width - PADDING, width - 2 * PADDING
    _text(group, left, y + 20, box.kind, 14, room, weight="bold")
    _text(group, right, y + 20, box.name, 11, room - _long(box.kind, 14, "bold") - 8, QUIET, anchor="end")
    _text(group, left, y + 37, box.arguments, 12, room)
    _text(group, left, y + 53, box.shape, 12, room - _long(weights, 12) - 8, QUIET)
    _text(group, right, y + 53, weights, 12, room, QUIET, anchor="end")


def _exchange(root: ET.Element, x: float, y: float, prior: Box) -> None:
    """Draw the prior, the .attar file below it, and the arrows to the two entropy coders on both sides."""
    top, half = y - PITCH, x + MIDDLE / 2
    _box(root, x, top, prior, MIDDLE)
    for edge, way in ((x, -1), (x + MIDDLE, 1)):
        channel, coder = edge + way * GAP / 2, edge + way * (GAP - 3)
        _arrow(root, f"M{edge:g} {top + HEIGHT / 2:g} H{channel:g} V{y + 16:g} H{coder:g}")
    left, right, fold = half - 38, half + 38, 16
    page = _add(root, "g")
    _add(page, "title", "The .attar file: header, checksum of the symbols, coded symbols")
    outline = f"M{left:g} {y:g} H{right - fold:g} L{right:g} {y + fold:g} V{y + HEIGHT:g} H{left:g} z"
    _add(page, "path", d=outline, fill="#fef3c7", stroke="#d97706")
    _add(page, "path", d=f"M{right - fold:g} {y:g} V{y + fold:g} H{right:g}", fill="none", stroke="#d97706")
    _text(page, half, y + 36, ".attar", 15, 76, weight="bold", anchor="middle")
    _text(page, half, y + 53, "file", 12, 76, QUIET, anchor="middle")
    _arrow(root, f"M{x - GAP + 1:g} {y + 44:g} H{left - 3:g}")
    _arrow(root, f"M{right + 1:g} {y + 44:g} H{x + MIDDLE + GAP - 3:g}")


def _blocks(network: Any, discriminator: Any) -> dict[str, list[Box]]:
    """The boxes of every block of the model.json, in its order."""
    layers = _by_name(network) | ({} if discriminator is None else _by_name(discriminator))
    size = network.spec.input_shape
    probe: Any = (1, *(n or PROBE for n in size)) if None in size else None
    found = {}
    for block, specs in network.spec.blocks.items():
        boxes = []
        for spec in specs:
            layer = layers.get(spec.name)
            probe = _probed(layer, probe) if block in ("encoder", "decoder") else None
            words = _arguments(spec, layer)
            boxes.append(Box(spec.kind, spec.name, words, _shape(layer, probe), _weights(layer)))
        found[block] = boxes
    return found


def _by_name(network: Any) -> dict[str, Any]:
    """Every Keras layer within the network; of one name, the outermost."""
    found: dict[str, Any] = {}
    waiting = [network]
    for layer in waiting:  # grows while it is walked: breadth first
        if found.setdefault(layer.name, layer) is layer:
            inner = getattr(layer, "layers", None)
            waiting += [one for one in inner if hasattr(one, "name")] if isinstance(inner, list) else []
    return found


def _probed(layer: Any, shape: Any) -> Any:
    """The shape (1, ...) that a layer makes of ``shape``; None when it, or the shape, does not say."""
    try:
        return None if layer is None or shape is None else layer.compute_output_shape(shape)
    except Exception:  # a layer of any origin may fail in any way; then the drawing just has no size there
        return None


def _shape(layer: Any, probe: Any) -> str:
    """A layer's output shape, its open sizes as fractions of the image's height and width where they are."""
    try:
        shape = tuple(layer.output.shape[1:])
    except (AttributeError, ValueError, TypeError):  # no such layer, not called yet, or several outputs
        return ""
    if len(shape) != 3 or probe is None or len(probe) != 4:
        return _written(n or "?" for n in shape)
    open_sizes = zip(shape, "HWC", probe[1:], strict=True)
    return _written(n or _relative(letter, size) for n, letter, size in open_sizes)


def _relative(letter: str, size: int | None) -> str:
    if not size or (PROBE % size and size % PROBE):
        return "?"
    if size == PROBE:
        return letter
    return f"{letter}/{PROBE // size}" if size < PROBE else f"{size // PROBE}{letter}"


def _weights(layer: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in getattr(layer, "weights", ()))


def _arguments(spec: Any, layer: Any) -> str:
    """The arguments that tell a layer from another of its kind, the main ones first, in short words."""
    try:
        config = layer.get_config()
    except Exception:  # as above
        config = {}
    given = {key: config[key] for key in MAIN if config.get(key) is not None} | dict(spec.arguments)
    ordered = [key for key in MAIN if key in given] + [key for key in given if key not in MAIN]
    words = (_argument(key, given[key], spec.kind) for key in ordered)
    return ", ".join(word for word in words if word)


def _argument(key: str, value: Any, kind: str) -> str:
    plain = _short(value)
    if key in ("strides", "dilation_rate", "pool_size", "size") and len(set(plain.split(TIMES))) == 1:
        plain = plain.split(TIMES)[0]  # the same along every axis
    if value is None or plain == PLAIN.get(key):
        return ""
    if key in WORDS:
        return f"{WORDS[key]} {plain}"
    if key == "kernel_size" and TIMES not in plain:
        plain = TIMES.join([plain] * (1 if "1D" in kind else 3 if "3D" in kind else 2))
    if key in ("filters", "units"):
        return f"{plain} {key if plain != '1' else key[:-1]}"
    return plain if key in ("kernel_size", "activation", "padding") else f"{key} {plain}"


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return TIMES.join(_short(one) for one in value)
    if isinstance(value, Mapping):  # a layer, initializer or activation written out
        return str(value.get("class_name") or value.get("registered_name") or next(iter(value), "{}"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _prior(network: Any) -> Box:
    entropy = network.spec.entropy
    kind = str(entropy.get("kind", "factorized")).capitalize()
    channels = network.analysis.output_shape[-1]
    return Box(f"{kind} prior", "", f"{channels} channels", "", _weights(network.prior))


def _written(sizes: Iterable[Any]) -> str:
    return f" {TIMES} ".join(str(n) for n in sizes)


def _description(summary: str, analysis: Sequence[Box], synthesis: Sequence[Box], side: Sequence[Any]) -> str:
    chains = [("Analysis", analysis), ("Synthesis", synthesis[::-1])]
    chains += [(heading.capitalize(), boxes) for _, (heading, _, _), boxes in side]
    told = [
        f"{name}: " + ", then ".join(f"{b.kind} {b.shape}".strip() for b in boxes) for name, boxes in chains
    ]
    return ". ".join([summary, *told]) + "."


def _long(text: str, size: float, weight: str = "normal") -> float:
    """About how many pixels a text takes."""
    widths = (next(wide for kind, wide in LETTERS.items() if re.match(kind, letter)) for letter in text)
    return size * sum(widths) * (BOLD if weight == "bold" else 1.0)


def _text(
    parent: ET.Element, x: float, y: float, text: str, size: float, room: float, colour: str = INK, *,
    weight: str = "normal", anchor: str = "start",
) -> None:  # fmt: skip
    """Write a text, cut short with an ellipsis where it would be longer than ``room`` pixels."""
    text = shown = _plain(text[:200])  # more than any box holds
    while text and _long(shown, size, weight) > room:
        text = text[:-1].rstrip(" ,")
        shown = f"{text}…"
    if text:
        style = {"font_size": size, "font_weight": weight, "fill": colour, "text_anchor": anchor}
        _add(parent, "text", shown, x=x, y=y, **style)


def _arrow(root: ET.Element, path: str) -> None:
    _add(root, "path", d=path, fill="none", stroke=LINE, stroke_width=1.6, marker_end="url(#arrow)")


def _add(parent: ET.Element, tag: str, text: str = "", **attributes: Any) -> ET.Element:
    words = {
        key: f"{value:g}" if isinstance(value, (int, float)) else value for key, value in attributes.items()
    }
    element = ET.SubElement(parent, tag, {key.replace("_", "-"): word for key, word in words.items()})
    element.text = text or None
    return element


def _plain(text: str) -> str:
    """The text on one line, what XML 1.0 cannot hold replaced, cut where nobody reads on."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return re.sub("[^ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", " ".join(text.split()))

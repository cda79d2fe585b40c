"""The report as one HTML page that needs nothing else: styles, plots and pictures are inside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from attar.measure.curves import METRICS
from attar.measure.gallery import Sheet

__all__ = ["render"]

Cell = str
"""HTML that is safe as it is: built from :func:`text` and the tags of this module."""

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 1160px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 40px 0 8px; }
p, ul { max-width: 76ch; } .dim { color: #5c5c5c; font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 540px), 1fr)); gap: 16px; }
.plots img { width: 100%; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th { font-weight: 600; white-space: normal; border-bottom: 2px solid #9a9a9a; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.words, th.words { text-align: left; white-space: normal; }
td small { display: block; color: #5c5c5c; font-size: 12px; }
.sheet { display: flex; flex-wrap: wrap; gap: 10px; margin: 6px 0 22px; }
figure { margin: 0; } figcaption { font-size: 12px; line-height: 1.35; color: #333; max-width: 192px;
  overflow-wrap: anywhere; }
figure img { display: block; min-width: 96px; min-height: 96px; image-rendering: pixelated; }
code { background: #f3f3f3; padding: 1px 4px; overflow-wrap: anywhere; }
@media (max-width: 600px) { body { padding: 12px; } }
"""

READING = (
    "Rate is 8 times the bytes of the whole file over the pixels (bits per pixel, bpp). Each point of a "
    "curve is one quality setting: the mean rate and the mean metric over all images. PSNR, SSIM and "
    "MS-SSIM are over RGB (or gray); luma is BT.601, full range. SSIM and MS-SSIM are averaged and then "
    "drawn as -10 log10(1 - value). Every codec gets the same 8-bit pixels and gives back 8-bit pixels.",
    "A BD-rate (Bjontegaard delta) is the mean difference in rate at equal quality: -20 % means files a "
    "fifth smaller. Curves are interpolated by PCHIP; below each figure stand the part of the shorter "
    "curve's quality range that both curves cover, and that range.",
)
PUBLISHED = (
    "Published curves (dashed or dotted) are means over the images of their authors, as a rule the 24 of Kodak: "
    "compare with them only what was measured on the same images."
)
JPEG = (
    "On JPEG: CompressAI's published curve was made with Pillow 7.1.2, which contained the IJG's libjpeg 9d. "
    "Pillow contains libjpeg-turbo now, whose files are as large and whose pictures have about 0.12 dB more; "
    "libjpeg 9d lies on the published curve to 0.01 dB (benchmarks/published_anchors.py measures both)."
)
AVIF = (
    "On AVIF: libavif's encoder libaom tunes for perceived quality (tune=iq) unless told otherwise, which "
    "costs PSNR; codecs here whose name ends in -psnr were tuned for PSNR. The AV1 curve that CompressAI "
    "published comes from aomenc at its slowest setting (cpu-used 0, two passes), 4:4:4, tune=psnr, in "
    "WebM, on colours converted by BT.709 and truncated to 8 bits rather than rounded. An AVIF encoder at "
    "its default settings does not lie on it. The nearest codec offered here is avif-444-s0-psnr: on two "
    "Kodak images it needs 12 % fewer bits than avif-444-psnr, which is most of the difference."
)


def render(summary: Mapping[str, Any], plots: Mapping[str, bytes], sheets: Sequence[Sheet]) -> str:
    """The page for :func:`attar.measure.summary.summarise`'s document and plots (metric column -> SVG)."""
    images = summary["images"]
    megapixels = sum(image["width"] * image["height"] for image in images) / 1e6
    parts = [
        f"<h1>Image codecs on {len(images)} image{'' if len(images) == 1 else 's'}</h1>",
        f"<p class=dim>{megapixels:.3g} megapixels, measured with attar {text(summary['attar'])}, "
        f"{text(summary['created'])}</p>",
        *_problems(summary),
        "<h2>Rate-distortion</h2>",
        "<div class=plots>",
        *(_image(svg, "image/svg+xml", METRICS[column].title) for column, svg in plots.items()),
        "</div>",
        *(f"<p class=dim>{paragraph}</p>" for paragraph in _notes(summary)),
        *(
            cell
            for name in dict.fromkeys(d["reference"] for d in summary["bd"])
            for cell in _bd_section(summary, name)
        ),
        *_savings_section(summary),
        *_lossless_section(summary),
        *_times_section(summary),
        *_worst_section(summary),
        *_sheets_section(sheets, len(images)),
        *_circumstances(summary),
    ]
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>Image codecs compared</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def text(value: object) -> Cell:
    """Anything as text that cannot be markup."""
    return escape(str(value))


def number(value: float | None, digits: int, *, sign: bool = False) -> Cell:
    """A number with a fixed count of decimals, or a dash."""
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, words: Sequence[int] = ()) -> str:
    """A table; columns listed in ``words`` hold prose."""

    def line(tag: str, cells: Sequence[Cell]) -> str:
        marks = [" class=words" if place in words else "" for place in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{m}>{c}</{tag}>" for m, c in zip(marks, cells, strict=True)) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    head_line = f"<thead>{line('th', head)}</thead>"
    return f"<div class=scroll><table>\n{head_line}\n<tbody>\n{body}\n</tbody></table></div>"


def _image(data: bytes, kind: str, alt: str, size: str = "") -> Cell:
    return f'<img alt="{text(alt)}"{size} src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _problems(summary: Mapping[str, Any]) -> list[Cell]:
    """What is missing comes first: absent codecs, failed measurements, points left out."""
    out = []
    if summary["absent"]:
        items = [f"<li><b>{text(c['name'])}</b>: {text(c['reason'])}</li>" for c in summary["absent"]]
        out.append(f"<p>Absent, and therefore not measured:</p><ul>{''.join(items)}</ul>")
    if failed := summary["failed"]:
        rows = [
            (
                text(f["codec"] or "(unreadable)"),
                text(_short(f["image"])),
                _quality(f["quality"]),
                text(f["error"]),
            )
            for f in failed[:50]
        ]
        out.append(f"<p>{len(failed)} measurement{' has' if len(failed) == 1 else 's have'} failed:</p>")
        out.append(table(("Codec", "Image", "Quality", "Reason"), rows, words=(1, 3)))
        if len(failed) > len(rows):
            out.append(f"<p class=dim>and {len(failed) - len(rows)} more, in rows.csv</p>")
    notes = [(codec["name"], note) for codec in summary["codecs"] for note in codec["notes"]]
    if notes:
        out.append("<ul>" + "".join(f"<li>{text(name)}: {text(note)}</li>" for name, note in notes) + "</ul>")
    return out


def _notes(summary: Mapping[str, Any]) -> list[str]:
    names = [codec["name"] for codec in summary["codecs"]]
    jpeg = [JPEG] if "JPEG" in summary["published"] and "jpeg" in names else []
    avif = [AVIF] if any(name.startswith("avif") for name in names) else []
    return [*READING, *([PUBLISHED] if summary["published"] else []), *jpeg, *avif]


def _bd_section(summary: Mapping[str, Any], reference: str) -> list[Cell]:
    """BD-rates against one curve, for the metrics that it has."""
    deltas = {
        (d["codec"], d["metric"]): d
        for d in summary["bd"]
        if d["method"] == "pchip" and d["reference"] == reference
    }
    metrics = [column for column in METRICS if any(key[1] == column for key in deltas)]
    if not metrics:
        return []

    def order(name: str) -> tuple[bool, float]:
        rate = deltas.get((name, metrics[0]), {}).get("rate")
        return rate is None, rate if rate is not None else 0.0

    rows = [
        [
            text(name) + (" <small>published</small>" if name in summary["published"] else ""),
            *(_delta(deltas.get((name, column))) for column in metrics),
            number(deltas.get((name, metrics[0]), {}).get("gain"), 2, sign=True),
        ]
        for name in sorted(dict.fromkeys(codec for codec, _ in deltas), key=order)
    ]
    refused = dict.fromkeys(d["refused"] for d in deltas.values() if d["refused"])
    heads = [METRICS[column].title for column in metrics]
    return [
        f"<h2>BD-rate against {text(reference)} (%)</h2>",
        "<p class=dim>Negative is better: less rate at equal quality. Last column: dB at equal rate.</p>",
        table(("Codec", *heads, f"BD-{heads[0]} (dB)"), rows),
        *([f"<p class=dim>Not compared (-): {text('; '.join(refused))}.</p>"] if refused else []),
    ]


def _delta(delta: Mapping[str, Any] | None) -> Cell:
    if delta is None or delta["rate"] is None:
        return "-"
    low, high = delta["span"]
    return f"{delta['rate']:+.1f}<small>{delta['overlap']:.0%}: {low:.1f} to {high:.1f} dB</small>"


def _savings_section(summary: Mapping[str, Any]) -> list[Cell]:
    rows = [
        (text(s["codec"]), text(METRICS[s["metric"]].title), f"{s['level']:.2f}", f"{s['percent']:+.1f}")
        for s in summary["savings"]
    ]
    if not rows:
        return []
    return [
        f"<h2>Codecs of few rates against {text(summary['reference'])}</h2>",
        "<p class=dim>Too few points for a BD-rate: the difference in rate at each point's own quality.</p>",
        table(("Codec", "Metric", "Quality (dB)", "Rate (%)"), rows, words=(1,)),
    ]


def _lossless_section(summary: Mapping[str, Any]) -> list[Cell]:
    rows = [(text(c["codec"]), f"{c['bpp']:.3f}", f"{c['bytes']:,.0f}") for c in summary["lossless"]]
    head = ("Codec", "Mean rate (bpp)", "Mean bytes")
    return ["<h2>Lossless references</h2>", table(head, rows)] if rows else []


def _times_section(summary: Mapping[str, Any]) -> list[Cell]:
    times = summary["times"]
    if not times:
        return []
    rows = [
        (
            text(t["codec"]),
            _quality(t["quality"]),
            "lossless" if t["psnr"] is None else f"{t['psnr']:.1f}",
            f"{t['bpp']:.3f}",
            number(t["encode_ms"], 1),
            number(t["decode_ms"], 1),
            number(t["encode_mpx_s"], 2),
            number(t["decode_mpx_s"], 2),
            number(t["peak_mib"], 0),
        )
        for t in times
    ]
    jobs = max(t["jobs"] for t in times)
    head = (
        "Codec",
        "Quality",
        "PSNR (dB)",
        "bpp",
        "Encode (ms)",
        "Decode (ms)",
        "Encode (Mpx/s)",
        "Decode (Mpx/s)",
        "Peak memory (MiB)",
    )
    return [
        "<h2>Time and memory</h2>",
        "<p class=dim>Means over the images, at each codec's setting nearest to one common PSNR. Best of "
        "the timed runs, after a warm-up, on one thread where the library lets one choose, "
        f"{jobs} measurement{'' if jobs == 1 else 's'} at a time. Memory is the whole process with "
        "interpreter and libraries, without the programs that ext: codecs start.</p>",
        table(head, rows),
    ]


def _worst_section(summary: Mapping[str, Any]) -> list[Cell]:
    by_codec: dict[str, list[Cell]] = {}
    for worst in summary["worst"]:
        cell = f"{worst['rate']:+.1f}<small>{text(_short(worst['image']))}</small>"
        by_codec.setdefault(worst["codec"], []).append(cell)
    if not by_codec:
        return []
    most = max(map(len, by_codec.values()))
    rows = [[text(name), *cells, *[""] * (most - len(cells))] for name, cells in by_codec.items()]
    return [
        f"<h2>Worst images against {text(summary['worst_reference'])}</h2>",
        "<p class=dim>Where each codec needs most bits for the same PSNR: the difference in rate (%).</p>",
        table(("Codec", "Worst", *map(str, range(2, most + 1))), rows),
    ]


def _sheets_section(sheets: Sequence[Sheet], images: int) -> list[Cell]:
    if not sheets:
        return []
    shown = "all images" if len(sheets) == images else f"the first {len(sheets)} of {images} images"
    out = [
        "<h2>Image by image, at equal bytes</h2>",
        f"<p class=dim>For {shown}: the most detailed window, pixel for pixel, of every lossy codec's "
        "largest file of at most the same bytes (or its smallest, where it cannot go lower). PSNR and SSIM "
        "are of the whole image.</p>",
    ]
    for sheet in sheets:
        figures = [_figure(sheet.original, "original", "")]
        for crop in sheet.crops:
            psnr = crop.psnr if isinstance(crop.psnr, str) else f"{number(crop.psnr, 2)} dB"
            numbers = f"{crop.bytes:,} bytes<br>{psnr}, SSIM {number(crop.ssim, 4)}"
            figures.append(_figure(crop.data, crop.codec, numbers))
        out.append(f"<h3>{text(_short(sheet.image))}, {sheet.target:,} bytes</h3>")
        out.append(f"<div class=sheet>{''.join(figures)}</div>")
    return out


def _figure(data: bytes, name: str, numbers: Cell) -> Cell:
    kind = "image/png" if data.startswith(b"\x89PNG") else "image/webp"
    caption = f"<figcaption><b>{text(name)}</b><br>{numbers}</figcaption>"
    return f"<figure>{_image(data, kind, name, ' loading=lazy')}{caption}</figure>"


def _circumstances(summary: Mapping[str, Any]) -> list[Cell]:
    machine = summary["machine"]
    libraries = ", ".join(f"{name} {number or 'absent'}" for name, number in machine["libraries"].items())
    facts = [
        ("Processor", f"{machine['processor']}, {machine['cores']} cores"),
        ("System", f"{machine['system']}, Python {machine['python']}"),
        ("Libraries", libraries),
        ("Command", summary["command"] or "(called from Python)"),
        ("Published curves", ", ".join(summary["published"]) or "none"),
    ]
    codecs = [(text(codec["name"]), text(codec["version"])) for codec in summary["codecs"]]
    return [
        "<h2>Machine and versions</h2>",
        "<ul>" + "".join(f"<li>{name}: {text(value)}</li>" for name, value in facts) + "</ul>",
        table(("Codec", "Version"), codecs, words=(1,)),
    ]


def _short(path: str) -> str:
    return Path(path).name


def _quality(quality: float | None) -> Cell:
    return "-" if quality is None else f"{quality:g}"

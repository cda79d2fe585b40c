"""What files and bundles say of themselves, as rows for people and for ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attar.codec import bundle, container

if TYPE_CHECKING:
    from attar.codec.bits import Tally

__all__ = ["Row", "describe_bits", "describe_bundle", "describe_file", "in_words"]

Row = dict[str, Any]


def describe_file(data: bytes, names: Mapping[str, str]) -> Row:
    """What a ``.attar`` file says of itself; ``names`` are those of the installed bundles by id."""
    part = container.unpack(data, max_pixels=1 << 62)
    header = part.header
    return {
        "kind": "attar",
        "version": container.VERSION,
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "model": header.model.hex(),
        "model_name": names.get(header.model.hex()),
        "quality": header.quality or None,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "chunks": {kind.name.lower(): len(body) for kind, body in part.chunks.items()},
        "skipped_chunks": list(part.skipped),
    }


def describe_bits(tally: Tally) -> Row:
    """Where the bits of a file are: of each latent channel, of each hyper-latent channel, of each place."""
    hyper = tally.hyper_channels.round(2).tolist()
    places = None if tally.places is None else tally.places.round(2).tolist()
    channels = {"bits_per_channel": tally.channels.round(2).tolist()}
    return channels | ({"bits_per_hyper_channel": hyper} if hyper else {}) | {"bits_map": places}


def describe_bundle(name: str, data: bytes) -> Row:
    """What a bundle says of itself, after all of it has been checked."""
    found = bundle.from_bytes(data, source=name)
    sizes = {graph: len(body) for graph, body in found.graphs.items()}
    return {
        "kind": "bundle",
        "id": found.sha256,
        "accepts": found.manifest.accepts,
        "bytes": len(data),
        "graphs": sizes,
        "tables": len(found.tables),
    } | found.manifest.to_json()


def in_words(row: Row) -> str:
    """A row as aligned lines; the model's layers, and the map of bits, are left to ``--json``."""
    lines = [str(row["input"])]
    for key, value in row.items():
        layers = key == "model" and isinstance(value, dict)
        if key in ("input", "ok", "bits_map") or layers or value in (None, "", [], {}):
            continue
        shown = (
            ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, dict) else value
        )
        lines.append(f"  {key:<14} {shown:.4f}" if isinstance(shown, float) else f"  {key:<14} {shown}")
    return "\n".join(lines)

"""How fast the codec is, with network, entropy coding and I/O apart.

    python benchmarks/codec_speed.py MODEL IMAGE... [--copies N] [--threads N] [--json]

Every image is repeated until there are N of them (default 1000 for images of a fixed size, else 8). Times are
the best of several rounds, on files in memory; "read" and "write" are image files (PNG) in memory too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import attar
from attar.codec import container, images
from attar.codec.container import Chunk, Header
from attar.codec.entropy import EntropyCoder
from attar.codec.tables import Table


def best(work: Callable[[], Any], rounds: int) -> float:
    """Least wall time of ``work`` in seconds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure(codec: attar.Codec, pngs: list[bytes], rounds: int) -> dict[str, float]:
    """Seconds of each stage for all images, and of the whole way through the public door."""
    pictures = [images.read(png) for png in pngs]
    files = codec.compress_batch(pictures)
    decoded = codec.decode_batch(files)
    parts = [codec.unpack(data) for data in files]
    symbols = [codec.symbols(part) for part in parts]
    padded = [codec.prepare(picture.pixels) for picture in pictures]
    same_size = len({image.shape for image in padded}) == 1
    batches = [np.stack(padded)] if same_size else [image[None] for image in padded]
    latents = [np.stack(symbols)] if same_size else [one[None] for one in symbols]
    header = container.write_header(Header(1, 1, 1, codec.bundle.short_id))
    stages: dict[str, Callable[[], Any]] = {
        "read": lambda: [images.read(png) for png in pngs],
        "analysis": lambda: [codec.analyse(batch) for batch in batches],
        "encode": lambda: [codec.latents.encode(one, header) for one in symbols],
        "compress": lambda: codec.compress_batch(pictures),
        "decode": lambda: [codec.symbols(part) for part in parts],
        "synthesis": lambda: [codec.synthesise(batch) for batch in latents],
        "write": lambda: [images.encode(picture, "PNG") for picture in decoded],
        "decompress": lambda: codec.decompress_batch(files),
    }
    seconds = {name: best(work, rounds) for name, work in stages.items()}
    return seconds | {
        "bytes": sum(map(len, files)),
        "latent_bytes": sum(len(p.chunks[Chunk.LATENTS]) for p in parts),
    }


def entropy_coder(rounds: int, count: int = 4_000_000) -> dict[str, float]:
    """Symbols per second at a typical photograph's statistics: 64 tables, most symbols near zero."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(0.1, 8, 64)
    values = np.arange(-60, 61)
    tables = [
        Table.from_probabilities(-60, np.append(np.exp(-np.abs(values) / scale), 1e-7)) for scale in scales
    ]
    each = count // len(tables)
    symbols = np.concatenate([np.rint(rng.laplace(0, scale, each)) for scale in scales]).astype(np.int32)
    counts = np.full(len(tables), each)
    coder = EntropyCoder(tables)
    data = coder.encode([(symbols, counts)], b"")
    encode = best(lambda: coder.encode([(symbols, counts)], b""), rounds)
    decode = best(lambda: coder.decoder(data, b"").take(counts), rounds)
    return {"encode_symbols_per_s": symbols.size / encode, "decode_symbols_per_s": symbols.size / decode}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--copies", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    codec = attar.load(options.model, threads=options.threads)
    count = options.copies or (1000 if codec.manifest.size else 8)
    pngs = [images.encode(images.read(path, convert=True), "PNG") for path in options.images]
    pngs = list(itertools.islice(itertools.cycle(pngs), count))
    row: dict[str, Any] = {"model": codec.manifest.name, "id": codec.bundle.sha256[:8], "files": count}
    row["pixels"] = sum(images.read(png).pixels[..., 0].size for png in pngs)
    row |= measure(codec, pngs, options.rounds) | entropy_coder(options.rounds)
    if options.json:
        print(json.dumps(row))
        return
    print(f"{row['model']}: {count} files, {row['pixels'] / 1e6:.2f} megapixels, {row['bytes']} bytes")
    for name in ("read", "analysis", "encode", "compress", "decode", "synthesis", "write", "decompress"):
        speed = f"{count / row[name]:10.0f} files/s {row['pixels'] / row[name] / 1e6:9.2f} MP/s"
        print(f"  {name:<10} {1000 * row[name] / count:9.3f} ms {speed}")
    for name in ("encode", "decode"):
        print(f"  entropy coder, {name}: {row[f'{name}_symbols_per_s'] / 1e6:.1f} million symbols/s")


if __name__ == "__main__":
    main()

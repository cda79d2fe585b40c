"""Measure a trained network as its users will meet it: real files, decoded again by the codec."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attar.codec import bundle
from attar.codec.codec import Codec
from attar.measure import metrics
from attar.train import datasets, losses, measuring, network

CHUNK = 1000  # images in memory at once, fewer where they are large


def make_codec(net: network.Network) -> Codec:
    """The codec of a network that was just trained, without writing its bundle anywhere."""
    from attar.train import export

    data, _ = export.to_bundle_bytes(net)
    return Codec(bundle.from_bytes(data, source="the exported network"))


def validate(net: network.Network, loss: losses.Loss, split: datasets.Split) -> dict[str, float | None]:
    """Measure a network over a split.

    Returns:
        ``images``; ``loss`` (rounded latents, estimated rate); of the real files ``psnr`` in dB and ``ssim``
        of the decoded 8-bit images, ``bytes`` (mean of whole files) and ``bpp`` (their bits per pixel); and
        ``estimated_bytes`` (what the prior says the latents alone cost). An image that comes back
        identical has no PSNR and is left out of its mean, which is None where all do.
    """
    codec = make_codec(net)
    estimate = measuring.measure_split(net, loss, split)
    rows = measure_files(codec, split)
    pixels = math.prod(split.take(np.arange(1)).shape[1:3])
    return {
        "images": len(split),
        "loss": estimate["loss"],
        "psnr": None if np.isnan(rows["psnr"]).all() else float(np.nanmean(rows["psnr"])),
        "ssim": float(np.mean(rows["ssim"])),
        "bytes": float(np.mean(rows["bytes"])),
        "bpp": 8 * float(np.mean(rows["bytes"])) / pixels,
        "estimated_bytes": estimate["rate"] * pixels / 8,
    }


def measure_files(codec: Codec, split: datasets.Split) -> dict[str, np.ndarray]:
    """Compress, decompress and compare every image of a split: ``bytes``, ``psnr`` (dB), ``ssim``, each (N,).

    A PSNR of an identical image, which has none, is left out as NaN.
    """
    rows: dict[str, list[Any]] = {"bytes": [], "psnr": [], "ssim": []}
    pixels = math.prod(split.take(np.arange(1)).shape)
    for _, images in datasets.batches(split, max(1, min(CHUNK, (1 << 25) // pixels))):
        files = codec.compress_batch(list(images))
        decoded = np.stack(codec.decompress_batch(files))
        rows["bytes"] += [len(data) for data in files]
        rows["psnr"] += list(metrics.psnr(images, decoded))
        rows["ssim"] += list(metrics.ssim(images, decoded))
    found = {name: np.asarray(values, float) for name, values in rows.items()}
    found["psnr"][np.isinf(found["psnr"])] = np.nan
    return found

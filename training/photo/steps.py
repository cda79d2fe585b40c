"""Give a checkpoint steps of quantisation by place: python training/photo/steps.py CKPT DATASET OUT --gain 0.9.

``"steps": 16`` in the ``entropy`` of its model.json, and gains and offsets that leave a place of mean detail, as the
validation images have it at each quality, a step of 1. ``--gain``: the exponent by which steps grow with the mean
of the scales. ``--offset``: tables by which all steps are coarser, for rates as they were. Several of either are for
qualities from lowest to highest. Where all are 0, OUT codes what CKPT does.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from attar import spec as specs
from attar.train import checkpoint, datasets, network

LEVELS, CROP = 16, 512


def main() -> None:
    """Read, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("ckpt", "dataset", "out"):
        parser.add_argument(name)
    parser.add_argument("--gain", type=float, nargs="+", default=[0.9])
    parser.add_argument("--offset", type=float, nargs="+", default=[0.0])
    given = parser.parse_args()
    kept = checkpoint.load(given.ckpt)
    document = dict(kept.record["model"])
    document["entropy"] = {**document["entropy"], "steps": LEVELS}
    spec = specs.parse(document, given.ckpt)
    net: Any = network.build(spec, seed=0, dtype="float32")
    kept.arrays.update({k: v for k, v in checkpoint.weights(net).items() if k.startswith("weights/steps/")})
    checkpoint.restore_weights(net, kept, given.ckpt)
    images = datasets.load(given.dataset, crop=CROP, channels=3).validation
    means = np.array([mean_index(net, images, quality) for quality in np.linspace(0, 1, LEVELS)])
    gains, offsets = (
        np.interp(np.linspace(0, 1, LEVELS), np.linspace(0, 1, len(values)), values)
        for values in (given.gain, given.offset)
    )
    net.local_steps.set(gains, offsets - gains * means)
    record = {key: value for key, value in kept.record.items() if key != "format"}
    checkpoint.save(
        given.out, checkpoint.weights(net), {**record, "model": document, "digest": spec.digest()}
    )
    print(f"{given.out}: mean table", " ".join(f"{mean:.2f}" for mean in means))


def mean_index(net: Any, images: Any, quality: float) -> float:
    """Mean of the table indexes that hyper-latents choose."""
    found = []
    with torch.no_grad():
        for first in range(0, len(images), 4):
            pixels = torch.from_numpy(images.take(np.arange(first, min(first + 4, len(images)))).copy())
            level = torch.full((len(pixels),), quality, dtype=torch.float32)
            coded = torch.round(net.hyper_analysis(net.analysis([pixels, level])))
            found.append(net.hyper_scales(coded)[..., : net.latent_channels].mean((1, 2, 3)))
    return float(torch.cat(found).mean())


if __name__ == "__main__":
    main()

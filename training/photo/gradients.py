"""Whether gradients tell what the loss does: python training/photo/gradients.py CKPT DATASET.

Residuals of the latent (what is rounded) are made larger by 5 % and smaller by 5 %, of one class of scales at a
time, and the loss is counted; beside it stands what two gradients say of the same: the plain straight-through
gradient, and that of training (:func:`attar.train.rounding.crossing`). For each quality and class: change of the
rate (R) and of the distortion (D), both over the root of lambda as the loss has them, per unit of the logarithm.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from keras import ops

from attar import spec as specs
from attar.train import checkpoint, datasets, hyperprior, network

EDGES = (0, 0.0501, 0.07, 0.1, 0.13, 0.2, 0.35, 0.6, 1.2, 99)
SMALL = 0.05
ESTIMATORS: dict[str, Callable[[Any, Any], Any]] = {
    "plain": lambda values, _inverse: ops.ones_like(values),
    "crossing": hyperprior.crossing,
}


def main() -> None:
    """Print a line for each quality and class."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ckpt")
    parser.add_argument("dataset")
    parser.add_argument("--images", type=int, default=6)
    given = parser.parse_args()
    kept = checkpoint.load(given.ckpt)
    net: Any = network.build(specs.parse(kept.record["model"], given.ckpt), seed=0, dtype="float32")
    checkpoint.restore_weights(net, kept, given.ckpt)
    for weight in net.parameters():
        weight.requires_grad_(False)
    images = datasets.load(given.dataset, crop=256, channels=3).validation.take(np.arange(given.images))
    for quality in (0.1, 0.5, 0.9):
        found = [compared(net, image[None], quality) for image in images]
        for k, scales in enumerate(itertools.pairwise(EDGES)):
            parts = (
                f"{name} R {mean[0]:+.3f} D {mean[1]:+.3f}"
                for name in ("counted", *ESTIMATORS)
                for mean in [np.mean([image[name][k] for image in found], axis=0)]
            )
            print(f"quality {quality} scales {scales[0]:g} to {scales[1]:g}:", *parts, sep="   ")


def compared(net: Any, image: Any, quality: float) -> dict[str, list[Any]]:
    """R and D of each class of scales, by every way to tell them; image (1, H, W, 3) uint8."""
    pixels, level = torch.from_numpy(np.array(image)), torch.full((1,), quality)
    root = float(net.lambdas(level)[0]) ** 0.5
    with torch.no_grad():
        latent = net.analysis([pixels, level])
        coded = torch.round(net.hyper_analysis(latent))
    if net.local_steps is not None:
        raise SystemExit("gradients.py: of models without steps of quantisation by place alone")

    def loss(move: Any, training: bool) -> tuple[Any, Any]:
        found, bits, _ = net._passes(latent + move, coded, level, training)
        error = torch.mean((net.synthesis([found, level]) - pixels / 255.0) ** 2)
        return bits.sum() / pixels[..., 0].numel() / root, 255.0**2 * error * root

    residual, scale = rounded_at(net, latent, coded, level)
    moves = [residual * ((scale >= low) & (scale < high)) for low, high in itertools.pairwise(EDGES)]
    told: dict[str, list[Any]] = {}
    with torch.no_grad():
        for move in moves:
            up, down = (
                np.array([float(part) for part in loss(SMALL * sign * move, False)]) for sign in (1, -1)
            )
            told.setdefault("counted", []).append((up - down) / (2 * SMALL))
    for name, estimator in ESTIMATORS.items():
        hyperprior.crossing = estimator  # type: ignore[assignment]  # looked up there by name
        start = torch.zeros_like(latent).requires_grad_()
        rate, error = loss(start, True)
        slopes = torch.autograd.grad(rate, start, retain_graph=True) + torch.autograd.grad(error, start)
        told[name] = [np.array([float((slope * move).sum()) for slope in slopes]) for move in moves]
    return told


def rounded_at(net: Any, latent: Any, coded: Any, level: Any) -> tuple[Any, Any]:
    """What is rounded, and the scale of its table, both of the latent's shape."""
    seen: list[Any] = []
    counted = net.bits

    def count(residuals: Any, index: Any) -> Any:
        seen.append(index)
        return counted(residuals, index)

    net.bits = count
    with torch.no_grad():
        found, _, symbols = net._passes(latent, coded, level, False)
    del net.bits
    return latent - (found - symbols), 1 / net._inverse(seen[-1])


if __name__ == "__main__":
    main()

"""Train the block ``hyper_prior`` of a checkpoint by itself: python training/photo/hyper.py CKPT DATASET OUT.

The hyper-latents of random crops are computed once, so that a step costs next to nothing; ``insert.py`` makes
the CKPT, of one whose hyper-latents have a distribution for each channel. Everything else stays as it is.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from attar import spec as specs
from attar.train import checkpoint, datasets, network
from attar.train.soap import Soap

CROP, BATCH, RATE = 512, 16, 2e-3


def main() -> None:
    """Read, compute, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("ckpt", "dataset", "out"):
        parser.add_argument(name)
    parser.add_argument("--crops", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    kept = checkpoint.load(given.ckpt)
    net: Any = network.build(specs.parse(kept.record["model"], given.ckpt), seed=0, dtype="float32")
    checkpoint.restore_weights(net, kept, given.ckpt)
    images = datasets.load(given.dataset, crop=CROP, channels=3)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(np.resize(np.arange(len(images.train)), given.crops))
    train = hyper_latents(net, images.train, chosen, rng.uniform(0, 1, given.crops))
    places = np.tile(np.arange(len(images.validation)), 3)
    checked = hyper_latents(net, images.validation, places, np.repeat([0, 0.5, 1], len(places) // 3))
    fit(net, train, checked, given.steps)
    record = {key: value for key, value in kept.record.items() if key != "format"}
    checkpoint.save(given.out, checkpoint.weights(net), record)


def hyper_latents(net: Any, images: Any, chosen: Any, quality: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounded hyper-latents (N, h, w, Z) of crops of the chosen images, and their qualities (N,)."""
    found, levels = [], torch.tensor(quality, dtype=torch.float32)
    with torch.no_grad():
        for k in range(0, len(chosen), 4):
            latent = net.analysis(
                [torch.from_numpy(images.take(chosen[k : k + 4]).copy()), levels[k : k + 4]]
            )
            found.append(torch.round(net.hyper_analysis(latent)))
    return torch.cat(found), levels


def fit(net: Any, train: Any, checked: Any, steps: int) -> None:
    """Lower the bits of ``train``; tell those of ``checked``, whose thirds are of three qualities."""

    def bits(symbols: Any, quality: Any, training: bool) -> Any:
        found = net.hyper_bits(symbols, quality, training)(symbols)
        return found.sum((1, 2, 3)) / (symbols.shape[1] * symbols.shape[2])

    weights = [variable.value for variable in net.hyper_prior.trainable_variables]
    optimizer = Soap(weights, (0.9, 0.99), 1e-8)
    for step in range(1, steps + 1):
        rows = torch.randint(0, len(train[0]), (BATCH,))
        bits(train[0][rows], train[1][rows], True).mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, step / 50, (1 - step / steps) / 0.4)
        optimizer.step()
        optimizer.zero_grad()
        if step % max(1, steps // 10) == 0:
            with torch.no_grad():
                found = bits(*checked, False).reshape(3, -1).mean(1).tolist()
            told = " ".join(f"{value:.1f}" for value in found)
            print(f"{step} of {steps} steps, bits per position: {told}", flush=True)


if __name__ == "__main__":
    main()

"""A checkpoint of one architecture as the beginning of a wider one: python training/photo/widen.py CKPT MODEL OUT.

MODEL is a model.json that has the layers of the checkpoint's, with more channels in the latent or in gated blocks.
Weights that both have are copied; the others begin as in a new network, and a tenth as large where they lead from a
new channel to an old one, so that the regenerated images begin nearly as good as they were.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from attar import spec as specs
from attar.train import checkpoint, network

GENTLE, QUIET = 0.1, 0.25
Pieces = Sequence[tuple[int, int]]
"""(old, new) sizes of the parts of an axis: each grows at its end."""


def main() -> None:
    """Read, widen, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("ckpt", "model", "out"):
        parser.add_argument(name)
    given = parser.parse_args()
    kept = checkpoint.load(given.ckpt)
    spec = specs.load(given.model)
    net = network.build(spec, seed=0, dtype="float32")
    old, new = kept.part("weights"), checkpoint.weights(net)
    name = "compressed_representation/bias"
    latent = (len(old[name]), len(new["weights/" + name]))
    for name, fresh in new.items():
        before = old[name.removeprefix("weights/")]
        new[name] = widened(
            before, fresh, [pieces(name, axis, before, fresh, latent) for axis in range(fresh.ndim)]
        )
    # New channels begin near zero, so that they cost nothing at low rates.
    new["weights/compressed_representation/kernel"][..., latent[0] :] *= QUIET
    record = {key: value for key, value in kept.record.items() if key != "format"}
    checkpoint.save(given.out, new, record | {"model": dict(spec.document), "digest": spec.digest()})
    print(f"{given.out}: {latent[0]} -> {latent[1]} channels in the latent")


def widened(old: np.ndarray, new: np.ndarray, axes: Sequence[Pieces]) -> np.ndarray:
    """``new`` with what ``old`` has, and gentle where a new input leads to an old output."""
    if old.shape == new.shape:
        return old.astype(new.dtype)
    places = [
        np.concatenate([np.arange(n) + sum(p[1] for p in parts[:k]) for k, (n, _) in enumerate(parts)])
        for parts in axes
    ]
    out = new.copy()
    if new.ndim == 4 and new.shape[3] > 1:  # a dense kernel: its rows are inputs
        out[..., places[3]] *= GENTLE
    out[np.ix_(*places)] = old
    return out


def pieces(name: str, axis: int, old: np.ndarray, new: np.ndarray, latent: tuple[int, int]) -> Pieces:
    """How an axis of a weight grows: gated blocks have two halves, some networks the latent's channels and others."""
    sizes = old.shape[axis], new.shape[axis]
    channels_last = axis == old.ndim - 1
    if sizes[0] == sizes[1]:
        return [sizes]
    if "gatedblock" in name and ("/spread/" in name or ("/expand/" in name and channels_last)):
        return [(sizes[0] // 2, sizes[1] // 2)] * 2
    if channels_last and sizes[0] > latent[0]:  # the latent's channels, then those that only the context sees
        return [latent, (sizes[0] - latent[0], sizes[1] - latent[1])]
    if "/context" in name and old.ndim == 4 and axis == 2:  # what is known, then the latent's channels
        return [latent, (sizes[0] - 2 * latent[0], sizes[1] - 2 * latent[1]), latent]
    return [sizes]


if __name__ == "__main__":
    main()

"""A checkpoint as the beginning of a network with other layers: python training/photo/insert.py CKPT MODEL OUT.

MODEL is a model.json that has layers of the checkpoint's, unchanged (but for ``trainable``) and in their order, and
others between them. Weights are named after a layer's place, which these move: each goes where its layer is now.
Layers that MODEL does not have are left behind and named. New residual blocks begin as the identity; any other new
layer begins as its initializers say, and had better do so, too (a ``QualityGain`` from 0 to 0 does). With
``"trainable": false`` in all old layers, the new ones are trained alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attar import spec as specs
from attar.train import checkpoint, network


def main() -> None:
    """Read, move, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("ckpt", "model", "out"):
        parser.add_argument(name)
    given = parser.parse_args()
    kept = checkpoint.load(given.ckpt)
    spec = specs.load(given.model)
    old = specs.parse(kept.record["model"], given.ckpt)
    places = dict(moved(old, spec))
    layers = [layer for block in old.blocks.values() for layer in block]
    left = {layer.name: layer.path for layer in layers if layer.name not in places}
    net: Any = network.build(spec, seed=0, dtype="float32")
    start = {name: begun(name, value) for name, value in checkpoint.weights(net).items()}
    for name, value in kept.part("weights").items():
        layer, _, rest = name.partition("/")
        if layer in left:
            continue
        now = f"weights/{places.get(layer, layer)}/{rest}" if rest else f"weights/{name}"
        if now in start:
            start[now] = value
        else:
            left[now] = now
    record = {key: value for key, value in kept.record.items() if key != "format"}
    record |= {"model": dict(spec.document), "digest": spec.digest()}
    checkpoint.restore_weights(net, replace(kept, arrays=start), given.ckpt)
    checkpoint.save(given.out, start, record)
    new = sum(map(len, spec.blocks.values())) - len(places)
    print(f"{given.out}: {len(places)} layers moved, {new} new", *left.values(), sep="\nleft behind: ")


def moved(old: specs.ModelSpec, new: specs.ModelSpec) -> Iterator[tuple[str, str]]:
    """Names of the layers before and after, of as many as can be in their order."""
    for block, layers in old.blocks.items():
        now = new.blocks.get(block, ())
        words = ([kind_of(layer) for layer in side] for side in (layers, now))
        yield from ((layers[i].name, now[j].name) for i, j in common(*words))


def kind_of(layer: specs.LayerSpec) -> str:
    """What must be the same of two layers; weights may be fixed in one and trained in the other."""
    arguments = {key: value for key, value in layer.arguments.items() if key != "trainable"}
    return json.dumps([layer.kind, arguments])


def common(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the longest common subsequence."""
    best: list[list[list[tuple[int, int]]]] = [[[]] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first):
        for j, other in enumerate(second):
            both = [*best[i][j], (i, j)] if word == other else []
            best[i + 1][j + 1] = max(both, best[i][j + 1], best[i + 1][j], key=len)
    return best[-1][-1]


def begun(name: str, value: Any) -> Any:
    """A weight of a layer that is new: a residual block projects nothing yet."""
    return np.zeros_like(value) if name.endswith("/project/kernel") else value


if __name__ == "__main__":
    main()

"""A checkpoint as the beginning of a network with more layers: python training/photo/insert.py CKPT MODEL OUT.

MODEL is a model.json that has the layers of the checkpoint's, unchanged and in their order, and others between
them. Weights are named after a layer's place, which these move: each goes where its layer is now. What is new
begins as its initializers say, so it had better begin as the identity (a ``QualityGain`` from 0 to 0 does).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

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
    net: Any = network.build(spec, seed=0, dtype="float32")
    start = checkpoint.weights(net)
    for name, value in kept.part("weights").items():
        layer, _, rest = name.partition("/")
        start[f"weights/{places.get(layer, layer)}/{rest}" if rest else f"weights/{name}"] = value
    record = {key: value for key, value in kept.record.items() if key != "format"}
    record |= {"model": dict(spec.document), "digest": spec.digest()}
    checkpoint.restore_weights(net, replace(kept, arrays=start), given.ckpt)
    checkpoint.save(given.out, start, record)
    count = sum(map(len, spec.blocks.values())) - sum(map(len, old.blocks.values()))
    print(f"{given.out}: {count} layers more")


def moved(old: specs.ModelSpec, new: specs.ModelSpec) -> Iterator[tuple[str, str]]:
    """Names of the layers before and after."""
    for block, layers in old.blocks.items():
        now = iter(new.blocks[block])
        for layer in layers:
            same = next((other for other in now if alike(layer, other)), None)
            if same is None:
                raise SystemExit(f"{layer.path} is not in the new model")
            yield layer.name, same.name


def alike(one: specs.LayerSpec, other: specs.LayerSpec) -> bool:
    """Whether two layers are the same but for their place."""
    return (one.kind, one.arguments) == (other.kind, other.arguments)


if __name__ == "__main__":
    main()

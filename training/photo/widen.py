"""A checkpoint as the beginning of a wider network: python training/photo/widen.py CKPT MODEL PHOTOS OUT.

MODEL is a model.json that has the layers of the checkpoint's, with more channels in the latent and in the trunks
beside it. Weights that both have are copied, and nothing that is new leads to anything old: old symbols, their bits
and what is regenerated from them stay. The new channels are fitted on crops of PHOTOS: they carry those linear
combinations of the encoder's features that tell most of what the old network loses without any quantisation
(reduced-rank regression, Izenman 1975), and get tables that know their scales.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from attar import spec as specs
from attar.train import checkpoint, datasets, network  # before Keras: chooses its backend

import keras  # isort: skip
from attar.train.blocks import PixelUnshuffle
from attar.train.hyperprior import HyperNetwork
from attar.train.tensors import to_numpy

Pieces = Sequence[tuple[int, int]]
"""(old, new) sizes of the parts of an axis: each grows at its end."""
FITTED_AT = 0.85
"""Quality at which the loss without quantisation is fitted: the higher ones are those that suffer from it."""
STEP = 0.05
"""Step of quantisation of the new channels at quality 1, as coefficients of an orthonormal transform of 0..1."""


def main() -> None:
    """Read, widen, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("ckpt", "model", "photos", "out"):
        parser.add_argument(name)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--crops", type=int, default=160)
    given = parser.parse_args()
    kept = checkpoint.load(given.ckpt)
    spec = specs.load(given.model)
    net: Any = network.build(spec, seed=0, dtype="float32")
    start = widened(kept.part("weights"), checkpoint.weights(net))
    record = {key: value for key, value in kept.record.items() if key != "format"}
    record |= {"model": dict(spec.document), "digest": spec.digest()}
    checkpoint.restore_weights(net, replace(kept, arrays=start), given.ckpt)
    split = datasets.load(given.photos, crop=given.crop, flip=True, channels=spec.input_shape[2]).train
    old = len(kept.part("weights")["compressed_representation/bias"])
    with torch.no_grad():
        fit_transforms(net, old, lambda: crops(split, given.crops))
    fit_scales(net, old, crops(split, given.crops))
    checkpoint.save(given.out, checkpoint.weights(net), record)
    print(f"{given.out}: {old} -> {net.latent_channels} channels in the latent")


def crops(split: Any, count: int) -> Iterator[Any]:
    """``count`` crops one by one (1, H, W, 3), the same ones each time."""
    epochs = (datasets.batches(split, 1, seed=1, epoch=epoch) for epoch in itertools.count())
    for _, images in itertools.islice(itertools.chain.from_iterable(epochs), count):
        yield torch.from_numpy(np.array(images))


def fit_transforms(net: HyperNetwork, old: int, batches: Any) -> None:
    """Lead what the old channels lose through the new ones, from the encoder's features to the decoder's."""
    widen, latents = dense(net.analysis)[-2:]
    narrow, shrink = dense(net.synthesis)[:2]
    features = keras.Model(net.analysis.inputs, widen.input)
    known, lost = [], []
    for images in batches():
        quality = torch.full((len(images),), FITTED_AT)
        full = net.synthesis([net.analysis([images, quality]), quality])
        seen = features([images, quality]).numpy()
        error = images.float() / 255 - full
        known.append(seen.reshape(-1, seen.shape[-1]))
        lost.append(blocks(error, seen.shape[1]))
    x, error = np.concatenate(known).astype(np.float64), np.concatenate(lost)
    mean = x.mean(0)
    x -= mean
    weight = solve(x, error, 1e-3)
    pixels = response(net, shrink, batches)
    inverse = solve(pixels.T, np.eye(pixels.shape[1]), 1e-2).T
    found = x @ weight @ inverse @ pixels
    values, vectors = np.linalg.eigh(found.T @ found)
    new = net.latent_channels - old
    base = vectors[:, np.argsort(values)[::-1][:new]]
    gain = float(torch.exp(gains(net.analysis)[-1, old:]).mean())
    scale = 1 / (STEP * gain)
    forward = weight @ inverse @ pixels @ base * scale
    trunk = widen.filters - new
    put(widen.kernel, forward, (slice(None), slice(trunk, None)))
    put(widen.bias, -mean @ forward, slice(trunk, None))
    put(latents.kernel, np.eye(new), (slice(trunk, None), slice(old, None)))
    put(narrow.kernel, np.eye(new), (slice(old, None), slice(narrow.filters - new, None)))
    put(shrink.kernel, base.T @ inverse / scale, (slice(narrow.filters - new, None), slice(None)))
    left = error - x @ forward / scale @ base.T @ inverse @ pixels
    print(f"squared error without quantisation: {np.mean(error**2):.3g} -> {np.mean(left**2):.3g}")


def response(net: HyperNetwork, shrink: Any, batches: Any) -> np.ndarray:
    """What the decoder makes of a change of the features behind ``shrink``: (features, values of a block).

    Fitted to small random changes: the blocks that follow are not linear, and answer with a change of their own.
    """
    layers = net.synthesis.layers
    at = layers.index(shrink)
    before = keras.Model(net.synthesis.inputs, shrink.output)
    given, seen = [], []
    for images in batches():
        quality = torch.full((len(images),), FITTED_AT)
        features = before([net.analysis([images, quality]), quality])
        change = torch.randn_like(features) * (0.1 * features.std())
        answers = [features, features + change]
        for layer in layers[at + 1 : -1]:  # not the clipping at the end
            if isinstance(layer, keras.layers.InputLayer):
                continue
            given_too = (quality,) if getattr(layer, "takes_quality", False) else ()
            answers = [layer([answer, *given_too] if given_too else answer) for answer in answers]
        given.append(change.flatten(0, 2).numpy())
        seen.append(blocks(answers[1] - answers[0], features.shape[1]))
    return solve(np.concatenate(given).astype(np.float64), np.concatenate(seen), 1e-4)


def solve(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """W of y = x W, least squares with a ridge as a part of the inputs' mean square."""
    square = x.T @ x
    return np.linalg.solve(square + ridge * np.trace(square) / len(square) * np.eye(len(square)), x.T @ y)


def blocks(images: Any, rows: int) -> np.ndarray:
    """(B, H, W, C) -> (B rows columns, values of a block), in float64."""
    found: np.ndarray = (
        PixelUnshuffle(images.shape[1] // rows)(images).flatten(0, 2).numpy().astype(np.float64)
    )
    return found


def fit_scales(net: HyperNetwork, old: int, batches: Any, steps: int = 300) -> None:
    """Fit the last layer of ``hyper_scales`` to the new channels' symbols: least bits, by Adam on all crops."""
    last = net.hyper_scales.layers[-1]
    hidden = keras.Model(net.hyper_scales.inputs, last.input)
    random = np.random.default_rng(0)
    known, wanted = [], []
    with torch.no_grad():
        for images in batches:
            quality = torch.from_numpy(random.uniform(size=len(images)).astype(np.float32))
            latent = net.analysis([images, quality])
            known.append(hidden(torch.round(net.hyper_analysis(latent))).flatten(0, 2))
            wanted.append(torch.round(latent[..., old:]).flatten(0, 2))
    x, symbols = torch.cat(known), torch.cat(wanted)
    channels = slice(old, net.latent_channels)
    kernel = torch.zeros(x.shape[1], symbols.shape[1], requires_grad=True)
    bias = torch.full((symbols.shape[1],), 1.0, requires_grad=True)
    adam = torch.optim.Adam([{"params": [kernel], "lr": 1e-3}, {"params": [bias], "lr": 0.05}])
    for step in range(steps):
        index = torch.nn.functional.softplus(x @ kernel + bias * 2**last.output_bits)
        bits = net.bits(symbols, index.clamp(max=last.maximum)).sum(1).mean()
        if step in (0, steps - 1):
            print(f"bits of the new channels for each position of the latent: {bits.item():.1f}")
        adam.zero_grad()
        bits.backward()
        adam.step()
    with torch.no_grad():
        put(last.kernel, kernel.numpy(), (slice(None), channels))
        put(last.bias, bias.numpy(), channels)


def dense(model: Any) -> list[Any]:
    """The 1x1 convolutions of a network outside its blocks, in order."""
    return [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]


def gains(model: Any) -> Any:
    """Logarithms (levels, C) of a network's last gains, in an encoder those of the latent."""
    *_, layer = (layer for layer in model.layers if type(layer).__name__ == "QualityGain")
    return layer.log_gains.value


def put(variable: Any, values: Any, where: Any) -> None:
    """Assign a part of a kernel (1, 1, C, F) or of a bias."""
    array = to_numpy(variable)
    target = array[0, 0] if array.ndim == 4 else array
    target[where] = values
    variable.assign(array)


def widened(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``new`` with what ``old`` has, and zeros where a new input leads to an old output or an old one to a new."""
    name = "compressed_representation/bias"
    latent = (len(old[name]), len(new["weights/" + name]))
    return {
        name: grown(before, fresh, [pieces(name, axis, before, fresh, latent) for axis in range(fresh.ndim)])
        for name, fresh in new.items()
        for before in (old[name.removeprefix("weights/")],)
    }


def grown(old: np.ndarray, new: np.ndarray, axes: Sequence[Pieces]) -> np.ndarray:
    """An array with the old one's values in their places, and its own in others."""
    if old.shape == new.shape:
        return old.astype(new.dtype)
    places = [
        np.concatenate([np.arange(n) + sum(p[1] for p in parts[:k]) for k, (n, _) in enumerate(parts)])
        for parts in axes
    ]
    # A dense kernel or the bias behind it: zeros, so that a new channel is what is put there.
    out = np.zeros_like(new) if (new.ndim == 4 and new.shape[3] > 1) or new.ndim == 1 else new.copy()
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

"""Latents of a hyperprior <-> the body of their chunk: hyper-latents first, then the residuals in passes.

::

    z                                 hyper-latent symbols: a table for each channel
    hyper_scales(z), hyper_means(z)   table and mean of every element of the latent
    pass 1                            residuals r of the elements whose row + column + channel is even
    context_scales, context_means     table and mean of the others, from what pass 1 has told
    pass 2                            their residuals
    latent = r + mean

Tables are chosen by the integer networks alone, whose outputs are the same on every machine; the means are
floating-point numbers that only the pixels depend on. One walk serves the encoder and the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.codec.entropy import EntropyCoder, Section
from attar.codec.latents import join_streams, split_streams, tile_context, tile_count, tiles
from attar.codec.manifest import Hyperprior, Manifest
from attar.codec.tables import INT32, Table
from attar.errors import BundleError

__all__ = ["HyperCoder"]

Floats = NDArray[np.float32]
Symbols = NDArray[np.int32]
Run = Callable[[str, Mapping[str, NDArray[Any]]], Floats]
"""Runs a network of the bundle by its name, on named inputs with a batch of one."""
Hyper = Callable[[], Symbols]
Residuals = Callable[[NDArray[np.uint8], Floats, NDArray[np.bool_]], Symbols]


class HyperCoder:
    """Codes the latent, float32 (h, w, L), of one image with the networks and tables of a hyperprior."""

    def __init__(self, manifest: Manifest, prior: Hyperprior, tables: Sequence[Table], run: Run) -> None:
        self.prior, self.run = prior, run
        self.stride = manifest.latent.stride
        self.coder = EntropyCoder(tables)
        self.name = manifest.name

    def encode(self, latent: Floats, header: bytes) -> bytes:
        """Body of the chunk for a latent that the analysis gave, bound to ``header`` by its checksums."""
        areas = [*tiles(latent.shape, self.stride)]
        sections: list[list[Section]] = [[] for _ in areas]

        def hyper() -> Symbols:
            symbols = _rounded(self._one("hyper_analysis", latent=latent), self.name)
            for part, area in zip(sections, tiles(symbols.shape, self.prior.stride), strict=True):
                part.append(_by_channel(symbols[area], self.prior.scales))
            return symbols

        def residuals(index: NDArray[np.uint8], mean: Floats, mask: NDArray[np.bool_]) -> Symbols:
            symbols = np.where(mask, _rounded(latent - mean, self.name), np.int32(0))
            for part, area in zip(sections, areas, strict=True):
                chosen = mask[area]
                order, counts = self._grouped(index[area][chosen])
                part.append((symbols[area][chosen][order], counts))
            return symbols

        self._walk(latent.shape, hyper, residuals)
        contexts = (tile_context(header, number) for number in range(len(areas)))
        return join_streams([*map(self.coder.encode, sections, contexts)])

    def decode(self, body: bytes, header: bytes, shape: tuple[int, ...]) -> Floats:
        """Latent of ``shape`` (h, w, L), its symbols checked; raises :class:`FormatError`."""
        areas = [*tiles(shape, self.stride)]
        streams = split_streams(body, tile_count(shape, self.stride))
        decoders = [
            self.coder.decoder(stream, tile_context(header, number)) for number, stream in enumerate(streams)
        ]

        def hyper() -> Symbols:
            symbols = np.empty(self._hyper_shape(shape), dtype=np.int32)
            for decoder, area in zip(decoders, tiles(symbols.shape, self.prior.stride), strict=True):
                target = symbols[area]
                count = target.size // self.prior.channels
                counts = np.zeros(self.prior.channels + self.prior.scales, dtype=np.int64)
                counts[: self.prior.channels] = count
                target[...] = decoder.take(counts).reshape(-1, count).T.reshape(target.shape)
            return symbols

        def residuals(index: NDArray[np.uint8], mean: Floats, mask: NDArray[np.bool_]) -> Symbols:
            symbols = np.zeros(shape, dtype=np.int32)
            for decoder, area in zip(decoders, areas, strict=True):
                chosen = mask[area]
                order, counts = self._grouped(index[area][chosen])
                values = np.empty(order.size, dtype=np.int32)
                values[order] = decoder.take(counts)
                symbols[area][chosen] = values
            return symbols

        latent = self._walk(shape, hyper, residuals)
        for decoder in decoders:
            decoder.finish()
        return latent

    def _walk(self, shape: tuple[int, ...], hyper: Hyper, residuals: Residuals) -> Floats:
        """The latent that the decoder gets; ``hyper`` and ``residuals`` give or take the symbols in order."""
        symbols = hyper().astype(np.float32)
        scales = self._one("hyper_scales", hyper_symbols=symbols)
        means = self._one("hyper_means", hyper_symbols=symbols)
        channels = shape[-1]
        mask = self._first_pass(shape)
        index, mean = self._indexes(scales[..., :channels], shape), self._means(means[..., :channels], shape)
        residual = residuals(index, mean, mask).astype(np.float32)
        latent = np.where(mask, residual + mean, np.float32(0))
        if self.prior.context:
            index = self._indexes(self._one("context_scales", scales=scales, symbols=residual), shape)
            mean = self._means(self._one("context_means", means=means, found=latent), shape)
            residual = residuals(index, mean, ~mask).astype(np.float32)
            latent = np.where(mask, latent, residual + mean)
        return latent

    def _first_pass(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        if not self.prior.context:
            return np.ones(shape, dtype=np.bool_)
        row, column, channel = np.ogrid[: shape[0], : shape[1], : shape[2]]
        first: NDArray[np.bool_] = (row + column + channel) % 2 == 0
        return first

    def _grouped(self, index: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order that sorts elements by table, and the number of them that each table codes."""
        counts = np.zeros(self.prior.channels + self.prior.scales, dtype=np.int64)
        counts[self.prior.channels :] = np.bincount(index, minlength=self.prior.scales)
        return np.argsort(index, kind="stable"), counts

    def _one(self, name: str, **inputs: NDArray[Any]) -> Floats:
        """The output of a network for one image."""
        return np.asarray(self.run(name, {key: value[None] for key, value in inputs.items()})[0])

    def _indexes(self, values: Floats, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Table indexes, which must be whole numbers in range to the last bit."""
        self._check_shape(values, shape, "table indexes")
        # Written so that NaN fails as well.
        if not (values.min(initial=0) >= 0 and values.max(initial=0) < self.prior.scales):
            last = self.prior.scales - 1
            raise BundleError(f"model {self.name!r}: its networks chose tables outside of 0..{last}")
        index = values.astype(np.uint8)
        if not np.array_equal(index, values):
            raise BundleError(f"model {self.name!r}: its networks chose tables that are no whole numbers")
        return index

    def _means(self, values: Floats, shape: tuple[int, ...]) -> Floats:
        self._check_shape(values, shape, "means")
        return values

    def _check_shape(self, values: Floats, shape: tuple[int, ...], what: str) -> None:
        if values.shape != shape:
            raise BundleError(
                f"model {self.name!r}: its networks gave {what} of shape {values.shape}; {shape} expected"
            )

    def _hyper_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        ratio = self.prior.stride // (self.stride or self.prior.stride)
        return shape[0] // ratio, shape[1] // ratio, self.prior.channels


def _by_channel(symbols: Symbols, others: int) -> Section:
    """Hyper-latent symbols (h, w, Z) by channel; none of them belongs to the ``others`` tables."""
    channels = symbols.shape[-1]
    counts = np.zeros(channels + others, dtype=np.int64)
    counts[:channels] = symbols.size // channels
    return symbols.reshape(-1, channels).T.ravel(), counts


def _rounded(values: Floats, name: str) -> Symbols:
    """Half to even, as int32."""
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) >= INT32.max:
        raise BundleError(f"model {name!r}: its networks gave latents that are not finite or exceed int32")
    return np.rint(values).astype(np.int32)

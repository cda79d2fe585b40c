"""Latents of a hyperprior <-> the body of their chunk: hyper-latents first, then the residuals in passes.

::

    z                                 hyper-latent symbols: see hyperlatents.py
    hyper_scales(z), hyper_means(z)   table and mean of every element of the latent
    pass 1                            residuals r of the elements whose row + column + channel is even
    context_scales, context_means     table and mean of the others, from what pass 1 has told
    pass 2                            their residuals
    latent = step r + mean

The step is 1, or one of each position: see localsteps.py. Tables are chosen by the integer networks alone, whose
outputs are the same on every machine; the means are floating-point numbers that only the pixels depend on. One walk
serves the encoder and the decoder: planes of which every tile is made when it is read, so that neighbours are there by
the time that a network sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attar.codec.bits import Tally
from attar.codec.entropy import Decoder, EntropyCoder, Section
from attar.codec.hyperlatents import HyperLatents, grouped
from attar.codec.latents import OpenLatent, join_streams, split_streams, tile_context, tile_count, tile_side
from attar.codec.localsteps import Steps
from attar.codec.manifest import Hyperprior, Manifest
from attar.codec.networks import Networks
from attar.codec.tables import INT32, Table
from attar.codec.tiling import Area, Derived, Held, Plane, Tiled, everything, give_back
from attar.codec.values import smallest
from attar.errors import BundleError

__all__ = ["HyperCoder", "first_pass", "rounded"]

Floats = NDArray[np.float32]
Symbols = NDArray[np.int32]
Indexes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class HyperCoder:
    """Codes the latent, float32 (h, w, L), of one image with the networks and tables of a hyperprior."""

    def __init__(
        self, manifest: Manifest, prior: Hyperprior, tables: Sequence[Table], networks: Networks
    ) -> None:
        self.manifest, self.prior, self.networks, self.tables = manifest, prior, networks, tables
        self.stride = manifest.latent.stride or prior.stride
        self.coder = EntropyCoder(tables)
        self.name = manifest.name

    def encode(self, latent: Floats, header: bytes, out: Floats | None = None) -> bytes:
        """Body of the chunk for a latent that the analysis gave, bound to ``header`` by its checksums.

        ``out``, of the latent's shape, is given what :meth:`decode` will give.
        """
        return self.encode_plane(Held(latent), header, out=out)

    def encode_plane(
        self,
        latent: Plane,
        header: bytes,
        *,
        tiled: bool = False,
        out: Floats | None = None,
        told: Plane | None = None,
        told_from: Callable[[int], int] | None = None,
    ) -> bytes:
        """:meth:`encode` of a latent that is read tile by tile; if ``tiled``, networks run on tiles, too.

        ``told``: another latent, which the hyper-latents are told of; ``told_from``: the first of its rows that the
        rows of ``latent`` from a given one on are made from.
        """
        source = _Encoding(self, latent, header, told or latent, told_from)
        walk = _Walk(self, latent.shape, source, self.steps(header), tiled)
        streams = []
        for number, area in enumerate(everything(latent.shape).tiles(tile_side(self.stride))):
            if area.left == 0:
                walk.forget(area.top, area.top)
            decoded = walk.latent.make(area)
            if out is not None:
                out[area.within()] = decoded
            streams.append(self.coder.encode(source.sections.pop(area), tile_context(header, number)))
        walk.close()
        return join_streams(streams)

    def decode(self, body: bytes, header: bytes, shape: tuple[int, ...]) -> Floats:
        """Latent of ``shape`` (h, w, L), its symbols checked; raises :class:`FormatError`."""
        return np.asarray(self.opened(body, header, shape).read(everything(shape)))

    def opened(
        self,
        body: bytes,
        header: bytes,
        shape: tuple[int, ...],
        *,
        tiled: bool = False,
        tally: Tally | None = None,
    ) -> OpenLatent:
        """The latent, each tile decoded and checked when it is read; ``tiled`` as in :meth:`encode_plane`.

        ``tally`` counts what the symbols cost.
        """
        streams = split_streams(body, tile_count(shape, self.stride))
        source = _Decoding(self, streams, header, shape, tally)
        return _OpenHyperLatent(_Walk(self, shape, source, self.steps(header), tiled))

    def steps(self, header: bytes) -> Steps:
        """The steps of quantisation of the file with this header."""
        return Steps(self.manifest, self.prior, header)

    def grouped(self, index: Indexes, mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the elements in ``mask`` sorted by scale, and the number of them that each table codes."""
        return grouped(index, mask, self.prior.first_scale, len(self.tables))


class _Source(Protocol):
    """Where the symbols of a tile come from: the latent that is coded, or the streams that are decoded."""

    def hyper(self, area: Area) -> Symbols:
        """Of a tile of the hyper-latent."""

    def residuals(self, area: Area, index: Indexes, mean: Floats, step: Floats, mask: Mask) -> Symbols:
        """Of the elements of a tile of the latent that are in ``mask``; the others are 0."""

    def done(self, area: Area) -> None:
        """A tile of the latent has had all of its symbols."""

    def forget(self, row: int, hyper_row: int) -> None:
        """Neither rows of the latent above ``row`` nor of the hyper-latent above ``hyper_row`` are to come."""


class _Encoding:
    """Symbols of a latent, which become sections of the stream of their tile."""

    def __init__(
        self,
        coder: HyperCoder,
        latent: Plane,
        header: bytes,
        told: Plane,
        told_from: Callable[[int], int] | None,
    ) -> None:
        self.coder, self.latent, self.told, self.told_from = coder, latent, told, told_from
        self.hyper_latents = HyperLatents(coder.prior, coder.networks, header)
        self.ratio = coder.prior.stride // coder.stride
        self.sections: dict[Area, list[Section]] = {}

    def hyper(self, area: Area) -> Symbols:
        symbols = rounded(
            self.coder.networks.run_on("hyper_analysis", area, {"latent": self.told}), self.coder.name
        )
        tile = area.scaled(self.ratio)
        self.sections[tile] = self.hyper_latents.sections(symbols)
        return symbols

    def residuals(self, area: Area, index: Indexes, mean: Floats, step: Floats, mask: Mask) -> Symbols:
        residual = (self.latent.read(area) - mean) / step
        symbols = np.where(mask, rounded(residual, self.coder.name), np.int32(0))
        places, counts = self.coder.grouped(index, mask)
        self.sections[area].append((symbols.ravel()[places], counts))
        return symbols

    def done(self, area: Area) -> None:
        """Its stream can be written."""

    def forget(self, row: int, hyper_row: int) -> None:
        probe = Area(hyper_row, hyper_row + 1, 0, 1)
        needed, _ = self.coder.networks.window("hyper_analysis", probe, self.told.shape)
        if isinstance(self.latent, Tiled) and self.latent is not self.told:
            self.latent.forget(row)
        if isinstance(self.told, Tiled):
            self.told.forget(min(row, needed.top, self.told_from(row) if self.told_from else row))


class _Decoding:
    """Symbols out of the streams of the tiles."""

    def __init__(
        self,
        coder: HyperCoder,
        streams: Sequence[bytes],
        header: bytes,
        shape: tuple[int, ...],
        tally: Tally | None,
    ) -> None:
        self.coder, self.header, self.tally = coder, header, tally
        self.hyper_latents = HyperLatents(coder.prior, coder.networks, header)
        self.ratio = coder.prior.stride // coder.stride
        areas = everything(shape).tiles(tile_side(coder.stride))
        self.streams = {area: (number, streams[number]) for number, area in enumerate(areas)}
        self.decoders: dict[Area, Decoder] = {}

    def hyper(self, area: Area) -> Symbols:
        tile = area.scaled(self.ratio)
        number, stream = self.streams.pop(tile)
        self.decoders[tile] = decoder = self.coder.coder.decoder(stream, tile_context(self.header, number))
        symbols, coded, index = self.hyper_latents.take(area.size, decoder.take)
        if self.tally:
            self.tally.add_hyper(area, index, coded, self.ratio)
        return symbols

    def residuals(self, area: Area, index: Indexes, mean: Floats, step: Floats, mask: Mask) -> Symbols:
        del mean, step
        places, counts = self.coder.grouped(index, mask)
        symbols = np.zeros(mask.shape, dtype=np.int32)
        symbols.ravel()[places] = self.decoders[area].take(counts)
        if self.tally:
            self.tally.add(area, index, symbols, mask)
        return symbols

    def done(self, area: Area) -> None:
        self.decoders.pop(area).finish()

    def forget(self, row: int, hyper_row: int) -> None:
        """Streams that have been read are forgotten already."""


class _Walk:
    """The planes between the symbols of ``source`` and the latent, of ``shape`` (h, w, L).

    ``tiled``: networks run on tiles, and what is not needed any more can be forgotten.
    """

    def __init__(
        self, coder: HyperCoder, shape: tuple[int, ...], source: _Source, steps: Steps, tiled: bool
    ) -> None:
        self.steps = steps
        self.prior, self.networks, self.name = coder.prior, coder.networks, coder.name
        self.shape, self.source, self.tiled = shape, source, tiled
        self.tile, self.ratio = tile_side(coder.stride), coder.prior.stride // coder.stride
        hyper_shape = (shape[0] // self.ratio, shape[1] // self.ratio, self.prior.channels)
        self.hyper = Tiled(hyper_shape, np.float32, tile_side(self.prior.stride), self._hyper)
        given = {"hyper_symbols": self.hyper}
        self.scales = self._plane("hyper_scales", given, keep=True)
        self.means = self._plane("hyper_means", given, keep=True)
        self.shifts = self._kept_if_small((*shape[:2], 1), self._shift)
        self.first = Tiled(shape, np.float32, self.tile, self._first)
        self.found = self._kept_if_small(shape, self._found)
        self.context_scales = self._plane("context_scales", {"scales": self.scales, "symbols": self.first})
        self.context_means = self._plane("context_means", {"means": self.means, "found": self.found})
        self.latent = Tiled(shape, np.float32, self.tile, self._latent)

    def forget(self, row: int, read: int) -> None:
        """No row of the latent above ``row`` will be read again, and all above ``read`` have been read."""
        if not self.tiled:
            return
        give_back()
        self.latent.forget(row)
        following = -(-read // self.tile) * self.tile  # the first row of which tiles are missing
        if not 0 < following < self.shape[0]:
            return
        needed = following
        for name in ("context_scales", "context_means") if self.prior.context else ():
            window, _ = self.networks.window(name, Area(following, following + 1, 0, 1), self.shape)
            needed = min(needed, window.top)
        for plane in (self.scales, self.means, self.first):
            if isinstance(plane, Tiled):
                plane.forget(needed)
        self.source.forget(following, following // self.ratio)

    def close(self) -> None:
        """Drop all that is kept now: planes know each other in circles, which Python frees when it gets round to it."""
        for plane in (*vars(self).values(), *vars(self.source).values()):
            if isinstance(plane, Tiled):
                plane.kept.clear()
        if self.tiled:
            give_back()

    def sources(self, area: Area) -> Area:
        """The elements of the latent, in whole tiles, whose symbols can change the latent in ``area``."""
        seen = area
        for name in ("context_scales", "context_means") if self.prior.context else ():
            seen = seen.around(self.networks.window(name, area, self.shape)[0])
        whole = seen
        for name in ("hyper_scales", "hyper_means"):
            hyper, _ = self.networks.window(name, seen, self.hyper.shape)
            whole = whole.around(hyper.scaled(self.ratio))
        return whole

    def _plane(self, name: str, given: Mapping[str, Plane], *, keep: bool = False) -> Plane:
        """The output of a network. In tiles, it is kept where margins of it are read again."""

        def make(area: Area) -> NDArray[Any]:
            made = self.networks.run_on(name, area, given)
            return self._compact(made)

        side = self.networks.side(name, self.tile if self.tiled else None)
        if keep or side is None:
            return Tiled(self.shape, np.float32, side, make)
        return Derived(self.shape, make)

    def _kept_if_small(self, shape: tuple[int, ...], make: Callable[[Area], Floats]) -> Plane:
        """What is cheap to make again, and not worth its memory in a large image."""
        return Derived(shape, make) if self.tiled else Tiled(shape, np.float32, self.tile, make)

    def _compact(self, values: NDArray[Any]) -> NDArray[Any]:
        """As it is kept: of a large image in 8 bits, where these hold it."""
        return smallest(values) if self.tiled else values.astype(np.float32, copy=False)

    def _hyper(self, area: Area) -> NDArray[Any]:
        return self._compact(self.source.hyper(area))

    def _first(self, area: Area) -> NDArray[Any]:
        """Residuals of the first pass."""
        self.hyper.read(Area(*(edge // self.ratio for edge in area)))  # coded before all else of the tile
        return self._compact(self._residuals(self.scales, self.means, area, self._first_pass(area)))

    def _residuals(self, scales: Plane, means: Plane, area: Area, mask: Mask) -> Symbols:
        """Symbols of the elements in ``mask``, whose tables and means two planes tell."""
        shift = self.shifts.read(area)
        index = self.steps.shifted(self._indexes(scales, area), shift)
        return self.source.residuals(area, index, self._means(means, area), self.steps.step(shift), mask)

    def _shift(self, area: Area) -> Floats:
        """What is taken from the indexes of a position, integers (h, w, 1)."""
        if self.steps.local is None:
            return np.zeros((*area.size, 1), np.float32)
        return self.steps.shift(self._indexes(self.scales, area)).astype(np.float32)

    def _found(self, area: Area) -> Floats:
        """The latent as the first pass tells it."""
        step = self.steps.step(self.shifts.read(area))
        known = self.first.read(area) * step + self.means.read(area)[..., : self.shape[2]]
        return np.where(self._first_pass(area), known, np.float32(0))

    def _latent(self, area: Area) -> Floats:
        latent, mask = self.found.read(area), self._first_pass(area)
        if self.prior.context:
            mean, step = self._means(self.context_means, area), self.steps.step(self.shifts.read(area))
            residual = self._residuals(self.context_scales, self.context_means, area, ~mask)
            latent = np.where(mask, latent, residual.astype(np.float32) * step + mean)
        self.source.done(area)
        return latent

    def _first_pass(self, area: Area) -> Mask:
        return first_pass(self.prior, area, self.shape[2])

    def _indexes(self, plane: Plane, area: Area) -> Indexes:
        """Table indexes, which must be whole numbers in range to the last bit."""
        values = self._checked(plane, area, "table indexes")
        # Written so that NaN fails as well.
        if not (values.min(initial=0) >= 0 and values.max(initial=0) < self.prior.scales):
            last = self.prior.scales - 1
            raise BundleError(f"model {self.name!r}: its networks chose tables outside of 0..{last}")
        index = values.astype(np.uint8)
        if not np.array_equal(index, values):
            raise BundleError(f"model {self.name!r}: its networks chose tables that are no whole numbers")
        return index

    def _means(self, plane: Plane, area: Area) -> Floats:
        return self._checked(plane, area, "means")

    def _checked(self, plane: Plane, area: Area, what: str) -> Floats:
        values: Floats = plane.read(area)[..., : self.shape[2]]
        if values.shape != (*area.size, self.shape[2]):
            raise BundleError(
                f"model {self.name!r}: its networks gave {what} of shape {values.shape}; "
                f"{(*area.size, self.shape[2])} expected"
            )
        return values


class _OpenHyperLatent(OpenLatent):
    def __init__(self, walk: _Walk) -> None:
        super().__init__(walk.latent)
        self.walk = walk

    def sources(self, area: Area) -> Area:
        return self.walk.sources(area)

    def forget(self, row: int, read: int) -> None:
        self.walk.forget(row, read)

    def close(self) -> None:
        self.walk.close()


def first_pass(prior: Hyperprior, area: Area, channels: int) -> Mask:
    """Which elements (h, w, L) of an area the first pass codes: a checkerboard that alternates with the channel."""
    shape = (*area.size, channels)
    if not prior.context:
        return np.ones(shape, dtype=np.bool_)
    row, column, channel = (np.arange(length) % 2 == 1 for length in shape)
    odd = row[:, None, None] ^ column[:, None] ^ ((area.top + area.left) % 2 == 1)
    first: Mask = odd == channel
    return first


def rounded(values: Floats, name: str) -> Symbols:
    """Half to even, as int32."""
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) >= INT32.max:
        raise BundleError(f"model {name!r}: its networks gave latents that are not finite or exceed int32")
    return np.rint(values).astype(np.int32)

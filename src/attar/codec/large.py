"""Large images, and regions of images: networks and entropy coder work tile by tile, with margins.

Neither the latent nor the image as numbers is ever all in memory, only the rows of tiles that are at work; the
symbols are those that the networks would give for the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from attar.codec.annealing import Annealer, Watch, can_anneal
from attar.codec.bits import Tally
from attar.codec.container import Header, write_header
from attar.codec.hyperprior import HyperCoder
from attar.codec.latents import LatentCoder, OpenLatent
from attar.codec.networks import Networks
from attar.codec.tiling import Area, Kept, Padded, Tiled, everything, give_back
from attar.codec.values import as_coded, check_latent, levels, to_pixels, to_symbols
from attar.errors import ImageError

__all__ = ["LargeCoder", "Region", "area_of"]

Pixels = NDArray[np.uint8]
Region = tuple[int, int, int, int]
"""A part of an image, in pixels: left, top, width, height."""


class LargeCoder:
    """Images <-> bodies of the latents' chunk, in tiles of ``side`` pixels; models with a stride only."""

    def __init__(self, networks: Networks, coder: LatentCoder | HyperCoder, side: int) -> None:
        self.networks, self.coder, self.manifest = networks, coder, networks.bundle.manifest
        self.stride = self.manifest.latent.stride or 1
        self.side = max(1, side // self.stride) * self.stride

    def encode(
        self,
        pixels: Pixels,
        header: Header,
        kept: Kept | None = None,
        steps: int = 0,
        watch: Watch | None = None,
    ) -> bytes:
        """Body of the chunk for pixels (H, W, C), bound to ``header``. Raises :class:`BundleError`.

        ``kept`` has, and is given, what of the analysis is the same at every quality. ``steps`` of
        :class:`attar.codec.annealing.Annealer`, which ``watch`` is told of.
        """
        start = write_header(header)
        size = self.manifest.padded_size(*pixels.shape[:2])
        image = Padded(pixels, size, self.manifest.channels)
        shape, others = self.manifest.latent_shape(*size), {"quality": levels([header.quality])}
        source = self.networks.bundle.source

        def analysed(area: Area) -> NDArray[np.float32]:
            latent = self.networks.run_on("analysis", area, {"image": image}, others, kept)
            check_latent(latent, (*area.size, shape[-1]), source)
            return latent

        side = self.networks.side("analysis", self.side // self.stride)
        if isinstance(self.coder, HyperCoder):
            latent = Tiled(shape, np.float32, side, analysed)
            if steps and can_anneal(self.coder):
                return Annealer(self.coder, image, latent, header, steps, watch).encode(start, tiled=True)
            return self.coder.encode_plane(latent, start, tiled=True)
        symbols = Tiled(shape, np.int32, side, lambda area: to_symbols(analysed(area)))
        return self.coder.encode_plane(symbols, start)

    def opened(
        self,
        body: bytes,
        header: bytes,
        size: tuple[int, int],
        *,
        tiled: bool = True,
        tally: Tally | None = None,
    ) -> OpenLatent:
        """The latent of an image of ``size`` (height, width), decoded and checked tile by tile.

        ``tiled``: networks run on tiles, too. ``tally`` counts what the symbols cost.
        """
        shape = self.manifest.latent_shape(*size)
        if isinstance(self.coder, HyperCoder):
            return self.coder.opened(body, header, shape, tiled=tiled, tally=tally)
        return self.coder.opened(body, header, shape, tally)

    def go_through(self, latent: OpenLatent) -> None:
        """Decode all of a latent, and keep none of it; raises :class:`FormatError`."""
        for tile in latent.tiles(everything(latent.shape)):
            if tile.left == 0:
                latent.forget(tile.top, tile.top)
            latent.read(tile)
        latent.close()

    def paint(self, latent: OpenLatent, area: Area, quality: int, channels: int) -> Pixels:
        """Pixels (h, w, C) in an area of an image of that many channels, alpha included.

        Raises :class:`BundleError` and :class:`FormatError`.
        """
        out: Pixels = np.empty(0, np.uint8)
        for tile, painted in self._painted(latent, area, quality, channels):
            if not out.size:
                out = np.empty((*area.size, painted.shape[2]), np.uint8)
            out[tile.within(area.top, area.left)] = painted
        latent.close()
        give_back()
        return out

    def strips(
        self, latent: OpenLatent, size: tuple[int, int], quality: int, channels: int
    ) -> Iterator[Pixels]:
        """Pixels (h, W, C) of an image of ``size`` (height, width), in rows of tiles from the top."""
        row: list[Pixels] = []
        for tile, painted in self._painted(latent, everything(size), quality, channels):
            row.append(painted)
            if tile.right == size[1]:
                yield np.concatenate(row, axis=1)
                row = []
        latent.close()
        give_back()

    def _painted(
        self, latent: OpenLatent, area: Area, quality: int, channels: int
    ) -> Iterator[tuple[Area, Pixels]]:
        """The tiles of an area of the image, row by row; what no tile to come needs is forgotten."""
        given = "latent" if isinstance(self.coder, HyperCoder) else "symbols"
        others = {"quality": levels([quality])}
        side = self.networks.side("synthesis", self.side)
        read = 0
        for tile in area.tiles(side) if side else [area]:
            needed = latent.sources(self.networks.window("synthesis", tile, latent.shape)[0])
            if tile.left == area.left:
                latent.forget(needed.top, read)
                read = needed.bottom
            for part in latent.tiles(needed):  # so that what the pixels depend on has been checked
                latent.read(part)
            painted = to_pixels(self.networks.run_on("synthesis", tile, {given: latent}, others))
            yield tile, as_coded(painted, channels)


def area_of(region: Region, header: Header) -> Area:
    """Rows and columns of a region; raises :class:`ImageError` unless it lies inside of the image."""
    numbers = tuple(region)
    if len(numbers) != 4 or any(not isinstance(number, (int, np.integer)) for number in numbers):
        raise ImageError(
            f"region {region!r}: four whole numbers expected: left, top, width and height in pixels"
        )
    left, top, width, height = map(int, numbers)
    area = Area(top, top + height, left, left + width)
    if (
        min(width, height) < 1
        or min(left, top) < 0
        or area.common(everything((header.height, header.width))) != area
    ):
        raise ImageError(
            f"region {left},{top},{width},{height} (left, top, width, height) is not inside of the image, which "
            f"has {header.width} x {header.height} pixels (width x height)"
        )
    return area

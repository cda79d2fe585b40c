"""What the best latents of an image would save: real files of latents found by gradient descent, decoded.

``python benchmarks/annealing.py IMAGES... [--steps 150] [--qualities 10,50,90] [--crop 256] [--model photo]``.
Stochastic Gumbel annealing (Yang, Bamler and Mandt 2020, arXiv:2006.04240): every symbol is drawn softly from its two
neighbours, at a temperature that falls, and the latent follows the gradient of bits + lambda * squared error.
Hyper-latents stay, and what symbols of the first pass do to the means of the second is not followed. BD-rates are
against plain rounding: of the mean curves, and the mean of those of each image. Crops of 1024 pixels at most.
"""

from __future__ import annotations

import time

import numpy as np
import onnxruntime
from effort import Point, central, options, saving  # beside this script

import attar
from attar.codec import container, gradient, rdoq
from attar.codec.chunks import Chunk
from attar.codec.tiling import Held
from attar.codec.values import levels
from attar.measure import benchmark, metrics

RATE, HOTTEST, COLDEST = 0.01, 0.5, 0.1


class Fixed:
    """Codes given hyper-latents, and the nearest symbols, as :class:`attar.codec.hyperprior.Choice`."""

    def __init__(self, hyper: np.ndarray) -> None:
        self.kept = hyper

    def hyper(self, values: np.ndarray) -> np.ndarray:
        if values.shape != self.kept.shape:
            raise SystemExit("an image of more than one tile: give a --crop of 1024 at most")
        return self.kept

    def choose(self, area, latent, index, mean, mask):  # type: ignore[no-untyped-def]
        return np.where(mask, np.rint(latent.read(area) - mean), 0).astype(np.int32)

    def done(self, area: object) -> None:
        """Nothing is kept of a tile."""

    def first_row(self, row: int, latent: object) -> int:
        return row


class Annealing:
    """One image (H, W, 3) at one quality."""

    def __init__(
        self, codec: attar.Codec, session: onnxruntime.InferenceSession, pixels: np.ndarray, quality: int
    ):
        self.codec, self.session, self.level = codec, session, levels([quality])
        self.coder, self.networks = codec.latents, codec.networks
        self.image = codec.prepare(pixels)
        self.latent = codec.analyse(self.image[None], quality)[0]
        chooser = rdoq.Chooser(self.coder, Held(self.image), quality, whole=True)
        self.bits, self.worth = chooser.bits, chooser.worth(rdoq.Response(np.ones((1, 3, 3, 1), np.float32)))
        self.hyper = np.rint(self.networks.run("hyper_analysis", {"latent": self.latent[None]}))
        given = {"hyper_symbols": self.hyper}
        self.scales, self.means = (self.networks.run(name, given) for name in ("hyper_scales", "hyper_means"))
        row, column, channel = np.indices(self.latent.shape, sparse=True)
        self.first = (row + column + channel) % 2 == 0
        self.random = np.random.default_rng(0)

    def found(self, steps: int) -> np.ndarray:
        """The latent after so many steps of Adam."""
        values = self.latent.astype(np.float32).copy()
        mean, square = np.zeros_like(values), np.zeros_like(values)
        for step in range(steps):
            done = step / steps
            slope = self.slope(values, float(np.clip(HOTTEST * np.exp(-3 * (done - 0.2)), COLDEST, HOTTEST)))
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            pace = RATE * min(1.0, (1 - done) / 0.3 + 0.05)
            unbiased = np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8
            values -= pace * mean / (1 - 0.9 ** (step + 1)) / unbiased
        return values

    def slope(self, values: np.ndarray, heat: float) -> np.ndarray:
        """Of the cost in bits, by every value of the latent, at a draw of the symbols."""
        channels = values.shape[2]
        index, mean = self.scales[0, ..., :channels], self.means[0, ..., :channels]
        noise = np.clip(self.random.random(values.shape, np.float32), 1e-6, 1 - 1e-6)
        draw, _, _ = drawn(values - mean, noise, heat)
        symbols = np.where(self.first, draw, 0)[None].astype(np.float32)
        known = np.where(self.first, draw + mean, 0)[None].astype(np.float32)
        second = self.networks.run("context_scales", {"scales": self.scales, "symbols": np.rint(symbols)})
        shifted = self.networks.run("context_means", {"means": self.means, "found": known})
        index = np.where(self.first, index, second[0])
        mean = np.where(self.first, mean, shifted[0])
        draw, below, steepness = drawn(values - mean, noise, heat)
        target = self.image[None].astype(np.float32) / 255
        given = {
            "latent": (draw + mean)[None].astype(np.float32),
            "quality": self.level,
            gradient.TARGET: target,
        }
        (pull,) = self.session.run([gradient.GRADIENT], given)
        tables = index.astype(np.int64) + self.coder.prior.first_scale
        places = np.clip(below, -rdoq.WIDEST, rdoq.WIDEST - 1).astype(np.int64) + rdoq.WIDEST
        bits = self.bits[tables, places + 1] - self.bits[tables, places]
        return np.asarray((bits + 2 * 255**2 * self.worth * pull[0]) * steepness)

    def file(self, latent: np.ndarray, size: tuple[int, int], quality: int) -> bytes:
        """The file of a latent."""
        header = container.Header(3, size[1], size[0], self.codec.bundle.short_id, quality)
        body = self.coder.encode(latent, container.write_header(header), choice=Fixed(self.hyper[0]))
        return container.pack(header, {Chunk.LATENTS: body})


def drawn(values: np.ndarray, noise: np.ndarray, heat: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A soft draw of each symbol, its lower neighbour, and the draw's derivative by the value."""
    below = np.floor(values)
    part = np.clip(values - below, 1e-4, 1 - 1e-4)
    logit = (np.arctanh(part) - np.arctanh(1 - part)) / heat + np.log(noise / (1 - noise))
    upper = 1 / (1 + np.exp(np.clip(-logit / heat, -60, 60)))
    bend = (1 / (1 - part**2) + 1 / (1 - (1 - part) ** 2)) / heat
    return below + upper, below, upper * (1 - upper) / heat * bend


def point(codec: attar.Codec, pixels: np.ndarray, data: bytes) -> Point:
    psnr = float(metrics.psnr(pixels, codec.decompress(data)))
    return len(data), 8 * len(data) / (pixels.shape[0] * pixels.shape[1]), psnr, float("nan")


def main() -> None:
    """Measure every image at every quality."""
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--crop", type=int, default=256, help="side of a central square that is taken")
    given = parser.parse_args()
    codec = attar.load(given.model)
    graph = gradient.of_squared_error(codec.bundle.graphs["synthesis"], "latent", given.model)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    plain: list[list[Point]] = []
    best: list[list[Point]] = []
    began = time.perf_counter()
    for path in benchmark.collect(given.images):
        pixels = central(path, given.crop)
        rows: tuple[list[Point], list[Point]] = ([], [])
        for quality in given.qualities:
            work = Annealing(codec, session, pixels, quality)
            rows[0].append(point(codec, pixels, codec.compress(pixels, quality=quality)))
            data = work.file(work.found(given.steps), pixels.shape[:2], quality)
            rows[1].append(point(codec, pixels, data))
        plain.append(rows[0])
        best.append(rows[1])
    seconds = (time.perf_counter() - began) / (len(plain) * len(given.qualities))
    print(f"{codec!r}, {len(plain)} images, qualities {given.qualities}, mean bpp/dB:")
    for name, points in (("plain", plain), ("found", best)):
        print(
            f"  {name}:", *(f"{bpp:.4f}/{psnr:.3f}" for bpp, psnr in np.array(points)[..., 1:3].mean(axis=0))
        )
    print(f"{given.steps} steps: BD-rate {saving(plain, best, 'psnr')} by PSNR; {seconds:.1f} s a file")


if __name__ == "__main__":
    main()

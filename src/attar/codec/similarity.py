"""Multi-scale structural similarity as nodes of an ONNX graph, for an encoder that follows its gradient.

Wang, Simoncelli and Bovik 2003, as :mod:`attar.measure.metrics` and the training have it: an 11 x 11 Gaussian window of
sigma 1.5, wholly inside, and terms below :data:`SMALLEST` taken for that. All moments of a scale go through one
convolution of each channel by itself, which ONNX Runtime computes in its blocked layout where there are enough of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attar.codec.gradient import TARGET, WEIGHT
from attar.codec.tape import Tape

__all__ = ["ms_ssim", "scales_of"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
SMALLEST = 1e-4
BLOCK = 16
"""Channels that are computed together at most."""


def scales_of(height: int, width: int) -> int:
    """How many of the five scales an image has: each leaves a window, and the one before can be halved."""
    count = 1
    while count < len(WEIGHTS) and min(height, width) >> count >= WINDOW and (height | width) % 2**count == 0:
        count += 1
    return count


def ms_ssim(tape: Tape, output: str, channels: int, scales: int) -> str:
    """The mean over channels of the similarity of an image (1, H, W, C) and the input :data:`TARGET`, (1, 1, 1, 1).

    What the input :data:`WEIGHT` is 0 of counts as equal.

    ``scales``: at most :func:`scales_of` its sides. The weights of fewer than five scales are made to sum to 1.
    """
    errors = tape.compute("Mul", WEIGHT, _minus(tape, output, TARGET))
    image, target = (
        tape.compute("Transpose", name, perm=(0, 3, 1, 2))
        for name in (tape.compute("Add", errors, TARGET), TARGET)
    )
    halves = tape.array(np.full((channels, 1, 2, 2), 0.25, np.float32))
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    product = ""
    for scale, weight in enumerate(weights.tolist()):
        if scale:
            image, target = (
                tape.compute(
                    "Conv", name, halves, group=channels, kernel_shape=(2, 2), strides=(2, 2), pads=(0,) * 4
                )
                for name in (image, target)
            )
        mean = tape.compute("GlobalAveragePool", _term(tape, image, target, channels, scale == scales - 1))
        above = tape.compute("Clip", mean, tape.constant(SMALLEST), tape.constant(2.0))
        factor = tape.compute("Pow", above, tape.constant(weight))
        product = tape.compute("Mul", product, factor) if product else factor
    average = tape.array(np.full((1, channels, 1, 1), 1 / channels, np.float32))
    return tape.compute("Conv", product, average, kernel_shape=(1, 1), pads=(0,) * 4)


def _term(tape: Tape, a: str, b: str, channels: int, whole: bool) -> str:
    """The contrast-structure term of every position and channel, times that of luminance if ``whole``."""
    products = [tape.compute("Mul", *pair) for pair in ((a, a), (a, b), (b, b))]
    rest = -5 * channels % BLOCK if channels > 1 else 0
    moments = [a, b, *products]
    if rest:
        moments += tape.parts(b, 1, [1, channels - 1])[:1] * rest
    every = tape.compute("Concat", *moments, axis=1)
    window = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * SIGMA**2))
    window = np.tile((window / window.sum()).astype(np.float32), (5 * channels + rest, 1))
    for shape in ((WINDOW, 1), (1, WINDOW)):
        kernel = tape.array(window.reshape(-1, 1, *shape))
        every = tape.compute("Conv", every, kernel, group=len(window), kernel_shape=shape, pads=(0,) * 4)
    mean_a, mean_b, aa, ab, bb = tape.parts(every, 1, [channels] * 5 + [rest] * bool(rest))[:5]
    a_a, a_b, b_b = (
        tape.compute("Mul", *pair) for pair in ((mean_a, mean_a), (mean_a, mean_b), (mean_b, mean_b))
    )
    both = _ratio(tape, [(2.0, _minus(tape, ab, a_b))], [_minus(tape, aa, a_a), _minus(tape, bb, b_b)], K2)
    if not whole:
        return both
    return tape.compute("Mul", both, _ratio(tape, [(2.0, a_b)], [a_a, b_b], K1))


def _minus(tape: Tape, a: str, b: str) -> str:
    return tape.compute("Sub", a, b)


def _ratio(tape: Tape, above: Sequence[tuple[float, str]], below: Sequence[str], k: float) -> str:
    ((factor, name),) = above
    top = tape.compute("Add", tape.compute("Mul", name, tape.constant(factor)), tape.constant(k**2))
    bottom = tape.compute("Add", tape.compute("Add", *below), tape.constant(k**2))
    return tape.compute("Div", top, bottom)

"""Rounded symbols in training: their exact bits, and gradients for what is rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from attar.train.integer import straight_through

SPARSE = 0.1
"""Scale below which few values of a logistic distribution are rounded to anything but 0."""


def quantise(values: Any, training: bool, proxy: Any = None) -> Any:
    """The nearest integers, half to even; gradients go straight through (Theis et al. 2017), or to ``proxy``."""
    rounded = ops.round(values)
    return straight_through(rounded, values if proxy is None else proxy) if training else rounded


def crossing(values: Any, inverse: Any) -> Any:
    """How much of a straight-through gradient values under a logistic of scale ``1 / inverse`` get.

    A small move of a value changes what it is rounded to only at the edge of two integers' intervals: the true
    gradient of a mean over many values is the flux over the edges. Where nearly all are rounded to 0, the
    plain gradient, which takes values for evenly spread, is many times that: it shrinks them for bits that
    are not saved. There, values within half a scale of an edge stand for it, by the edge's density over
    their own (importance sampling), and all others get nothing. For scales of :data:`SPARSE` and above the
    plain gradient is as near to the truth, and less noisy: ``training/photo/LOG.md`` compares both with
    the loss itself.
    """
    edge, reach = ops.floor(values) + 0.5, 0.5 / inverse
    ratio = 2 * (_log_cosh(values * inverse / 2) - _log_cosh(edge * inverse / 2))
    near = ops.abs(values - edge) <= reach
    flux = ops.where(near, ops.exp(ops.minimum(ratio, 1.0)) / (2 * reach), 0.0)
    return ops.stop_gradient(ops.where(inverse * SPARSE > 1, flux, 1.0))


def _log_cosh(values: Any) -> Any:
    size = ops.abs(values)
    return size + ops.log1p(ops.exp(-2 * size))


def rate(values: Any, bits: Callable[[Any], Any], training: bool, proxy: Any = None) -> Any:
    """Bits of the rounded values, by ``bits`` of integers.

    In training, the distribution gets the gradient of exactly these bits, and so stays that of the symbols
    that are coded. A value gets the gradient that they have when it is rounded to one of its two neighbours
    at random, the nearer one more often, which is unbiased (stochastic rounding, Gupta et al. 2015,
    arXiv:1502.02551): bits of the upper neighbour less bits of the lower one; it goes to ``proxy`` if there is one.
    Uniform noise in place of rounding (Balle et al. 2017) overstates the rate where most symbols are zero.
    """
    if not training:
        return bits(ops.round(values))
    lower = ops.stop_gradient(ops.floor(values))
    below, above = bits(lower), bits(lower + 1)
    exact = ops.where(ops.round(values) > lower, above, below)
    slope = ops.stop_gradient(above - below) * (values if proxy is None else proxy)
    return exact + slope - ops.stop_gradient(slope)

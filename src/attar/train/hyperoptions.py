"""The ``entropy`` object of a model.json with a hyperprior, and what its blocks must give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar import spec as specs
from attar.errors import SpecError

OPTIONS = {
    "kind": "hyperprior",
    "components": 3,
    "spread": 3.0,
    "scales": 64,
    "smallest_scale": 0.05,
    "largest_scale": 40.0,
    "steps": 0,
    "lambda": (0.0012, 0.16),
}
"""``components`` and ``spread``: of the hyper-latents' factorized prior. ``scales``: tables for the
latents, whose logistic scales run from ``smallest_scale`` to ``largest_scale``, evenly in the logarithm.
``steps``: levels of quality of the steps of quantisation that a position's tables choose; 0: all steps are 1.
``lambda``: weights of the distortion at quality 0 and 1 (255^2 MSE per bit per pixel); equal ones make a
model of a single rate."""
BLOCKS = ("hyper_encoder", "hyper_decoder", "hyper_scales")
CONTEXT_BLOCKS = ("context", "context_scales")


def options_of(spec: specs.ModelSpec) -> dict[str, Any]:
    """The ``entropy`` object over its defaults, checked, and that the blocks are there."""
    options = {**OPTIONS, **spec.entropy}
    faults = [
        f"entropy.{key}: unknown key, expected one of {', '.join(OPTIONS)}"
        for key in options
        if key not in OPTIONS
    ]
    faults += [
        f"the block {name} is missing, which a hyperprior needs" for name in BLOCKS if name not in spec.blocks
    ]
    if sum(name in spec.blocks for name in CONTEXT_BLOCKS) == 1:
        faults.append(f"expected both blocks {' and '.join(CONTEXT_BLOCKS)}, or none of them")
    for key, lowest, highest in (("components", 1, 16), ("scales", 2, 256), ("steps", 0, 64)):
        value = options[key]
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            faults.append(f"entropy.{key}: {value!r}, expected a whole number from {lowest} to {highest}")
    numbers = {key: options[key] for key in ("spread", "smallest_scale", "largest_scale")}
    ends = options["lambda"] if isinstance(options["lambda"], (list, tuple)) else (None,)
    numbers |= {f"lambda[{i}]": end for i, end in enumerate(ends)}
    wrong = [key for key, value in numbers.items() if not _positive(value)]
    faults += [f"entropy.{key}: {numbers[key]!r}, expected a number above 0 and below 10000" for key in wrong]
    if not wrong and (len(ends) != 2 or ends[0] > ends[1]):
        faults.append(f"entropy.lambda: {options['lambda']!r}, expected [lowest, highest]")
    if not wrong and options["smallest_scale"] >= options["largest_scale"]:
        faults.append("entropy.smallest_scale: expected less than largest_scale")
    if faults:
        raise SpecError(spec.name, faults)
    return options


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e4


def check_widths(
    spec: specs.ModelSpec, channels: int, scales: Any, means: Any, options: Mapping[str, Any]
) -> None:
    """Both hyper blocks give the latent's channels at least, and what chooses a table is made of integers."""
    faults = [
        f"{spec.blocks[block][-1].path}: gives {tensor.shape[-1]} channels, "
        f"expected at least the latent's {channels}"
        for block, tensor in (("hyper_scales", scales), ("hyper_decoder", means))
        if len(tensor.shape) != 4 or int(tensor.shape[-1]) < channels
    ]
    for block in ("hyper_prior", "hyper_scales", "context_scales"):
        allowed = ("IntegerConv2D", "IntegerDepthwiseConv2D", "PixelShuffle", "PixelUnshuffle")
        faults += [
            f"{layer.path}: only {', '.join(allowed)} compute in integers and may choose a table"
            for layer in spec.blocks.get(block, ())
            if layer.kind not in allowed
        ]
    last = spec.blocks["hyper_scales"][-1]
    if (last.arguments.get("minimum", 0), last.arguments.get("maximum")) != (0, options["scales"] - 1):
        faults.append(
            f"{last.path}: expected minimum 0 and maximum {options['scales'] - 1}, "
            "one less than entropy.scales"
        )
    if faults:
        raise SpecError(spec.name, faults)


def check_context(spec: specs.ModelSpec, channels: int, delta: Any, shift: Any) -> None:
    """Both context blocks give the latent's channels; or SpecError."""
    faults = [
        f"{spec.blocks[block][-1].path}: gives {tensor.shape[-1]} channels, expected the latent's {channels}"
        for block, tensor in (("context_scales", delta), ("context", shift))
        if int(tensor.shape[-1]) != channels
    ]
    if faults:
        raise SpecError(spec.name, faults)

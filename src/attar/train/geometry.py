"""How a network maps image sizes to latent sizes, found by asking its layers for shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attar import spec as specs
from attar.errors import SpecError

LARGEST_MULTIPLE = 256  # pixels; the coarsest grid that a convolutional model may need


@dataclass(frozen=True)
class Geometry:
    """How image sizes become latent sizes.

    Attributes:
        size: the one image size (H, W) that the network takes, or None for any.
        multiple: pixels that height and width are padded to a multiple of (1 when ``size`` is set).
        latent: shape of one latent, without the batch, when ``size`` is set; otherwise its channels ``(C,)``.
        stride: image pixels per latent element when ``size`` is None, otherwise None.
    """

    size: tuple[int, int] | None
    multiple: int
    latent: tuple[int, ...]
    stride: int | None


def geometry(network: Any) -> Geometry:
    """Find how the network maps image sizes to latent sizes, by asking its layers for shapes.

    Raises:
        SpecError: if the regenerated image is not shaped like the input.
    """
    spec = network.spec
    height, width, _ = spec.input_shape
    if height is not None and width is not None:
        latent = tuple(int(n) for n in network.analysis.output_shape[1:])
        out = tuple(network.synthesis.output_shape[1:])
        if out != spec.input_shape:
            raise SpecError(spec.name, [_wrong_shape(spec, out)])
        return Geometry((height, width), 1, latent, None)
    for exponent in range(LARGEST_MULTIPLE.bit_length()):
        multiple = 2**exponent
        strides = {_stride(network, multiple * k) for k in (2, 3, 5)}
        if len(strides) == 1 and (stride := strides.pop()) is not None:
            return Geometry(None, multiple, (int(network.analysis.output_shape[-1]),), stride)
    raise SpecError(spec.name, [_wrong_shape(spec, tuple(network.synthesis.output_shape[1:]))])


def _stride(network: Any, size: int) -> int | None:
    """Pixels per latent element for a square image, or None where its shape does not come back."""
    try:
        latent, image = network.shapes(size)
    except Exception:  # any layer may refuse the size in its own way
        return None
    came_back = tuple(image[1:]) == (size, size, network.spec.input_shape[2])
    if not came_back or latent[1] != latent[2] or size % latent[1]:
        return None
    return int(size // latent[1])


def _wrong_shape(spec: specs.ModelSpec, out: tuple[Any, ...]) -> str:
    last = spec.blocks["decoder"][-1].path
    return f"{last}: the decoder ends with shape {list(out)}, expected the input's {list(spec.input_shape)}"

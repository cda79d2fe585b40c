"""An exported autoencoder without entropy coding as a codec: ``autoencoder:ENCODER.onnx+DECODER.onnx``.

What ``attar export --mode encoder-decoder`` writes, or any pair of ONNX networks of one input and one output:
images ``(1, H, W, C)`` -> latent -> images, uint8 or floats in [0, 1]. The file is the latent as raw float32
(4 bytes a number), after its shape where the encoder's output has no fixed one. That is how autoencoders that
call their latent "compressed" are counted; a bundle is the same network with real entropy coding.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.errors import AttarError
from attar.measure.anchors import Absent, Pixels

__all__ = ["AutoencoderAnchor", "parse"]

FORM = "autoencoder:ENCODER.onnx+DECODER.onnx"
MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class AutoencoderAnchor:
    """Two ONNX Runtime sessions; ``shape``: of one latent, without the batch, None where it varies."""

    name: str
    version: str
    encoder: Any
    decoder: Any
    shape: tuple[int, ...] | None

    @property
    def scale(self) -> None:
        """There is one rate."""
        return

    def encode(self, image: Pixels, quality: float | None) -> bytes:
        """The latent's numbers, after its shape where that is not fixed."""
        if quality is not None:
            raise AttarError(f"{self.name} has no quality setting; {quality:g} was asked for")
        latent = self._run(self.encoder, image[None])[0].astype("<f4")
        head = b"" if self.shape is not None else struct.pack(f"<B{latent.ndim}I", latent.ndim, *latent.shape)
        return head + latent.tobytes()

    def decode(self, data: bytes) -> Pixels:
        """The image that the decoder makes of the latent."""
        shape, start = (self.shape, 0) if self.shape is not None else self._head(data)
        if len(data) - start != 4 * math.prod(shape):
            raise AttarError(
                f"{self.name}: its file cannot be decoded: {len(data) - start} bytes for a latent of {shape}"
            )
        latent = np.frombuffer(data, "<f4", offset=start).reshape(1, *shape).astype(np.float32)
        image = self._run(self.decoder, latent)[0]
        if image.dtype != np.uint8:
            image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
        return np.asarray(image)

    def _head(self, data: bytes) -> tuple[tuple[int, ...], int]:
        """The shape that a file begins with, and where its numbers begin."""
        count = data[0] if data else MAX_DIMENSIONS + 1
        if count > MAX_DIMENSIONS or len(data) < 1 + 4 * count:
            raise AttarError(f"{self.name}: its file cannot be decoded: it is no latent")
        return struct.unpack_from(f"<{count}I", data, 1), 1 + 4 * count

    def _run(self, session: Any, values: NDArray[Any]) -> NDArray[Any]:
        given = session.get_inputs()[0]
        if values.dtype == np.uint8 and given.type == "tensor(float)":
            values = values.astype(np.float32) / 255
        try:
            return np.asarray(session.run(None, {given.name: values})[0])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            reason = str(error).splitlines()[0]
            raise AttarError(f"{self.name}: the network refused {values.shape}: {reason}") from error


def parse(name: str) -> AutoencoderAnchor | Absent:
    """The codec that ``autoencoder:A+B`` names; :class:`AttarError` where it is not of that form."""
    paths = [Path(part) for part in name.removeprefix("autoencoder:").split("+")]
    if len(paths) != 2 or not all(path.suffix == ".onnx" for path in paths):
        raise AttarError(
            f"{name!r} is not of the form {FORM} (attar export --mode encoder-decoder writes both)"
        )
    if missing := [str(path) for path in paths if not path.is_file()]:
        return Absent(name, f"{missing[0]}: no such file")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    sessions = []
    for path in paths:
        try:
            sessions.append(
                onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            )
        except Exception as error:
            return Absent(name, f"{path} cannot be loaded: {str(error).splitlines()[0]}")
    shape = sessions[0].get_outputs()[0].shape[1:]
    fixed = tuple(shape) if all(isinstance(side, int) for side in shape) else None
    return AutoencoderAnchor(
        name, f"onnxruntime {version('onnxruntime')}, latent as float32", sessions[0], sessions[1], fixed
    )

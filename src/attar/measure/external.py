"""Any program as a codec: ``ext:ENCODE :: DECODE [:: Q,Q,...]``.

``ENCODE`` and ``DECODE`` are command lines, split as a shell would but run without one, with ``{in}`` and
``{out}`` for the files and, in ``ENCODE``, ``{q}`` for the quality. An encoder that looks at the suffix gets
it as ``{out}.SUFFIX``::

    ext:cjxl {in} {out}.jxl -q {q} :: djxl {in} {out} :: 30,50,70,90
    ext:avifenc -q {q} {in} {out}.avif :: avifdec {in} {out}

The source is given as PNG and the decoder writes PNG. Times include starting the program and the files.
"""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from attar.codec import images
from attar.errors import AttarError
from attar.measure.anchors import Absent, Pixels, Scale

__all__ = ["ExternalAnchor", "parse"]

FORM = "ext:ENCODE {in} {out} {q} :: DECODE {in} {out} [:: Q,Q,...]"
DEFAULT_QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class ExternalAnchor:
    """A pair of commands, each an argument list with placeholders."""

    name: str
    version: str
    scale: Scale | None
    encoder: tuple[str, ...]
    decoder: tuple[str, ...]

    def encode(self, image: Pixels, quality: float | None) -> bytes:
        """The one file that the encoder writes."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.png"
            source.write_bytes(images.encode(images.from_array(image), "PNG"))
            level = "" if quality is None else f"{quality:g}"
            self._run(self.encoder, {"in": str(source), "out": str(Path(folder) / "coded"), "q": level})
            made = sorted(Path(folder).glob("coded*"))
            if len(made) != 1 or made[0].stat().st_size == 0:
                found = "an empty file" if len(made) == 1 else f"{len(made)} files"
                raise AttarError(f"{self.name}: the encoder ended well but wrote {found} as {{out}}")
            return made[0].read_bytes()

    def decode(self, data: bytes) -> Pixels:
        """The PNG that the decoder writes."""
        with tempfile.TemporaryDirectory() as folder:
            coded = Path(folder) / f"coded{self._suffix()}"
            coded.write_bytes(data)
            decoded = Path(folder) / "decoded.png"
            self._run(self.decoder, {"in": str(coded), "out": str(decoded)})
            if not decoded.is_file():
                raise AttarError(f"{self.name}: the decoder ended well but wrote no {{out}}")
            return images.read(decoded, convert=True).pixels

    def _suffix(self) -> str:
        return next(part.partition("{out}")[2] for part in self.encoder if "{out}" in part)

    def _run(self, command: tuple[str, ...], values: dict[str, str]) -> None:
        arguments = [_fill(part, values) for part in command]
        try:
            done = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise AttarError(f"{self.name}: {command[0]} did not end within {TIMEOUT_SECONDS} s") from error
        except OSError as error:
            raise AttarError(f"{self.name}: {command[0]} cannot be run: {error.strerror}") from error
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise AttarError(
                f"{self.name}: {command[0]} failed with exit code {done.returncode}: {words[-1][:200]}"
            )


def parse(name: str) -> ExternalAnchor | Absent:
    """The codec that ``ext:...`` describes; :class:`AttarError` where the template is not of that form."""
    parts = [part.strip() for part in name.removeprefix("ext:").split("::")]
    if len(parts) not in {2, 3}:
        raise AttarError(f"{name!r} is not of the form {FORM}")
    encoder, decoder = (_command(part, name) for part in parts[:2])
    takes_quality = any("{q}" in part for part in encoder)
    if len(parts) == 3 and not takes_quality:
        raise AttarError(f"{name!r} lists qualities, but its encoder has no {{q}}")
    qualities = _qualities(parts[2], name) if len(parts) == 3 else DEFAULT_QUALITIES
    for command in (encoder, decoder):
        if shutil.which(command[0]) is None:
            return Absent(name, f"the program {command[0]!r} was not found")
    scale = Scale("quality", -math.inf, math.inf, qualities, whole=False) if takes_quality else None
    return ExternalAnchor(name, _version(encoder[0]), scale, encoder, decoder)


def _command(text: str, name: str) -> tuple[str, ...]:
    try:
        command = tuple(shlex.split(text))
    except ValueError as error:
        raise AttarError(f"{name!r}: {error}") from error
    for placeholder in ("{in}", "{out}"):
        if not any(placeholder in part for part in command):
            raise AttarError(f"{name!r}: {text!r} has no {placeholder}; expected {FORM}")
    return command


def _qualities(text: str, name: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise AttarError(f"{name!r}: {text!r} is not a list of qualities such as 10,50,90") from error
    if not all(math.isfinite(value) for value in values):
        raise AttarError(f"{name!r}: {text!r} holds a quality that is not finite")
    return values


def _fill(part: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        part = part.replace(f"{{{key}}}", value)
    return part


def _version(program: str) -> str:
    """The first line that ``PROGRAM --version`` prints, or only the program's name."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return program
    lines = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
    return f"{program}: {lines[0][:100]}" if lines and done.returncode == 0 else program

"""What the routes do, between bytes and rows: the codecs, metrics and target search of the command line."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

from attar.apps.cli.describe import Row, describe_bits, describe_bundle, describe_file
from attar.apps.comparing import compare_pictures
from attar.apps.reaching import compress_to
from attar.apps.web.limits import Refusal
from attar.apps.web.trials import Trial, Trials
from attar.codec import bundle, container, images
from attar.codec.codec import Codec
from attar.codec.images import Picture
from attar.codec.manifest import Hyperprior
from attar.codec.shelf import Shelf
from attar.codec.targets import Target
from attar.errors import AttarError, FormatError, ImageError, ModelMissingError
from attar.measure import jxlfile

__all__ = ["Workshop"]

FORMATS = {"png": ("PNG", "image/png"), "webp": ("WEBP", "image/webp"), "jpeg": ("JPEG", "image/jpeg")}
"""Kinds of images that are given out: Pillow's name and the media type of each."""
SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    *(b"P%d" % number for number in range(1, 7)),
)
"""How images begin that are taken from strangers. Pillow knows more kinds, some of which run other programs."""
FTYP = slice(4, 8)
FIRST_OF_EACH_DIGIT = (3, 2, 1, 18, 4, 8, 11, 0, 61, 7)
"""Places of the first 0, 1, 2, ... 9 among the embedded digits."""
PHOTOS = {"kitten": "kitten.png", "mountain": "mountain.jpg", "earthrise": "earthrise.png"}
SHOWN_SYMBOLS = 1024
"""Latents that are longer are summed up by channel and place only."""


class Workshop:
    """Codecs that were asked for, each loaded once. May be shared between threads; paths come only from here."""

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._lock = Lock()
        self._shelves: dict[Path, Shelf] = {}
        self._by_id = Shelf(threads=1)
        self.trials = Trials()
        self._described: dict[tuple[Path, int, int], Row] = {}

    def models(self) -> list[Row]:
        """The rows of ``attar models list --json``, with the file's name for its path."""
        rows = []
        for name, path in bundle.installed().items():
            row: Row = {"input": name, "ok": True, "file": path.name}
            row["shipped"] = path.parent == bundle.folders()[0]
            try:
                rows.append(row | self._describe(path))
            except (AttarError, OSError) as error:
                rows.append(row | {"ok": False, "error": f"{name}: {_without_folder(error, path)}"})
        return rows

    def compress(
        self,
        data: bytes,
        *,
        model: str | None,
        quality: int | None,
        effort: int,
        target: Target | None,
        **how: bool,
    ) -> bytes:
        """The file that ``attar compress`` writes for an image file."""
        codec = self.codec(model)
        picture = self.image(data, "image", convert=how["convert"])
        picture = picture.stripped() if how["strip"] else picture
        return compressed(picture, codec, quality=quality, effort=effort, target=target)

    def decompress(self, data: bytes, kind: str) -> bytes:
        """The image in a ``.attar`` file, as an image file of one of :data:`FORMATS`."""
        return images.encode(self.picture(data, "file"), FORMATS[kind][0])

    def compare(self, first: bytes, second: bytes) -> Row:
        """The row of ``attar compare --json`` for two files, images or ``.attar``."""
        pictures = (self.picture(first, "a"), self.picture(second, "b"))
        return compare_pictures(*pictures, names=("a", "b"), size=len(second))

    def encode(
        self,
        data: bytes,
        codec: str,
        quality: float | None,
        target: Target | None,
        *,
        metrics: bool,
        picture: bool,
    ) -> Row:
        """An image or ``.attar`` file through any codec: size, times, on demand its metrics and its picture."""
        trial = self.trials.run(
            data, lambda: self.picture(data, "image", convert=True), codec, quality, target
        )
        return _shown(trial, data, metrics=metrics, picture=picture)

    def decode(self, data: bytes, file: bytes, *, metrics: bool, picture: bool) -> Row:
        """The same row for a file that exists already, an image or ``.attar``, beside its original ``data``."""
        trial = self.trials.opened(
            data, file, lambda: self.picture(data, "a", convert=True), lambda: self.picture(file, "b")
        )
        return _shown(trial, data, metrics=metrics, picture=picture)

    def photo(self, name: str) -> bytes:
        """A photograph that ships with the package, one of :data:`PHOTOS`."""
        return resources.files("attar").joinpath("data", "photos", PHOTOS[name]).read_bytes()

    def inspect(self, data: bytes) -> Row:
        """The row of ``attar info --json``, whether the file is sound, and where its bits went."""
        ids = {str(row["id"])[:8]: row["input"] for row in self.models() if row["ok"]}
        row = describe_file(data, ids)
        row |= {"header_bytes": len(container.unpack(data, max_pixels=1 << 62).header_bytes)}
        bits = ("bits_per_channel", "bits_per_hyper_channel", "bits_map")
        empty: Row = dict.fromkeys(("symbols", "latent_shape", *bits))
        try:
            codec = self._by_id.for_file(data, max_pixels=self.max_pixels)
            codec.verify(data, max_pixels=self.max_pixels)
        except (FormatError, ModelMissingError) as error:
            return row | empty | {"sound": False, "fault": _for_the_web(error)}
        return row | {"sound": True, "fault": None} | empty | _latent(codec, data, self.max_pixels)

    def samples(self) -> list[list[int]]:
        """A written 0, 1, ... 9: 28 x 28 gray pixels each, white on black, row by row."""
        from attar.train.datasets.idx import read_idx

        file = resources.files("attar").joinpath("data", "digits", "t10k-images-idx3-ubyte.gz")
        with resources.as_file(file) as path:
            digits = read_idx(path)
        return [digits[place].ravel().tolist() for place in FIRST_OF_EACH_DIGIT]

    def codec(self, model: str | None) -> Codec:
        """The codec of an installed bundle by its name or id, or of the best one; never that of a path."""
        if model is None:
            return self._by_id.named()
        path = bundle.installed().get(model)
        if path is None:
            known = ", ".join(bundle.installed()) or "none"
            raise ModelMissingError(f"no model {model[:80]!r} is installed; installed: {known}")
        with self._lock:
            return self._shelves.setdefault(path, Shelf(path, threads=1)).named()

    def picture(self, data: bytes, name: str, *, convert: bool = False) -> Picture:
        """What is in an image file or a ``.attar`` file; ``convert`` as in :func:`attar.codec.images.read`."""
        if data.startswith(container.MAGIC):
            try:
                codec = self._by_id.for_file(data, max_pixels=self.max_pixels)
                return codec.decode(data, max_pixels=self.max_pixels)
            except FormatError as error:
                raise FormatError(f"{name}: {_for_the_web(error)}") from error
        return self.image(data, name, convert=convert)

    def image(self, data: bytes, name: str, *, convert: bool) -> Picture:
        """What is in an image file of a kind that browsers know."""
        if jxlfile.is_jxl(data):
            try:
                return jxlfile.read(data, name=name, max_pixels=self.max_pixels)
            except ImageError as error:
                raise ImageError(_for_the_web(error)) from error
        known = data.startswith(SIGNATURES) or (data[FTYP] == b"ftyp" and b"avi" in data[8:32])
        if not known:
            raise Refusal(
                415,
                f"{name}: it begins with {data[:8].hex(' ')}, which is no image that is taken here: "
                "PNG, JPEG, WebP, AVIF, JPEG XL, GIF, BMP, TIFF, PGM or PPM expected, or .attar",
            )
        try:
            return images.read(data, name=name, convert=convert, max_pixels=self.max_pixels)
        except ImageError as error:
            raise ImageError(_for_the_web(error)) from error

    def _describe(self, path: Path) -> Row:
        found = path.stat()
        key = (path, found.st_mtime_ns, found.st_size)
        with self._lock:
            if key not in self._described:
                self._described[key] = describe_bundle(path.name, path.read_bytes())
            return self._described[key]


def compressed(
    picture: Picture, codec: Codec, *, quality: int | None, effort: int, target: Target | None
) -> bytes:
    """The file that ``attar compress`` writes for a picture."""
    if target is not None:
        return compress_to(target, codec, picture, effort)
    return codec.compress(picture, quality=quality, effort=effort)


def _shown(trial: Trial, original: bytes, *, metrics: bool, picture: bool) -> Row:
    row = trial.row | {"original_bytes": len(original)}
    if metrics:
        row |= trial.distortions
    return row | {"picture": base64.b64encode(trial.png).decode() if picture else None}


def _for_the_web(error: AttarError) -> str:
    return (
        str(error).replace(" (convert=True)", " (convert=true)").replace(" (max_pixels=)", " of attar serve")
    )


def _without_folder(error: Exception, path: Path) -> str:
    return str(error).replace(str(path), path.name)


def _latent(codec: Codec, data: bytes, max_pixels: int) -> Row:
    """The shape of a sound file's latent, where its bits are, and the symbols themselves where they are few."""
    part = codec.unpack(data, max_pixels=max_pixels)
    shape = codec.manifest.latent_shape(part.header.height, part.header.width)
    row: Row = {"latent_shape": shape} | describe_bits(codec.bits(data, max_pixels=max_pixels))
    if math.prod(shape) <= SHOWN_SYMBOLS and not isinstance(codec.manifest.entropy, Hyperprior):
        row["symbols"] = codec.symbols(part).ravel().tolist()
    return row


def finite(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The bundle (``.attarmodel``): manifest, ONNX networks and integer tables in one zip, known by its SHA-256.

::

    manifest.json       Manifest, below
    analysis.onnx       "image" uint8 (B, H, W, C) -> "latent" float32 (B, ..., L), unrounded
    synthesis.onnx      "symbols" float32 (B, ..., L), integers -> "image" float32 (B, H, W, C) in [0, 1]
    tables.json         [{"minimum": int, "frequencies": [int, ...]}, ...]

No pickle and no code; whatever is read is untrusted until it has been checked. docs/FORMAT.md has the
reasons.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attar.codec.files import write_bytes
from attar.codec.manifest import Entropy, Hyperprior, Latent, Manifest
from attar.codec.onnxfile import check_self_contained
from attar.codec.tables import Table
from attar.errors import AttarError, BundleError, ModelMissingError
from attar.plainjson import nearest

__all__ = [
    "GRAPHS",
    "SUFFIX",
    "Bundle",
    "Entropy",
    "Hyperprior",
    "Latent",
    "Manifest",
    "find",
    "folders",
    "installed",
    "read",
    "write",
]

SUFFIX = ".attarmodel"
GRAPHS = ("analysis", "synthesis")
"""Networks that every bundle has, as NAME.onnx."""
HYPERPRIOR_GRAPHS = ("hyper_analysis", "hyper_scales", "hyper_means")
CONTEXT_GRAPHS = ("context_scales", "context_means")
HYPER_TABLE_GRAPHS = ("hyper_prior",)
LIMITS = {"manifest.json": 4 << 20, "tables.json": 64 << 20} | dict.fromkeys(
    (f"{name}.onnx" for name in GRAPHS + HYPERPRIOR_GRAPHS + CONTEXT_GRAPHS + HYPER_TABLE_GRAPHS), 256 << 20
)
"""Entries that a bundle may have, and the most bytes of each."""
MAX_BYTES = 512 << 20
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
MAX_RATIO = 1100
"""Deflate cannot do better than 1032:1; a declared ratio beyond is a lie."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle. ``graphs`` maps a name of :data:`GRAPHS` to the bytes of its ONNX model."""

    manifest: Manifest
    graphs: Mapping[str, bytes]
    sha256: str
    source: str
    table_bytes: bytes

    @property
    def short_id(self) -> bytes:
        """The four bytes by which a ``.attar`` file names the bundle."""
        return bytes.fromhex(self.sha256[:8])

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The frequency tables, one for each latent channel when the prior is factorized."""
        return _parse_tables(self.source, self.manifest, self.table_bytes)


def write(
    path: str | os.PathLike[str], *, manifest: Manifest, graphs: Mapping[str, bytes], tables: Sequence[Table]
) -> str:
    """Write a bundle and return its SHA-256 in hexadecimal; the same content gives the same bytes.

    Raises :class:`BundleError` when what would be written could not be read back.
    """
    data = to_bytes(manifest=manifest, graphs=graphs, tables=tables)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def to_bytes(*, manifest: Manifest, graphs: Mapping[str, bytes], tables: Sequence[Table]) -> bytes:
    """The bytes that :func:`write` writes."""
    entries = {f"{name}.onnx": data for name, data in graphs.items()}
    entries["manifest.json"] = _json(manifest.to_json(), indent=1)
    entries["tables.json"] = _json([table.to_json() for table in tables])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, TIMESTAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, entries[name], compresslevel=9)
    data = buffer.getvalue()
    from_bytes(data, source=f"bundle {manifest.name!r}").tables  # noqa: B018 - reading it back is the check
    return data


def read(path: str | os.PathLike[str]) -> Bundle:
    """Read and check a bundle file; raises :class:`BundleError` naming the file and every fault."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    return from_bytes(data, source=str(path))


def from_bytes(data: bytes, *, source: str) -> Bundle:
    """Check the bytes of a bundle; ``source`` names them in errors. See :func:`read`."""
    if len(data) > MAX_BYTES:
        raise BundleError(f"{source}: larger than {MAX_BYTES >> 20} MB, no bundle is")
    entries = _entries(data, source)
    _check_complete(entries, ("manifest.json", "tables.json", *(f"{name}.onnx" for name in GRAPHS)), source)
    manifest = Manifest.from_json(
        _parse_json(entries.pop("manifest.json"), f"{source}: manifest.json"), source
    )
    _check_complete(entries, tuple(f"{name}.onnx" for name in _graphs_of(manifest)), source)
    table_bytes = entries.pop("tables.json")
    for name, body in entries.items():
        check_self_contained(body, f"{source}: {name}")
    graphs = {name.removesuffix(".onnx"): body for name, body in entries.items()}
    return Bundle(manifest, graphs, hashlib.sha256(data).hexdigest(), source, table_bytes)


def _check_complete(entries: Mapping[str, bytes], required: Sequence[str], source: str) -> None:
    if missing := sorted(set(required) - set(entries)):
        raise BundleError(f"{source}: not a bundle, {', '.join(missing)} missing")


def _graphs_of(manifest: Manifest) -> tuple[str, ...]:
    """Names of the networks that a bundle with this manifest needs."""
    if not isinstance(manifest.entropy, Hyperprior):
        return GRAPHS
    context = CONTEXT_GRAPHS if manifest.entropy.context else ()
    hyper_tables = HYPER_TABLE_GRAPHS if manifest.entropy.hyper_tables else ()
    return GRAPHS + HYPERPRIOR_GRAPHS + context + hyper_tables


def folders() -> list[Path]:
    """Where bundles are looked for: the package, then ``$ATTAR_MODELS``, then the user's data folder."""
    places = [Path(__file__).resolve().parents[1] / "models"]
    places += [Path(part) for part in os.environ.get("ATTAR_MODELS", "").split(os.pathsep) if part]
    if sys.platform == "win32":
        data = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return [*places, Path(data) / "attar" / "models"]


def installed() -> dict[str, Path]:
    """Installed bundles by file name without suffix; an earlier folder of :func:`folders` wins."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
            found.setdefault(path.stem, path)
    return found


def find(model: str | os.PathLike[str] | bytes) -> Path:
    """Path of a bundle: a path, the name of an installed one, or its id.

    The id is the SHA-256 in hexadecimal, or at least 8 leading digits of it, or the four bytes by which a
    file names its bundle. Raises :class:`ModelMissingError` that says what is installed.
    """
    if isinstance(model, bytes):
        return _find_id(model.hex())
    text = os.fspath(model)
    if Path(text).is_file():
        return Path(text)
    known = installed()
    if text in known:
        return known[text]
    if 8 <= len(text) <= 64 and set(text.lower()) <= set("0123456789abcdef"):
        return _find_id(text.lower())
    near = nearest(text, known)
    hint = f"did you mean {near!r}? " if near else ""
    raise ModelMissingError(
        f"no model {text!r}: neither a file nor installed; {hint}{_installed_words(known)}"
    )


def _find_id(digits: str) -> Path:
    known = installed()
    for path in known.values():
        if sha256(path).startswith(digits):
            return path
    raise ModelMissingError(
        f"model {digits} is needed and not installed; {_installed_words(known)}. "
        f"Put its {SUFFIX} file into {folders()[-1]}, or name it with -m FILE (model=FILE)"
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error


def _installed_words(known: Mapping[str, Path]) -> str:
    return f"installed: {', '.join(known)}" if known else "no model is installed"


def _entries(data: bytes, source: str) -> dict[str, bytes]:
    """Entries of the zip, after its directory has been checked against :data:`LIMITS`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) != len(names):
                raise BundleError(f"{source}: an entry is there twice: damaged or forged")
            for info in infos:
                _check_entry(info, source)
            # read() checks the CRC and never gives more than the size that has just been checked.
            return {info.filename: archive.read(info) for info in infos}
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, AttarError):
            raise
        raise BundleError(f"{source}: not a bundle, or damaged: {error}") from error


def _check_entry(info: zipfile.ZipInfo, source: str) -> None:
    if info.filename not in LIMITS:
        raise BundleError(
            f"{source}: entry {info.filename[:80]!r} has no place in a bundle; allowed are "
            f"{', '.join(sorted(LIMITS))}"
        )
    if info.file_size > LIMITS[info.filename]:
        raise BundleError(
            f"{source}: {info.filename} declares {info.file_size} bytes, more than {LIMITS[info.filename]}"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise BundleError(f"{source}: {info.filename} is neither stored nor deflated, or encrypted")
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise BundleError(
            f"{source}: {info.filename} declares {info.file_size} bytes from {info.compress_size}: forged"
        )


def _json(document: object, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(document, indent=indent, separators=separators, allow_nan=False).encode()


def _parse_json(data: bytes, source: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source}: not JSON: {error}") from error


def _parse_tables(source: str, manifest: Manifest, data: bytes) -> tuple[Table, ...]:
    documents = _parse_json(data, f"{source}: tables.json")
    if not isinstance(documents, list):
        raise BundleError(f"{source}: tables.json is not a list of tables")
    if len(documents) != manifest.table_count:
        needed = (
            f"{manifest.entropy.first_scale} of the hyper-latent and {manifest.entropy.scales} scales"
            if isinstance(manifest.entropy, Hyperprior)
            else f"{manifest.latent.channels} latent channels"
        )
        raise BundleError(f"{source}: {len(documents)} tables for {needed}; one each expected")
    tables = []
    for position, document in enumerate(documents):
        try:
            tables.append(Table.from_json(document))
        except BundleError as error:
            raise BundleError(f"{source}: tables.json[{position}]: {error}") from error
    return tuple(tables)

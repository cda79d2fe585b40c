"""The documents of the JSON API; numbers and names are those of the command line's ``--json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Codec", "Comparison", "Conversion", "CurveLine", "Encoding", "Fault", "Inspection", "Model"]

Ratio = float | str | None
"""dB, or ``"identical"`` where the ratio does not exist."""


class Fault(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One sentence: what happened, what was expected, what to do.")


class Model(BaseModel):
    """An installed bundle, as ``attar models list --json`` shows it; ``error`` where it cannot be used."""

    model_config = ConfigDict(extra="allow")

    input: str = Field(description="The name by which it is asked for.")
    ok: bool
    error: str | None = None
    file: str = Field(description="Its file's name.")
    shipped: bool = Field(description="Whether it came with Attar, and not from a folder of the user's.")
    id: str | None = Field(None, description="SHA-256 of the bundle.")
    name: str | None = None
    version: str | None = None
    licence: str | None = None
    accepts: str | None = Field(None, description="The images that it takes, in words.")
    bytes: int | None = None
    channels: int | None = Field(None, description="1 gray, 3 RGB.")
    size: tuple[int, int] | None = Field(None, description="The only height and width taken; null: any.")
    qualities: tuple[int, int] | None = Field(None, description="Range of the quality; null: a single rate.")
    graphs: dict[str, int] | None = Field(None, description="Bytes of each network.")
    tables: int | None = Field(None, description="Number of frequency tables.")
    training: dict[str, Any] | None = Field(None, description="A summary of the training, free of form.")
    model: dict[str, Any] | None = Field(None, description="The model.json that it was trained from.")


class Comparison(BaseModel):
    """The distortion of ``b`` against ``a``, as ``attar compare --json`` prints it."""

    a: str
    b: str
    width: int
    height: int
    bytes: int = Field(description="Size of b's file.")
    bpp: float = Field(description="Bits per pixel of b's file.")
    psnr: Ratio = Field(description="dB over RGB or gray.")
    ssim: float
    ms_ssim: float | None = Field(description="null where a side is below 161 pixels.")
    psnr_y: Ratio
    ssim_y: float
    ms_ssim_y: float | None
    psnr_summed: Ratio


class Codec(BaseModel):
    """A codec that ``/api/encode`` takes."""

    name: str
    absent: str | None = Field(description="Why this machine lacks it; null where it does not.")
    version: str | None = Field(None, description="The libraries that do the work.")
    unit: str | None = Field(None, description="What its quality is in; null: it takes none.")
    lowest: float | None = None
    highest: float | None = None


class Encoding(BaseModel):
    """An image that went through a codec; the metrics are null unless they were asked for."""

    codec: str = Field(description="Its name, or `file` for an existing file.")
    codec_version: str
    quality: float | None = Field(description="The one that was used; null for a codec that takes none.")
    width: int
    height: int
    bytes: int
    original_bytes: int = Field(description="Size of the file that was sent.")
    bpp: float
    encode_ms: float | None = Field(
        description="Of one run, on one thread where the library lets one choose; null for an existing file."
    )
    decode_ms: float
    psnr: Ratio = None
    ssim: float | None = None
    ms_ssim: float | None = None
    psnr_y: Ratio = None
    ssim_y: float | None = None
    ms_ssim_y: float | None = None
    psnr_summed: Ratio = None
    picture: str | None = Field(description="The decoded image as a PNG, in base64; null unless asked for.")


class Inspection(BaseModel):
    """What a ``.attar`` file says of itself, as ``attar info --json`` prints it, and where its bits went."""

    kind: str
    version: int
    width: int
    height: int
    channels: int
    model: str = Field(description="The first eight digits of the bundle's SHA-256.")
    model_name: str | None
    quality: int | None
    bytes: int
    bpp: float
    chunks: dict[str, int] = Field(description="Bytes of each chunk's body.")
    skipped_chunks: list[int]
    header_bytes: int = Field(description="Bytes of magic and header.")
    sound: bool = Field(description="Whether every checksum, that of the symbols included, matches.")
    fault: str | None
    latent_shape: list[int] | None
    symbols: list[int] | None = Field(description="The symbols of a short latent, channels last.")
    bits_per_channel: list[float] | None = Field(description="Ideal bits of each latent channel.")
    bits_per_hyper_channel: list[float] | None = Field(description="Likewise of the hyper-latent, if any.")
    bits_map: list[list[float]] | None = Field(
        description="Ideal bits of each place of the latent, those of the hyper-latent spread over its places."
    )


class Conversion(BaseModel):
    """The ``attar-row`` header of ``/api/convert``: what became of a file. Metrics are null with transparency."""

    codec: str
    codec_version: str
    quality: int | float | None
    width: int
    height: int
    input_bytes: int
    bytes: int
    bpp: float
    saved_percent: float = Field(description="Of the input's bytes; negative where the result is larger.")
    suffix: str = Field(description="Of the result's name, with its dot.")
    encode_ms: float | None = Field(description="Target search included; null for a .attar that is decoded.")
    decode_ms: float
    psnr: Ratio = None
    ssim: float | None = None
    ms_ssim: float | None = None


class CurveLine(BaseModel):
    """A line of ``/api/curve``: ``plan`` first, then ``point`` for each measurement, ``end`` last."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["plan", "point", "end"]
    points: int | None = Field(None, description="plan: how many points will come.")
    row: dict[str, Any] | None = Field(None, description="point: a row of the benchmark's rows.csv.")
    levels: dict[str, float | None] | None = Field(None, description="point: each metric in dB, as drawn.")
    deltas: list[dict[str, Any]] | None = Field(None, description="end: BD-rates of all pairs of codecs.")

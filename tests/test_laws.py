"""Laws that hold for every input, with the extremes of every field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import attar
import reference_decoder
import toy_bundle
from attar.codec import bundle, chunks, container
from attar.codec.bundle import Latent
from attar.codec.container import Chunk, Header
from attar.codec.entropy import EntropyCoder
from attar.codec.latents import LatentCoder
from attar.codec.tables import Table, expected_bits

RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
PATIENT = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
"""Where examples are large: on a busy machine, making them takes longer than Hypothesis likes."""
INT32 = st.integers(-(2**31), 2**31 - 1)

headers = st.builds(
    Header,
    channels=st.sampled_from([1, 2, 3, 4]),
    width=st.one_of(st.integers(1, 300), st.integers(1, 2**31 - 1)),
    height=st.one_of(st.integers(1, 300), st.integers(1, 2**31 - 1)),
    model=st.binary(min_size=4, max_size=4),
    quality=st.integers(0, 100),
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    minimum = draw(st.one_of(st.integers(-20, 0), st.integers(-(2**31), 2**31 - 1 - 30)))
    weights = draw(st.lists(st.floats(0, 1), min_size=2, max_size=30).filter(any))
    return Table.from_probabilities(minimum, weights)


@st.composite
def sections(draw: st.DrawFn) -> tuple[list[Table], list[tuple[np.ndarray, np.ndarray]]]:
    own = draw(st.lists(tables(), min_size=1, max_size=4))
    out = []
    for _ in range(draw(st.integers(1, 3))):
        groups = [
            draw(st.lists(st.one_of(st.integers(table.minimum, table.maximum), INT32), max_size=12))
            for table in own
        ]
        symbols = np.array([symbol for group in groups for symbol in group], np.int32)
        out.append((symbols, np.array([len(group) for group in groups])))
    return own, out


@given(headers, st.dictionaries(st.sampled_from(sorted(set(Chunk) - {Chunk.ALPHA})), st.binary(max_size=300)))
def test_container(header: Header, bodies: dict[Chunk, bytes]) -> None:
    bodies = {Chunk.LATENTS: b"", **bodies} | ({Chunk.ALPHA: b"a"} if header.has_alpha else {})
    part = container.unpack(container.pack(header, bodies), max_pixels=1 << 62)
    assert (part.header, part.chunks) == (header, bodies)
    assert part.header_bytes == container.write_header(header)


@given(st.integers(0, 2**35 - 1))
def test_varints(value: int) -> None:
    data = container.write_varint(value)
    reader = container.Reader(data)
    assert (reader.varint("x"), reader.position) == (value, len(data))
    assert len(data) == max(1, -(-value.bit_length() // 7))


@PATIENT
@given(sections(), st.binary(max_size=20))
def test_entropy_coding(case: tuple, header: bytes) -> None:
    own, parts = case
    coder = EntropyCoder(own)
    data = coder.encode(parts, header)
    decoder = coder.decoder(data, header)
    for symbols, counts in parts:
        assert decoder.take(counts).tolist() == symbols.tolist()
    decoder.finish()
    ideal = 0.0
    for symbols, counts in parts:
        starts = np.concatenate([[0], np.cumsum(counts)])
        ideal += sum(
            expected_bits(table, symbols[start:end])
            for table, start, end in zip(own, starts[:-1], starts[1:], strict=True)
        )
    assert ideal / 8 + 4 <= len(data) + 0.1
    assert len(data) <= 1.005 * ideal / 8 + 6


@PATIENT
@given(sections())
def test_the_reference_decoder_reads_every_stream(case: tuple) -> None:
    own, parts = case
    symbols, counts = parts[0]
    if len(set(counts.tolist())) == 1:
        data = EntropyCoder(own).encode([(symbols, counts)], b"header")
        documents = [table.to_json() for table in own]
        found = reference_decoder.decode_stream(data, documents, int(counts[0]), b"header")
        assert found.T.ravel().tolist() == symbols.tolist()


@given(
    hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(-300, 300)
    ),
    st.sampled_from([8, 256, 512, 1024]),
)
def test_latents_of_every_shape(symbols: np.ndarray, stride: int) -> None:
    channels = symbols.shape[-1]
    manifest = toy_bundle.photo_manifest(multiple=stride, latent=Latent(channels, stride=stride))
    coder = LatentCoder(manifest, [toy_bundle.laplacian_table(2.0)] * channels)
    body = coder.encode(symbols, b"h")
    assert np.array_equal(coder.decode(body, b"h", symbols.shape), symbols)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_alpha(plane: np.ndarray) -> None:
    assert np.array_equal(chunks.unpack_alpha(chunks.pack_alpha(plane), *plane.shape), plane)


@given(st.binary(max_size=2000), st.sampled_from([Chunk.ICC, Chunk.EXIF, Chunk.XMP]))
def test_metadata(body: bytes, kind: Chunk) -> None:
    assert chunks.unpack_metadata(chunks.pack_metadata(body, kind), kind) == body


@pytest.fixture(scope="module")
def photos(photo_bundle: Path) -> attar.Codec:
    return attar.load(photo_bundle, threads=1)


images = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4])).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape)
)


@RELAXED
@given(images)
def test_whole_files(photos: attar.Codec, image: np.ndarray) -> None:
    """Any image: the file holds the symbols of the analysis, and decodes to the synthesis of them."""
    data = photos.compress(image)
    part = photos.unpack(data)
    assert (part.header.height, part.header.width, part.header.channels) == image.shape
    colours = image[..., : image.shape[2] - (image.shape[2] in (2, 4))]
    symbols = photos.analyse(photos.prepare(colours)[None])[0]
    assert np.array_equal(photos.symbols(part), symbols)
    pixels = photos.decompress(data)
    assert pixels.shape == image.shape
    if image.shape[2] in (2, 4):
        assert np.array_equal(pixels[..., -1], image[..., -1])
    assert photos.compress(image) == data


@RELAXED
@given(st.lists(images, max_size=5))
def test_batches(photos: attar.Codec, pictures: list[np.ndarray]) -> None:
    files = photos.compress_batch(pictures)
    assert files == [photos.compress(picture) for picture in pictures]
    for data, pixels in zip(files, photos.decompress_batch(files), strict=True):
        assert np.array_equal(pixels, photos.decompress(data))


@given(st.lists(tables(), min_size=50, max_size=50), st.text(max_size=50), st.integers(1, 2000))
@settings(max_examples=20, deadline=None)
def test_bundles(own: list[Table], description: str, epochs: int) -> None:
    manifest = toy_bundle.digits_manifest(description=description, training={"epochs": epochs})
    data = bundle.to_bytes(manifest=manifest, graphs=GRAPHS, tables=own)
    found = bundle.from_bytes(data, source="law")
    assert found.manifest == manifest
    assert [table.to_json() for table in found.tables] == [table.to_json() for table in own]


GRAPHS = toy_bundle.digits_graphs()

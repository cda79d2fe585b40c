from __future__ import annotations

import zlib

import numpy as np
import pytest

from attar.codec.entropy import EntropyCoder, Section
from attar.codec.tables import TOTAL, Table, expected_bits
from attar.errors import FormatError
from toy_bundle import laplacian_table

TABLES = [laplacian_table(scale) for scale in (0.3, 1.0, 4.0)]


def section(*groups: list[int]) -> Section:
    symbols = np.array([symbol for group in groups for symbol in group], np.int32)
    return symbols, np.array([len(group) for group in groups])


def round_trip(coder: EntropyCoder, sections: list[Section], header: bytes = b"header") -> bytes:
    data = coder.encode(sections, header)
    decoder = coder.decoder(data, header)
    for symbols, counts in sections:
        decoded = decoder.take(counts)
        assert decoded.dtype == np.int32
        assert decoded.tolist() == symbols.tolist()
    decoder.finish()
    return data


def test_sections_come_back_in_order() -> None:
    round_trip(EntropyCoder(TABLES), [section([0, 1, -1], [], [20, -20]), section([5], [7, 8], [])])


def test_a_table_that_nothing_uses_and_no_symbols_at_all() -> None:
    assert len(round_trip(EntropyCoder(TABLES), [section([], [], [])])) == 5


def test_every_int32_can_be_coded() -> None:
    extremes = [-(2**31), 2**31 - 1, -21, 21, -22, 22, 20 + 64, 21 + 64, -20 - 64, -21 - 64, 0, 10**9]
    round_trip(EntropyCoder(TABLES), [section(extremes, extremes[::-1], [0]), section([], [], extremes)])


def test_escapes_of_tables_at_the_ends_of_int32() -> None:
    half = np.array([TOTAL // 2, TOTAL // 2])
    coder = EntropyCoder([Table(-(2**31), half), Table(2**31 - 1, half)])
    round_trip(coder, [section([-(2**31), 2**31 - 1, 0], [2**31 - 1, -(2**31), 0])])


def test_size_is_the_ideal_code_length_plus_the_checksum() -> None:
    rng = np.random.default_rng(1)
    groups = [np.rint(rng.laplace(0, scale, 4000)).astype(int).tolist() for scale in (0.3, 1.0, 4.0)]
    ideal = sum(expected_bits(table, group) for table, group in zip(TABLES, groups, strict=True))
    size = len(round_trip(EntropyCoder(TABLES), [section(*groups)]))
    assert ideal / 8 + 4 <= size <= 1.0001 * ideal / 8 + 6


def test_the_frequencies_reach_the_coder_unchanged() -> None:
    """Against the arithmetic of docs/FORMAT.md, in Python's integers."""
    rng = np.random.default_rng(2)
    tables = [
        Table.from_probabilities(0, rng.dirichlet(np.full(size, 0.05)) + 1e-12) for size in (3, 17, 900)
    ]
    groups = [rng.integers(0, table.maximum + 1, 30).tolist() for table in tables]
    symbols, counts = section(*groups)
    words: list[int] = []
    x = 1 << 32 | zlib.crc32(b"header" + symbols.astype("<i4").tobytes())
    for place, table in reversed([(s, t) for group, t in zip(groups, tables, strict=True) for s in group]):
        f, c = int(table.frequencies[place]), int(table.frequencies[:place].sum())
        if x >> 40 >= f:
            words.append(x & 0xFFFFFFFF)
            x >>= 32
        x = (x // f) << 24 | (x % f + c)
    expected = b"".join(word.to_bytes(4, "little") for word in [*words, x & 0xFFFFFFFF, x >> 32]).rstrip(
        b"\0"
    )
    assert EntropyCoder(tables).encode([(symbols, counts)], b"header") == expected


@pytest.fixture(scope="module")
def coded() -> tuple[EntropyCoder, np.ndarray, bytes]:
    coder = EntropyCoder(TABLES)
    symbols, counts = section([0, 1, -1, 300], [2, 0, 0, 0], [9, -9, 0, 0])
    return coder, counts, coder.encode([(symbols, counts)], b"header")


def attempt(coded: tuple[EntropyCoder, np.ndarray, bytes], data: bytes, header: bytes = b"header") -> None:
    coder, counts, _ = coded
    decoder = coder.decoder(data, header)
    decoder.take(counts)
    decoder.finish()


def test_every_flipped_bit_truncation_and_trailing_byte_is_refused(coded: tuple) -> None:
    data = coded[2]
    attempt(coded, data)
    damaged = [data[:end] for end in range(len(data))] + [data + bytes([byte]) for byte in range(256)]
    damaged += [
        (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")
        for bit in range(8 * len(data))
    ]
    for case in damaged:
        with pytest.raises(FormatError):
            attempt(coded, case)


def test_another_header_other_tables_and_other_counts_are_refused(coded: tuple) -> None:
    coder, counts, data = coded
    with pytest.raises(FormatError, match="checksum of the symbols does not match"):
        attempt(coded, data, b"another")
    with pytest.raises(FormatError, match="or another model"):
        attempt((EntropyCoder(TABLES[::-1]), counts, data), data)
    for other in ([3, 4, 4], [5, 4, 4], [4, 4, 0]):
        with pytest.raises(FormatError):
            attempt((coder, np.array(other), data), data)


def test_a_stream_too_short_for_its_count_is_refused_before_allocation(coded: tuple) -> None:
    coder, _, data = coded
    with pytest.raises(FormatError, match=r"cannot hold 3000000000000000 symbols"):
        coder.decoder(data, b"header").take(np.full(3, 10**15))


def test_the_length_check_never_refuses_a_real_stream() -> None:
    """The cheapest symbols there are: the bound must stay below what the coder makes of them."""
    for top in (TOTAL - 1, TOTAL - 200, TOTAL // 2 + 1, TOTAL // 3):
        coder = EntropyCoder([Table(0, np.array([top, TOTAL - top]))])
        round_trip(coder, [section([0] * 5000)])


def handmade(planes: list[list[int]]) -> bytes:
    """A stream with one escape whose overflow is coded as ``planes`` says, its checksum right or not."""
    import constriction

    stack = constriction.stream.stack.AnsCoder(np.array([1, 1], np.uint32))
    byte = constriction.stream.model.Uniform(256)
    for plane in reversed(planes):
        stack.encode_reverse(np.array(plane, np.int32), byte)
    coder = EntropyCoder(TABLES)
    stack.encode_reverse(np.array([41], np.int32), coder.models[0])
    return stack.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ([[128], [0]], "over-long escaped value"),
        ([[255]] * 5 + [[1]], "more than 5 bytes"),
        ([[255]] * 4 + [[127]], "no int32"),
    ],
)
def test_forged_escapes_are_refused(planes: list[list[int]], message: str) -> None:
    decoder = EntropyCoder(TABLES).decoder(handmade(planes), b"")
    with pytest.raises(FormatError, match=message):
        decoder.take(np.array([1, 0, 0]))

"""rows.csv: what is written is read again, a torn end is dropped, anything else foreign is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import AttarError
from attar.measure.rows import COLUMNS, IDENTICAL, Ledger, Row, read_rows, to_csv

TEXT = st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=30)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    image=TEXT,
    codec=TEXT,
    error=TEXT,
    command=TEXT,
    quality=NUMBER,
    bytes=st.none() | st.integers(0, 2**50),
    bpp=NUMBER,
    psnr=NUMBER | st.just(IDENTICAL),
    ssim=NUMBER,
)


@given(st.lists(ROWS, max_size=4))
def test_rows_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_bytes(to_csv(rows).encode())
    assert read_rows(path) == rows


def test_a_file_name_that_is_not_unicode_survives(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append([Row(image="a\udce9  b.png")])
    assert Ledger(tmp_path).rows == [Row(image="a\udce9  b.png")]


def test_every_cut_of_the_last_row_keeps_the_others(tmp_path):
    path = tmp_path / "rows.csv"
    data = to_csv([Row(image=f"{i}.png", bpp=i / 7) for i in range(3)]).encode()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(data)):
        path.write_bytes(data[:cut])
        assert [row.image for row in read_rows(path)] == ["0.png", "1.png"]
    path.write_bytes(data[:5])
    assert read_rows(path) == []


def test_failed_rows_are_forgotten_so_that_they_are_tried_again(tmp_path):
    ledger = Ledger(tmp_path / "new" / "folder")
    ledger.append([Row(image="a"), Row(image="b", status="failed", error="broken")])
    again = Ledger(tmp_path / "new" / "folder")
    assert [row.image for row in again.rows] == ["a"]
    assert read_rows(again.path) == again.rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("sha256", "md5"), "has other columns than this attar writes"),
        (lambda text: text.replace("0.5", "half"), r"row 2: could not convert string to float: 'half'; mend"),
        (lambda text: text.replace("0.5", "inf"), "row 2: bpp is inf, not a finite number"),
        (lambda text: text + "a,b\n", "row 3: zip"),
    ],
)
def test_foreign_files_are_refused(tmp_path, change, message):
    path = tmp_path / "rows.csv"
    path.write_text(change(to_csv([Row(image="a", bpp=0.5)])))
    with pytest.raises(AttarError, match=message):
        read_rows(path)
    with pytest.raises(AttarError, match=str(path)):
        Ledger(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AttarError, match=r"file cannot be made a folder for results: File exists"):
        Ledger(tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE")
def test_a_full_disk_keeps_what_was_measured(tmp_path):
    """The process may write 2,000 bytes to a file: the row that goes beyond fails as on a full disk."""
    program = """
import resource, signal, sys
from pathlib import Path
from attar.measure.rows import Ledger, Row
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for number in range(1000):
    ledger.append([Row(image=f"{number}.png", codec="jpeg")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=False, capture_output=True, text=True
    )
    assert "AttarError" in done.stderr
    assert "rows.csv cannot be written: File too large" in done.stderr
    kept = read_rows(tmp_path / "rows.csv")
    assert f"{len(kept)} rows measured so far are kept" in done.stderr
    assert [row.image for row in kept] == [f"{number}.png" for number in range(len(kept))]
    assert len(kept) > 10


def test_columns_are_stable():
    assert COLUMNS[:6] == ("image", "sha256", "width", "height", "channels", "codec")
    assert len(COLUMNS) == 25

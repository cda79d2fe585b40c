"""The parts of attar bulk: plan, shards, table and ledger."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.apps.bulk import plan, table
from attar.apps.bulk.ledger import begun, claim, open_ledger, settle, written
from attar.apps.bulk.records import COMPRESS, DECOMPRESS, Item, Row, Settings
from attar.errors import AttarError

SETTINGS = Settings(COMPRESS, ".attar", model="0" * 64)


def outputs(source: str | Path, direction: str = COMPRESS, suffix: str = ".attar") -> list[str]:
    return [item.output for item in plan.collect(str(source), direction, suffix)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a tree of files that only have names."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png",
        "a.JPG",
        "x/c.webp",
        "x/y/d.tar.png",
        "x/notes.txt",
        ".hidden.png",
        "x/.git/e.png",
        "f.attar",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_of_a_folder_images_are_taken_and_hidden_files_are_not(folder: Path) -> None:
    assert outputs("in") == ["a.attar", "b.attar", "x/c.attar", "x/y/d.tar.attar"]
    first = plan.collect("in", COMPRESS, ".attar")[0]
    assert (first.input, first.size) == (str(folder / "in/a.JPG"), 5)
    assert outputs("in", DECOMPRESS, ".webp") == ["f.webp"]


def test_of_a_pattern_every_file_that_matches(folder: Path) -> None:
    assert outputs("in/**/*.png") == ["b.attar", "x/y/d.tar.attar"]
    assert outputs(folder / "in/x/*") == ["c.attar", "notes.attar"]
    assert outputs("in/x/**/*.webp") == ["c.attar"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_a_list_keeps_paths_as_they_are_written(folder: Path, separator: str) -> None:
    names = [
        "./in/b.png",
        str(folder / "in/a.JPG"),
        "in/x/../x/c.webp",
        "in/b.png",
        "../gone.png",
        "in/no suffix",
    ]
    Path("list.txt").write_text(separator.join(names), newline="")
    absolute = (folder / "in/a.attar").relative_to("/").as_posix()
    gone = (folder.parent / "gone.attar").relative_to("/").as_posix()
    assert outputs("list.txt") == ["in/b.attar", absolute, "in/x/c.attar", gone, "in/no suffix.attar"]


def test_a_list_comes_from_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in/b.png\n\nin/\xff.png\n")))
    assert outputs("-") == ["in/b.attar", "in/\udcff.attar"]


@pytest.mark.parametrize(
    ("source", "direction", "fault"),
    [
        ("nowhere", COMPRESS, "nowhere: no such folder or list of files, and no pattern"),
        ("in/*.gif", COMPRESS, r"in/\*.gif: names no file"),
        ("in/x/y", DECOMPRESS, r"in/x/y holds no .attar files"),
        (
            "packed",
            COMPRESS,
            r"packed holds no images, .*; it holds 1 .attar files, which --decompress turns into",
        ),
        ("in/b.png", COMPRESS, r"in/b.png is one file: attar compress in/b.png does it"),
        ("in/f.attar", DECOMPRESS, r"in/f.attar is one file: attar decompress in/f.attar does it"),
        ("empty.txt", COMPRESS, r"empty.txt: names no file"),
        ("folders.txt", COMPRESS, r"is a folder, or its output would be in ledger.parts"),
        ("parts", COMPRESS, r"x.png is a folder, or its output would be in ledger.parts"),
        ("twice", COMPRESS, r"twice/a.jpg and .*twice/a.png would both become a.attar: rename one of them"),
    ],
)
def test_what_cannot_be_planned_is_refused(folder: Path, source: str, direction: str, fault: str) -> None:
    for name in ("packed/a.attar", "parts/ledger.parts/x.png", "twice/a.jpg", "twice/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    Path("empty.txt").write_text("\n")
    Path("folders.txt").write_text("in/b.png\n.\n")
    with pytest.raises(AttarError, match=fault):
        plan.collect(source, direction, ".attar")


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk(top: str, onerror: object) -> Iterator[object]:
        onerror(PermissionError(13, "Permission denied", "in/x"))  # type: ignore[operator]
        yield from ()

    monkeypatch.setattr(plan.os, "walk", walk)
    with pytest.raises(AttarError, match="in/x: cannot be read: Permission denied"):
        plan.collect("in", COMPRESS, ".attar")


@given(
    st.lists(st.integers(0, 50 << 20), min_size=1, max_size=60),
    st.sampled_from([COMPRESS, DECOMPRESS]),
    st.integers(1, 8),
    st.integers(0, 9),
)
def test_shards_hold_every_item_once_within_their_bounds(
    sizes: list[int], direction: str, workers: int, most: int
) -> None:
    items = [Item(f"{number}", f"{number}.attar", size) for number, size in enumerate(sizes)]
    shards = list(plan.cut(items, direction, workers, most))
    assert [item for shard in shards for item in shard] == items
    for shard in shards:
        assert len(shard) <= (most or plan.MOST_IMAGES)
        assert len(shard) == 1 or sum(item.size for item in shard) <= plan.MOST_BYTES[direction]
    if not most and len(items) > plan.SHARDS_EACH * workers:
        assert len(shards) >= plan.SHARDS_EACH * workers


texts = st.text(st.characters(exclude_characters="\ud800\udbff", exclude_categories=["Cs"]), max_size=20)
names = texts.map(lambda text: f"n{text}\udcff") | texts.map(lambda text: f"n{text}")
numbers = st.none() | st.integers(0, 1 << 62)
reals = st.none() | st.floats(-1e9, 1e9)
rows_of_any_kind = st.builds(
    Row,
    output=names,
    input=names,
    status=st.sampled_from(["ok", "failed"]),
    error=texts,
    exit_code=st.integers(0, 130),
    input_bytes=numbers,
    bytes=numbers,
    width=numbers,
    height=numbers,
    channels=numbers,
    psnr=reals | st.just("identical"),
    ssim=reals,
    seconds=reals,
    sha256=texts,
    input_mtime_ns=numbers,
    worker=texts,
)


@given(st.lists(rows_of_any_kind, max_size=5))
def test_rows_come_back_from_the_table_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    path = tmp_path_factory.mktemp("table") / "ledger.csv"
    table.write_rows(path, rows)
    assert path.read_bytes() == table.to_csv(rows)
    assert list(table.read_rows(path)) == rows


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has other columns than this attar writes"),
        ("a,b\r\n", "has other columns"),
        ("{head}x,y,ok\r\n", "row 2: 3 cells instead of 16"),
        ("{head}{row}x,y,ok,,0,many,,,,,,,,,,\r\n", "row 3: invalid literal for int.*'many'"),
        ("{head}x,y,ok,,0,,,,,,nan,,,,,\r\n", "row 2: psnr is nan, not a finite number"),
        ('{head}"' + "x" * 200_000, "row 2: field larger than field limit"),
    ],
)
def test_a_damaged_table_is_told_with_its_row(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "ledger.csv"
    head, one = table.to_csv([Row(output="o", input="i")]).decode().splitlines(keepends=True)
    path.write_text(text.replace("{head}", head).replace("{row}", one), newline="")
    with pytest.raises(AttarError, match=fault):
        list(table.read_rows(path))


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r"ledger\.csv: cannot be read: No such file"):
        list(table.read_rows(tmp_path / "ledger.csv"))


def test_a_claim_tells_outputs_of_this_run_from_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "old.attar").write_bytes(b"of other origin")
    items = [Item("/i/old.png", "old.attar"), Item("/i/new.png", "new.attar")]
    with open_ledger(tmp_path, SETTINGS) as ledger:
        shard = ledger.shard(ledger.known(items))
        claim(tmp_path, shard)
        assert begun(tmp_path, shard)
        (tmp_path / "new.attar").write_bytes(b"by a worker that then died")
        (tmp_path / ".new.0123abcd.attar").write_bytes(b"and half a file")
        (tmp_path / ".other.0123abcd.attar").write_bytes(b"of somebody else")
        assert [item.ours for item in ledger.reclaimed(shard)] == [False, True]
        assert not (tmp_path / ".new.0123abcd.attar").exists()
        assert (tmp_path / ".other.0123abcd.attar").exists()
    with open_ledger(tmp_path, SETTINGS) as ledger:  # also after a restart
        assert [item.ours for item in ledger.known(items)] == [False, True]


def test_parts_of_a_run_that_was_killed_are_found(tmp_path: Path) -> None:
    items = [Item(f"/i/{name}.png", f"{name}.attar") for name in "abc"]
    with open_ledger(tmp_path, SETTINGS) as ledger:
        first, second = (ledger.shard(part) for part in (items[:2], items[2:]))
        for shard in (first, second):
            claim(tmp_path, shard)
        done = (
            Row(output="a.attar", input="/i/a.png"),
            Row(output="b.attar", input="/i/b.png", status="failed"),
        )
        settle(tmp_path, first, done)
        assert not begun(tmp_path, first)
        assert written(tmp_path, first) == done
        assert written(tmp_path, second) is None
    assert not (tmp_path / "ledger.csv").exists()
    with open_ledger(tmp_path, SETTINGS) as ledger:
        known = ledger.known(items)
        assert [item.row for item in known] == [done[0], None, None]
        assert [item.ours for item in known] == [True, False, True]
        settle(tmp_path, ledger.shard(items[1:2]), [replace(done[1], status="ok")])
        ledger.finish()
    assert [row.ok for row in table.read_rows(tmp_path / "ledger.csv")] == [True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.csv", "ledger.json"]


def test_an_image_that_was_done_twice_has_one_row(tmp_path: Path) -> None:
    with open_ledger(tmp_path, SETTINGS) as ledger:
        for size in (1, 2):
            settle(
                tmp_path,
                ledger.shard([]),
                [Row(output="a", input="/a", bytes=size), Row(output=f"b{size}", input="/b")],
            )
        ledger.finish()
    assert [(row.output, row.bytes) for row in table.read_rows(tmp_path / "ledger.csv")] == [
        ("b1", None),
        ("a", 2),
        ("b2", None),
    ]


def test_a_row_of_another_input_is_not_this_ones(tmp_path: Path) -> None:
    with open_ledger(tmp_path, SETTINGS) as ledger:
        settle(tmp_path, ledger.shard([]), [Row(output="a.attar", input="/elsewhere/a.png")])
        (item,) = ledger.known([Item("/i/a.png", "a.attar")])
        assert (item.row, item.ours) == (None, False)


@pytest.mark.parametrize("field", [field.name for field in fields(Settings) if field.name != "max_pixels"])
def test_every_setting_must_be_the_same(tmp_path: Path, field: str) -> None:
    with open_ledger(tmp_path, SETTINGS):
        pass
    with open_ledger(tmp_path, replace(SETTINGS, max_pixels=5)):
        pass
    other = {"target": ("bpp", 1.5), "model": "1" * 64, "direction": DECOMPRESS, "suffix": ".png"}.get(
        field, 7
    )
    changed = replace(SETTINGS, **{field: other})
    with (
        pytest.raises(AttarError, match=f"had other settings \\({field} was .* and is "),
        open_ledger(tmp_path, changed),
    ):
        pass
    with open_ledger(tmp_path, changed, anew=True):
        pass
    with open_ledger(tmp_path, changed):
        pass


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"settings": 5}', '{"settings": {}}', "[" * 100_000])
def test_a_foreign_ledger_is_left_alone(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "ledger.csv").write_text("date,amount\n")
    if text is not None:
        (tmp_path / "ledger.json").write_text(text)
    fault = "not the settings of a run of attar bulk; begin anew with -f"
    with pytest.raises(AttarError, match=fault), open_ledger(tmp_path, SETTINGS):
        pass
    assert (tmp_path / "ledger.csv").read_text() == "date,amount\n"


def test_a_damaged_claim_is_told(tmp_path: Path) -> None:
    with open_ledger(tmp_path, SETTINGS) as ledger:
        for text in ("", "5", '["a", 5]', '{"a": 1}'):
            (tmp_path / "ledger.parts" / "x.claim").write_text(text)
            with pytest.raises(AttarError, match=r"x\.claim: not a claim of attar bulk: delete it"):
                ledger.known([])


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with (
        pytest.raises(AttarError, match="out cannot be made a folder"),
        open_ledger(tmp_path / "out", SETTINGS),
    ):
        pass

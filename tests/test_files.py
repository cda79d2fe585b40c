from __future__ import annotations

import os
from pathlib import Path

import pytest

from attar.codec.files import atomic, is_device, sweep, write_bytes
from attar.errors import AttarError


def test_a_file_is_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"one")
    write_bytes(tmp_path / "a.bin", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"two"


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def fail() -> None:
        with atomic(target) as temporary:
            temporary.write_bytes(b"half")
            raise KeyError("something")

    with pytest.raises(KeyError):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_name_keeps_the_suffix_and_is_hidden(tmp_path: Path) -> None:
    with atomic(tmp_path / ("n" * 200 + ".png")) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".n")
        temporary.write_bytes(b"")


def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"first", overwrite=False)
    with pytest.raises(AttarError, match=r"a\.bin exists already and is not overwritten"):
        write_bytes(target, b"second", overwrite=False)
    assert target.read_bytes() == b"first"


def write_while_another_appears(target: Path) -> None:
    with atomic(target, overwrite=False) as temporary:
        temporary.write_bytes(b"late")
        target.write_bytes(b"meanwhile")


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match="exists already"):
        write_while_another_appears(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"meanwhile"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_hard_links_the_file_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(os, "link", no_links)
    write_bytes(tmp_path / "a.bin", b"x", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r"none/a\.bin cannot be written: No such file or directory"):
        write_bytes(tmp_path / "none" / "a.bin", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(AttarError, match="folder cannot be written: Is a directory"):
        write_bytes(tmp_path / "folder", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AttarError, match="cannot be written: Not a directory"):
        write_bytes(tmp_path / "file" / "a.bin", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_an_error_about_another_file_passes_through(tmp_path: Path) -> None:
    def open_another() -> None:
        with atomic(tmp_path / "a.bin"):
            (tmp_path / "missing").read_bytes()

    with pytest.raises(FileNotFoundError, match="missing"):
        open_another()


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert is_device(pipe)
    assert not is_device(tmp_path)
    assert not is_device(tmp_path / "none")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(pipe, b"through", overwrite=False)
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(b"old")
    (tmp_path / "link.bin").symlink_to("real.bin")
    write_bytes(tmp_path / "link.bin", b"new")
    assert (tmp_path / "link.bin").is_symlink()
    assert (tmp_path / "real.bin").read_bytes() == b"new"


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    targets = [
        tmp_path / "a.png",
        tmp_path / ("n" * 200 + ".tar.png"),
        tmp_path / "no suffix",
        tmp_path / "no" / "x",
    ]
    for target in targets[:3]:
        with atomic(target) as temporary:
            temporary.write_bytes(b"whole")
            left = temporary.name
        (tmp_path / left).write_bytes(b"half")
    others = [
        ".a.0123456.png",
        ".a.01234567.jpg",
        ".b.01234567.png",
        "a.01234567.png",
        ".a.0123456g.png",
        ".a.png",
    ]
    for name in others:
        (tmp_path / name).touch()
    before = {path.name for path in tmp_path.iterdir()}
    sweep(targets)
    gone = before - {path.name for path in tmp_path.iterdir()}
    assert len(gone) == 3
    assert gone.isdisjoint(others)
    assert all(target.read_bytes() == b"whole" for target in targets[:3])

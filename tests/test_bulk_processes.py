"""attar bulk on processes: the files, the tree and the ledger; restarts; workers and drivers that are killed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attar.apps.cli import main
from attar.codec import images
from bulk_kit import add, bulk, expected, mixed, rows, sabotage, tree

__all__ = ["sabotage"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``attar bulk`` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = int(main(["bulk", *map(str, arguments)]) or 0)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_tree_there_and_back(tmp_path: Path, photo_bundle: Path, call) -> None:
    source = mixed(tmp_path / "in", 24, broken=3)
    code, out, err = call(source, tmp_path / "out", "-m", photo_bundle, "-j", 2, "--metrics", "--json")
    assert code == 1
    assert tree(tmp_path / "out") == expected(source, photo_bundle)
    assert len(tree(tmp_path / "out")) == 24
    summary = json.loads(out)
    assert (summary["images"], summary["done"], summary["failed"], summary["kept"]) == (27, 24, 3, 0)
    assert summary["bytes"] == sum(map(len, tree(tmp_path / "out").values()))
    assert summary["saved_percent"] > 50
    assert "bulk: 24 of 27 done, 3 failed" in err
    ledger = rows(tmp_path / "out")
    assert len(ledger) == 27
    for number in range(3):
        row = ledger[f"broken{number}.attar"]
        assert (row.status, row.exit_code) == ("failed", 1)
        assert row.error.startswith(str(source / f"broken{number}.png: ")), row.error
        assert row.error in err
    row = ledger["a/b/0002.attar"]
    assert (row.width, row.height, row.channels) == (24, 32, 3)
    assert row.input == str(source / "a/b/0002.bmp")
    assert row.bytes == (tmp_path / "out/a/b/0002.attar").stat().st_size
    assert row.psnr > 20
    assert 0.7 < row.ssim < 1
    assert not (tmp_path / "out" / "ledger.parts").exists()

    code, _, err = call(tmp_path / "out", tmp_path / "back", "--decompress", "-m", photo_bundle, "-j", 1)
    assert (code, err.split(";")[0]) == (0, "bulk: 24 of 24 done")
    decoded = images.read(tmp_path / "back/a/b/0002.png").pixels
    mse = np.square(decoded.astype(float) - images.read(source / "a/b/0002.bmp").pixels).mean()
    assert 10 * np.log10(255**2 / mse) == pytest.approx(row.psnr)


def test_what_is_done_is_kept_and_what_changed_is_done_again(
    tmp_path: Path, photo_bundle: Path, call
) -> None:
    source, out = mixed(tmp_path / "in", 12), tmp_path / "out"
    command = (source, out, "-m", photo_bundle, "-j", 1)
    assert call(*command)[0] == 0
    before, stamps = tree(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.attar")}
    add(source, "0000.png")  # other pixels
    add(source, "new.png")
    (out / "a" / "0001.attar").unlink()
    (out / "a" / "0005.attar").write_bytes(before["a/0009.attar"])  # sound, and another image's
    code, _, err = call(*command)
    assert (code, err.split(";")[0]) == (0, "bulk: 13 of 13 done (9 of them before)")
    after = tree(out)
    assert after == expected(source, photo_bundle)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"0000.attar", "new.attar"}
    again = {path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert again == {"0000.attar", "0001.attar", "0005.attar"}
    assert len(rows(out)) == 13


def test_a_failed_image_is_tried_again(tmp_path: Path, photo_bundle: Path, call) -> None:
    source, out = mixed(tmp_path / "in", 4, broken=1), tmp_path / "out"
    assert call(source, out, "-m", photo_bundle, "-j", 1)[0] == 1
    add(source, "broken0.png")
    assert call(source, out, "-m", photo_bundle, "-j", 1)[0] == 0
    assert rows(out)["broken0.attar"].ok
    assert tree(out) == expected(source, photo_bundle)


def test_other_settings_are_refused_and_f_begins_anew(
    tmp_path: Path, photo_bundle: Path, digits_bundle: Path, call
) -> None:
    source, out = mixed(tmp_path / "in", 3), tmp_path / "out"
    assert call(source, out, "-m", photo_bundle, "-j", 1)[0] == 0
    code, _, err = call(source, out, "-m", photo_bundle, "--strip", "--effort", 2)
    assert code == 2
    assert "had other settings (effort was 0 and is 2, strip was False and is True)" in err
    code, _, err = call(source, out, "-m", digits_bundle)
    assert (code, "model was '" in err) == (2, True)
    code, _, err = call(source, out, "-m", photo_bundle, "--strip", "-f", "-j", 1)
    assert (code, err.split(";")[0]) == (0, "bulk: 3 of 3 done")


def test_a_file_of_other_origin_is_not_overwritten(tmp_path: Path, photo_bundle: Path, call) -> None:
    source, out = mixed(tmp_path / "in", 4), tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a/0001.attar").write_bytes(b"precious")
    for _ in range(2):
        code, _, err = call(source, out, "-m", photo_bundle, "-j", 1)
        assert code == 1
        assert "0001.attar exists already, and no run noted in this ledger made it" in err
        assert (out / "a/0001.attar").read_bytes() == b"precious"
    assert call(source, out, "-m", photo_bundle, "-j", 1, "-f")[0] == 0
    assert tree(out) == expected(source, photo_bundle)


def test_exit_codes_are_those_of_the_images(tmp_path: Path, photo_bundle: Path, call) -> None:
    source = mixed(tmp_path / "in", 3)
    code, _, err = call(source, tmp_path / "out", "-m", photo_bundle, "--target-psnr", 90, "-j", 1)
    assert code == 3
    assert "at least 90 dB PSNR wanted" in err
    (source / "broken.png").write_bytes(b"")
    assert call(source, tmp_path / "out", "-m", photo_bundle, "--target-psnr", 90, "-j", 1)[0] == 1
    packed = tmp_path / "packed"
    assert call(source, packed, "-m", photo_bundle, "-j", 1)[0] == 1
    assert call(packed, tmp_path / "back", "--decompress", "-j", 1)[0] == 4  # the bundle is not installed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_what_is_no_file_is_named_and_waited_for_by_nobody(tmp_path: Path, photo_bundle: Path, call) -> None:
    source = mixed(tmp_path / "in", 1)
    os.mkfifo(source / "pipe.png")
    (source / "list.txt").write_text(
        f"{source}\n{source / 'pipe.png'}\n{source / '0000.png'}\n{source / 'gone.png'}\n"
    )
    code, _, err = call(source, tmp_path / "out", "-m", photo_bundle, "-j", 1)
    assert (code, f"{source}/pipe.png: a folder, a pipe or a device, not a file" in err) == (1, True)
    code, _, err = call(source / "list.txt", tmp_path / "listed", "-m", photo_bundle, "-j", 1)
    assert f"{source}: a folder, a pipe or a device, not a file" in err
    assert f"{source}/gone.png: no such file" in err
    assert [Path(name).name for name in tree(tmp_path / "listed")] == ["0000.attar"]


def test_one_of_another_size_does_not_stop_its_batch(tmp_path: Path, digits_bundle: Path, call) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(20):
        Image.fromarray(np.full((28, 28), number, np.uint8)).save(source / f"{number}.png")
    Image.new("L", (30, 28)).save(source / "wide.png")
    Image.new("RGB", (28, 28)).save(source / "colour.png")
    code, _, err = call(source, tmp_path / "out", "-m", digits_bundle, "-j", 1)
    assert code == 1
    assert "wide.png: gray, 28 x 30 (height x width); model 'toy-digits' takes" in err
    assert "colour.png: RGB, 28 x 28" in err
    assert tree(tmp_path / "out") == expected(source, digits_bundle)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--engine", "processes", "--address", "auto"], "--address is of a Ray cluster: give --engine ray"),
        (["--decompress", "--effort", "3"], "--decompress takes no --target"),
        (["--decompress", "--metrics"], "--decompress takes no --target"),
        (["-q", "40", "--target-bpp", "1"], "one of --quality and the --target options"),
        (["--engine", "spark"], "'spark' is not one of"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, arguments: list[str], fault: str, call) -> None:
    code, out, err = call(mixed(tmp_path / "in", 1), tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert fault in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["ray", "pyarrow", "pandas"])
def test_ray_missing_names_the_extra(
    tmp_path: Path, photo_bundle: Path, package: str, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    code, out, err = call(mixed(tmp_path / "in", 1), tmp_path / "out", "-m", photo_bundle, "--engine", "ray")
    assert (code, out, err) == (2, "", f"attar: {package} is not installed: pip install 'attar[cluster]'\n")
    assert not (tmp_path / "out").exists()


def test_a_quality_that_the_model_lacks_is_told_before_any_work(
    tmp_path: Path, photo_bundle: Path, call
) -> None:
    code, _, err = call(mixed(tmp_path / "in", 1), tmp_path / "out", "-m", photo_bundle, "-q", 30)
    assert (code, err) == (3, "attar: model 'toy-photo' has a single rate and takes no quality\n")
    assert not (tmp_path / "out").exists()


def test_two_names_for_one_output_are_refused_before_any_work(
    tmp_path: Path, photo_bundle: Path, call
) -> None:
    source = mixed(tmp_path / "in", 8)
    Image.new("RGB", (8, 8)).save(source / "a" / "0001.png")
    code, _, err = call(source, tmp_path / "out", "-m", photo_bundle)
    assert code == 2
    assert f"{source}/a/0001.jpg and {source}/a/0001.png would both become a/0001.attar" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_any_name_comes_back(tmp_path: Path, photo_bundle: Path, call) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [os.fsdecode(b"\xff\xfe"), "new\nline", "return\rhere", 'quo"te,', "\u2603 snow", "-f"]
    for name in names:
        add(source, f"{name}.png")
    for kept in ("", " (6 of them before)"):
        code, _, err = call(source, out, "-m", photo_bundle, "-j", 1)
        assert (code, err.split(";")[0].strip()) == (0, f"bulk: 6 of 6 done{kept}")
    assert tree(out) == expected(source, photo_bundle)
    assert set(rows(out)) == {f"{name}.attar" for name in names}


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no pseudo-terminals")
def test_on_a_terminal_a_bar_tells_the_speed(tmp_path: Path, photo_bundle: Path) -> None:
    import pty

    source = mixed(tmp_path / "in", 9, broken=1)
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "attar", "bulk", source, tmp_path / "out", "-m", photo_bundle, "-j", "1"]
    with subprocess.Popen(
        words, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "150"}
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 1
    assert re.search(r"10/10 [\d.]+ files/s, [\d.]+ MB/s, \d+\.\d % saved", text)
    assert "broken0.png: not an image" in text


def test_dead_workers_take_no_other_image_with_them(
    tmp_path: Path, photo_bundle: Path, sabotage: dict[str, str]
) -> None:
    source, out = mixed(tmp_path / "in", 20, broken=1), tmp_path / "out"
    for name in ("poison.png", "dies-once.png", "half-written.png"):
        add(source / "a", name)
    done = bulk(source, out, "-m", photo_bundle, "-j", 2, "--shard-images", 8, "--json", environment=sabotage)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    ledger = rows(out)
    assert sorted(name for name, row in ledger.items() if not row.ok) == ["a/poison.attar", "broken0.attar"]
    assert ledger["a/poison.attar"].error == (
        f"{source}/a/poison.png: 2 processes that worked on it alone died (signal 9): out of memory, or a library "
        "crashed"
    )
    sound = expected(source, photo_bundle)
    del sound["a/poison.attar"]
    assert tree(out) == sound  # and no temporary file of the process that died while it wrote
    assert json.loads(done.stdout)["worker_deaths"] >= 4


def start(*arguments: object, environment: dict[str, str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "attar", "bulk", *map(str, arguments)]
    return subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def group(leader: int) -> list[int]:
    """Processes of a process group that still live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_to_the_same_files(
    tmp_path: Path, photo_bundle: Path, sabotage: dict[str, str], how: signal.Signals
) -> None:
    source, out = mixed(tmp_path / "in", 16, broken=1), tmp_path / "out"
    add(source, "hangs-once.png")
    command = (source, out, "-m", photo_bundle, "-j", 1, "--shard-images", 4)
    driver = start(*command, environment=sabotage)
    spent = Path(sabotage["PYTHONPATH"]) / "hangs-once.png.spent"
    wait_for(spent.exists, "no worker reached the image that hangs")
    second = bulk(*command, environment=sabotage)
    assert second.returncode == 2
    assert f"{out}: another attar bulk is writing there" in second.stderr
    (os.killpg if how == signal.SIGINT else os.kill)(driver.pid, how)
    assert driver.wait(timeout=30) == (130 if how == signal.SIGINT else -9)
    _, err = driver.communicate()
    wait_for(lambda: not group(driver.pid), "a worker outlives its driver")
    assert 0 < len(tree(out)) < 17
    if how == signal.SIGINT:
        assert "are done; the same command goes on" in err
        assert "attar: interrupted" in err
        assert rows(out)
    done = bulk(*command, environment=sabotage)
    assert done.returncode == 1, done.stderr
    assert "of them before), 1 failed" in done.stderr
    assert tree(out) == expected(source, photo_bundle)
    assert len(rows(out)) == 18
    assert not (out / "ledger.parts").exists()

"""Plans, runs, resumption, failures and crashes, over tiny images and real codecs."""

from __future__ import annotations

import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from attar.errors import AttarError
from attar.measure.benchmark import collect, plan, run
from attar.measure.rows import IDENTICAL, read_rows

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def folder(tmp_path):
    """Three 40 x 32 images under a folder, one of them gray, and a text file that is none of them."""
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.png", "deep/gray.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC)
        (image.convert("L") if "gray" in name else image).save(images / name)
    (images / "notes.txt").write_text("no image")
    return images


def test_images_are_found_once_and_in_order(folder, tmp_path):
    found = collect([folder, folder / "a.png"])
    assert [path.name for path in found] == ["a.png", "b.png", "gray.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AttarError, match=r"empty holds no images; expected files ending in \.avif"):
        collect([tmp_path / "empty"])
    with pytest.raises(AttarError, match="no images were given"):
        collect([])


def test_a_plan_says_everything_before_any_work(folder):
    bad = folder / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    Image.new("RGBA", (9, 9)).save(folder / "clear.png")
    made = plan([folder, folder / "gone.png"], ["jpeg", "png", "ext:no-tool {in} {out} :: cp {in} {out}"])
    assert made.size == 3 * (10 + 1)
    assert made.qualities == {"jpeg": (5, 15, 25, 35, 45, 55, 65, 75, 85, 95), "png": (None,)}
    assert [absent.reason for absent in made.absent] == ["the program 'no-tool' was not found"]
    reasons = {row.image.rsplit("/")[-1]: row.error for row in made.unreadable}
    assert set(reasons) == {"broken.png", "clear.png", "gone.png"}
    assert "has an alpha channel" in reasons["clear.png"]
    assert "no such file" in reasons["gone.png"]
    assert "broken.png" in reasons["broken.png"]


def test_impossible_plans_are_refused(folder):
    with pytest.raises(AttarError, match="did you mean 'webp'"):
        plan([folder], ["jpeg", "wepb"])
    with pytest.raises(AttarError, match="jpeg takes a quality from 1 to 100, not 400"):
        plan([folder], ["jpeg"], {"jpeg": [5, 400]})
    with pytest.raises(AttarError, match="given for 'avif', which is not among the codecs: jpeg"):
        plan([folder], ["jpeg"], {"avif": [5]})


def test_a_run_measures_everything_and_only_once(folder, tmp_path):
    made = plan([folder], ["jpeg", "png"], {"jpeg": [10, 80]})
    seen = []
    rows = run(made, tmp_path / "out", jobs=2, command="attar benchmark", progress=lambda *a: seen.append(a))
    assert [(row.codec, row.quality) for row in rows] == [("jpeg", 10), ("jpeg", 80)] * 3 + [
        ("png", None)
    ] * 3
    assert all(row.ok and row.jobs == 2 and row.command == "attar benchmark" for row in rows)
    assert {row.psnr for row in rows if row.codec == "png"} == {IDENTICAL}
    assert all(low.bytes < high.bytes for low, high in zip(rows[:6:2], rows[1:6:2], strict=True))
    assert (seen[-1][0], seen[-1][1]) == (9, 9)
    assert sorted(map(str, read_rows(tmp_path / "out" / "rows.csv"))) == sorted(map(str, rows))

    seen.clear()
    more = plan([folder], ["jpeg", "png"], {"jpeg": [10, 40, 80]})
    again = run(more, tmp_path / "out", progress=lambda *a: seen.append(a))
    assert len(seen) == 3  # one task for each image, for the one quality that was missing
    assert [row for row in again if row.quality != 40] == rows


def test_one_codec_twice_needs_labels(folder, tmp_path):
    command = "ext:cp {in} {out}.png :: cp {in} {out}"
    made = plan([folder / "a.png"], [f"a={command}", f"b={command}", "png"])
    rows = run(made, tmp_path / "out")
    assert [row.codec for row in rows] == ["a", "b", "png"]
    assert all(row.psnr == IDENTICAL for row in rows)
    with pytest.raises(AttarError, match="two codecs are called 'a': give each a label"):
        plan([folder], ["a=jpeg", "a=webp"])


def test_a_changed_image_is_measured_again(folder, tmp_path):
    first = run(plan([folder / "a.png"], ["png"]), tmp_path / "out")
    Image.new("RGB", (40, 32)).save(folder / "a.png")
    second = run(plan([folder / "a.png"], ["png"]), tmp_path / "out")
    assert second[0].bytes < first[0].bytes


def test_failures_are_rows_and_are_tried_again(folder, tmp_path):
    """A program that fails on one image only; after it is mended, only that image is measured again."""
    program = tmp_path / "codec.py"
    program.write_text(
        "import sys, pathlib, shutil\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "assert data[25] == 2, 'gray is not supported'\n"  # PNG colour type
        "shutil.copy(*sys.argv[1:])\n"
    )
    name = f"ext:{PYTHON} {shlex.quote(str(program))} {{in}} {{out}} :: cp {{in}} {{out}}"
    made = plan([folder], [name])
    rows = run(made, tmp_path / "out")
    assert [row.status for row in rows] == ["ok", "ok", "failed"]
    assert "exit code 1: AssertionError: gray is not supported" in rows[2].error
    program.write_text("import sys, shutil\nshutil.copy(*sys.argv[1:])\n")
    seen = []
    rows = run(made, tmp_path / "out", progress=lambda *a: seen.append(a[2]))
    assert [row.status for row in rows] == ["ok"] * 3
    assert len(seen) == 1
    assert seen[0].endswith("on gray.png")


def test_a_crash_takes_only_its_own_rows(folder, tmp_path, monkeypatch):
    """A codec library that ends the process (as a segmentation fault would) on the gray image."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\n"
        "from attar.measure import anchors\n"
        "plain = anchors.PillowAnchor.encode\n"
        "def encode(self, image, quality):\n"
        "    if image.shape[2] == 1:\n"
        "        print('bits ran out', flush=True)\n"
        "        os.kill(os.getpid(), 11)\n"
        "    return plain(self, image, quality)\n"
        "anchors.PillowAnchor.encode = encode\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    rows = run(plan([folder], ["jpeg"], {"jpeg": [10, 50]}), tmp_path / "out")
    assert [row.status for row in rows] == ["ok"] * 4 + ["failed"] * 2
    assert rows[-1].error == "the codec ended its process (signal 11: bits ran out)"


def test_an_interrupted_run_keeps_its_rows_and_leaves_no_process(folder, tmp_path):
    made = plan([folder], ["jpeg", "png"], {"jpeg": [10]})

    def stop(done, *_):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, tmp_path / "out", progress=stop)
    assert len(read_rows(tmp_path / "out" / "rows.csv")) == 2
    seen = []
    rows = run(made, tmp_path / "out", progress=lambda *a: seen.append(a))
    assert (len(rows), len(seen)) == (6, 4)


def test_unreadable_images_are_rows(folder, tmp_path):
    (folder / "broken.png").write_bytes(b"x")
    rows = run(plan([folder], ["png"]), tmp_path / "out")
    assert [row.status for row in rows] == ["ok"] * 3 + ["failed"]
    assert len(read_rows(tmp_path / "out" / "rows.csv")) == 4

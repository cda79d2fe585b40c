"""attar bulk under fire: 2,000 mixed images, some broken, through both engines, whole and while things are killed.

    python benchmarks/bulk_endurance.py [--photos FOLDER] [--count 2000] [--keep FOLDER]

The images are crops of the sample photographs in the package (and of those in FOLDER) in four formats and many sizes.
They go through (1) processes, (2) processes of which one is killed in the middle, (3) processes whose driver is killed
with -9 and then started again; then through a Ray cluster of two nodes on this machine: (4) whole, (5) with a worker
killed, (6) with the driver killed and started again. Every way must give the bytes that single compressions give, and a
ledger with a row for each image that names the broken ones. Linux only: victims are found in /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

import attar
from attar.apps.bulk import table
from attar.codec import images
from attar.errors import AttarError

FORMATS = ("png", "jpg", "webp", "bmp")


def write_images(folder: Path, photos: Sequence[Path], count: int) -> set[str]:
    """Crops of all photos in a tree; the outputs of those that are broken on purpose, one of fifty."""
    rng = np.random.default_rng(7)
    sources = [images.read(path, convert=True).pixels for path in photos]
    broken = set()
    for number in range(count):
        pixels = sources[number % len(sources)]
        height, width = (int(rng.integers(16, min(side, 200))) for side in pixels.shape[:2])
        top, left = (
            int(rng.integers(0, 1 + side - cut))
            for side, cut in zip(pixels.shape, (height, width), strict=False)
        )
        path = folder / f"{number % 7}" / f"{number % 11}" / f"{number:05}.{FORMATS[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(path, images.from_array(pixels[top : top + height, left : left + width]))
        if number % 50 == 13:
            whole = path.read_bytes()
            path.write_bytes((whole[: len(whole) // 3], b"", rng.bytes(500), b"GIF89a")[number // 50 % 4])
            broken.add(path.relative_to(folder).with_suffix(".attar").as_posix())
    return broken


def write_model(path: Path) -> None:
    """The small real photo bundle of the tests: a block DCT."""
    import toy_bundle

    toy_bundle.write_photo(path)


def descendants(process: int) -> dict[int, str]:
    """Living processes below one, with their command lines."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            commands[int(path.name)] = (
                (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        parents[int(path.name)] = int(fields[1])
    below = {process}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: commands.get(child, "") for child in below - {process}}


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the ledger's."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("ledger.")}


def bulk(
    words: Sequence[str], out: Path, count: int, attack: Callable[[int], None] | None = None
) -> dict[str, object]:
    """Run attar bulk; ``attack`` is given its process number when a third of the outputs is there."""
    command = [sys.executable, "-m", "attar", "bulk", *words, "--json", "--quiet"]
    with (
        out.with_suffix(".err").open("a", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        while attack and process.poll() is None:
            if sum(1 for _ in out.rglob("*.attar")) > count // 3:
                attack(process.pid)
                break
            time.sleep(0.02)
        text, _ = process.communicate()
    return json.loads(text) if text else {"exit": process.returncode}


def check(out: Path, expected: dict[str, bytes], broken: set[str], count: int) -> None:
    """End the program where files or rows are not what they must be."""
    found = tree(out)
    if found != expected:
        wrong = sorted(
            name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
        )
        said = out.with_suffix(".err").read_text(encoding="utf-8").splitlines()[-20:]
        sys.exit("\n".join([*said, f"{out}: {len(wrong)} files differ: {wrong[:5]}"]))
    rows = list(table.read_rows(out / "ledger.csv"))
    failed = {row.output for row in rows if not row.ok}
    if len(rows) != count or failed != broken:
        sys.exit(f"{out}: {len(rows)} rows, {len(failed)} failed ones; {count} and {len(broken)} expected")
    if not all(row.error.startswith(row.input) for row in rows if not row.ok):
        sys.exit(f"{out}: an error does not name its file")


def kill_worker(word: str, root: int | None = None) -> Callable[[int], None]:
    """An attack on one worker below ``root``, or below the driver, whose command line has ``word`` in it."""

    def attack(driver: int) -> None:
        victims = [number for number, command in descendants(root or driver).items() if word in command]
        if not victims:
            sys.exit(f"no process with {word!r} to kill")
        os.kill(victims[0], signal.SIGKILL)

    return attack


def kill_driver(driver: int) -> None:
    """An attack on the driver."""
    os.kill(driver, signal.SIGKILL)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from bulk_kit import CLUSTER

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="Work here, and leave everything there.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = arguments.keep or Path(name)
        (source := work / "in").mkdir(parents=True)
        with resources.as_file(resources.files("attar") / "data" / "photos") as samples:
            photos = [path for path in sorted(samples.iterdir()) if path.suffix in images.SUFFIXES]
            if arguments.photos:
                photos += sorted(
                    path for path in arguments.photos.rglob("*") if path.suffix in images.SUFFIXES
                )
            broken = write_images(source, photos, arguments.count)
        model = work / "toy-photo.attarmodel"
        write_model(model)
        codec, expected = attar.load(model, threads=1), {}
        for path in sorted(source.rglob("*.*")):
            try:
                expected[path.relative_to(source).with_suffix(".attar").as_posix()] = codec.compress(path)
            except AttarError:
                continue
        print(
            f"{arguments.count} images of {len(photos)} photographs, {len(broken)} of them broken:"
            f" {len(expected)} files expected"
        )

        def through(label: str, options: Sequence[str], attack: Callable[[int], None] | None = None) -> None:
            out = work / label.replace(" ", "-")
            words = [str(source), str(out), "-m", str(model), "--shard-images", "20", *options]
            first = bulk(words, out, arguments.count, attack)
            before = len(tree(out))
            last = bulk(words, out, arguments.count) if "images" not in first else first
            check(out, expected, broken, arguments.count)
            print(
                f"{label:26}: {last['done']} done, {last['kept']} kept, {last['failed']} failed,"
                f" {last['worker_deaths']} workers died, {last['seconds']:.1f} s"
                + (f"; the driver was killed after {before} files" if last is not first else ""),
                flush=True,
            )

        through("processes", ["-j", "2"])
        through("processes, worker killed", ["-j", "2"], kill_worker("spawn_main"))
        through("processes, driver killed", ["-j", "2"], kill_driver)
        with subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as cluster:
            address = cluster.stdout.readline().strip() if cluster.stdout else ""
            ray = ["--engine", "ray", "--address", address]
            through("ray", ray)
            through("ray, worker killed", ray, kill_worker("ray::Map(task)", cluster.pid))
            through("ray, driver killed", ray, kill_driver)
            cluster.communicate()
        print("all files are the same, byte for byte")


if __name__ == "__main__":
    main()

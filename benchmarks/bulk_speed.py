"""How fast attar bulk is on one process and on two (each one thread), there and back, with the CPU time behind it.

    python benchmarks/bulk_speed.py [--images FOLDER --model MODEL] [--count 30000] [--jobs 1,2] [--rounds 3]
                                    [--engine processes] [--json OUT]

Without --images: the 10,000 test digits of the package as PNG files, through the bundle `digits`. The best round
counts. CPU time is that of the driver and all workers, starting them included; a machine with other work on it lowers
files/s, and leaves CPU ms per file about as they are: "files/s by CPU" is what as many free cores would give.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from digits import test_set

from attar.codec import images


def write_digits(folder: Path, count: int) -> None:
    """PNG files of test digits, a hundred to a folder; more than 10,000 are the first ones again, mirrored."""
    for number, pixels in enumerate(np.resize(test_set(), (count, 28, 28, 1))):
        path = folder / f"{number // 100:04}" / f"{number:07}.png"
        path.parent.mkdir(exist_ok=True)
        picture = images.from_array(pixels if number < 10_000 else pixels[:, ::-1])
        path.write_bytes(images.encode(picture, "PNG", compress_level=1))


def measure(source: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """The summary of one run of attar bulk, with the CPU seconds of all its processes."""
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "attar", "bulk", str(source), str(out), "--json", "--quiet", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        text = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)}: exit code {process.returncode}")
    return json.loads(text) | {"cpu_seconds": used.ru_utime + used.ru_stime}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--jobs", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="processes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.images or folder / "in"
        if arguments.images is None:
            source.mkdir()
            write_digits(source, arguments.count)
        common = ["-m", arguments.model, "--engine", arguments.engine]
        for round_ in range(arguments.rounds):
            for jobs in map(int, arguments.jobs.split(",")):
                there = measure(source, folder / "packed", [*common, "-j", str(jobs)])
                back = measure(folder / "packed", folder / "back", ["--decompress", *common, "-j", str(jobs)])
                for row in (there, back):
                    row |= {"jobs": jobs, "round": round_}
                    rows.append(row)
                    cpu_ms = 1e3 * row["cpu_seconds"] / row["done"]
                    print(
                        f"round {round_}, {jobs} processes, {row['direction']:10}:"
                        f" {row['files_per_second']:8.1f} files/s"
                        f" {row['megabytes_per_second']:7.2f} MB/s, {cpu_ms:.3f} CPU ms per file, "
                        f"{1e3 * jobs / cpu_ms:.1f} files/s by CPU"
                    )
    for direction in ("compress", "decompress"):
        best = {
            jobs: max(r["files_per_second"] for r in rows if (r["jobs"], r["direction"]) == (jobs, direction))
            for jobs in sorted({row["jobs"] for row in rows})
        }
        first = min(best)
        ratios = ", ".join(
            f"{jobs}: {speed:.1f} ({speed / best[first]:.2f} x)" for jobs, speed in best.items()
        )
        print(f"{direction}, files/s by processes: {ratios}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

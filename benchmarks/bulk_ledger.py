"""What the driver of attar bulk needs for each image: seconds to plan, to merge the ledger, to go on; memory; bytes.

    python benchmarks/bulk_ledger.py [--images 200000] [--shard 64]

On empty files, a thousand to a folder, with rows as long as those of real photographs: no image is compressed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from attar.apps.bulk import plan
from attar.apps.bulk.ledger import open_ledger, settle
from attar.apps.bulk.records import COMPRESS, Item, Row, Settings


def row_of(item: Item) -> Row:
    """A row with numbers as long as those of a photograph."""
    return Row(
        output=item.output,
        input=item.input,
        input_bytes=4_123_456,
        bytes=412_345,
        width=4000,
        height=3000,
        channels=3,
        psnr=34.12345678901234,
        ssim=0.9612345678901234,
        seconds=12.345678,
        sha256="0123456789abcdef",
        input_mtime_ns=1_700_000_000_123_456_789,
        worker="worker-0123:12345",
    )


def memory() -> int:
    """Most resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--shard", type=int, default=64)
    arguments = parser.parse_args()
    count = arguments.images
    settings = Settings(COMPRESS, ".attar", model="0" * 64)
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "photographs", Path(name) / "compressed"
        for number in range(count):
            if number % 1000 == 0:
                (folder := source / f"{number // 1000:05}").mkdir(parents=True)
            (folder / f"IMG_{number:08}.jpeg").touch()
        marks = [(time.process_time(), memory())]

        def mark(what: str) -> None:
            marks.append((time.process_time(), memory()))
            (before, base), (now, top) = marks[-2:]
            print(
                f"{what:42} {1e6 * (now - before) / count:7.1f} CPU us, {(top - base) / count:7.0f} bytes of memory"
            )

        items = plan.collect(str(source), COMPRESS, ".attar")
        mark("plan, for each image:")
        with open_ledger(out, settings) as ledger:
            shards = [ledger.shard(part) for part in plan.cut(items, COMPRESS, 1, arguments.shard)]
            mark("cut into shards")
            for shard in shards:
                settle(out, shard, map(row_of, shard.items))
            mark(f"write {len(shards)} parts (by the workers)")
            ledger.finish()
            mark("merge them")
        size = (out / "ledger.csv").stat().st_size
        del shards
        with open_ledger(out, settings) as ledger:
            ledger.known(items)
            mark("go on: read the ledger")
        print(f"{size / count:.0f} bytes of ledger.csv for each image")


if __name__ == "__main__":
    main()

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import attar
from attar.codec import bundle, images
from toy_bundle import digit

START = [sys.executable, "-c", "import sys; from attar.apps.cli import main; sys.exit(main())"]


def toy_digits(environment: dict[str, str]) -> Path:
    return Path(environment["ATTAR_MODELS"].split(os.pathsep)[0]) / "toy-digits.attarmodel"


@pytest.fixture
def environment(digits_bundle: Path, photo_bundle: Path, tmp_path: Path) -> dict[str, str]:
    models = f"{digits_bundle.parent}{os.pathsep}{photo_bundle.parent}"
    return os.environ | {"ATTAR_MODELS": models, "XDG_DATA_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_pipes_both_ways(work: Path, environment: dict[str, str]) -> None:
    compress = subprocess.run(
        [*START, "compress", "-", "-m", "toy-digits"],
        input=(work / "d0.png").read_bytes(),
        capture_output=True,
        env=environment,
        check=True,
    )
    assert compress.stderr == b""
    assert compress.stdout == attar.Codec(
        bundle.read(Path(environment["ATTAR_MODELS"].split(os.pathsep)[0]) / "toy-digits.attarmodel")
    ).compress(work / "d0.png")
    decompress = subprocess.run(
        [*START, "decompress", "-", "--format", "bmp"],
        input=compress.stdout,
        capture_output=True,
        env=environment,
        check=True,
    )
    assert decompress.stdout[:2] == b"BM"
    assert images.read(decompress.stdout).pixels.shape == (28, 28, 1)


def test_a_whole_decompression_loads_no_framework_and_takes_little_time(
    work: Path, environment: dict[str, str]
) -> None:
    subprocess.run(
        [*START, "compress", "d0.png", "-m", "toy-digits"], env=environment, check=True, capture_output=True
    )
    script = (
        "import sys\n"
        "from attar.apps.cli import main\n"
        "main(['decompress', 'd0.attar', '-o', 'out.png', '-f'])\n"
        "heavy = {'torch', 'keras', 'tensorflow', 'jax', 'onnx', 'matplotlib', 'scipy', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    seconds = []
    for _ in range(3):
        started = os.times()
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
        ended = os.times()
        seconds.append(sum(ended[2:4]) - sum(started[2:4]))
    assert (work / "out.png").exists()
    # CPU time, which does not depend on what else the machine does.
    assert min(seconds) < 0.9


def test_interrupting_leaves_whole_files_and_says_so(work: Path, environment: dict[str, str]) -> None:
    for number in range(3, 400):
        (work / f"d{number}.png").write_bytes((work / "d0.png").read_bytes())
    inputs = [f"d{number}.png" for number in range(400)]
    codec = attar.load(toy_digits(environment))
    for workers in ("1", "2"):
        out = work / f"out{workers}"
        command = [*START, "compress", *inputs, "-m", "toy-digits", "-o", f"{out}/", "-j", workers]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, cwd=work)
        deadline = time.monotonic() + 120
        while len(list(out.glob("*.attar"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130
        assert err.endswith(b"attar: interrupted\n")
        sizes = {path.stat().st_size for path in out.iterdir()}
        assert {path.suffix for path in out.iterdir()} == {".attar"}
        assert sizes <= {len(data) for data in codec.compress_batch([digit(seed) for seed in range(3)])}
        assert len(list(out.iterdir())) < 400


def test_shells_complete_commands_and_options(environment: dict[str, str]) -> None:
    def complete(words: str, position: int) -> list[str]:
        asked = {"_ATTAR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        command = subprocess.run(START, env=environment | asked, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in command.stdout.splitlines()]

    assert complete("attar dec", 1) == ["decompress"]
    assert "--target-bytes" in complete("attar compress --target", 2)

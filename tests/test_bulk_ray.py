"""attar bulk on a real Ray cluster of two nodes: the same files as on processes, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attar.apps.bulk import cluster
from attar.apps.bulk.records import COMPRESS, Settings
from attar.errors import AttarError
from bulk_kit import CLUSTER, add, bulk, expected, mixed, rows, sabotage_in, tree

pytest.importorskip("ray.data", reason="attar[cluster] is not installed")


@pytest.fixture(scope="module")
def sabotage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the nodes, in which workers die over some images."""
    return sabotage_in(tmp_path_factory.mktemp("ray")) | {"RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def address(sabotage: dict[str, str]) -> Iterator[str]:
    """Of a cluster of two nodes with a core each, in a process of its own."""
    words = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, env=sabotage, text=True, **pipes) as cluster:  # type: ignore[call-overload]
        try:
            yield cluster.stdout.readline().strip()
        finally:
            cluster.stdin.close()
            cluster.wait(timeout=60)


def test_two_nodes_make_what_processes_make(
    tmp_path: Path, photo_bundle: Path, address: str, sabotage: dict[str, str]
) -> None:
    source = mixed(tmp_path / "in", 30, broken=2)
    add(
        source / "a", "half-written.png"
    )  # kills its worker, once, when the file is written but has no name yet
    ray = ("--engine", "ray", "--address", address, "--shard-images", 6)
    done = bulk(source, tmp_path / "ray", "-m", photo_bundle, "--json", *ray, environment=sabotage)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    ledger = rows(tmp_path / "ray")
    assert len(ledger) == 33
    assert sorted(name for name, row in ledger.items() if not row.ok) == ["broken0.attar", "broken1.attar"]
    assert tree(tmp_path / "ray") == expected(source, photo_bundle)
    assert json.loads(done.stdout)["worker_deaths"] == 1
    assert len({row.worker for row in ledger.values() if row.ok}) >= 2
    assert not (tmp_path / "ray" / "ledger.parts").exists()

    # The other engine goes on with the same ledger, and finds everything done.
    after = bulk(source, tmp_path / "ray", "-m", photo_bundle, "-j", 1)
    assert after.returncode == 1
    assert "bulk: 31 of 33 done (31 of them before), 2 failed" in after.stderr


def test_a_node_that_does_not_see_the_outputs_is_named(
    tmp_path: Path, photo_bundle: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(COMPRESS, ".attar")
    (tmp_path / "ledger.json").write_bytes(b"one")
    workers = cluster.Cluster(settings, None, tmp_path, address=address)
    monkeypatch.setattr(cluster, "probe", lambda _: (cluster.__version__, b"two"))
    with pytest.raises(
        AttarError, match=r"node .* does not see .*: inputs and outputs have to be on a file system"
    ):
        workers.__enter__()
    monkeypatch.setattr(cluster, "probe", lambda _: ("0.0", b"one"))
    with pytest.raises(AttarError, match=r"node .* has attar 0\.0, and this machine"):
        workers.__enter__()


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("ray://127.0.0.1:10001", "Ray Data and Ray Train do not run through Ray's client"),
        ("127.0.0.1:1", "nothing answers there: .*refused"),
        ("127.0.0.1:99999", "nothing answers there"),
        ("nonsense", "no Ray cluster answers: "),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(tmp_path: Path, address: str, fault: str) -> None:
    workers = cluster.Cluster(Settings(COMPRESS, ".attar"), None, tmp_path, address=address)
    with pytest.raises(AttarError, match=f"--address {address}: {fault}"):
        workers.__enter__()

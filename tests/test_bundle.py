from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import toy_bundle
from attar.codec import bundle
from attar.codec.bundle import Entropy, Latent
from attar.errors import BundleError, ModelMissingError

GRAPHS = toy_bundle.digits_graphs()
TABLES = toy_bundle.digits_tables()


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(contents: dict[str, bytes], **options: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, body in contents.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def with_manifest(path: Path, change: object) -> bytes:
    parts = entries(path)
    document = json.loads(parts["manifest.json"])
    change(document)
    return zipped(parts | {"manifest.json": json.dumps(document).encode()})


def test_write_then_read_gives_everything_back(tmp_path: Path) -> None:
    manifest = toy_bundle.digits_manifest(
        training={"epochs": 15, "ssim": 0.98}, model={"inputs": {}}, created_by={"attar": "0.1.0"}
    )
    path = tmp_path / "a.attarmodel"
    digest = bundle.write(path, manifest=manifest, graphs=GRAPHS, tables=TABLES)
    found = bundle.read(path)
    assert found.manifest == manifest
    assert found.graphs == GRAPHS
    assert [t.to_json() for t in found.tables] == [t.to_json() for t in TABLES]
    assert found.sha256 == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.short_id.hex() == digest[:8]


def test_writing_is_deterministic(tmp_path: Path) -> None:
    digests = {
        bundle.write(tmp_path / name, manifest=toy_bundle.digits_manifest(), graphs=graphs, tables=TABLES)
        for name, graphs in (("a", GRAPHS), ("b", dict(reversed(GRAPHS.items()))))
    }
    assert len(digests) == 1


def test_a_variable_rate_photo_manifest_survives(tmp_path: Path) -> None:
    manifest = toy_bundle.photo_manifest(qualities=(1, 100), entropy=Entropy("factorized"))
    path = tmp_path / "p.attarmodel"
    bundle.write(path, manifest=manifest, graphs=toy_bundle.photo_graphs(), tables=toy_bundle.photo_tables())
    assert bundle.read(path).manifest == manifest


@pytest.mark.parametrize(
    ("height", "width", "padded", "latent"),
    [(8, 8, (8, 8), (1, 1, 30)), (1, 17, (8, 24), (1, 3, 30)), (512, 768, (512, 768), (64, 96, 30))],
)
def test_shapes_of_a_strided_latent(height: int, width: int, padded: tuple, latent: tuple) -> None:
    manifest = toy_bundle.photo_manifest()
    assert manifest.padded_size(height, width) == padded
    assert manifest.latent_shape(height, width) == latent


def test_shapes_of_a_fixed_latent() -> None:
    assert toy_bundle.digits_manifest().latent_shape(28, 28) == (50,)
    assert toy_bundle.digits_manifest(latent=Latent(8, shape=(4, 4))).latent_shape(28, 28) == (4, 4, 8)


def test_nothing_is_left_when_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="49 tables for 50 latent channels"):
        bundle.write(tmp_path / "a", manifest=toy_bundle.digits_manifest(), graphs=GRAPHS, tables=TABLES[1:])
    only = {"analysis": GRAPHS["analysis"]}
    with pytest.raises(BundleError, match=r"synthesis\.onnx missing"):
        bundle.write(tmp_path / "a", manifest=toy_bundle.digits_manifest(), graphs=only, tables=TABLES)
    more = {**GRAPHS, "evil": b""}
    with pytest.raises(BundleError, match=r"'evil\.onnx' has no place in a bundle"):
        bundle.write(tmp_path / "a", manifest=toy_bundle.digits_manifest(), graphs=more, tables=TABLES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../x"}, "name is '../x'; letters, digits"),
        ({"name": ""}, "name is ''"),
        ({"channels": 4}, "channels is 4; 1 or 3 expected"),
        ({"channels": True}, "channels is True"),
        ({"size": (0, 28)}, r"size is \(0, 28\)"),
        ({"size": (28, 28, 1)}, "null or"),
        ({"multiple": 0}, "multiple is 0; 1 to 1024 expected"),
        ({"latent": Latent(0)}, "channels 1 to 4096"),
        ({"latent": Latent(5, stride=16), "multiple": 8}, "a stride that divides multiple"),
        ({"latent": Latent(5, stride=8, shape=(3,)), "multiple": 8}, "a stride that divides multiple"),
        ({"latent": Latent(5), "size": None}, "a fixed shape"),
        ({"latent": Latent(5, shape=(1, 2, 3))}, "at most 2 numbers"),
        ({"entropy": Entropy("gaussian")}, "kind='gaussian'.*kind factorized or hyperprior"),
        ({"qualities": (10, 5)}, r"\[lowest, highest\]"),
        ({"qualities": (0, 5)}, r"\[lowest, highest\]"),
        ({"training": [1]}, "training is .*an object expected"),
        ({"format": 2}, "a later one needs a later attar"),
        ({"version": 1}, "version is 1; text expected"),
    ],
)
def test_faults_of_a_manifest(changes: dict, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        toy_bundle.digits_manifest(**changes)


def test_all_faults_of_a_manifest_file_are_reported_at_once(digits_bundle: Path) -> None:
    def change(document: dict) -> None:
        document["chanels"] = document.pop("channels")
        del document["latent"]["channels"]
        document["extra"] = 1

    with pytest.raises(BundleError) as caught:
        bundle.from_bytes(with_manifest(digits_bundle, change), source="m.attarmodel")
    text = str(caught.value)
    assert text.startswith("m.attarmodel: ")
    assert "'chanels' is unknown; did you mean 'channels'?" in text
    assert "channels is missing" in text
    assert "latent.channels is missing" in text
    assert "'extra' is unknown" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latent", 5),
        ("latent", None),
        ("latent", {"channels": "50"}),
        ("latent", {"channels": 50, "shape": 7}),
        ("latent", {"channels": 50, "shape": [[1]]}),
        ("entropy", []),
        ("entropy", {"kind": ["factorized"]}),
        ("entropy", {"kind": {}}),
        ("size", "28"),
        ("size", [28, "28"]),
        ("size", [28.0, 28.0]),
        ("qualities", {}),
        ("multiple", None),
        ("name", None),
        ("name", 5),
        ("training", None),
        ("format", "1"),
        ("format", 1.0),
        ("channels", [1]),
    ],
)
def test_wrong_types_in_a_manifest_file_are_faults(digits_bundle: Path, key: str, value: object) -> None:
    with pytest.raises(BundleError, match=key):
        bundle.from_bytes(with_manifest(digits_bundle, lambda d: d.update({key: value})), source="m")


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100000, b'{"name": NaN}'])
def test_a_manifest_that_is_no_manifest(digits_bundle: Path, document: bytes) -> None:
    with pytest.raises(BundleError, match="m: "):
        bundle.from_bytes(zipped(entries(digits_bundle) | {"manifest.json": document}), source="m")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{}", "not a list of tables"),
        (b"[]", "0 tables for 50"),
        (json.dumps([{"minimum": 0, "frequencies": [1, 2]}] * 50).encode(), r"tables.json\[0\]: .* sum to"),
        (b"[" + b"1" * 5000 + b"]", "not JSON|tables for"),
    ],
)
def test_tables_are_checked_when_they_are_used(digits_bundle: Path, document: bytes, message: str) -> None:
    found = bundle.from_bytes(zipped(entries(digits_bundle) | {"tables.json": document}), source="m")
    with pytest.raises(BundleError, match=message):
        _ = found.tables


def test_zips_that_are_no_bundles(digits_bundle: Path) -> None:
    parts = entries(digits_bundle)
    cases = {
        "not a bundle, or damaged": b"",
        "not a bundle, or damaged: File is not": b"PK\x03\x04 and no more",
        "manifest.json, synthesis.onnx, tables.json missing": zipped({"analysis.onnx": b""}),
        r"'\.\./evil' has no place": zipped(parts | {"../evil": b"x"}),
        r"'/etc/passwd' has no place": zipped(parts | {"/etc/passwd": b"x"}),
        "neither stored nor deflated": zipped(parts, compression=zipfile.ZIP_LZMA),
    }
    for message, data in cases.items():
        with pytest.raises(BundleError, match=message):
            bundle.from_bytes(data, source="m")


def test_a_double_entry_is_refused(digits_bundle: Path) -> None:
    buffer = io.BytesIO(zipped(entries(digits_bundle)))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("tables.json", b"[]")
    with pytest.raises(BundleError, match="an entry is there twice"):
        bundle.from_bytes(buffer.getvalue(), source="m")


def test_bombs_are_refused_by_their_declared_size(digits_bundle: Path) -> None:
    bomb = zipped(
        entries(digits_bundle) | {"manifest.json": bytes(5 << 20)}, compression=zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < 1 << 20
    with pytest.raises(BundleError, match=r"manifest\.json declares 5242880 bytes, more than 4194304"):
        bundle.from_bytes(bomb, source="m")


def test_a_size_that_lies_is_refused(digits_bundle: Path) -> None:
    """The directory says little; what is inflated must not be more."""
    parts = entries(digits_bundle) | {"manifest.json": b" " * (4 << 20)}
    honest = zipped(parts, compression=zipfile.ZIP_DEFLATED)
    size = (4 << 20).to_bytes(4, "little")
    assert honest.count(size) == 2
    forged = honest.replace(size, (100).to_bytes(4, "little"))
    with pytest.raises(BundleError, match="damaged"):
        bundle.from_bytes(forged, source="m")
    with pytest.raises(BundleError, match="declares 4194304 bytes from 2: forged"):
        _declare_more(parts)


def _declare_more(parts: dict[str, bytes]) -> None:
    small = zipped(parts | {"manifest.json": b"{}"})
    place = small.rindex(b"manifest.json") - 46 + 24
    bundle.from_bytes(small[:place] + (4 << 20).to_bytes(4, "little") + small[place + 4 :], source="m")


def test_every_damaged_byte_of_a_bundle_is_noticed(photo_bundle: Path) -> None:
    """Either the zip refuses it, or its SHA-256, by which files name it, is another."""
    data = photo_bundle.read_bytes()
    original = hashlib.sha256(data).hexdigest()
    noticed = 0
    for place in range(0, len(data), 7):
        damaged = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        try:
            assert bundle.from_bytes(damaged, source="m").sha256 != original
        except BundleError:
            noticed += 1
    assert noticed > 0.8 * len(data) / 7


def external(nested: bool) -> bytes:
    model = onnx.load_from_string(GRAPHS["synthesis"])
    tensor = next(t for t in model.graph.initializer if t.name == "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    if nested:
        branch = helper.make_graph([], "b", [], [], [tensor])
        del model.graph.initializer[:]
        model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    return model.SerializeToString()


@pytest.mark.parametrize("nested", [False, True])
def test_weights_outside_of_the_bundle_are_refused(tmp_path: Path, nested: bool) -> None:
    graphs = {**GRAPHS, "synthesis": external(nested)}
    with pytest.raises(BundleError, match=r"synthesis\.onnx: a tensor lies in another file"):
        bundle.write(tmp_path / "a", manifest=toy_bundle.digits_manifest(), graphs=graphs, tables=TABLES)


@pytest.mark.parametrize(
    "body", [b"no onnx", b"\x3a\xff\xff\x03", b"\x38\x01", b"\x3a\x02\x0b\x0b", b"\xff" * 11]
)
def test_what_is_no_onnx_is_refused(tmp_path: Path, body: bytes) -> None:
    graphs = {**GRAPHS, "analysis": body}
    with pytest.raises(BundleError, match=r"analysis\.onnx: not an ONNX file, or damaged"):
        bundle.write(tmp_path / "a", manifest=toy_bundle.digits_manifest(), graphs=graphs, tables=TABLES)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing\.attarmodel: cannot be read: No such file"):
        bundle.read(tmp_path / "nothing.attarmodel")


@pytest.mark.usefixtures("only_toys")
def test_find_by_path_name_and_id(digits_bundle: Path, photo_bundle: Path) -> None:
    digest = bundle.read(photo_bundle).sha256
    assert bundle.installed() == {"toy-digits": digits_bundle, "toy-photo": photo_bundle}
    assert bundle.find(str(digits_bundle)) == digits_bundle
    assert bundle.find("toy-digits") == digits_bundle
    for model in (digest, digest[:8], digest[:8].upper(), bytes.fromhex(digest[:8])):
        assert bundle.find(model) == photo_bundle


@pytest.mark.usefixtures("only_toys")
def test_a_missing_model_is_named_with_what_is_installed() -> None:
    with pytest.raises(
        ModelMissingError, match=r"no model 'toy-digit': .* did you mean 'toy-digits'\? installed: "
    ):
        bundle.find("toy-digit")
    with pytest.raises(
        ModelMissingError, match=r"model 00000000 is needed and not installed; installed: .* -m FILE"
    ):
        bundle.find(bytes(4))
    with pytest.raises(ModelMissingError, match="model 0123abcd is needed"):
        bundle.find("0123ABCD")


def test_folders_come_from_the_package_the_environment_and_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_bundle: Path
) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    monkeypatch.setenv("ATTAR_MODELS", f"{first}{bundle.os.pathsep}{second}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (first / "mine.attarmodel").write_bytes(digits_bundle.read_bytes())
    folders = bundle.folders()
    assert folders[0].parts[-2:] == ("attar", "models")
    assert folders[1:3] == [first, second]
    assert folders[3].parts[-2:] == ("attar", "models")
    assert bundle.find("mine") == first / "mine.attarmodel"


def test_manifest_words() -> None:
    assert toy_bundle.digits_manifest().accepts == "gray, 28 x 28 (height x width)"
    assert toy_bundle.photo_manifest().accepts == "RGB or gray, any size"

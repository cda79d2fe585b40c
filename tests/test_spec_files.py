"""model.json as text: round trips, digests, files, and damage anywhere."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar import spec
from attar.errors import SpecError
from spec_kit import CATALOGUE, SEEDS, conv, encoder_of, set_layer, small


def test_text_round_trips_and_digests_identify_the_architecture() -> None:
    for path in SEEDS:
        model = spec.load(path)
        again = spec.loads(model.to_json())
        assert again == model
        assert again.digest() == model.digest()
        assert re.fullmatch(r"[0-9a-f]{64}", model.digest())
        assert pickle.loads(pickle.dumps(model)) == model
    document = small()
    document["model"]["name"] = "renamed"
    assert spec.parse(document).digest() == spec.parse(small()).digest()
    set_layer(document, conv(name="first", strides=2))
    assert spec.parse(document).digest() != spec.parse(small()).digest()


def test_the_digest_is_frozen() -> None:
    """Checkpoints hold it: a change here makes every checkpoint foreign."""
    digest = spec.load(SEEDS[0]).with_latent_dims(50).digest()
    assert digest == "c310bf2c984a4f8c867cd5b7ef9912930edfa18d19faa46b6f77cad40fcbba85"


def test_what_was_parsed_no_longer_follows_its_source() -> None:
    document = small()
    model = spec.parse(document)
    encoder_of(document)[0]["Conv2D"]["filters"] = 99
    assert model == spec.parse(small())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.json: cannot be read: No such file"):
        spec.load(tmp_path / "missing.json")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        spec.load(tmp_path)
    with pytest.raises(SpecError, match=r"cannot be read: .*null byte"):
        spec.load("a\0b")
    path = tmp_path / "m.json"
    path.write_bytes(b'{"model": "\xff"}')
    with pytest.raises(SpecError, match=r"m\.json: is not UTF-8 text \(byte 11\)"):
        spec.load(path)
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(SpecError, match="is larger than 1048576 bytes"):
        spec.load(path)
    path.write_bytes(b"\xef\xbb\xbf" + SEEDS[0].read_bytes())
    assert spec.load(path) == spec.load(SEEDS[0])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_another_model(data: st.DataObject) -> None:
    """Any value of the document replaced by any JSON: a SpecError with located faults, or a sound model."""
    document = small()
    places: list[tuple[Any, Any]] = []
    todo: list[Any] = [document]
    while todo:
        here = todo.pop()
        for key in here if isinstance(here, dict) else range(len(here)):
            places.append((here, key))
            if isinstance(here[key], (dict, list)):
                todo.append(here[key])
    owner, key = data.draw(st.sampled_from(places))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    owner[key] = data.draw(
        st.recursive(
            scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
        )
    )
    before = copy.deepcopy(document)
    try:
        model = spec.parse(document, "my.json", CATALOGUE)
    except SpecError as error:
        faults = error.faults
    else:
        faults = ()
        assert spec.loads(model.to_json()) == model
    assert all("; expected " in fault and fault.isprintable() for fault in faults)
    assert repr(document) == repr(before)


def test_reading_a_model_json_loads_no_numpy_and_no_keras() -> None:
    code = f"import sys, attar.spec; attar.spec.load({str(SEEDS[0])!r}); print([*sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'attar.spec'" in out
    assert not re.search(r"'(keras|torch|numpy)'", out)

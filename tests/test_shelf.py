from __future__ import annotations

from pathlib import Path

import pytest

import attar
from attar.codec import bundle
from attar.codec.shelf import Shelf
from attar.errors import FormatError, ModelMissingError
from toy_bundle import digit, photo


@pytest.mark.usefixtures("only_toys")
def test_each_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [attar.compress(digit(), model="toy-digits"), attar.compress(photo(), model="toy-photo")] * 3
    reads: list[Path] = []
    read = bundle.read
    monkeypatch.setattr(bundle, "read", lambda path: reads.append(path) or read(path))
    shelf = Shelf(threads=1)
    names = [shelf.for_file(data).manifest.name for data in files]
    assert names == ["toy-digits", "toy-photo"] * 3
    assert len(reads) == 2


@pytest.mark.usefixtures("only_toys")
def test_a_named_model_is_taken_for_every_file() -> None:
    shelf = Shelf("toy-photo")
    data = attar.compress(digit(), model="toy-digits")
    assert shelf.for_file(data) is shelf.named()
    with pytest.raises(ModelMissingError, match="'toy-photo' is"):
        shelf.for_file(data).decompress(data)


@pytest.mark.usefixtures("only_toys")
def test_files_are_looked_at_before_models() -> None:
    with pytest.raises(FormatError, match=r"not an \.attar file"):
        Shelf().for_file(b"text")
    with pytest.raises(ModelMissingError, match="model 00000000 is needed"):
        Shelf().for_file(bytes.fromhex("d7410d0a11 1c1c 00000000 00"))

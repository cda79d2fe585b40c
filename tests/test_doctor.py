from __future__ import annotations

import json
from pathlib import Path

import pytest

from attar.apps.cli import doctor, main
from attar.codec import bundle


@pytest.mark.usefixtures("only_toys")
def test_everything_is_named_and_every_model_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert not main(["doctor"])
    words = capsys.readouterr().out
    assert "  packages: numpy " in words
    assert "model toy-digits works (" in words
    assert "gray, 28 x 28 (height x width))" in words
    assert "model toy-photo works (" in words


def test_a_model_that_fails_and_a_package_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, digits_bundle: Path
) -> None:
    (tmp_path / "half.attarmodel").write_bytes(digits_bundle.read_bytes()[:500])
    monkeypatch.setattr(bundle, "folders", lambda: [tmp_path])
    monkeypatch.setitem(doctor.EXTRAS, "web", ("no-such-package",))
    assert main(["doctor", "--json"]) == 1
    row = json.loads(capsys.readouterr().out)
    assert row["ok"] is False
    assert row["models"][0]["error"].endswith("not a zip file")
    assert main(["doctor"]) == 1
    words = capsys.readouterr().out
    assert "web: nothing; no-such-package missing: pip install 'attar[web]'" in words
    assert "model half FAILS: " in words


def test_no_models_at_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "folders", lambda: [Path("nowhere")])
    assert not main(["doctor"])
    assert "no model is installed" in capsys.readouterr().out

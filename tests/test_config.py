from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import TrainingError
from attar.train.config import CHOICES, TrainConfig, read_config

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


def test_every_field_says_what_it_is_in_one_sentence() -> None:
    for field in FIELDS.values():
        text = field.metadata["help"]
        assert text.endswith("."), field.name
        assert text[0].isupper() or text[0] in "'1", field.name
        assert len(text) < 130, field.name


def test_json_gives_the_same_configuration_back() -> None:
    config = TrainConfig(
        dataset="a b\nü", tfds=True, height=32, width=48, crop=None, learning_rate=3e-4, seed=9
    )
    assert TrainConfig.from_json(config.to_json(), "x") == config
    assert TrainConfig.from_json("{}", "x") == TrainConfig()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"epochs": -3}, "epochs is -3, expected at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5, expected a whole number"),
        ({"batch_size": True}, "batch_size is True, expected a whole number"),
        ({"tfds": 1}, "tfds is 1, expected true or false"),
        ({"dataset": 5}, "dataset is 5, expected text"),
        ({"dataset": None}, "dataset is None, expected text"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', expected a finite number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, expected a finite number"),
        ({"learning_rate": 0.0}, "expected above 0 and below 10"),
        ({"learning_rate": 10.0}, "expected above 0 and below 10"),
        ({"weight": float("inf")}, "weight is inf"),
        ({"lmbda": -0.1}, "lmbda is -0.1, expected at least 0"),
        ({"alpha": 1.01}, "alpha is 1.01, expected 0 to 1"),
        ({"average": 1.0}, "average is 1.0, expected from 0 to below 1"),
        ({"channels": 4}, "channels is 4, expected 1 or 3"),
        ({"crop": 1 << 20}, "crop is 1048576, expected 1 to 65536"),
        ({"seed": -1}, "seed is -1, expected 0 to 4294967295"),
        ({"seed": 1 << 32}, "seed is 4294967296"),
        ({"schedule": "linear"}, "schedule is 'linear', expected one of constant, cosine, wsd"),
        ({"loss": "l2"}, "loss is 'l2', expected one of ssim-l1, mse, ms-ssim"),
        ({"save_minutes": -1.0}, "save_minutes is -1.0"),
    ],
)
def test_what_no_run_can_have_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        TrainConfig(**values)
    assert words in str(caught.value)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(TrainingError) as caught:
        TrainConfig(batch_size=0, epochs=0, alpha=2.0, loss="l2")
    assert str(caught.value).count(";") == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "c.json: line 1, column 2: not JSON"),
        ("[]", "c.json: expected an object of training options"),
        ('{"batchsize": 3}', "unknown training option \"batchsize\" (did you mean 'batch_size'?)"),
        ('{"seed": 1, "seed": 2}', "the key is given twice"),
        ('{"lmbda": NaN}', "expected a finite number"),
        ('{"epochs": "many"}', "c.json: epochs is 'many', expected a whole number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_file_is_refused(text: str, words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        TrainConfig.from_json(text, "c.json")
    assert words in str(caught.value)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)


@given(st.dictionaries(st.sampled_from([*FIELDS, "x"]), scalars | st.lists(scalars, max_size=2), max_size=6))
def test_whatever_a_file_says_is_a_configuration_or_one_error(values: dict[str, Any]) -> None:
    try:
        config = TrainConfig.from_dict(values, "x")
    except TrainingError:
        return
    assert json.loads(config.to_json()) == dataclasses.asdict(config)
    assert all(config.rate_at(step, 10) >= 0 for step in range(12))


@pytest.mark.parametrize("schedule", CHOICES["schedule"])
def test_schedules_rise_fall_and_never_leave_their_range(schedule: str) -> None:
    config = TrainConfig(schedule=schedule, learning_rate=0.5, warmup=10)
    rates = [config.rate_at(step, 100) for step in range(100)]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert rates[0] == pytest.approx(0.05, rel=0.01)
    assert max(rates) == pytest.approx(0.5, rel=0.03)
    assert all(a <= b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert (rates[-1] == 0.5) == (schedule == "constant")
    assert schedule == "constant" or config.rate_at(100, 100) == 0 == config.rate_at(150, 100)


def test_wsd_is_constant_until_its_last_fifth() -> None:
    config = TrainConfig(schedule="wsd", learning_rate=1.0, warmup=0)
    assert [config.rate_at(step, 100) for step in (0, 50, 79)] == [1.0, 1.0, 1.0]
    assert config.rate_at(90, 100) == pytest.approx(0.5)


def test_a_run_tells_its_configuration(tmp_path: Path) -> None:
    config = TrainConfig(epochs=3)
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config(tmp_path) == config


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"{}x"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"config\.json"):
        read_config(tmp_path)

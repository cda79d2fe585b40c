from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.codec.targets import Target, reach
from attar.errors import TargetError

ranges = st.tuples(st.integers(1, 100), st.integers(1, 100)).map(lambda pair: (min(pair), max(pair)))


class Model:
    """Codes at a quality to a file whose size is given for each quality; counts the attempts."""

    def __init__(self, sizes: dict[int, int]) -> None:
        self.sizes = sizes
        self.attempts: list[int] = []

    def attempt(self, quality: int) -> bytes:
        self.attempts.append(quality)
        return bytes(self.sizes[quality])


@given(ranges, st.integers(1, 3000), st.data())
def test_the_largest_file_within_a_limit(qualities: tuple[int, int], limit: int, data: st.DataObject) -> None:
    count = qualities[1] - qualities[0] + 1
    steps = data.draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    sizes = {qualities[0] + place: sum(steps[: place + 1]) for place in range(count)}
    model = Model(sizes)
    fitting = [size for size in sizes.values() if size <= limit]
    if fitting:
        assert len(reach(Target("bytes", limit), qualities, model.attempt, len)) == max(fitting)
    else:
        with pytest.raises(
            TargetError, match=f"at most {limit} bytes wanted; the model reaches {min(sizes.values())}"
        ):
            reach(Target("bytes", limit), qualities, model.attempt, len)
    assert len(model.attempts) <= 2 + count.bit_length()


@given(ranges, st.integers(1, 3000), st.data())
def test_the_smallest_file_that_is_good_enough(
    qualities: tuple[int, int], floor: int, data: st.DataObject
) -> None:
    count = qualities[1] - qualities[0] + 1
    steps = data.draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    sizes = {qualities[0] + place: sum(steps[: place + 1]) for place in range(count)}
    model = Model(sizes)
    good = [size for size in sizes.values() if size >= floor]
    if good:
        assert len(reach(Target("psnr", floor), qualities, model.attempt, len)) == min(good)
    else:
        with pytest.raises(TargetError, match=f"at least {floor} dB PSNR wanted; the model reaches"):
            reach(Target("psnr", floor), qualities, model.attempt, len)


@given(ranges, st.integers(1, 100), st.data())
def test_a_limit_is_kept_even_where_sizes_do_not_rise(
    qualities: tuple[int, int], limit: int, data: st.DataObject
) -> None:
    sizes = {quality: data.draw(st.integers(0, 200)) for quality in range(qualities[0], qualities[1] + 1)}
    try:
        found = reach(Target("bytes", limit), qualities, Model(sizes).attempt, len)
    except TargetError:
        assert sizes[qualities[0]] > limit
    else:
        assert len(found) <= limit


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("size", 1, "no target 'size'; known are bytes, bpp, psnr, ssim"),
        ("bytes", 0, "a target of 0 bytes is out of the reach"),
        ("psnr", float("nan"), "nan dB PSNR"),
        ("ssim", 1.01, "1.01 SSIM is out of the reach"),
        ("bpp", float("inf"), "inf bpp"),
    ],
)
def test_targets_that_make_no_sense(kind: str, value: float, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Target(kind, value)


def test_a_single_rate_is_only_checked() -> None:
    model = Model({0: 40})
    assert len(reach(Target("bytes", 40), (0, 0), model.attempt, len)) == 40
    with pytest.raises(TargetError, match=r"at most 39 bytes wanted; the model reaches 40 at its only rate"):
        reach(Target("bytes", 39), (0, 0), model.attempt, len)
    with pytest.raises(TargetError, match=r"the model reaches 30 at quality 7"):
        reach(Target("psnr", 31), (1, 7), Model(dict.fromkeys(range(1, 8), 30)).attempt, len)

"""PSNR, SSIM and MS-SSIM against scikit-image, pytorch-msssim, hand-computed values, and their laws."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.errors import ImageError
from attar.measure.metrics import (
    MS_SSIM_MIN_SIDE,
    luma,
    ms_ssim,
    psnr,
    psnr_of_strips,
    psnr_summed,
    similarities,
    ssim,
    ssim_of_strips,
)


def scene(height, width, channels=3, seed=0):
    """A smooth picture with edges and grain, uint8: nearer to a photograph than white noise is."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        110 + 80 * np.sin(x / (9 + c)) * np.cos(y / (13 - c)) + 40 * ((x // 17 + y // 23) % 2)
        for c in range(channels)
    ]
    picture = np.stack(planes, axis=-1) + random.normal(0, 6, (height, width, channels))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def damaged(image, seed=1, strength=12):
    noise = np.random.default_rng(seed).normal(0, strength, image.shape)
    return np.clip(np.rint(0.9 * image + noise), 0, 255).astype(np.uint8)


def skimage_ssim(a, b, data_range):
    from skimage.metrics import structural_similarity

    _, full = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
        channel_axis=-1 if a.ndim == 3 else None,
        full=True,
    )
    return full[5:-5, 5:-5].mean()  # only the windows wholly inside, as Wang 2004 and tf.image.ssim average


@pytest.mark.parametrize("shape", [(64, 80, 3), (37, 53, 3), (28, 28, 1), (300, 900, 3)])
def test_psnr_and_ssim_equal_scikit_image(shape):
    from skimage.metrics import peak_signal_noise_ratio

    a = scene(*shape)
    b = damaged(a)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)
    assert ssim(a, b) == pytest.approx(skimage_ssim(a, b, 255), abs=1e-9)


def test_floats_and_uint16_follow_their_own_range():
    a = scene(40, 40)
    b = damaged(a)
    wide = [image.astype(np.uint16) * 257 for image in (a, b)]
    unit = [image / 255 for image in (a, b)]
    for metric in (psnr, psnr_summed, ssim):
        assert metric(*wide) == pytest.approx(metric(a, b), abs=1e-9)
        assert metric(*unit) == pytest.approx(metric(a, b), abs=1e-9)


def test_ms_ssim_equals_pytorch_msssim():
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pytorch_msssim")
    a = scene(176, 208)
    b = damaged(a)
    tensors = [torch.tensor(image).permute(2, 0, 1)[None].double() for image in (a, b)]
    expected = reference.ms_ssim(*tensors, data_range=255).item()
    assert ms_ssim(a, b) == pytest.approx(expected, abs=5e-6)  # their window is float32
    assert ssim(a, b) == pytest.approx(reference.ssim(*tensors, data_range=255).item(), abs=5e-6)


def test_values_computed_by_hand():
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert psnr(black, white) == 0
    assert psnr_summed(black, white) == pytest.approx(-10 * math.log10(3))
    c1 = 0.01**2
    assert ssim(black, white) == pytest.approx(c1 / (1 + c1))
    one_off = black.copy()
    one_off[..., 0] = 1
    assert psnr(black, one_off) == pytest.approx(20 * math.log10(255) + 10 * math.log10(3))
    assert psnr_summed(black, one_off) == pytest.approx(20 * math.log10(255))


def test_identical_images_have_no_ratio():
    image = scene(170, 170)
    assert psnr(image, image.copy()) is None
    assert psnr_summed(image, image.copy()) is None
    assert ssim(image, image.copy()) == 1
    assert ms_ssim(image, image.copy()) == 1
    assert np.isinf(psnr(image[None], image[None].copy())).tolist() == [True]


def test_batch_is_the_images_one_by_one():
    a = np.stack([scene(170, 180, seed=seed) for seed in range(3)])
    b = np.stack([damaged(image, seed=9 + i) for i, image in enumerate(a)])
    for metric in (psnr, psnr_summed, ssim, ms_ssim):
        values = metric(a, b)
        assert values.shape == (3,)
        assert values == pytest.approx([metric(x, y) for x, y in zip(a, b, strict=True)], abs=1e-12)


def test_blocks_do_not_show():
    """An image larger than one block scores what scikit-image, which filters it whole, says."""
    a = scene(700, 501, 1)[..., 0]
    b = damaged(a)
    assert ssim(a, b) == pytest.approx(skimage_ssim(a, b, 255), abs=1e-9)


def test_both_similarities_at_once():
    a, b = scene(180, 170), damaged(scene(180, 170))
    assert similarities(a, b) == (ssim(a, b), ms_ssim(a, b))
    one, several = similarities(a[None, :50], b[None, :50])
    assert one == pytest.approx(ssim(a[None, :50], b[None, :50]))
    assert several is None


@pytest.mark.parametrize(("side", "window"), [(1, 1), (2, 1), (3, 3), (8, 7), (10, 9)])
def test_tiny_images_use_the_largest_odd_window(side, window):
    a = scene(side, 20)
    b = damaged(a)
    taps = np.exp(-0.5 * (np.arange(window) - window // 2) ** 2 / 1.5**2)
    weights = np.outer(taps, taps) / taps.sum() ** 2
    x, y = a[:window, :window, 0] / 255, b[:window, :window, 0] / 255
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * x * x).sum() - mx * mx, (weights * y * y).sum() - my * my
    cov = (weights * x * y).sum() - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(a[:window, :window, :1], b[:window, :window, :1]) == pytest.approx(expected, abs=1e-9)
    assert -1 <= ssim(a, b) <= 1


def test_ms_ssim_states_its_smallest_image():
    a = scene(MS_SSIM_MIN_SIDE, MS_SSIM_MIN_SIDE, 1)
    assert 0 < ms_ssim(a, damaged(a)) < 1
    with pytest.raises(ImageError, match=r"at least 161 pixels.*the image is 200 x 160: use SSIM"):
        ms_ssim(scene(160, 200), scene(160, 200))


def test_ms_ssim_of_an_odd_side_repeats_its_last_line():
    a, b = scene(177, 175, 1), damaged(scene(177, 175, 1))
    even = [np.pad(image, ((0, 15), (0, 17), (0, 0)), mode="edge") for image in (a, b)]
    assert ms_ssim(a, b) == pytest.approx(ms_ssim(*even), abs=0.01)


def test_luma_is_bt601_full_range():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert luma(colours) == pytest.approx(np.array([[0.299, 0.587, 0.114, 1]]))
    assert luma(colours[None]).shape == (1, 1, 4, 1)
    gray = scene(12, 12, 1)
    assert np.array_equal(luma(gray), gray[..., 0] / 255)
    assert np.array_equal(luma(gray[..., 0]), gray[..., 0] / 255)
    with pytest.raises(ImageError, match=r"not \(4, 4, 4\)"):
        luma(np.zeros((4, 4, 4), np.uint8))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_laws(height, width, channels, seed):
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    assert psnr(a, b) == psnr(b, a)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert ssim(a, b) <= 1
    assert ssim(a.transpose(1, 0, 2), b.transpose(1, 0, 2)) == pytest.approx(ssim(a, b), abs=1e-9)
    if psnr(a, b) is not None:
        assert psnr_summed(a, b) == pytest.approx(psnr(a, b) - 10 * math.log10(channels), abs=1e-9)


BAD = {
    "unequal shapes cannot be compared": (np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)),
    "uint8 and float64 have different ranges": (np.zeros((4, 4), np.uint8), np.zeros((4, 4))),
    "not int64": (np.zeros((4, 4), np.int64), np.zeros((4, 4), np.int64)),
    "1 to 4 channels": (np.zeros((2, 28, 28), np.uint8), np.zeros((2, 28, 28), np.uint8)),
    "not finite": (np.zeros((4, 4)), np.full((4, 4), np.nan)),
    r"spans \[0, 255\]: scale it": (np.array([[0.0, 255.0]]), np.array([[0.0, 1.0]])),
    r"not \(0, 4\)": (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_says_what_was_expected(message):
    for metric in (psnr, psnr_summed, ssim, ms_ssim):
        with pytest.raises(ImageError, match=message):
            metric(*BAD[message])


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 40), st.sampled_from([1, 3])),
    st.lists(st.integers(1, 30), min_size=70, max_size=70),
)
def test_strips_give_what_the_whole_image_gives(shape, heights):
    a = scene(*shape)
    b = damaged(a)
    ends = np.minimum(np.cumsum(heights), shape[0])
    strips = [b[start:end] for start, end in zip((0, *ends), ends, strict=False) if start < end]
    assert psnr_of_strips(a, iter(strips)) == pytest.approx(psnr(a, b), abs=1e-9)
    assert ssim_of_strips(a, iter(strips)) == pytest.approx(ssim(a, b), abs=1e-12)
    assert psnr_of_strips(a, [a]) is None
    assert ssim_of_strips(a, [a]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("measure", [psnr_of_strips, ssim_of_strips])
def test_strips_that_are_not_the_image_are_refused(measure):
    a = scene(40, 30)
    with pytest.raises(ImageError, match="strips of 39 rows together, of an image of 40"):
        measure(a, [a[:20], a[20:39]])
    with pytest.raises(ImageError, match="unequal shapes"):
        measure(a, [a[:20], a[20:], a[:1]])


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_a_large_image_is_never_all_in_floats(measure):
    a = np.zeros((2000, 1500, 3), np.uint8)
    b = a.copy()
    tracemalloc.start()
    try:
        measure(a, b)
        assert tracemalloc.get_traced_memory()[1] < 4 * a.nbytes  # both as float64 have 16 times as many
    finally:
        tracemalloc.stop()

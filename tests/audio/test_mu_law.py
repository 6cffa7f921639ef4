import math

import numpy as np
import pytest

from umt_jax.audio import mu_law
from umt_jax.config import MU_LAW_CONVENTIONS


def compress(amplitudes):
    """Mu-law as it is defined, in levels: silence 0, full scale 127."""
    x = np.asarray(amplitudes, np.float64)
    return 127 * np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)


def test_round_trip_is_within_half_a_level(rng):
    loud = rng.uniform(-1, 1, size=20_000)
    waveform = np.concatenate([loud, loud**9, [-1, 1, 0]]).astype(np.float32)
    decoded = mu_law.decode(mu_law.encode(waveform, "rounded"), "rounded")
    # The slack is float32 rounding of amplitudes that lie on the border between two levels.
    assert np.abs(compress(decoded) - compress(waveform)).max() <= 0.5 + 1e-4


def test_every_code_but_zero_is_its_own_encoding():
    codes = np.arange(1, 256)
    waveform = mu_law.decode(codes, "rounded")
    np.testing.assert_array_equal(mu_law.encode(waveform, "rounded"), codes)


def test_silence_stays_silence():
    assert mu_law.encode(np.zeros(3, np.float32), "rounded").tolist() == [128] * 3
    assert mu_law.silence("rounded") == 128
    assert mu_law.decode(np.array([128]), "rounded").tolist() == [0.0]


def test_a_waveform_and_its_negative_have_mirrored_codes(rng):
    waveform = rng.uniform(-1, 1, size=1000)
    codes, mirrored = (mu_law.encode(sign * waveform, "rounded").astype(int) for sign in (1, -1))
    np.testing.assert_array_equal(codes, 256 - mirrored)


def test_truncated_codes_are_those_of_the_published_code(rng):
    loud = rng.uniform(-1, 1, size=2000)
    for x in np.concatenate([loud, loud**9, [-1, 1, 0, 1e-6, -1e-6]]):
        # Its two formulas, written out for one number.
        level = math.copysign(math.log(1 + 255 * abs(x)) / math.log(256), x)
        code = int((level + 1) / 2 * 255)
        assert mu_law.encode(np.array([x]), "truncated").tolist() == [code]
        y = 2 * (code - 128) / 256
        amplitude = math.copysign((256 ** abs(y) - 1) / 255, y)
        decoded = mu_law.decode(np.array([code]), "truncated")
        np.testing.assert_allclose(decoded, [amplitude], rtol=1e-6, atol=1e-9)


def test_truncated_silence_is_decoded_one_level_below_zero():
    assert mu_law.silence("truncated") == 127
    assert mu_law.decode(np.array([127]), "truncated") < 0
    assert mu_law.decode(np.array([128]), "truncated").tolist() == [0.0]


@pytest.mark.parametrize(
    ("convention", "codes"), [("rounded", [1, 1, 255, 255]), ("truncated", [0, 0, 255, 255])]
)
def test_amplitudes_beyond_full_scale_are_clipped(convention, codes):
    waveform = np.array([-7.0, -1.0, 1.0, 7.0], np.float32)
    assert mu_law.encode(waveform, convention).tolist() == codes


@pytest.mark.parametrize("convention", MU_LAW_CONVENTIONS)
def test_codes_rise_with_the_amplitude(convention):
    codes = mu_law.encode(np.linspace(-1, 1, 100_001), convention)
    assert set(np.diff(codes.astype(int))) == {0, 1}
    assert (np.diff(mu_law.decode(np.arange(1, 256), convention)) > 0).all()


@pytest.mark.parametrize("convention", MU_LAW_CONVENTIONS)
@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 2, 5)])
def test_codes_are_bytes_and_amplitudes_float32_of_the_same_shape(rng, shape, convention):
    codes = mu_law.encode(rng.uniform(-1, 1, size=shape).astype(np.float32), convention)
    assert (codes.shape, codes.dtype) == (shape, np.uint8)
    decoded = mu_law.decode(codes, convention)
    assert (decoded.shape, decoded.dtype) == (shape, np.float32)

import numpy as np
import pytest

from umt_jax import mu_law


def compress(amplitudes):
    """Mu-law as it is defined, in levels: silence 0, full scale 127."""
    x = np.asarray(amplitudes, np.float64)
    return 127 * np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)


def test_round_trip_is_within_half_a_level(rng):
    loud = rng.uniform(-1, 1, size=20_000)
    waveform = np.concatenate([loud, loud**9, [-1, 1, 0]]).astype(np.float32)
    decoded = mu_law.decode(mu_law.encode(waveform))
    # The slack is float32 rounding of amplitudes that lie on the border between two levels.
    assert np.abs(compress(decoded) - compress(waveform)).max() <= 0.5 + 1e-4


def test_every_code_but_zero_is_its_own_encoding():
    codes = np.arange(1, 256)
    np.testing.assert_array_equal(mu_law.encode(mu_law.decode(codes)), codes)


def test_silence_stays_silence():
    assert mu_law.encode(np.zeros(3, np.float32)).tolist() == [128] * 3
    assert mu_law.decode(np.array([mu_law.SILENCE])).tolist() == [0.0]


def test_amplitudes_beyond_full_scale_are_clipped():
    waveform = np.array([-7.0, -1.0, 1.0, 7.0], np.float32)
    assert mu_law.encode(waveform).tolist() == [1, 1, 255, 255]


def test_codes_rise_with_the_amplitude():
    codes = mu_law.encode(np.linspace(-1, 1, 100_001))
    assert set(np.diff(codes.astype(int))) == {0, 1}
    assert (np.diff(mu_law.decode(np.arange(1, 256))) > 0).all()


def test_a_waveform_and_its_negative_have_mirrored_codes(rng):
    waveform = rng.uniform(-1, 1, size=1000)
    np.testing.assert_array_equal(
        mu_law.encode(waveform).astype(int), 256 - mu_law.encode(-waveform).astype(int)
    )


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 2, 5)])
def test_codes_are_bytes_and_amplitudes_float32_of_the_same_shape(rng, shape):
    codes = mu_law.encode(rng.uniform(-1, 1, size=shape).astype(np.float32))
    assert (codes.shape, codes.dtype) == (shape, np.uint8)
    assert (mu_law.decode(codes).shape, mu_law.decode(codes).dtype) == (shape, np.float32)

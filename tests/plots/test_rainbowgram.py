import numpy as np
import pytest

from umt_jax.plots import rainbowgram, spectrograms


def sine(frequency_hz, rate_hz, seconds=1.0, amplitude=0.5):
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
@pytest.mark.parametrize(
    ("semitones", "cents"), [(0, 0), (12, 20), (-19, -30), (-7, 45), (15, -45)]
)
def test_a_sine_is_in_its_bin_and_as_sharp_as_it_is(rate_hz, semitones, cents):
    frequency_hz = 440 * 2 ** ((semitones + cents / 100) / 12)
    transform = rainbowgram.analyse(sine(frequency_hz, rate_hz), rate_hz)
    assert transform.frequencies_hz[33] == pytest.approx(123.47, abs=0.01)  # B2, 36 to an octave.
    middle = transform.magnitude_db.shape[1] // 2
    loudest = np.argmax(transform.magnitude_db[:, middle])
    # Within half a bin, which is a 36th of an octave.
    assert abs(36 * np.log2(transform.frequencies_hz[loudest] / frequency_hz)) < 0.6
    found_hz = transform.instantaneous_hz[loudest, middle - 5 : middle + 5]
    np.testing.assert_allclose(1200 * np.log2(found_hz / frequency_hz), 0, atol=2)
    np.testing.assert_allclose(transform.cents[loudest, middle], cents, atol=2)


def test_columns_are_as_long_as_the_sound():
    transform = rainbowgram.analyse(sine(500, 16_000, seconds=0.8), 16_000)
    num_columns = transform.magnitude_db.shape[1]
    assert abs(num_columns * transform.hop_seconds - 0.8) < 2 * transform.hop_seconds
    click = np.zeros(8000, np.float32)
    click[6000] = 1.0
    transform = rainbowgram.analyse(click, 8000)
    loudest = np.argmax(transform.magnitude_db[-1])
    assert loudest * transform.hop_seconds == pytest.approx(0.75, abs=transform.hop_seconds)


def test_shorter_sounds_than_the_longest_filter_have_a_picture():
    assert np.isfinite(rainbowgram.analyse(np.ones(10, np.float32), 8000).magnitude_db).all()
    with pytest.raises(ValueError, match="too few for an octave"):
        rainbowgram.analyse(np.ones(100, np.float32), 200)


def test_loudness_is_brightness_and_tuning_is_colour():
    hues = np.array([[0.0, 25.0, -25.0, 49.999, -49.999]])
    frequencies = 440 * 2 ** (hues / 1200)
    transform = rainbowgram.ConstantQ(
        frequencies_hz=np.array([440.0]),
        hop_seconds=0.01,
        magnitude_db=np.zeros((1, 5)),
        instantaneous_hz=frequencies,
    )
    white, sharp, flat, above, below = rainbowgram.colours(transform, 0.0)[0]
    np.testing.assert_allclose(white, 1, atol=0.02)
    assert sharp[0] > sharp[2] + 0.5 and flat[2] > flat[0] + 0.5  # Orange and blue.
    # A quarter-tone above one semitone is one below the next.
    np.testing.assert_allclose(above, below, atol=0.02)
    dark = rainbowgram.colours(transform, 30.0)[0]
    np.testing.assert_allclose(dark, 0.5 * np.stack([white, sharp, flat, above, below]), atol=1e-6)
    np.testing.assert_allclose(rainbowgram.colours(transform, 61.0), 0)


def test_rainbowgrams_in_a_row_have_titles_and_units():
    figure = rainbowgram.row({"high": sine(880, 8000), "low": sine(110, 8000, 0.5)}, 8000)
    high, low, bar = figure.axes
    assert [axes.get_title() for axes in (high, low)] == ["high", "low"]
    assert high.get_xlim() == low.get_xlim() == (0, 1)
    assert (high.get_xlabel(), high.get_ylabel()) == ("Time (s)", "Frequency (Hz)")
    labels = [label.get_text() for label in high.get_yticklabels()]
    assert labels == ["65", "131", "262", "523", "1047"]
    assert "cents from the nearest semitone" in bar.get_ylabel()
    assert spectrograms.to_png(figure)[:4] == b"\x89PNG"

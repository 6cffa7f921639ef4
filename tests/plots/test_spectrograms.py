import io

import matplotlib.image
import numpy as np
import pytest

from umt_jax.plots import spectrograms

RATE_HZ = 16_000


def sine(frequency_hz, seconds=1.0, amplitude=0.5):
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


@pytest.mark.parametrize("frequency_hz", [250, 440, 1000, 3000, 6500])
def test_log_mel_of_a_sine_peaks_at_its_row(frequency_hz):
    picture = spectrograms.log_mel(sine(frequency_hz), RATE_HZ)
    centres_hz = spectrograms.mel_centres_hz(RATE_HZ)
    assert picture.shape == (spectrograms.NUM_MELS, 1 + round(1 / 0.016))
    middle = picture[:, picture.shape[1] // 2]
    assert np.argmax(middle) == np.argmin(np.abs(centres_hz - frequency_hz))


def test_log_mel_is_in_decibels():
    loud = spectrograms.log_mel(sine(1000, amplitude=0.5), RATE_HZ)
    quiet = spectrograms.log_mel(sine(1000, amplitude=0.05), RATE_HZ)
    np.testing.assert_allclose(loud.max() - quiet.max(), 20.0, atol=1e-3)


def test_log_mel_of_silence_is_the_floor():
    silence = np.zeros(4000, np.float32)
    np.testing.assert_allclose(spectrograms.log_mel(silence, RATE_HZ), -100, rtol=1e-5)


def test_log_mel_takes_sounds_shorter_than_its_window():
    assert np.isfinite(spectrograms.log_mel(np.ones(10, np.float32), RATE_HZ)).all()


def test_pictures_in_a_row_share_scale_of_colours_and_axes():
    figure = spectrograms.log_mel_row(
        {"loud": sine(500), "quiet": sine(500, seconds=0.5, amplitude=0.01)}, RATE_HZ
    )
    loud, quiet, colour_bar = figure.axes
    assert loud.images[0].get_clim() == quiet.images[0].get_clim()
    assert loud.get_xlim() == quiet.get_xlim() == (0, 1)
    assert [axes.get_title() for axes in (loud, quiet)] == ["loud", "quiet"]
    assert loud.get_xlabel() == "Time (s)"
    assert loud.get_ylabel() == "Frequency (kHz)"
    assert colour_bar.get_ylabel() == "Power (dB)"


def test_frequency_axis_names_the_row_of_a_sine():
    figure = spectrograms.log_mel_row({"sine": sine(1000)}, RATE_HZ)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    tick = axes.get_yticks()[labels.index("1")]
    row = np.argmax(spectrograms.log_mel(sine(1000), RATE_HZ)[:, 30])
    assert abs(tick - row) <= 0.5


def test_seconds_and_loudest_db_fix_the_axes():
    figure = spectrograms.log_mel_row({"a": sine(500)}, RATE_HZ, seconds=0.25, loudest_db=-10.0)
    assert figure.axes[0].get_xlim() == (0, 0.25)
    assert figure.axes[0].images[0].get_clim() == (-90.0, -10.0)


def test_tables_share_scale_of_colours_and_name_rows_and_columns():
    rows = {
        "Cello": {"source": sine(200), "as Piano": sine(400, amplitude=0.01)},
        "Flute": {"source": sine(900), "as Piano": sine(1200, seconds=0.5)},
    }
    figure = spectrograms.log_mel_matrix(rows, RATE_HZ, seconds=0.9)
    *table, colour_bar = figure.axes
    assert len({axes.images[0].get_clim() for axes in table}) == 1
    assert {axes.get_xlim() for axes in table} == {(0, 0.9)}
    assert [axes.get_title() for axes in table] == ["source", "as Piano", "", ""]
    assert [axes.get_xlabel() for axes in table] == ["", "", "Time (s)", "Time (s)"]
    assert table[2].get_ylabel() == "Flute\nFrequency (kHz)"
    expected = spectrograms.log_mel(sine(400, amplitude=0.01)[: round(0.9 * RATE_HZ)], RATE_HZ)
    np.testing.assert_array_equal(table[1].images[0].get_array(), expected)


def test_lines_of_latents_have_their_channels_heights_and_one_scale(rng):
    latents = rng.normal(size=(30, 5)).astype(np.float32) + np.arange(5)
    (axes,) = spectrograms.latent_lines(latents, 20.0, "a song").axes
    assert len(axes.lines) == 5
    np.testing.assert_allclose(axes.lines[0].get_xdata(), (np.arange(30) + 0.5) / 20)
    heights = np.stack([line.get_ydata() for line in axes.lines], axis=1)
    np.testing.assert_allclose(heights.mean(axis=0), np.arange(5), atol=1e-5)
    deviations = latents - latents.mean(axis=0)
    scale = (heights - np.arange(5))[3, 2] / deviations[3, 2]
    np.testing.assert_allclose(heights - np.arange(5), scale * deviations, atol=1e-4)
    assert f"{1 / scale:.2g}" in axes.get_ylabel()
    assert (axes.get_xlabel(), axes.get_title()) == ("Time (s)", "a song")


def test_latents_that_do_not_change_are_flat_lines():
    (axes,) = spectrograms.latent_lines(np.ones((1, 3), np.float32), 20.0).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0], [1], [2]]


def test_png_and_rgb_show_the_same_figure():
    figure = spectrograms.log_mel_row({"a": sine(500)}, RATE_HZ)
    rgb = spectrograms.to_rgb(figure, dots_per_inch=100)
    height, width = round(2.7 * 100), round(4.4 * 100)
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    png = matplotlib.image.imread(io.BytesIO(spectrograms.to_png(figure, dots_per_inch=100)))
    # The layout settles by fractions of a pixel when it is drawn again, which blurs other edges.
    assert np.mean(np.abs(png[..., :3] - rgb / 255) > 2 / 255) < 0.01

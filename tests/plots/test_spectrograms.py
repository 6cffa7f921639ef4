import io

import matplotlib.image
import numpy as np
from tones import RATE_HZ, tone

from umt_jax.audio import mel_spectrogram
from umt_jax.plots import spectrograms


def test_pictures_in_a_row_share_scale_of_colours_and_axes():
    figure = spectrograms.log_mel_row(
        {"loud": tone(1.0, frequency_hz=500), "quiet": tone(0.5, frequency_hz=500, amplitude=0.01)},
        RATE_HZ,
    )
    loud, quiet, colour_bar = figure.axes
    assert loud.images[0].get_clim() == quiet.images[0].get_clim()
    assert loud.get_xlim() == quiet.get_xlim() == (0, 1)
    assert [axes.get_title() for axes in (loud, quiet)] == ["loud", "quiet"]
    assert loud.get_xlabel() == "Time (s)"
    assert loud.get_ylabel() == "Frequency (kHz)"
    assert colour_bar.get_ylabel() == "Power (dB)"


def test_frequency_axis_names_the_row_of_a_sine():
    figure = spectrograms.log_mel_row({"sine": tone(1.0, frequency_hz=1000)}, RATE_HZ)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    tick = axes.get_yticks()[labels.index("1")]
    row = np.argmax(mel_spectrogram.log_mel(tone(1.0, frequency_hz=1000), RATE_HZ)[:, 30])
    assert abs(tick - row) <= 0.5


def test_seconds_and_loudest_db_fix_the_axes():
    figure = spectrograms.log_mel_row(
        {"a": tone(1.0, frequency_hz=500)}, RATE_HZ, seconds=0.25, loudest_db=-10.0
    )
    assert figure.axes[0].get_xlim() == (0, 0.25)
    assert figure.axes[0].images[0].get_clim() == (-90.0, -10.0)


def test_tables_share_scale_of_colours_and_name_rows_and_columns():
    rows = {
        "Cello": {
            "source": tone(1.0, frequency_hz=200),
            "as Piano": tone(1.0, frequency_hz=400, amplitude=0.01),
        },
        "Flute": {"source": tone(1.0, frequency_hz=900), "as Piano": tone(0.5, frequency_hz=1200)},
    }
    figure = spectrograms.log_mel_matrix(rows, RATE_HZ, seconds=0.9)
    *table, colour_bar = figure.axes
    assert len({axes.images[0].get_clim() for axes in table}) == 1
    assert {axes.get_xlim() for axes in table} == {(0, 0.9)}
    assert [axes.get_title() for axes in table] == ["source", "as Piano", "", ""]
    assert [axes.get_xlabel() for axes in table] == ["", "", "Time (s)", "Time (s)"]
    assert table[2].get_ylabel() == "Flute\nFrequency (kHz)"
    expected = mel_spectrogram.log_mel(
        tone(1.0, frequency_hz=400, amplitude=0.01)[: round(0.9 * RATE_HZ)], RATE_HZ
    )
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
    figure = spectrograms.log_mel_row({"a": tone(1.0, frequency_hz=500)}, RATE_HZ)
    rgb = spectrograms.to_rgb(figure, dots_per_inch=100)
    height, width = round(2.7 * 100), round(4.4 * 100)
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    png = matplotlib.image.imread(io.BytesIO(spectrograms.to_png(figure, dots_per_inch=100)))
    # The layout settles by fractions of a pixel when it is drawn again, which blurs other edges.
    assert np.mean(np.abs(png[..., :3] - rgb / 255) > 2 / 255) < 0.01

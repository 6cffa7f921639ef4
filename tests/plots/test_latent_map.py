import commands
import matplotlib.image
import numpy as np
import pytest
import soundfile

from umt_jax.plots import latent_map, spectrograms


def test_the_projection_is_along_the_eigenvectors_of_the_correlations(rng):
    latents = (rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) * [1, 5, 0.1, 2]) + 7
    projection = latent_map.project(latents.astype(np.float32))
    values, vectors = np.linalg.eigh(np.corrcoef(latents.T))
    scaled = (latents - latents.mean(axis=0)) / latents.std(axis=0)
    for component in range(2):
        expected = scaled @ vectors[:, -1 - component]
        found = projection.points[:, component]
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
        np.testing.assert_allclose(projection.shares[component], values[-1 - component] / 4)


def test_domains_that_lie_apart_are_apart_on_the_map(rng):
    apart = rng.normal(size=(2, 100, 6)) + np.array([0, 4])[:, None, None]
    points = latent_map.project(apart.reshape(200, 6)).points[:, 0]
    assert points[:100].max() < points[100:].min()


def test_latents_that_do_not_vary_have_a_map():
    projection = latent_map.project(np.ones((5, 1)))
    np.testing.assert_allclose(projection.points, np.zeros((5, 2)))


def test_a_map_names_its_axes_and_every_domain(rng):
    projection = latent_map.project(rng.normal(size=(60, 3)))
    labels = np.repeat(np.arange(3), 20)
    figure = latent_map.draw(
        [("before", projection), ("after", projection)], labels, ["Cello", "Flute", "Piano"]
    )
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    share = f"{100 * projection.shares[0]:.0f} % of variance"
    assert figure.axes[0].get_xlabel() == f"First principal component ({share})"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Cello", "Flute", "Piano"]
    drawn = sum(len(points.get_offsets()) for points in figure.axes[1].collections)
    assert drawn == 60
    assert spectrograms.to_png(figure)[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_command_draws_sounds_and_domains(tmp_path, rng, trained_dir, prepared_dir):
    soundfile.write(tmp_path / "song.wav", 0.1 * rng.normal(size=8000), 16_000)
    finished = commands.run(
        *("experiments.pictures", f"--checkpoint={trained_dir}", "--engine=scan"),
        *(f"--input={tmp_path / 'song.wav'}", f"--data_dir={prepared_dir}"),
        *(f"--output={tmp_path / 'out'}", "--seconds=0.5"),
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    names = ["song.latents.png", "song.log_mel.png", "song.rainbowgram.png"]
    names += ["translations.png", "latent_map.png"]
    assert finished.stdout == "".join(f"{tmp_path / 'out' / name}\n" for name in names)
    for name in names:
        assert matplotlib.image.imread(tmp_path / "out" / name).std() > 0

"""Constant-Q frames against librosa's, and as the encoder of a model."""

import dataclasses
import math

import jax
import librosa
import numpy as np
import optax
import pytest
from conftest import sizes

from umt_jax import translator
from umt_jax.audio import mu_law
from umt_jax.checkpoints import checkpoint, model_file, reading
from umt_jax.config import Config, TrainingConfig
from umt_jax.data.dataset import Batch
from umt_jax.model import array_shapes, cqt, networks
from umt_jax.training import train_state, train_step

CQT = {"encoder_kind": "cqt", "cqt_lowest_hz": 60.0, "cqt_bins_per_octave": 6}
MODEL = sizes(latents=15, pool=20, decoder=(1, 3, 8, 8), sample_rate_hz=1000, **CQT)
CONFIG = Config(
    domains=("Cello", "Piano"),
    model=MODEL,
    training=TrainingConfig(segment_samples=200, domain_batch=2),
)
MUSIC = dataclasses.replace(
    MODEL, sample_rate_hz=8000, cqt_lowest_hz=65.4, cqt_bins_per_octave=12, latent_channels=60
)


@pytest.fixture
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


def sine(frequency_hz, num_samples, rate_hz, amplitude=0.5):
    places = np.arange(num_samples)
    return (amplitude * np.sin(2 * np.pi * frequency_hz * places / rate_hz)).astype(np.float32)


def test_magnitudes_are_those_of_librosa(rng):
    """Its frames are centred where they begin, and its wavelets as long as whole samples."""
    config = dataclasses.replace(MUSIC, pool_samples=160)
    waveform = rng.normal(size=16_000).astype(np.float32)
    found = np.asarray(cqt.amplitudes(waveform, config))
    theirs = librosa.cqt(
        waveform[80:],
        sr=8000,
        hop_length=160,
        fmin=65.4,
        n_bins=60,
        bins_per_octave=12,
        sparsity=0,
        pad_mode="constant",
    )
    theirs = np.abs(theirs).T[: len(found)] / np.sqrt(cqt.lengths(config))
    margin = cqt.margin_frames(config)
    difference = np.abs(found - theirs)[margin:-margin]
    assert len(difference) > 50
    # It halves the rate for each octave further down, where wavelets so have few samples, and are
    # longer or shorter by up to one.
    assert (difference.max(axis=0) / theirs.max(axis=0)).max() < 0.04
    assert difference.mean() < 0.02 * theirs.mean()


def test_a_sine_has_half_its_amplitude_in_its_own_bin_and_less_in_all_others():
    for index in (0, 17, 59):
        frequency_hz = cqt.frequencies_hz(MUSIC)[index]
        frames = cqt.amplitudes(sine(frequency_hz, 8000, 8000), MUSIC)
        middle = np.asarray(frames[len(frames) // 2])
        assert middle.argmax() == index
        assert middle[index] == pytest.approx(0.25, rel=1e-3)


def test_bins_are_equal_steps_of_pitch_above_the_lowest():
    frequencies = cqt.frequencies_hz(MUSIC)
    assert frequencies[0] == 65.4
    np.testing.assert_allclose(frequencies[12] / frequencies[0], 2)
    periods = cqt.lengths(MUSIC) * frequencies / MUSIC.sample_rate_hz
    np.testing.assert_allclose(periods, MUSIC.cqt_quality)


def test_frames_are_scaled_and_back_to_the_same_magnitudes():
    magnitudes = np.geomspace(1e-3, 0.5, 40, dtype=np.float32).reshape(2, 4, 5)
    np.testing.assert_allclose(cqt.unscaled(cqt.scaled(magnitudes)), magnitudes, rtol=1e-4)
    assert np.all(np.asarray(cqt.unscaled(np.full((1, 1, 1), -9, np.float32))) == 0)


def test_frames_beyond_the_margin_alone_do_not_see_the_ends(rng):
    """They stay what they are when other sound lies before and behind."""
    margin = cqt.margin_frames(MODEL)
    assert margin > 0
    inner = rng.integers(256, size=600).astype(np.uint8)
    around = rng.integers(256, size=(2, 400)).astype(np.uint8)
    alone = np.asarray(cqt.encode(inner, MODEL))
    longer = np.asarray(cqt.encode(np.concatenate([around[0], inner, around[1]]), MODEL))[20:-20]
    difference = np.abs(alone - longer).max(axis=1)
    assert difference[margin:-margin].max() < 1e-4
    # Of the next ones the wavelets' ends, which are all but zero, reach beyond.
    assert difference[margin - 2] > 1e-3
    assert difference[-margin + 1] > 1e-3


def test_what_is_outside_of_a_recording_counts_as_silence(rng):
    codes = rng.integers(256, size=400).astype(np.uint8)
    inside = np.arange(400) < 300
    silenced = np.where(inside, codes, mu_law.silence(MODEL.mu_law)).astype(np.uint8)
    np.testing.assert_allclose(
        cqt.encode(codes, MODEL, inside), cqt.encode(silenced, MODEL), rtol=1e-5, atol=1e-5
    )


@pytest.fixture(scope="module")
def model():
    nets = networks.Networks(CONFIG)
    return translator.Translator(CONFIG, nets.init(jax.random.key(1)))


def test_a_translator_encodes_window_by_window_what_the_transform_gives_of_the_whole(model, rng):
    waveform = rng.uniform(-0.5, 0.5, size=3457).astype(np.float32)
    codes = np.full(3460, mu_law.silence("rounded"), np.uint8)
    codes[:3457] = mu_law.encode(waveform, "rounded")
    np.testing.assert_allclose(
        model.encode(waveform, 1000), cqt.encode(codes, MODEL), rtol=1e-4, atol=1e-4
    )
    assert model.latency_seconds > MODEL.cqt_longest_samples / 2 / 1000
    assert "constant-Q transform" in repr(model)


@pytest.mark.parametrize("engine", ["native", "scan"])
def test_a_model_with_constant_q_frames_translates(engine, rng):
    parameters = networks.Networks(CONFIG).init(jax.random.key(1))
    model = translator.Translator(CONFIG, parameters, engine=engine)
    waveform = rng.uniform(-0.5, 0.5, size=333).astype(np.float32)
    translated = model.translate(waveform, 1000, domain="Piano")
    assert translated.shape == (333,)
    assert np.isfinite(translated).all()


def test_nothing_of_the_encoder_is_trained_or_stored(tmp_path):
    assert not [name for name in array_shapes.shapes(CONFIG) if name.startswith("encoder")]
    nets = networks.Networks(CONFIG)
    parameters = nets.init(jax.random.key(0))
    assert parameters.encoder == {}
    assert networks.by_name(parameters).keys() == array_shapes.shapes(CONFIG).keys()
    state = train_state.create(parameters, train_state.make_optimizers(CONFIG.training), CONFIG)
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(state, CONFIG, {"Cello": {}}, 1.0)
    with checkpoint.Checkpoints(str(tmp_path)) as checkpoints:
        restored = checkpoints.restore(0, state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    arrays = reading.read_arrays(str(tmp_path))
    assert arrays.keys() == array_shapes.shapes(CONFIG).keys()
    assert reading.read_config(str(tmp_path)) == CONFIG


def _batch(rng):
    codes = rng.integers(256, size=(2, 2, 200)).astype(np.uint8)
    return Batch(codes=codes, augmented=255 - codes)


def test_a_step_trains_decoders_alone_on_segments_as_they_were_recorded(rng, standard_promotion):
    nets, batch = networks.Networks(CONFIG), _batch(rng)
    optimizers = train_state.Optimizers(optax.sgd(0.1), optax.sgd(0.1))
    before = train_state.create(nets.init(jax.random.key(0)), optimizers, CONFIG)
    step = jax.jit(
        lambda state, batch: train_step.train_step(
            state, batch, networks=nets, optimizers=optimizers
        )
    )
    after, metrics = step(before, batch)
    same, _ = step(before, batch.replace(augmented=batch.codes))
    jax.tree.map(np.testing.assert_array_equal, after.parameters, same.parameters)
    jax.tree.map(
        np.testing.assert_array_equal, after.parameters.classifier, before.parameters.classifier
    )
    assert set(metrics) == {"reconstruction", "decoder_gradient_norm"}
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()),
        after.parameters.decoders,
        before.parameters.decoders,
    )
    assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.thorough
def test_one_batch_can_be_overfitted(rng, standard_promotion):
    """Sines of random pitch: the decoders find in the frames what comes next."""
    training = dataclasses.replace(CONFIG.training, learning_rate=1e-2)
    config = dataclasses.replace(CONFIG, training=training)
    nets, optimizers = networks.Networks(config), train_state.make_optimizers(training)
    tones = [sine(rng.uniform(60, 300), 200, 1000) for _ in range(4)]
    codes = mu_law.encode(np.stack(tones).reshape(2, 2, 200), "rounded")
    batch = Batch(codes=codes, augmented=codes)
    state = train_state.create(nets.init(jax.random.key(0)), optimizers, config)
    step = jax.jit(
        lambda state: train_step.train_step(state, batch, networks=nets, optimizers=optimizers)
    )
    losses = []
    for _ in range(250):
        state, metrics = step(state)
        losses.append(float(np.mean(metrics["reconstruction"])))
    assert losses[0] > 5
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder_kind": "mel"}, "encoder_kind=mel is not known. Use learned or cqt"),
        ({"cqt_lowest_hz": 900.0}, "cqt_lowest_hz=900 leaves no bin: it must be at most 448"),
        ({"cqt_lowest_hz": math.inf}, "cqt_lowest_hz=inf must be above 0, and finite"),
        ({"sample_rate_hz": 100}, "cqt_lowest_hz=60 leaves no bin.*sample_rate_hz=100"),
        ({"latent_channels": 19}, "latent_channels=19 bins .* there is room for 18"),
        ({"cqt_lowest_hz": 1e-6}, "cqt_lowest_hz=1e-06 gives wavelets of .* too long"),
    ],
)
def test_bins_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(MODEL, **change)


def test_segments_shorter_than_the_longest_wavelet_are_refused():
    training = dataclasses.replace(CONFIG.training, segment_samples=120)
    with pytest.raises(ValueError, match="segment_samples=120 is shorter than .* wavelet, 14. sam"):
        dataclasses.replace(CONFIG, training=training)


def test_a_model_without_a_network_as_encoder_is_not_packed_into_one_file():
    with pytest.raises(ValueError, match="encoder_kind=cqt: .* Keep such a model as a folder"):
        model_file.pack(CONFIG, {})

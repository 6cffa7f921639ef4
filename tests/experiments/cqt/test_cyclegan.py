"""The CycleGAN's parts against formulas, its step, and its folder."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cqt import checkpoint, losses, networks, step
from experiments.cqt.settings import GanConfig, GanSettings
from umt_jax.config import ModelConfig
from umt_jax.model import cqt

TRAINING = GanSettings(
    **{"segment_samples": 720, "domain_batch": 2, "decay_steps": 100, "identity_steps": 10},
    **{"generator_channels": 4, "generator_blocks": 1, "discriminator_channels": 4},
)
CQT = {"encoder_kind": "cqt", "cqt_lowest_hz": 60.0, "cqt_bins_per_octave": 6}
CONFIG = GanConfig(
    domains=("Cello", "Piano"),
    model=ModelConfig(sample_rate_hz=1000, latent_channels=14, pool_samples=20, **CQT),
    training=TRAINING,
)


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def fresh():
    return jax.jit(functools.partial(step.create, CONFIG))(jax.random.key(0))


@pytest.fixture(scope="module")
def update():
    return jax.jit(functools.partial(step.train_step, config=CONFIG))


def _frames(rng, num_frames=28, *batch):
    shape = (*batch, num_frames, CONFIG.model.latent_channels)
    return rng.normal(size=shape).astype(np.float32)


def _codes(rng):
    return rng.integers(90, 160, size=(2, 2, TRAINING.segment_samples)).astype(np.uint8)


def test_the_gradient_penalty_of_a_linear_discriminator_is_the_square_of_its_weights(rng):
    frames, weights = _frames(rng, 28, 3), _frames(rng, 28, 5)

    def discriminate(frames):
        return jnp.einsum("bfz,nfz->bn", frames, weights)

    found = losses.gradient_penalty(discriminate, frames)
    np.testing.assert_allclose(found, np.square(weights.mean(axis=0)).sum(), rtol=1e-5)


def test_the_gradient_penalty_is_the_mean_over_segments_of_squared_norms(rng):
    frames = _frames(rng, 28, 3)

    def discriminate(frames):
        return jnp.sum(frames**3, axis=-1)  # One logit for each frame, of which there are 28.

    expected = np.square(3 * frames**2 / 28).sum(axis=(1, 2)).mean()
    np.testing.assert_allclose(losses.gradient_penalty(discriminate, frames), expected, rtol=1e-5)


def test_players_know_nothing_at_logit_zero_and_their_losses_are_log_2():
    nothing = np.zeros((2, 3), np.float32)
    np.testing.assert_allclose(losses.fooling(nothing), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.telling_apart(nothing, nothing), 2 * np.log(2), rtol=1e-6)
    assert losses.fooling(nothing + 5) < 0.01
    assert losses.telling_apart(nothing + 5, nothing - 5) < 0.02


def test_cycle_and_identity_losses_are_zero_for_the_identity(rng, fresh):
    """Which fresh generators are, so that training begins there."""
    true = _frames(rng, 28, 2, 2)
    _, (fakes, metrics) = step.generator_loss(
        fresh.generators, fresh.discriminators, true, step=0, training=TRAINING
    )
    np.testing.assert_array_equal(fakes, true[::-1])
    assert metrics["cycle"] == metrics["identity"] == metrics["change"] == 0


def test_the_generators_loss_is_the_sum_of_its_parts_and_identity_fades(rng, fresh):
    generators = jax.tree.map(lambda leaf: leaf + 0.01, fresh.generators)
    true = _frames(rng, 28, 2, 2)
    for number, weight in ((0, 5.0), (5, 2.5), (10, 0.0), (99, 0.0)):
        loss, (_, metrics) = step.generator_loss(
            generators, fresh.discriminators, true, step=number, training=TRAINING
        )
        parts = metrics["fooling"] + 10 * metrics["cycle"] + weight * metrics["identity"]
        np.testing.assert_allclose(loss, parts, rtol=1e-5)
        assert metrics["cycle"] > 0
        assert metrics["identity"] > 0


@pytest.mark.thorough
def test_each_logit_of_a_discriminator_has_seen_the_whole_spectrum(rng):
    network = networks.Discriminator(TRAINING)
    frames = _frames(rng, 40, 1)
    variables = network.init(jax.random.key(0), frames)
    logits = network.apply(variables, frames)
    assert logits.shape == (1, 3)
    for index in range(3):
        grads = jax.grad(lambda frames, i=index: network.apply(variables, frames)[0, i])(frames)
        assert (np.abs(np.asarray(grads)).max(axis=(0, 1)) > 0).all()


@pytest.mark.parametrize("num_frames", [24, 25, 31])
def test_a_generator_takes_recordings_of_any_length_and_its_middle_does_not_depend_on_it(
    rng, num_frames, fresh
):
    generator = jax.tree.map(lambda leaf: leaf + 0.02, fresh.generators[0])
    frames = _frames(rng, num_frames, 1)
    made = step.translate(generator, frames, TRAINING)
    assert made.shape == frames.shape
    assert np.abs(made - frames).max() > 1e-3
    longer = np.concatenate([frames, _frames(rng, 200, 1)], axis=1)
    continued = step.translate(generator, longer, TRAINING)
    # What lies more than half a network's reach before the end.
    np.testing.assert_allclose(continued[:, :4], made[:, :4], rtol=1e-4, atol=1e-4)


def test_frames_of_training_are_those_of_the_middle_of_segments(rng):
    codes = _codes(rng)
    frames = step.frames_of(codes, CONFIG)
    margin = cqt.margin_frames(CONFIG.model)
    assert frames.shape == (2, 2, step.num_frames(CONFIG), 14)
    assert frames.shape[2] == 36 - 2 * margin
    whole = step.all_frames(codes, CONFIG)
    np.testing.assert_allclose(frames, whole[..., margin:-margin, :], atol=1e-5)


@pytest.mark.thorough
def test_one_batch_can_be_overfitted(fresh):
    """One domain is the other, 1.5 louder everywhere: generators learn to add and subtract it."""
    rng = np.random.default_rng(3)
    quiet = 0.3 * _frames(rng, 28, 2)
    true = jnp.stack([quiet, 1.5 + 0.3 * _frames(rng, 28, 2)])
    training = dataclasses.replace(TRAINING, learning_rate=3e-3, discriminator_learning_rate=1e-3)
    update = jax.jit(functools.partial(step.update, training=training))
    state, changes = fresh, []
    for _ in range(250):
        state, _ = update(state, true)
    for domain, wanted in ((1, 1.5), (0, -1.5)):
        source = true[1 - domain]
        made = step.translate(state.generators[domain], source, training)
        changes.append(float(jnp.mean(made - source)) / wanted)
    assert 0.6 < min(changes) < max(changes) < 1.4


@pytest.mark.thorough
def test_players_move_by_their_own_losses_alone(rng, fresh, update):
    """With no discriminator to learn, its arrays stay; likewise the generators'."""
    codes = _codes(rng)
    after, metrics = update(fresh, codes)
    assert int(after.step) == 1
    assert all(np.isfinite(value) for value in metrics.values())
    true = step.frames_of(codes, CONFIG)
    grads, _ = jax.grad(step.generator_loss, argnums=0, has_aux=True)(
        fresh.generators, fresh.discriminators, true, step=0, training=TRAINING
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, after.generators, fresh.generators)
    has_gradient = jax.tree.map(lambda grad: np.abs(grad).max() > 0, grads)
    # Behind a last layer of zeros nothing has a gradient yet.
    assert jax.tree.leaves(moved) == jax.tree.leaves(has_gradient)
    # The discriminators learn from what was made before the generators moved.
    (_, expected) = step.discriminator_loss(
        fresh.discriminators, true, true[::-1], training=TRAINING
    )
    np.testing.assert_allclose(metrics["telling_apart"], expected["telling_apart"], rtol=1e-4)


def _same(state, expected):
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_saved_state_comes_back_bit_for_bit_and_goes_on_the_same(tmp_path, rng, fresh, update):
    codes = [_codes(rng) for _ in range(3)]
    state, _ = update(fresh, codes[0])
    checkpoint.save(str(tmp_path), CONFIG, state)
    restored = checkpoint.restore(str(tmp_path), fresh)
    _same(restored, state)
    assert checkpoint.read_config(str(tmp_path)) == CONFIG
    for batch in codes[1:]:
        state, restored = update(state, batch)[0], update(restored, batch)[0]
    _same(restored, state)


def test_an_export_has_networks_alone_in_half_precision(tmp_path, rng, fresh, update):
    run, output = str(tmp_path / "run"), str(tmp_path / "export")
    state, _ = update(fresh, _codes(rng))
    checkpoint.save(run, CONFIG, state)
    assert checkpoint.export(run, output) == 1
    sizes = [(tmp_path / name / checkpoint.STATE).stat().st_size for name in ("run", "export")]
    assert sizes[1] < 0.4 * sizes[0]
    with pytest.raises(ValueError, match="is an export, without optimizers. Start from it with"):
        checkpoint.restore(output, fresh)
    started = checkpoint.restore_networks(output, fresh)
    assert int(started.step) == 0
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6),
        (started.generators, started.discriminators, started.average),
        (state.generators, state.discriminators, state.average),
    )
    with pytest.raises(FileExistsError, match="holds a CycleGAN already"):
        checkpoint.export(run, output)


def test_a_state_of_other_sizes_or_bytes_is_refused(tmp_path, fresh):
    checkpoint.save(str(tmp_path), CONFIG, fresh)
    wider = dataclasses.replace(
        CONFIG, training=dataclasses.replace(TRAINING, generator_channels=8)
    )
    target = jax.eval_shape(functools.partial(step.create, wider), jax.random.key(0))
    with pytest.raises(ValueError, match="arrays of other sizes than its settings"):
        checkpoint.restore(str(tmp_path), target)
    whole = (tmp_path / checkpoint.STATE).read_bytes()
    (tmp_path / checkpoint.STATE).write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"gan\.msgpack is damaged"):
        checkpoint.restore(str(tmp_path), fresh)
    (tmp_path / checkpoint.SETTINGS).write_text('{"domains": ["Cello"]}')
    with pytest.raises(ValueError, match=r"gan\.json is damaged, or of another version"):
        checkpoint.read_config(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no CycleGAN"):
        checkpoint.read_config(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("domains", [("Piano",), ("Cello", "Flute", "Piano"), ("Piano", "Piano")])
def test_a_cyclegan_is_between_two_domains(domains):
    with pytest.raises(ValueError, match="between exactly two"):
        dataclasses.replace(CONFIG, domains=domains)


def test_segments_too_short_for_wavelets_and_discriminator_are_refused():
    training = dataclasses.replace(TRAINING, segment_samples=500)
    with pytest.raises(ValueError, match="segment_samples=500 are too few: .* Use at least 640"):
        dataclasses.replace(CONFIG, training=training)
    with pytest.raises(ValueError, match="segment_samples=721 must be a multiple of pool_samples"):
        dataclasses.replace(CONFIG, training=dataclasses.replace(TRAINING, segment_samples=721))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ema_decay": 1.0}, "ema_decay=1.0 must be 0 or more, and below 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"generator_blocks": 0}, "generator_blocks=0 must be at least 1"),
        ({"cycle_weight": -1.0}, "cycle_weight=-1.0 must be at least 0"),
    ],
)
def test_values_out_of_range_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(TRAINING, **change)

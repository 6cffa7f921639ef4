"""Numerics, devices and small models of every test."""

import fcntl
import os

# Tests spend most of their time in the compiler of XLA, and programs run for milliseconds. Commands
# that tests start inherit this. Flags of the caller come last and win: set
# XLA_FLAGS=--xla_backend_optimization_level=3 to test the code that users run.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")

import core_library
import jax
import numpy as np
import plugin_build
import pytest
import soundfile
from etils import epath

from data_prep import tfds_files
from data_prep.settings import Recipe
from experiments import train
from experiments.training_run.flags import Schedule
from umt_jax.config import Config, ModelConfig, TrainingConfig
from umt_jax.data import dataset
from umt_jax.model import networks

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def sizes(*, latents, pool, decoder, encoder=(1, 1, 4), classifier=4, **others):
    """Returns sizes of a model.

    Args:
        encoder: Blocks, layers in each, channels.
        latents: Channels of latents.
        pool: Audio samples in a latent frame.
        decoder: Blocks, layers in each, residual and skip channels.
        classifier: Channels of the classifier.
        **others: Fields of ModelConfig.
    """
    of_encoder = "encoder_blocks", "encoder_layers", "encoder_channels"
    of_decoder = "decoder_blocks", "decoder_layers", "residual_channels", "skip_channels"
    return ModelConfig(
        **dict(zip(of_encoder, encoder, strict=True)),
        **dict(zip(of_decoder, decoder, strict=True)),
        latent_channels=latents,
        pool_samples=pool,
        classifier_channels=classifier,
        **others,
    )


def mostly_thorough(cases, every_day=1):
    """Returns cases for `parametrize` of which `make test` takes the first few alone."""
    rest = (
        pytest.param(*(case if isinstance(case, tuple) else [case]), marks=pytest.mark.thorough)
        for case in cases[every_day:]
    )
    return [*cases[:every_day], *rest]


TINY_MODEL = sizes(encoder=(2, 3, 6), latents=5, pool=10, decoder=(2, 4, 7, 9), classifier=8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_config():
    """Three domains, everything small, every width different."""
    return Config(
        domains=("Cello", "Flute", "Piano"),
        preset="tiny",
        model=TINY_MODEL,
        training=TrainingConfig(segment_samples=60, domain_batch=4, confusion_weight=0.3),
    )


@pytest.fixture(scope="session")
def tiny_networks(tiny_config):
    return networks.Networks(tiny_config)


def random_parameters(nets, seed=0):
    """Returns parameters of the right shapes, large enough that biases and gates matter."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        return (rng.normal(size=leaf.shape) * min(0.5, fan_in**-0.5)).astype(np.float32)

    return jax.tree.map(draw, jax.eval_shape(nets.init, jax.random.key(0)))


@pytest.fixture(scope="session")
def tiny_parameters(tiny_networks):
    return random_parameters(tiny_networks)


def shared_by_workers(tmp_path_factory):
    """Returns the folder that this session has, whichever worker of pytest-xdist asks."""
    session = tmp_path_factory.getbasetemp()
    return session.parent if "PYTEST_XDIST_WORKER" in os.environ else session


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Compiles each program once in a session, in tests and in the commands that they start.

    Set JAX_COMPILATION_CACHE_DIR to keep the programs for the next session.
    """
    compiled = shared_by_workers(tmp_path_factory) / "compiled"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(compiled)
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def write_tone(path, seconds=3.0, rate_hz=8000, channels=1, frequency_hz=300.0):
    """Writes a sine to a sound file, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * frequency_hz * t)
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate_hz)


PREPARED = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=2)
NUM_SEGMENTS = {"train": (4, 3), "validation": (5,), "test": (2,)}
"""Segments of each track in each split of each prepared domain."""


def track_codes(domain, split, track):
    """Returns all codes of a track: noise, so that any dozen of them are found at one place."""
    rng = np.random.default_rng([*domain.encode(), *split.encode(), track])
    num_samples = NUM_SEGMENTS[split][track] * PREPARED.segment_samples
    return rng.integers(256, size=num_samples).astype(np.uint8)


def write_domain(name, data_dir):
    """Writes a domain as `data_prep.build` does; its v-th augmented variant is codes + 1 + v."""

    T = PREPARED.segment_samples
    variants = np.arange(1, PREPARED.num_variants + 1, dtype=np.uint8)[:, None]

    def examples(split):
        for track, count in enumerate(NUM_SEGMENTS[split]):
            for start in range(0, count * T, T):
                codes = track_codes(name, split, track)[start : start + T]
                yield {
                    "codes": codes,
                    "augmented": codes + variants,
                    "track": f"{split}_{track}.wav",
                    "start_sample": start,
                }

    in_splits = {split: list(examples(split)) for split in NUM_SEGMENTS}
    tfds_files.write_small_dataset(name, in_splits, PREPARED, data_dir=epath.Path(data_dir))


@pytest.fixture(scope="session")
def run_config():
    """What is quick to compile: two domains, few layers, one width, rate of the prepared tracks."""
    model = sizes(
        encoder=(1, 2, 8),
        latents=8,
        pool=10,
        decoder=(1, 2, 8, 8),
        classifier=8,
        sample_rate_hz=PREPARED.sample_rate_hz,
    )
    training = TrainingConfig(segment_samples=60, domain_batch=4)
    return Config(domains=("Cello", "Piano"), preset="small", model=model, training=training)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory, tiny_config):
    """A folder with the plug-ins for audio workstations, and a tiny model in each."""
    folder = tmp_path_factory.mktemp("plugins")
    parameters = random_parameters(networks.Networks(tiny_config))
    # Hosts take all that lies beside a bundle for one: the file comes from elsewhere.
    file = core_library.file_of(tmp_path_factory.mktemp("model"), tiny_config, parameters)
    plugin_build.compile_into(folder, file)
    return folder


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory, run_config):
    """A --data_dir with the domains of `run_config`."""
    folder = tmp_path_factory.mktemp("prepared")
    for domain in run_config.domains:
        write_domain(domain, folder)
    return folder


@pytest.fixture(scope="session")
def trained_dir(tmp_path_factory, prepared_dir, run_config):
    """The --workdir of a run of eight steps, never stopped. All workers share it: do not write."""
    workdir = shared_by_workers(tmp_path_factory) / "run"
    schedule = Schedule(
        num_steps=8, log_every=2, eval_every=4, eval_batches=1, eval_audio_seconds=0.1
    )
    with workdir.with_name("run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = workdir.with_name("run.finished")
        if not finished.exists():
            # Optax's Adam itself mixes integers and floats.
            with jax.numpy_dtype_promotion("standard"):
                prepared = dataset.Dataset(str(prepared_dir), run_config.domains)
                train.run(run_config, schedule, prepared, workdir=str(workdir))
            finished.touch()
    return workdir

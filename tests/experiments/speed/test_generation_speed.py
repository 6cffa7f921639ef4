import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.speed import first_sound, generation_speed, machine
from umt_jax.generation.engines import native
from umt_jax.model import networks
from umt_jax.processes import cores


def test_a_sample_is_multiplied_with_every_kernel_but_the_first_and_the_conditioning(run_config):
    decoders = jax.eval_shape(networks.Networks(run_config).init, jax.random.key(0)).decoders
    sizes = {
        jax.tree_util.keystr(path): np.prod(leaf.shape[1:])
        for path, leaf in jax.tree_util.tree_leaves_with_path(decoders)
    }
    expected = sum(
        size
        for name, size in sizes.items()
        if "kernel" in name and "first" not in name and "condition" not in name
    )
    multiplied, read = generation_speed.step_weights(run_config.model)
    assert multiplied == expected
    # Dilations 1 and 2: of the second layer's past tap, 8 x 16 weights, half is saved.
    assert run_config.model.decoder_dilations == (1, 2)
    assert read == expected - 64


@pytest.mark.slow  # Compiles every engine twice.
def test_what_is_measured_has_every_engine_and_its_table_a_line_for_each(run_config):
    speeds = generation_speed.measure(run_config.model, 2, num_rounds=1, with_torch=False)
    names = list(generation_speed.engines_by_threads(cores.usable()))
    assert [speed.engine for speed in speeds] == names
    for speed in speeds:
        assert speed.samples_per_s > 0
        assert 0 < speed.load_s < speed.compile_s
    lines = generation_speed.table({("demo", 2): speeds}).splitlines()
    assert [line.count("|") for line in lines] == [10] * (2 + len(speeds))


def test_compile_times_leave_the_settings_as_they_were():
    before = jax.config.jax_compilation_cache_dir
    doubled, compile_s, load_s = machine.compile_times(
        lambda: jax.jit(lambda x: 2 * x).lower(np.ones(3, np.float32)).compile()
    )
    np.testing.assert_array_equal(doubled(np.ones(3, np.float32)), [2, 2, 2])
    assert compile_s > 0 and load_s > 0
    assert jax.config.jax_compilation_cache_dir == before


def test_a_peak_is_the_process_s_own_and_not_what_its_parent_held():
    held = np.ones(2**25)
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # The program has started in place of the parent's copy.
        assert 1e6 < machine.peak_bytes(process.pid) < held.nbytes < machine.peak_bytes(os.getpid())
        process.communicate(b"\n")


@pytest.mark.slow  # Starts a command four times.
def test_the_first_sound_of_a_real_command_is_timed(run_config):
    first = first_sound.measure(run_config.model, "native", "float32")
    assert 0 < first.warm_s < first.cold_s
    assert first.peak_bytes > 50e6


def test_native_has_a_row_for_each_number_of_threads(monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: 6)
    engines = generation_speed.engines_by_threads(6)
    threads = [engine.threads for name, engine in engines.items() if name.startswith("native, ")]
    assert threads == [1, 2, 4, 6]
    assert engines["native bfloat16, 4 threads"] == native.NativeEngine("bfloat16", threads=4)
    assert engines["native int8, 6 threads"] == native.NativeEngine("int8", threads=6)
    assert list(generation_speed.engines_by_threads(1)) == list(generation_speed.ENGINES)

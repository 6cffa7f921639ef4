"""The core by its C interface, through ctypes, for tests."""

import ctypes
import functools
from pathlib import Path

import jax
import numpy as np

from umt_jax.checkpoints import model_file
from umt_jax.core import compiler

SOURCE = Path(compiler.__file__).with_name("umt.cc")
_FLOATS = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")


@functools.cache
def library():
    core = compiler.load(SOURCE)
    pointer, count, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for name, result, *arguments in (
        ("model_load", pointer, ctypes.c_char_p, *[ctypes.c_size_t] * 2, pointer, ctypes.c_size_t),
        ("model_free", None, pointer),
        ("model_sample_rate_hz", number, pointer),
        ("model_num_domains", number, pointer),
        ("model_domain", ctypes.c_char_p, pointer, number),
        ("model_temperature", ctypes.c_float, pointer),
        ("model_top_p", ctypes.c_float, pointer),
        ("model_gain", ctypes.c_float, pointer, _FLOATS, count),
        ("stream_new", pointer, pointer),
        ("stream_free", None, pointer),
        ("stream_reset", None, pointer),
        ("stream_set_domain", number, pointer, number),
        ("stream_set_seed", number, pointer, ctypes.c_uint32),
        ("stream_set_temperature", number, pointer, ctypes.c_float),
        ("stream_set_top_p", number, pointer, ctypes.c_float),
        ("stream_latency", count, pointer),
        ("stream_push", count, pointer, _FLOATS, count),
        ("stream_pull", count, pointer, _FLOATS, count),
        ("stream_finish", None, pointer),
    ):
        function = getattr(core, f"umt_{name}")  # Which keeps it; core[...] does not.
        function.restype, function.argtypes = result, arguments
    return core


def file_of(folder, config, parameters):
    """Writes a model into a folder; returns the file's path."""
    path = folder / "model.safetensors"
    model_file.write(path, config, jax.tree.map(np.asarray, parameters))
    return path


def load(core, file, most_bytes=2**30):
    """Returns a model and "", or None and what is wrong."""
    error = ctypes.create_string_buffer(500)
    model = core.umt_model_load(file, len(file), most_bytes, error, len(error))
    return model, error.value.decode()


class Stream:
    """One stream of a model."""

    def __init__(self, core, model):
        self.core, self.stream = core, core.umt_stream_new(model)

    def __del__(self):
        self.core.umt_stream_free(self.stream)

    def set(self, **values):
        """Returns 0 where all were taken."""
        return min(
            getattr(self.core, f"umt_stream_set_{name}")(self.stream, value)
            for name, value in values.items()
        )

    def push(self, samples):
        return self.core.umt_stream_push(self.stream, samples, len(samples))

    def pull(self, count):
        samples = np.zeros(count, np.float32)
        return samples[: self.core.umt_stream_pull(self.stream, samples, count)]

    def translate(self, waveform, block=1000):
        """Returns a whole recording's translation, pushed and pulled in blocks."""
        parts, waveform = [], np.ascontiguousarray(waveform, np.float32)
        while len(waveform):
            waveform = waveform[self.push(waveform[:block]) :]
            parts.append(self.pull(block))
        self.core.umt_stream_finish(self.stream)
        while len(part := self.pull(block)):
            parts.append(part)
        return np.concatenate([*parts, np.zeros(0, np.float32)])

"""The core for Python: its C interface, `umt.h`, through ctypes.

It is compiled when it is first needed, as `compiler` says.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np

from umt_jax.core import compiler
from umt_jax.shapes import Float, Waveform

SOURCE = Path(__file__).with_name("umt.cc")
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIZE, _REAL = ctypes.c_size_t, ctypes.c_float
_FLOATS = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
_NO_LIMIT = 2**63 - 1  # Bytes of memory.
_ERROR_BYTES = 500


@functools.cache
def functions() -> ctypes.CDLL:
    """Returns all functions, with their types; raises what `compiler.load` raises."""
    return compiler.functions(
        SOURCE,
        ("model_load", _POINTER, ctypes.c_char_p, _SIZE, _SIZE, _POINTER, _SIZE),
        ("model_free", None, _POINTER),
        ("model_sample_rate_hz", _NUMBER, _POINTER),
        ("model_num_domains", _NUMBER, _POINTER),
        ("model_domain", ctypes.c_char_p, _POINTER, _NUMBER),
        ("model_temperature", _REAL, _POINTER),
        ("model_top_p", _REAL, _POINTER),
        ("model_guide_strength", _REAL, _POINTER),
        ("model_gain", _REAL, _POINTER, _FLOATS, _COUNT),
        ("stream_new", _POINTER, _POINTER),
        ("stream_free", None, _POINTER),
        ("stream_reset", None, _POINTER),
        ("stream_set_domain", _NUMBER, _POINTER, _NUMBER),
        ("stream_set_seed", _NUMBER, _POINTER, ctypes.c_uint32),
        ("stream_set_temperature", _NUMBER, _POINTER, _REAL),
        ("stream_set_top_p", _NUMBER, _POINTER, _REAL),
        ("stream_set_guide_strength", _NUMBER, _POINTER, _REAL),
        ("stream_latency", _COUNT, _POINTER),
        ("stream_push", _COUNT, _POINTER, _FLOATS, _COUNT),
        ("stream_pull", _COUNT, _POINTER, _FLOATS, _COUNT),
        ("stream_finish", None, _POINTER),
    )


def load(file: bytes, most_bytes: int = _NO_LIMIT) -> tuple[int | None, str]:
    """Returns what the core loads of a model file, and ""; or None and what is wrong with it."""
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    model = functions().umt_model_load(file, len(file), most_bytes, error, len(error))
    return model, error.value.decode(errors="replace")


class Player:
    """A model and one stream of it: takes sound and gives its translation. A context manager.

    Attributes:
        sample_rate_hz: Of what it takes and gives.
        domains: Names, by index.
    """

    def __init__(self, file: bytes) -> None:
        """Loads a model file.

        Raises:
            ValueError: The core cannot play it.
            OSError: There is no C++ compiler, or it fails.
            MemoryError: There is none left.
        """
        core = functions()
        self._model, error = load(file)
        self._stream = None
        if self._model is None:
            raise ValueError(f"The core cannot play this model. {error}")
        self._stream = core.umt_stream_new(self._model)
        if self._stream is None:
            self.close()
            raise MemoryError("There is not enough memory for a stream of this model.")
        self.sample_rate_hz: int = core.umt_model_sample_rate_hz(self._model)
        self.domains = tuple(
            core.umt_model_domain(self._model, domain).decode()
            for domain in range(core.umt_model_num_domains(self._model))
        )

    def __enter__(self) -> "Player":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Frees the model."""
        self.close()

    def close(self) -> None:
        """Frees stream and model; nothing else may be called then."""
        if self._stream is not None:
            functions().umt_stream_free(self._stream)
        if self._model is not None:
            functions().umt_model_free(self._model)
        self._stream = self._model = None

    @property
    def latency_samples(self) -> int:
        """Sample t can be pulled once t + latency_samples were pushed."""
        latency: int = functions().umt_stream_latency(self._stream)
        return latency

    def set(self, **values: int | float) -> None:
        """Sets domain (an index), seed, temperature, top_p or guide_strength.

        The last one changes the latency, and forgets all sound.

        Raises:
            ValueError: A value is not allowed.
        """
        for name, value in values.items():
            if getattr(functions(), f"umt_stream_set_{name}")(self._stream, value):
                raise ValueError(f"{name}={value} is not allowed.")

    def push(self, waveform: Waveform) -> int:
        """Takes samples, [T]; returns how many: fewer where some must be pulled first."""
        samples = np.ascontiguousarray(waveform, np.float32)
        return functions().umt_stream_push(self._stream, samples, samples.size)

    def pull(self, count: int) -> Float[np.ndarray, "_"]:
        """Generates and returns what can be, float32, at most `count` samples."""
        waveform = np.empty(count, np.float32)
        return waveform[: functions().umt_stream_pull(self._stream, waveform, count)]

    def finish(self) -> None:
        """Says that nothing more is pushed: what is left can be pulled."""
        functions().umt_stream_finish(self._stream)

"""What tests of the core share."""

import numpy as np

from umt_jax.checkpoints import model_file
from umt_jax.core import library
from umt_jax.model import networks


def file_of(folder, config, parameters):
    """Writes a model into a folder; returns the file's path."""
    path = folder / "model.safetensors"
    model_file.write(path, config, networks.by_name(parameters))
    return path


def played(file, waveform, domain):
    """Returns what the core plays of a recording that goes on, at temperature 0."""
    with library.Player(file.read_bytes()) as player:
        player.set(domain=domain, temperature=0.0)
        parts = []
        for start in range(0, len(waveform), 100):
            player.push(waveform[start : start + 100])
            parts.append(player.pull(1000))
        return np.concatenate(parts)


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

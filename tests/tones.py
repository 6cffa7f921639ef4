"""Tones, as samples and as files."""

import io

import numpy as np
import soundfile

RATE_HZ = 16_000


def tone(seconds, rate_hz=RATE_HZ, frequency_hz=440.0, amplitude=0.4):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def glide(num_samples, rate_hz=8000):
    """A tone that climbs, with overtones and an attack every half second."""
    time = np.arange(num_samples) / rate_hz
    phase = 2 * np.pi * (220 * time + 40 * time**2)
    tone = sum(np.sin(n * phase) / n for n in range(1, 5))
    return (0.3 * tone * np.exp(-3 * (time % 0.5))).astype(np.float32)


def encoded(samples, rate_hz=RATE_HZ, **options):
    target = io.BytesIO()
    soundfile.write(target, samples, rate_hz, **options)
    return bytearray(target.getvalue())

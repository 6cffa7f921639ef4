"""Tones, as samples and as files."""

import io

import numpy as np
import soundfile

RATE_HZ = 16_000


def tone(seconds, rate_hz=RATE_HZ, frequency_hz=440.0):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def encoded(samples, rate_hz=RATE_HZ, **options):
    target = io.BytesIO()
    soundfile.write(target, samples, rate_hz, **options)
    return bytearray(target.getvalue())

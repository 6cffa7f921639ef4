"""The stream that browsers play."""

import io

import numpy as np
import pytest
import soxr

from umt_jax.studio import aac

av = pytest.importorskip("av")


def encode(waveform, rate_hz, cuts):
    encoder = aac.Encoder(rate_hz)
    pieces = [encoder.encode(piece) for piece in np.split(waveform, cuts)]
    return [*pieces, encoder.finish()]


def decode(frames):
    with av.open(io.BytesIO(frames), format="aac") as container:
        decoded = list(container.decode(audio=0))
        return decoded[0].sample_rate, np.concatenate([f.to_ndarray()[0] for f in decoded])


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050])
def test_stream_is_the_sound_that_was_put_in(rate_hz):
    time_s = np.arange(2 * rate_hz) / rate_hz
    # Rises from 200 to 1400 Hz, so that it is like itself at one delay only.
    waveform = (0.3 * np.sin(2 * np.pi * (200 + 300 * time_s) * time_s)).astype(np.float32)
    frames = b"".join(encode(waveform, rate_hz, cuts=[rate_hz // 2, rate_hz, rate_hz + 7]))
    decoded_hz, decoded = decode(frames)
    expected = soxr.resample(waveform, rate_hz, decoded_hz)
    # The codec puts one frame of its own before the sound.
    delay = np.argmax(np.correlate(decoded[:20_000], expected[2000:12_000])) - 2000
    assert 0 <= delay <= 2048
    both = slice(2000, 2 * decoded_hz - 2000)
    difference = decoded[delay:][both] - expected[both]
    assert np.sqrt(np.mean(difference**2)) < 0.01


def test_seconds_are_those_of_the_frames():
    pieces = encode(np.ones(8000, np.float32), 8000, cuts=[1000, 4000])
    assert aac.seconds(b"") == 0.0
    for frames in filter(None, pieces):
        decoded_hz, decoded = decode(frames)
        assert aac.seconds(frames) == len(decoded) / decoded_hz
    total = sum(map(aac.seconds, pieces))
    assert 1.0 <= total < 1.0 + 3 * 1024 / 48_000


def test_cuts_change_no_byte(rng):
    waveform = 0.1 * rng.normal(size=16_000).astype(np.float32)
    whole = b"".join(encode(waveform, 8000, cuts=[]))
    assert b"".join(encode(waveform, 8000, cuts=[1, 500, 9000])) == whole

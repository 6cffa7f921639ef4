import types

import numpy as np
import pytest

pytest.importorskip("swift_f0")
pytest.importorskip("mir_eval")

from experiments.evaluation import paper_protocols as protocols
from umt_jax.generation import blending

RATE_HZ = 1000


def test_a_contour_is_the_pitch_where_something_is_heard(monkeypatch):
    times_s = np.arange(10) / 10
    pitches_hz = 440 * 2 ** (np.arange(10) / 12)
    track = protocols.transcription.PitchTrack(times_s, pitches_hz, np.ones(10, bool))
    monkeypatch.setattr(protocols.transcription, "pitch_track", lambda waveform, rate_hz: track)
    waveform = np.ones(RATE_HZ, np.float32)
    waveform[450:750] = 0.001  # 60 dB below the rest.
    contour = protocols.contour(waveform, RATE_HZ)
    heard = np.isfinite(contour)
    np.testing.assert_allclose(contour[heard], 69 + np.arange(10)[heard])
    # Frames reach half way over their neighbours.
    assert list(np.flatnonzero(~heard)) == [6]


class Judge:
    """Takes the sound of the largest mean for the likeliest of any domain."""

    def measure(self, embedding, target):
        return {"target_probability": float(embedding.mean())}


def test_a_line_up_has_the_real_one_and_the_translations_of_all_others(monkeypatch):
    def sounds(*values):
        return [np.full(5, value, np.float32) for value in values]

    monkeypatch.setattr(protocols.timbre, "embed", lambda clips, rate_hz: clips)
    clips = {"A": sounds(0.9, 0.9), "B": sounds(0.5, 0.5)}
    translations = {
        ("A", "B"): sounds(0.6, 0.2),
        ("B", "A"): sounds(0.1, 0.2),
        ("A", "A"): sounds(1.0, 1.0),  # No candidate: the real one stands in its place.
        ("B", "B"): sounds(1.0, 1.0),
    }
    found = protocols.line_up(clips, translations, Judge(), RATE_HZ)
    assert found == {
        "real_one_found": 0.75,
        "chance": 0.5,
        "taken_for_real": {"A": {"A": 1.0, "B": 0.0}, "B": {"A": 0.5, "B": 0.5}},
    }


def test_blends_are_the_papers_in_latents_and_in_waveforms(rng):
    def encode(waveform, rate_hz):
        return np.asarray(waveform).reshape(-1, 50)[:, :3]

    def generate(latents, *, domain, temperature, seed):
        return np.repeat(latents[:, 0], 50)

    def translate(waveform, rate_hz, *, domain, temperature, seed):
        return waveform

    model = types.SimpleNamespace(
        sample_rate_hz=RATE_HZ,
        frame_rate_hz=20.0,
        encode=encode,
        generate=generate,
        translate=translate,
    )
    clips = {"A": [rng.uniform(-1, 1, 5000).astype(np.float32) for _ in range(3)]}
    sounds = protocols.blends(model, clips, 1.0, 0)
    first, second = blending.match_levels(clips["A"][:2])
    np.testing.assert_array_equal(sounds["A.first"], first)
    waveform = sounds["A.wave_blend"]
    assert len(waveform) == len(sounds["A.latent_blend"]) == 8500
    np.testing.assert_array_equal(waveform[:3500], first[:3500])
    np.testing.assert_array_equal(waveform[5000:], second[1500:])
    share = (0.5 + np.arange(1500)) / 1500
    expected = (1 - share) * first[3500:] + share * second[:1500]
    np.testing.assert_allclose(waveform[3500:5000], expected, atol=1e-5)
    expected = blending.blend(
        encode(first, 0), encode(second, 0), schedule="paper", frame_rate_hz=20.0
    )
    np.testing.assert_array_equal(sounds["A.latent_blend"], np.repeat(expected[:, 0], 50))

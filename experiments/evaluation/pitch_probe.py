"""Probes that measure what the latents contain of the pitch, for single lines.

A probe reads the key that sounds from three neighbouring latent frames. Where it is right and what
the decoder plays is wrong, the notes were in the latents and the decoder did not follow them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import librosa
import numpy as np
import sklearn.neural_network
import threadpoolctl
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep import midi
from experiments.evaluation import decoys, transcription
from experiments.evaluation.pieces import Music
from umt_jax.shapes import Float, Int, Waveform
from umt_jax.translator import Translator

NEIGHBOURS = 3
"""Latent frames that a probe sees: the one that is asked about in the middle."""

_HIDDEN = 128
_MOST_FRAMES = 40_000  # Of a domain, to learn from; twice as many bought 0.01.
_EPOCHS, _BATCH, _LEARNING_RATE = 30, 256, 3e-3
_CLEAR_SEMITONES = 0.4  # From a key: what is between two keys teaches neither.
_REST = -1


@dataclasses.dataclass(frozen=True)
class ProbeScores:
    """Accuracy of a probe on the exact key that sounds in recordings of one domain.

    Attributes:
        linear: Softmax regression.
        mlp: A network with one hidden layer of 128.
        mlp_of_others: The same network, but trained on the other domains: what it loses against
            `mlp` is how far the encoder puts one note at different places for different timbres.
        frames: How many latent frames of the test have a note.
    """

    linear: float
    mlp: float
    mlp_of_others: float
    frames: int


def probe(
    model: Translator, learned: Mapping[str, Sequence[Waveform]], music: Music, *, seed: int = 0
) -> dict[str, ProbeScores]:
    """Trains probes on some recordings and tests them on the recordings of `music`, by domain.

    What sounds in training is what the pitch tracker hears; in the test it is the score, where
    that is known.

    Args:
        model: Its encoder is probed.
        learned: Sounds of each domain that are not in the test, at the model's rate.
        music: The test, at the model's rate.
        seed: Decides the probes' initial parameters and the order of their batches.
    """
    rate_hz = model.sample_rate_hz
    train = {
        domain: _join(
            _frames(model, sound, _tracked(sound, rate_hz, model.frame_rate_hz)) for sound in sounds
        )
        for domain, sounds in learned.items()
    }
    found = {}
    for domain in music.domains:
        latents, keys = _join(
            _frames(model, sound, _expected(music, piece, sound, model.frame_rate_hz))
            for piece, sound in music.recordings[domain].items()
        )
        others = _join(train[other] for other in music.domains if other != domain)
        found[domain] = ProbeScores(
            linear=_accuracy(_fit(*train[domain], hidden=(), seed=seed), latents, keys),
            mlp=_accuracy(_fit(*train[domain], hidden=(_HIDDEN,), seed=seed), latents, keys),
            mlp_of_others=_accuracy(_fit(*others, hidden=(_HIDDEN,), seed=seed), latents, keys),
            frames=len(keys),
        )
    return found


def keys_of_score(
    notes: Sequence[midi.Note], num_frames: int, frame_rate_hz: float
) -> Int[np.ndarray, "F"]:
    """Returns the key of a single line in the middle of each latent frame, -1 in rests."""
    middles_s = (np.arange(num_frames) + 0.5) / frame_rate_hz
    keys = np.full(num_frames, _REST)
    for note in notes:
        keys[(middles_s >= note.onset_s) & (middles_s < note.offset_s)] = note.pitch
    return keys


def keys_of_pitch(
    track: transcription.PitchTrack, num_frames: int, frame_rate_hz: float
) -> Int[np.ndarray, "F"]:
    """Returns the key heard in the middle of each latent frame, -1 where there is no clear one."""
    middles_s = (np.arange(num_frames) + 0.5) / frame_rate_hz
    step_s = track.times_s[1] - track.times_s[0] if len(track.times_s) > 1 else 1.0
    nearest = np.clip(np.rint(middles_s / step_s), 0, len(track.times_s) - 1).astype(int)
    pitch = librosa.hz_to_midi(track.pitch_hz[nearest])
    keys = np.rint(pitch).astype(int)
    clear = track.voiced[nearest] & (np.abs(pitch - keys) <= _CLEAR_SEMITONES)
    return np.where(clear, keys, _REST)


def _tracked(sound: Waveform, rate_hz: int, frame_rate_hz: float) -> Int[np.ndarray, "F"]:
    levelled = transcription.gate(decoys.at_level(sound), rate_hz)
    num_frames = int(np.ceil(len(sound) / rate_hz * frame_rate_hz))
    return keys_of_pitch(transcription.pitch_track(levelled, rate_hz), num_frames, frame_rate_hz)


def _expected(
    music: Music, piece: str, sound: Waveform, frame_rate_hz: float
) -> Int[np.ndarray, "F"]:
    if piece not in music.notes:
        return _tracked(sound, music.sample_rate_hz, frame_rate_hz)
    num_frames = int(np.ceil(len(sound) / music.sample_rate_hz * frame_rate_hz))
    return keys_of_score(music.notes[piece], num_frames, frame_rate_hz)


def _frames(
    model: Translator, sound: Waveform, keys: Int[np.ndarray, "F"]
) -> tuple[Float[np.ndarray, "N L"], Int[np.ndarray, "N"]]:
    """Returns the latents of each frame that has a key and a frame on both sides, and its key."""
    latents = np.asarray(model.encode(sound, model.sample_rate_hz))
    windows = np.lib.stride_tricks.sliding_window_view(latents, NEIGHBOURS, axis=0)
    edge = NEIGHBOURS // 2
    keys = keys[edge : len(latents) - edge]
    return windows.reshape(len(windows), -1)[keys != _REST], keys[keys != _REST]


def _join(parts):
    latents, keys = zip(*parts, strict=True)
    return np.concatenate(latents), np.concatenate(keys)


def _fit(
    latents: Float[np.ndarray, "N L"],
    keys: Int[np.ndarray, "N"],
    *,
    hidden: tuple[int, ...],
    seed: int,
) -> Pipeline:
    """Trains a network on standardised latents; without hidden layers, softmax regression."""
    step = -(-len(keys) // _MOST_FRAMES)
    latents, keys = latents[::step], keys[::step]
    scaler = StandardScaler().fit(latents)
    network = sklearn.neural_network.MLPClassifier(
        hidden, batch_size=_BATCH, learning_rate_init=_LEARNING_RATE, random_state=seed
    )
    scaled, classes = scaler.transform(latents), np.unique(keys)
    # For products this small threads wait for one another longer than they multiply.
    with threadpoolctl.threadpool_limits(1):
        for _ in range(_EPOCHS):
            network.partial_fit(scaled, keys, classes=classes)
    return make_pipeline(scaler, network)


def _accuracy(model: Pipeline, latents: Float[np.ndarray, "N L"], keys: Int[np.ndarray, "N"]):
    """Returns how often the key is the right one; one that was never learned is wrong."""
    return float(np.mean(model.predict(latents) == keys)) if len(keys) else float("nan")

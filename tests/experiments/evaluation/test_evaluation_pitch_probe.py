"""What `experiments.evaluate` reads of the pitch from latents, and what it plays by itself."""

import numpy as np
import pytest
from played_scale import RATE_HZ, SCALE, played

from data_prep import instruments, midi
from experiments.evaluation import content, pieces, pitch_probe, transcribed, transcription

MARK = np.float32(1e-3)
WRITTEN = [n._replace(onset_s=n.onset_s + 0.1, offset_s=n.offset_s + 0.1) for n in SCALE]


class Spectra:
    """Stands for a model whose latents are spectra, or noise if it has a seed."""

    sample_rate_hz, frame_rate_hz = RATE_HZ, 40.0

    def __init__(self, seed=None):
        self._rng = None if seed is None else np.random.default_rng(seed)

    def encode(self, waveform, sample_rate_hz):
        hop = round(sample_rate_hz / self.frame_rate_hz)
        frames = np.pad(waveform, (0, -len(waveform) % hop)).reshape(-1, hop)
        if self._rng is not None:
            return self._rng.normal(size=(len(frames), 8)).astype(np.float32)
        around = np.concatenate([np.roll(frames, 1, 0), frames, np.roll(frames, -1, 0)], axis=1)
        spectra = np.abs(np.fft.rfft(around * np.hanning(3 * hop)))[:, 20:80]
        return np.log(spectra + 1e-3).astype(np.float32)


def music(domains=("Flute", "Piano")):
    recordings = {domain: {"scale": played(domain)} for domain in domains}
    return pieces.make_music(
        recordings, {"scale": WRITTEN}, sample_rate_hz=RATE_HZ, paired=True, clip_s=3.0
    )


def learned(domains=("Flute", "Piano")):
    """The scale backwards, at two speeds."""
    sounds = {}
    for domain in domains:
        sounds[domain] = [
            instruments.play(
                [midi.Note(step_s * i, step_s * (i + 0.95), 71 - i, 90) for i in range(len(SCALE))],
                program=instruments.PROGRAMS[domain],
                soundfont=instruments.find_soundfont(None),
                sample_rate_hz=RATE_HZ,
            )
            for step_s in (0.4, 0.6)
        ]
    return sounds


def test_a_probe_reads_the_pitch_where_it_is_in_the_latents_and_guesses_where_it_is_not():
    knowing = pitch_probe.probe(Spectra(), learned(), music())
    for scores_of_domain in knowing.values():
        assert scores_of_domain.linear > 0.75
        assert scores_of_domain.mlp > 0.75
        assert scores_of_domain.frames > 0.8 * 40 * 0.45 * len(SCALE)
    ignorant = pitch_probe.probe(Spectra(seed=0), learned(), music())
    for scores_of_domain in ignorant.values():
        assert scores_of_domain.mlp < 0.3


def test_a_probe_of_other_domains_fails_where_one_note_has_two_places():
    class Transposing(Spectra):
        """Puts the notes of marked sounds where others have those of other notes."""

        def encode(self, waveform, sample_rate_hz):
            latents = super().encode(waveform, sample_rate_hz)
            return np.roll(latents, 7, axis=1) if waveform[0] == MARK else latents

    def marked(sound):
        return np.concatenate([[MARK], sound[1:]]).astype(np.float32)

    sounds, test = learned(), music()
    sounds["Flute"] = [marked(sound) for sound in sounds["Flute"]]
    test.recordings["Flute"]["scale"] = marked(played("Flute"))
    for domain, one_place in pitch_probe.probe(Spectra(), sounds, test).items():
        two_places = pitch_probe.probe(Transposing(), sounds, test)[domain]
        assert abs(two_places.mlp - one_place.mlp) < 0.1
        assert two_places.mlp_of_others < 0.5 * one_place.mlp_of_others


def test_keys_of_a_score_are_those_in_the_middle_of_each_frame():
    notes = [midi.Note(0.0, 0.26, 60, 80), midi.Note(0.5, 1.0, 62, 80)]
    keys = pitch_probe.keys_of_score(notes, num_frames=11, frame_rate_hz=10.0)
    expected = []
    for frame in range(11):
        middle_s = (frame + 0.5) / 10
        sounding = [n.pitch for n in notes if n.onset_s <= middle_s < n.offset_s]
        expected.append(sounding[0] if sounding else -1)
    assert keys.tolist() == expected


def test_keys_that_are_heard_are_those_of_the_score_and_none_between_keys():
    track = transcription.pitch_track(played("Flute"), RATE_HZ)
    num_frames = round(40 * len(played("Flute")) / RATE_HZ)
    heard = pitch_probe.keys_of_pitch(track, num_frames, 40.0)
    written = pitch_probe.keys_of_score(WRITTEN, num_frames, 40.0)
    both = (heard >= 0) & (written >= 0)
    assert np.mean(heard[both] == written[both]) > 0.9
    assert both.sum() > 0.8 * (written >= 0).sum()
    between = transcription.PitchTrack(
        np.arange(10) / 10, np.full(10, 440 * 2 ** (0.5 / 12)), np.ones(10, bool)
    )
    assert (pitch_probe.keys_of_pitch(between, 10, 10.0) == -1).all()


@pytest.mark.parametrize("source", ["Flute", "Piano"])
def test_a_line_that_is_written_down_and_rendered_has_its_notes_at_their_times(source):
    pair = (source, "Cello")
    sounds = music((source, "Cello"))
    outputs = transcribed.outputs(sounds, [pair], instruments.find_soundfont(None))
    rendered = outputs[pair]["scale"]
    assert rendered.shape == played(source).shape
    (clip,) = content.listen(rendered, RATE_HZ, [(0, len(rendered))])
    assert content.pitch_accuracy(clip.pitch, WRITTEN) > 0.8
    assert abs(content.median_offset(clip.pitch, WRITTEN)) < 0.1


def test_of_silence_nothing_is_rendered():
    silence = np.zeros(3 * RATE_HZ, np.float32)
    for is_line in (False, True):
        assert transcribed.transcribe(silence, RATE_HZ, is_line=is_line) == []
    rendered = transcribed.render(
        [],
        "Cello",
        soundfont=instruments.find_soundfont(None),
        sample_rate_hz=RATE_HZ,
        num_samples=100,
    )
    assert not rendered.any()
    assert rendered.shape == (100,)

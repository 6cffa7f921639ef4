"""Writes the sounds that the studio offers to try.

    python -m experiments.studio_examples --output=umt_jax/studio/examples

plays a phrase of four embedded scores (`data_prep/scores`): by a whistle that is computed here, and
by three instruments of a sound font. `umt_jax.studio.examples` says what they are.
"""

import pathlib

import librosa
import numpy as np
from absl import flags
from scipy import ndimage

from data_prep import instruments, midi
from umt_jax import command_line, path_flags
from umt_jax.audio import sound_files
from umt_jax.shapes import Waveform
from umt_jax.studio import examples

_RATE_HZ = 22_050
_SECONDS = 10.0

# A whistle: nearly a sine, whose pitch glides from note to note and trembles, in some breath.
_CONTROL_HZ = 1000
_GLIDE_S, _FADE_S = 0.025, 0.03
_VIBRATO_HZ, _VIBRATO_CENTS = 5.0, 15.0
_BREATH, _SECOND_PARTIAL = 0.02, 0.04


def whistle(notes: list[midi.Note], sample_rate_hz: int) -> Waveform:
    """Returns a melody as somebody might whistle it, [T], at `instruments.LEVEL_DBFS`.

    Args:
        notes: One at a time, by onset; the first of them sounds `instruments.LEAD_S` after the
            start.
        sample_rate_hz: Rate of the waveform.
    """
    notes = midi.from_zero(notes)
    duration_s = instruments.LEAD_S + notes[-1].offset_s + instruments.TAIL_S
    times_s = np.arange(round(duration_s * _CONTROL_HZ)) / _CONTROL_HZ - instruments.LEAD_S
    newest = np.searchsorted([note.onset_s for note in notes], times_s, side="right") - 1
    keys = np.array([note.pitch for note in notes], float)[newest.clip(0)]
    sounds = np.array([note.offset_s for note in notes])[newest.clip(0)] > times_s
    keys = _smoothed(keys, _GLIDE_S)
    keys += _VIBRATO_CENTS / 100 * np.sin(2 * np.pi * _VIBRATO_HZ * times_s)
    loudness = _smoothed((sounds & (newest >= 0)).astype(float), _FADE_S)

    sample_times_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    sample_times_s -= instruments.LEAD_S
    frequency_hz = librosa.midi_to_hz(np.interp(sample_times_s, times_s, keys))
    phase = 2 * np.pi * np.cumsum(frequency_hz) / sample_rate_hz
    breath = np.random.default_rng(0).normal(size=len(phase))
    tone = np.sin(phase) + _SECOND_PARTIAL * np.sin(2 * phase) + _BREATH * breath
    waveform = np.interp(sample_times_s, times_s, loudness) * tone
    return instruments.at_level(waveform.astype(np.float32))


def _smoothed(values, width_s):
    """Returns values at `_CONTROL_HZ` in a moving average, as long as they are."""
    return ndimage.uniform_filter1d(values, round(width_s * _CONTROL_HZ) | 1, mode="nearest")


def phrase(piece: str, transpose: int) -> list[midi.Note]:
    """Returns the melody of an embedded score, as far as `_SECONDS` go.

    Args:
        piece: Name of its file, without suffix.
        transpose: Semitones up.
    """
    notes = midi.from_zero(midi.melody(midi.read(midi.EMBEDDED / f"{piece}.mid")))
    return [
        note._replace(pitch=note.pitch + transpose) for note in notes if note.offset_s < _SECONDS
    ]


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define_output_folder()
    instruments.define_soundfont()


def main() -> None:
    """Writes all examples."""
    args = flags.FLAGS
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    soundfont = instruments.find_soundfont(args.soundfont)
    for example in examples.ALL:
        notes = phrase(example.piece, example.transpose)
        if example.instrument is None:
            waveform = whistle(notes, _RATE_HZ)
        else:
            waveform = instruments.play(
                notes,
                program=instruments.PROGRAMS[example.instrument],
                soundfont=soundfont,
                sample_rate_hz=_RATE_HZ,
            )
        sound_files.write(output / example.path.name, waveform, sample_rate_hz=_RATE_HZ)
    command_line.say(f"Written: {len(examples.ALL)} sounds in {output}.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)

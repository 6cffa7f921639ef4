import pathlib
import re

import numpy as np
import pytest

from data_prep import font_check, instruments, render

# Above all for the half minute in which librosa's YIN is compiled.
pytestmark = pytest.mark.thorough

RATE_HZ = instruments.SYNTHESIS_RATE_HZ
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "reference" / "sound_fonts.md"


@pytest.fixture(scope="module")
def soundfont():
    return instruments.find_soundfont(None)


def key_hz(key, cents=0.0):
    return 440 * 2 ** ((key - 69) / 12 + cents / 1200)


def tone(partials, *, decay_per_s=0.0):
    """One second of partials, given as (frequency in Hz, amplitude)."""
    seconds = np.arange(RATE_HZ) / RATE_HZ
    waves = [
        amplitude * np.sin(2 * np.pi * frequency_hz * seconds + index)
        for index, (frequency_hz, amplitude) in enumerate(partials)
        if frequency_hz < RATE_HZ / 2
    ]
    return (0.1 * np.exp(-decay_per_s * seconds) * sum(waves)).astype(np.float32)


def harmonics(frequency_hz, numbers=range(1, 9)):
    return [(number * frequency_hz, 1 / number) for number in numbers]


def deviation(waveform, key):
    return font_check.deviation_cents(waveform, key=key, sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize("cents", [-45.0, -12.0, 0.0, 12.0, 16.0, 70.0, 150.0])
@pytest.mark.parametrize("key", [21, 40, 60, 84, 100, 108])
def test_the_deviation_of_a_tone_is_measured_to_two_cents(key, cents):
    for decay_per_s in (0, 4):
        waveform = tone(harmonics(key_hz(key, cents)), decay_per_s=decay_per_s)
        assert deviation(waveform, key) == pytest.approx(cents, abs=2)


@pytest.mark.parametrize("key", [40, 60, 84])
def test_tones_in_another_octave_are_told_from_true_ones(key):
    low, high = (deviation(tone(harmonics(key_hz(key + shift))), key) for shift in (-12, 12))
    assert low == pytest.approx(-1200, abs=3) and high == pytest.approx(1200, abs=3)
    faults = font_check.describe({60: low, 61: high})
    assert faults == "60 (C4) an octave low; 61 (C#4) an octave high"
    # A weak fundamental alone is no other octave.
    overtones = harmonics(key_hz(key), range(2, 9))
    assert deviation(tone(overtones), key) == pytest.approx(0, abs=2)


def test_vibrato_is_no_fault():
    seconds = np.arange(RATE_HZ) / RATE_HZ
    wave_cents = 30 * np.sin(2 * np.pi * 5 * seconds)
    phase = 2 * np.pi * np.cumsum(key_hz(69) * 2 ** (wave_cents / 1200)) / RATE_HZ
    waveform = (0.1 * (np.sin(phase) + 0.5 * np.sin(2 * phase))).astype(np.float32)
    assert deviation(waveform, 69) == pytest.approx(0, abs=4)


def test_partials_that_are_no_multiples_of_one_pitch_are_no_fault():
    # A stiff bass string, and a bar that is struck.
    frequency_hz = key_hz(30)
    string = [
        (n * frequency_hz * np.sqrt(1 + 4e-4 * n**2) / np.sqrt(1 + 4e-4), n**-1.0)
        for n in range(1, 16)
    ]
    bar = tone(harmonics(frequency_hz, [1])) + tone(
        [(3.93 * frequency_hz, 1.0), (9.23 * frequency_hz, 0.6)], decay_per_s=12
    )
    for waveform in (tone(string), bar):
        assert font_check.is_true(deviation(waveform, 30))


def test_silence_and_noise_are_never_true():
    silence = np.zeros(RATE_HZ, np.float32)
    assert deviation(silence, 60) is None and not font_check.is_true(None)
    assert deviation(silence + np.float32(1e-5), 60) is None
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 0.1, RATE_HZ).astype(np.float32)
        assert not font_check.is_true(deviation(noise, 60))


def test_faults_are_named_by_runs_of_keys():
    measured = {60: 3.0, 61: -20.2, 62: -30.4, 64: -16.0, 65: None, 66: None, 67: 17.0, 68: -15.0}
    assert font_check.describe(measured) == (
        "61-62 (C#4-D4), 64 (E4) 16 to 30 cents flat; 65-66 (F4-F#4) silent; 67 (G4) 17 cents sharp"
    )
    assert font_check.describe({60: 0.0}) == ""


@pytest.mark.parametrize(
    "domain, keys, faults",
    [
        ("Saxophone", range(60, 70), "64 (E4) silent"),
        ("Accordion", range(62, 78), "73-77 (C#5-F5) 50 to 58 cents flat"),
        ("Organ", range(60, 70), "60-69 (C4-A4) an octave low"),
        ("Brass", range(92, 96), "94-95 (A#6-B6) 148 cents flat"),
        ("Oboe", range(34, 38), "34-35 (A#1-B1) silent"),
        ("Choir", range(44, 50), ""),
    ],
)
def test_the_faults_of_the_default_font_are_found(soundfont, domain, keys, faults):
    measured = font_check.measure(domain, soundfont, keys)
    assert list(measured) == list(keys)
    assert font_check.describe(measured) == faults


@pytest.mark.parametrize("domain", ["Cello", *render.DEFAULT_INSTRUMENTS])
def test_the_instruments_of_the_demo_are_true_at_every_key_of_a_piano(soundfont, domain):
    assert font_check.playable_keys(domain, soundfont) == frozenset(range(21, 109))


@pytest.mark.parametrize("domain", ["Piano", "Flute", "Cello", "Violin", "Clarinet", "Accordion"])
def test_another_tracker_finds_the_same_pitch(soundfont, domain):
    swift_f0 = pytest.importorskip("swift_f0")
    detector = swift_f0.SwiftF0()
    tones = instruments.tones(
        range(40, 72, 3),
        program=instruments.PROGRAMS[domain],
        soundfont=soundfont,
        velocity=90,
        seconds=1.0,
    )
    for key, waveform in tones:
        found = detector.detect(waveform / np.max(np.abs(waveform)), RATE_HZ)
        cents = 1200 * np.log2(found.pitch_hz[found.confidence > 0.5] / key_hz(key))
        # Both waver by some cents, each in its own way, as does the flute.
        assert np.median(cents) == pytest.approx(deviation(waveform, key), abs=10), key


def documented_faults():
    lines = DOCUMENT.read_text().partition("| TimGM6mb.sf2 |")[2].partition("\n\n")[0].splitlines()
    rows = [re.fullmatch(r"\| (\w+) \| (.+) \|", line) for line in lines[2:]]
    return {row[1]: row[2] for row in rows if row}


def test_the_documented_table_is_of_all_instruments():
    assert list(documented_faults()) == list(instruments.PROGRAMS)


@pytest.mark.parametrize("domain", ["Saxophone", "Accordion", "Violin"])
def test_the_documented_table_is_what_is_measured(soundfont, domain):
    measured = font_check.measure(domain, soundfont)
    assert documented_faults()[domain] == (font_check.describe(measured) or "none")


@pytest.mark.slow
def test_the_whole_documented_table_is_what_is_measured(soundfont):
    for domain, faults in documented_faults().items():
        assert faults == (font_check.describe(font_check.measure(domain, soundfont)) or "none")

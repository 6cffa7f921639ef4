"""Embeddings by which `experiments.evaluate` judges timbre."""

import numpy as np
from played_scale import RATE_HZ, SCALE, played

from experiments.evaluation import content, musicnn, timbre


def test_musicnn_hears_a_piano_as_a_piano_and_a_flute_as_a_flute():
    piano, flute = (musicnn.tags(played(name), RATE_HZ) for name in ("Piano", "Flute"))
    # Places of these tags among MagnaTagATune's, as the package lists them.
    assert piano[9] > max(0.4, 3 * flute[9])
    assert flute[25] > 3 * piano[25]


def test_embeddings_of_many_sounds_are_those_of_each(rng):
    sounds = [rng.normal(0, 0.1, size).astype(np.float32) for size in (16_000, 60_000, 50_000)]
    together = musicnn.embed(sounds, RATE_HZ, hop_s=1.5)
    assert [len(windows) for windows in together] == [1, 4, 3]
    for sound, windows in zip(sounds, together, strict=True):
        (alone,) = musicnn.embed([sound], RATE_HZ, hop_s=1.5)
        np.testing.assert_allclose(windows, alone, rtol=1e-3, atol=1e-3)


def test_frechet_distance_of_normal_distributions_is_the_formula(rng):
    found = rng.normal(0.0, 1.0, size=(200_00, 3))
    reference = rng.normal([1.0, 0.0, 0.0], 2.0, size=(200_00, 3))
    # |difference of means|^2 + 3 * (1 - 2)^2
    np.testing.assert_allclose(timbre.frechet_distance(found, reference), 4.0, atol=0.15)
    np.testing.assert_allclose(timbre.frechet_distance(found, found), 0.0, atol=1e-6)


def test_disturbing_keeps_the_pitch_and_changes_the_sound(rng):
    waveform = played("Flute")
    disturbed = timbre.disturb(waveform, RATE_HZ, rng)
    (clip,) = content.listen(disturbed, RATE_HZ, [(0, len(disturbed))])
    written = [n._replace(onset_s=n.onset_s + 0.1, offset_s=n.offset_s + 0.1) for n in SCALE]
    assert content.pitch_accuracy(clip.pitch, written) > 0.8
    assert abs(np.corrcoef(waveform, disturbed)[0, 1]) < 0.99

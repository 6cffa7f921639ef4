"""Embeddings by which `experiments.evaluate` judges timbre."""

import struct

import numpy as np
import pytest
from played_scale import RATE_HZ, SCALE, played

from experiments.evaluation import content, musicnn, tensorflow_checkpoint, timbre


def sstable(entries):
    """Writes an SSTable of one block as TensorFlow does, keys shared with the one before."""

    def varint(number):
        data = b""
        while number > 127:
            data += bytes([number & 127 | 128])
            number >>= 7
        return data + bytes([number])

    def block(pairs):
        data, last = b"", b""
        for key, value in pairs:
            shared = 0
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
            data += varint(shared) + varint(len(key) - shared) + varint(len(value))
            data += key[shared:] + value
            last = key
        return data + struct.pack("<II", 0, 1)

    contents = block(entries)
    index = block([(b"z", varint(0) + varint(len(contents)))])
    trailer = bytes(5)
    footer = varint(0) + varint(0) + varint(len(contents) + 5) + varint(len(index))
    footer = footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return contents + trailer + index + trailer + footer


def bundle_entry(dtype, shape, offset, size):
    dims = b"".join(b"\x12\x02\x08" + bytes([dim]) for dim in shape)
    message = b"\x08" + bytes([dtype]) + b"\x12" + bytes([len(dims)]) + dims
    return message + b"\x20" + bytes([offset]) + b"\x28" + bytes([size]) + b"\x35abcd"


def test_a_tensorflow_checkpoint_is_read_as_it_was_written(tmp_path, rng):
    first, second = (rng.normal(size=shape).astype("<f4") for shape in [(2, 3), (4,)])
    entries = [
        (b"", b"\x08\x01"),
        (b"layer/bias", bundle_entry(1, (4,), 24, 16)),
        (b"layer/kernel", bundle_entry(1, (2, 3), 0, 24)),
        (b"step", bundle_entry(9, (), 40, 8)),
    ]
    (tmp_path / "a.index").write_bytes(sstable(entries))
    (tmp_path / "a.data-00000-of-00001").write_bytes(first.tobytes() + second.tobytes() + bytes(8))
    arrays = tensorflow_checkpoint.read(f"{tmp_path}/a")
    assert list(arrays) == ["layer/bias", "layer/kernel"]
    np.testing.assert_array_equal(arrays["layer/kernel"], first)
    np.testing.assert_array_equal(arrays["layer/bias"], second)


def test_what_is_no_tensorflow_checkpoint_is_refused(tmp_path):
    (tmp_path / "a.index").write_bytes(b"no table" * 20)
    (tmp_path / "a.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ValueError, match="does not end as an SSTable"):
        tensorflow_checkpoint.read(f"{tmp_path}/a")


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

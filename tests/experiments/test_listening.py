import re

import numpy as np
import pytest
import soundfile

from experiments import listening
from umt_jax.audio import sound_files

RATE_HZ = 8000


@pytest.fixture
def pairs(tmp_path):
    for domain in ("Cello", "Piano"):
        for piece in ("air", "song"):
            path = tmp_path / "pairs" / domain / f"{piece}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * np.sin(np.arange(RATE_HZ)), RATE_HZ)
    return tmp_path / "pairs"


def test_the_same_piece_is_taken_of_every_domain(pairs):
    found = listening.recordings(pairs, None, ("Cello", "Piano"))
    assert found == {domain: pairs / domain / "air.wav" for domain in ("Cello", "Piano")}
    assert listening.recordings(pairs, "song", ("Piano",)) == {
        "Piano": pairs / "Piano" / "song.wav"
    }


def test_a_piece_that_a_domain_lacks_is_refused_with_those_there_are(pairs):
    (pairs / "Cello" / "song.wav").unlink()
    message = "has no song in each of Cello, Piano. There are: air."
    with pytest.raises(FileNotFoundError, match=message):
        listening.recordings(pairs, "song", ("Cello", "Piano"))
    with pytest.raises(
        FileNotFoundError, match="has no piece in each of Cello, Flute. There is none"
    ):
        listening.recordings(pairs, None, ("Cello", "Flute"))


def test_the_table_links_and_plays_every_pair_and_names_its_command():
    page = listening.table("song", ("Cello", "Pan_Flute"), ["--pairs=my pairs"])
    links = re.findall(r"\((\S+\.ogg)\)", page)
    assert links == re.findall(r'<audio controls preload="metadata" src="(\S+)"></audio>', page)
    assert links == [
        "Cello.ogg",
        "Cello_to_Pan_Flute.ogg",
        "Pan_Flute_to_Cello.ogg",
        "Pan_Flute.ogg",
    ]
    assert "python -m experiments.listening '--pairs=my pairs'" in page
    assert "| **Pan Flute** |" in page


def test_sounds_are_written_at_one_level(tmp_path):
    for index, level in enumerate((0.01, 0.5)):
        tone = (level * np.sin(np.arange(RATE_HZ) * 0.3)).astype(np.float32)
        listening.write(tmp_path / f"{index}.ogg", tone, RATE_HZ)
    levels = [
        sound_files.read(tmp_path / f"{i}.ogg", sample_rate_hz=RATE_HZ).std() for i in range(2)
    ]
    np.testing.assert_allclose(levels, levels[0], rtol=0.02)

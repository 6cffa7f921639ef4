import csv
import os

import commands
import pytest

from data_prep import musicnet

HEADER = [
    *("id", "composer", "composition", "movement", "ensemble", "source", "transcriber"),
    *("catalog_name", "seconds"),
]
ROWS = [
    (2217, "Bach", "Solo Cello", 100),
    (2218, "Bach", "Solo Cello", 50),
    (2330, "Beethoven", "Solo Piano", 10),
    (2331, "Cambini", "Wind Quintet", 10),
    (2332, "Bach", "Solo Piano", 10),
    (2333, "Beethoven", "Accompanied Violin", 10),
    (2334, "Beethoven", "String Quartet", 10),
    (1727, "Schubert", "Piano Quintet", 447),
    (1728, "Bach", "Solo Violin", 10),
]


def write_metadata(folder, rows=ROWS, header=HEADER):
    with (folder / "musicnet_metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for recording, composer, ensemble, seconds in rows:
            fields = dict.fromkeys(HEADER, "No 1, in A")
            fields |= {"id": recording, "composer": composer}
            fields |= {"ensemble": ensemble, "seconds": seconds}
            writer.writerow([fields.get(name, "") for name in header])


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "musicnet"
    for name in ("train_data", "test_data"):
        (folder / name).mkdir(parents=True)
    for recording, *_ in ROWS:
        where = "test_data" if recording == 2218 else "train_data"
        (folder / where / f"{recording}.wav").write_text(f"sound {recording}")
    write_metadata(folder)
    return folder


def run(download, audio_dir, *flags):
    arguments = [f"--musicnet_dir={download}", f"--audio_dir={audio_dir}", *flags]
    return commands.run("data_prep.musicnet", *arguments, warnings_are_errors=True)


def test_the_command_makes_the_six_domains(download, tmp_path):
    for _ in range(2):
        finished = run(download, tmp_path / "music")
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout.splitlines()[0].split() == (
            "Bach_Solo_Cello 2 recordings 2.5 minutes".split()
        )
    found = sorted(path.relative_to(tmp_path / "music") for path in (tmp_path / "music").rglob("*"))
    assert [path.as_posix() for path in found] == [
        "Bach_Solo_Cello",
        "Bach_Solo_Cello/2217.wav",
        "Bach_Solo_Cello/2218.wav",
        "Bach_Solo_Piano",
        "Bach_Solo_Piano/2332.wav",
        "Beethoven_Accompanied_Violin",
        "Beethoven_Accompanied_Violin/2333.wav",
        "Beethoven_Solo_Piano",
        "Beethoven_Solo_Piano/2330.wav",
        "Beethoven_String_Quartet",
        "Beethoven_String_Quartet/2334.wav",
        "Cambini_Wind_Quintet",
        "Cambini_Wind_Quintet/2331.wav",
    ]


@pytest.mark.parametrize("link", ["hard", "symbolic", "copy"])
def test_a_recording_appears_in_the_way_that_was_asked_for(download, tmp_path, link):
    recording, target = download / "train_data" / "2217.wav", tmp_path / "2217.wav"
    musicnet.place(recording, target, link=link)
    assert target.read_text() == "sound 2217"
    assert target.is_symlink() is (link == "symbolic")
    assert (target.stat().st_ino == recording.stat().st_ino) is (link != "copy")
    assert sorted(os.listdir(tmp_path)) == ["2217.wav", "musicnet"]


def test_a_different_file_of_that_name_is_not_replaced(download, tmp_path):
    (tmp_path / "2217.wav").write_text("mine")
    with pytest.raises(FileExistsError, match="2217.wav exists and is not"):
        musicnet.place(download / "train_data" / "2217.wav", tmp_path / "2217.wav", link="hard")
    assert (tmp_path / "2217.wav").read_text() == "mine"


def test_a_hard_link_across_disks_says_what_to_use_instead(download, tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(musicnet.os, "link", link)
    with pytest.raises(OSError, match="--link=symbolic or --link=copy"):
        musicnet.place(download / "train_data" / "2217.wav", tmp_path / "2217.wav", link="hard")


def test_metadata_that_are_missing_are_one_line_and_exit_status_1(download, tmp_path):
    (download / "musicnet_metadata.csv").unlink()
    finished = run(download, tmp_path / "music")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1
    assert "musicnet_metadata.csv does not exist. --musicnet_dir is" in finished.stderr
    assert not (tmp_path / "music").exists()


def test_metadata_of_something_else_are_refused(download):
    write_metadata(download, header=["id", "composer", "seconds"])
    with pytest.raises(ValueError, match="has no column 'ensemble'"):
        musicnet.read_domains(download)
    write_metadata(download, rows=ROWS[:3])
    with pytest.raises(ValueError, match="names no recording of Cambini_Wind_Quintet"):
        musicnet.read_domains(download)
    write_metadata(download, rows=[(2217, "Bach", "Solo Cello", "long")])
    with pytest.raises(ValueError, match="line 2: seconds is 'long'"):
        musicnet.read_domains(download)
    (download / "musicnet_metadata.csv").write_text("")
    with pytest.raises(ValueError, match="has no column 'id'"):
        musicnet.read_domains(download)


def test_a_recording_that_is_missing_is_named(download):
    (download / "train_data" / "2332.wav").unlink()
    with pytest.raises(FileNotFoundError, match="names recording 2332, but neither"):
        musicnet.read_domains(download)

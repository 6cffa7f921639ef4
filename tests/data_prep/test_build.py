import hashlib
import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from conftest import write_tone
from etils import epath

from data_prep import augment, build, domains, process_workers, staging, tfds_files, tracks
from data_prep.settings import Recipe
from umt_jax.audio import mu_law
from umt_jax.data import catalog

RECIPE = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=2)
FLAGS = ["--sample_rate_hz=8000", "--segment_samples=1024", "--num_variants=2"]


@pytest.fixture
def music(tmp_path):
    """Two domains: four tracks of several kinds beside files that cannot be used, and one track."""
    cello = tmp_path / "music" / "Solo Cello"
    write_tone(cello / "a.wav", seconds=2.0)
    write_tone(cello / "b.flac", rate_hz=44_100, channels=2)
    write_tone(cello / "disc 1" / "c.ogg", rate_hz=22_050)
    write_tone(cello / "disc 1" / "d.mp3", rate_hz=16_000, channels=2)
    write_tone(cello / "short.wav", seconds=0.1)
    (cello / "silent.wav").parent.mkdir(exist_ok=True)
    soundfile.write(cello / "silent.wav", np.zeros(9000), 8000)
    soundfile.write(cello / "broken.wav", np.full(9000, np.nan), 8000, subtype="FLOAT")
    (cello / "empty.mp3").touch()
    (cello / "text.wav").write_text("not a sound " * 100)
    (cello / "notes.txt").write_text("is no sound file and needs no mention")
    (cello / "cut.wav").write_bytes((cello / "a.wav").read_bytes()[:20_000])
    (cello / "copy.wav").write_bytes((cello / "a.wav").read_bytes())
    write_tone(tmp_path / "music" / "Piano" / "all.wav", seconds=10.0)
    return tmp_path / "music"


def run_build(music, data, *, recipe=RECIPE, num_workers=2, overwrite=False):
    with process_workers.run_all_here(num_workers) as run_all:
        return domains.build(
            epath.Path(music), epath.Path(data), recipe, run_all=run_all, overwrite=overwrite
        )


def arguments(music, data):
    return [f"--audio_dir={music}", f"--data_dir={data}", *FLAGS]


def command(music, data):
    return [sys.executable, "-W", "error", "-m", "data_prep.build", *arguments(music, data)]


def run_command(music, data, *flags):
    words = "data_prep.build", *arguments(music, data), *flags
    return commands.run(*words, warnings_are_errors=True, timeout=600)


def last_line(text):
    return text.splitlines()[-1]


def content(folder):
    """Hash of each file."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def read_split(data, domain, split):
    dataset = tfds.builder_from_directory(data / "segments" / domain / "1.0.0")
    return list(dataset.as_data_source(split))


def test_the_command_builds_a_dataset_that_tfds_reads(music, tmp_path):
    finished = run_command(music, tmp_path / "data", "--num_workers=2")
    assert finished.returncode == 1
    assert last_line(finished.stderr) == (
        "error: 4 of 12 files could not be read, as said above. The datasets are complete without "
        "them. Repair or remove these files and build again."
    )
    assert finished.stdout.splitlines() == [
        "domain      tracks  minutes  train  validation  test",
        "Piano            1      0.2     50           6     6  built",
        "Solo_Cello       4      0.2     46          23    15  built",
        "",
        "Of the music of Piano 64% is left to train on, as its tracks are few or short: add more "
        "of them.",
        "Of the music of Solo_Cello 55% is left to train on, as its tracks are few or short: add "
        "more of them.",
        "",
        "Left out (7):",
        "  Solo_Cello/broken.wav holds samples that are not finite numbers",
        "  Solo_Cello/copy.wav is a copy of a.wav",
        "  Solo_Cello/cut.wav is cut off: its end is missing; its header tells of 32000 bytes of "
        "sound, of which 19956 are there",
        "  Solo_Cello/empty.mp3 is empty",
        "  Solo_Cello/short.wav is shorter (0.10 s) than one segment (0.13 s)",
        "  Solo_Cello/silent.wav is silent",
        next(line for line in finished.stdout.splitlines() if "/text.wav is " in line),
        f"Passed over in {music / 'Solo Cello'} (1): 1 with .txt.",
        f"Written: {tmp_path / 'data'}",
    ]
    assert sorted(os.listdir(tmp_path / "data")) == ["segments"]

    names = {}
    for split in ("train", "validation", "test"):
        examples = read_split(tmp_path / "data", "Solo_Cello", split)
        names[split] = {example["track"].decode() for example in examples}
        for example in examples:
            assert example["codes"].shape == (1024,) and example["codes"].dtype == np.uint8
            assert example["augmented"].shape == (2, 1024)
            assert example["start_sample"] % 1024 == 0
            waveform = mu_law.decode(example["codes"], "rounded")
            assert np.abs(waveform).max() == pytest.approx(0.3, rel=0.15)
    assert sorted(map(len, names.values())) == [1, 1, 2]
    assert set.union(*names.values()) == {"a.wav", "b.flac", "disc 1/c.ogg", "disc 1/d.mp3"}

    metadata = staging.read_metadata(epath.Path(tmp_path / "data"))["Solo_Cello"]
    assert metadata["segment_samples"] == 1024 and metadata["rms_dbfs"] is None
    assert {track["name"] for track in metadata["tracks"]} == set.union(*names.values())
    assert len(metadata["left_out"]) == 7


@pytest.mark.thorough
def test_pipes_and_dead_links_do_not_stop_a_build_and_linked_folders_are_read(tmp_path):
    folder = tmp_path / "music" / "Piano"
    write_tone(folder / "a.wav", seconds=4.0)
    write_tone(tmp_path / "elsewhere" / "b.wav", seconds=4.0, frequency_hz=500.0)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder)
    (folder / "dead.wav").symlink_to(tmp_path / "missing.wav")
    os.mkfifo(folder / "pipe.wav")
    finished = run_command(tmp_path / "music", tmp_path / "data")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-2] == (
        f"Passed over in {folder} (2): dead.wav (a link to nothing), pipe.wav (a pipe)."
    )
    (metadata,) = staging.read_metadata(epath.Path(tmp_path / "data")).values()
    assert [track["name"] for track in metadata["tracks"]] == ["a.wav", "linked/b.wav"]


def test_the_same_folder_gives_the_same_bytes_with_any_number_of_workers(music, tmp_path):
    run_build(music, tmp_path / "here", num_workers=2)
    # In another process, where hashes and the order of sets are others.
    finished = run_command(music, tmp_path / "there", "--num_workers=1")
    assert "4 of 12 files could not be read" in last_line(finished.stderr)
    first = content(tmp_path / "here")
    assert first == content(tmp_path / "there")
    assert sum(path.endswith("json") for path in first) == 6


@pytest.mark.thorough
def test_building_again_builds_what_changed_alone(music, tmp_path):
    data = tmp_path / "data"
    assert run_build(music, data) == ["Piano", "Solo_Cello"]
    before = content(data)
    assert run_build(music, data) == []
    write_tone(music / "Viola" / "a.wav", seconds=10.0)
    assert run_build(music, data) == ["Viola"]
    after = content(data)
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 6

    write_tone(music / "Viola" / "a.wav", seconds=11.0)
    assert run_build(music, data) == ["Viola"]
    again = content(data)
    assert {path: again[path] for path in before} == before and again != after
    (music / "Solo Cello" / "short.wav").unlink()
    assert run_build(music, data) == ["Solo_Cello"]
    lines = build.table(staging.read_metadata(epath.Path(data)), built=["Solo_Cello"])
    assert [line.split("  ")[-1] for line in lines[1:4]] == ["up to date", "built", "up to date"]


def test_a_level_that_an_earlier_version_recorded_is_known():
    levelled = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=2, rms_dbfs=-20.0)
    nothing = tracks.Domain(name="Piano", tracks=(), left_out=(), stretches={})
    earlier = tfds_files.describe(nothing, levelled)
    earlier["loudness_dbfs"] = earlier.pop("rms_dbfs")
    assert catalog.rms_dbfs(earlier) == -20
    assert staging.is_up_to_date(earlier, [], levelled)
    assert not staging.is_up_to_date(earlier, [], RECIPE)


@pytest.mark.thorough
def test_other_settings_are_an_error_unless_overwritten(music, tmp_path):
    data = tmp_path / "data"
    run_build(music, data)
    before = content(data)
    other = Recipe(sample_rate_hz=8000, segment_samples=2048, num_variants=2)
    message = "--segment_samples=2048, but domain Piano was built with 1024.* --overwrite"
    with pytest.raises(ValueError, match=message):
        run_build(music, data, recipe=other)
    assert content(data) == before
    assert run_build(music, data, recipe=other, overwrite=True) == ["Piano", "Solo_Cello"]
    assert read_split(data, "Piano", "test")[0]["codes"].shape == (2048,)

    # A domain that this folder does not have cannot be rebuilt.
    write_tone(tmp_path / "more" / "Viola" / "a.wav", seconds=10.0)
    with pytest.raises(ValueError, match="but domain Piano was built with 2048"):
        run_build(tmp_path / "more", data, overwrite=True)


@pytest.mark.thorough
def test_datasets_of_another_pitch_modulation_are_never_up_to_date(music, tmp_path):
    data = tmp_path / "data"
    run_build(music, data)
    before = content(data)
    path = data / "segments" / "Piano" / "1.0.0" / "metadata.json"
    metadata = json.loads(path.read_text())
    message = "Domain Piano was built by another version of data_prep.build.* --overwrite"
    for version in (augment.VERSION + 1, augment.VERSION - 1, None):
        metadata["augmentation_version"] = version
        if version is None:  # As before the first change.
            del metadata["augmentation_version"]
        path.write_text(json.dumps(metadata))
        with pytest.raises(ValueError, match=message):
            run_build(music, data)
    assert run_build(music, data, overwrite=True) == ["Piano"]
    assert content(data) == before


@pytest.mark.thorough
def test_a_rebuild_that_fails_leaves_the_older_dataset(music, tmp_path, monkeypatch):
    data = tmp_path / "data"
    run_build(music, data)
    before = content(data)
    write_tone(music / "Piano" / "all.wav", seconds=9.0)

    def fail(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(tfds_files, "write_information", fail)
    with pytest.raises(OSError, match="No space left"):
        run_build(music, data)
    assert content(data) == before


def test_installing_pyav_makes_files_that_need_it_new(music, monkeypatch):
    file = tracks.identify(epath.Path(music / "Piano" / "all.wav"), folder=epath.Path(music))
    metadata = {
        **{name: getattr(RECIPE, name) for name in RECIPE.__dataclass_fields__},
        "augmentation_version": augment.VERSION,
        "tracks": [],
        "left_out": [
            {"name": file.name, "sha256": file.sha256, "reason": "is silent", "needs": ""}
        ],
    }
    assert staging.is_up_to_date(metadata, [file], RECIPE)
    metadata["left_out"][0] |= {"reason": staging.decoding.NEEDS_PYAV}  # Of earlier versions.
    assert staging.is_up_to_date(metadata, [file], RECIPE) is not staging.decoding.has_pyav()
    # A sound of a kind that only PyAV reads, under another kind's name.
    (music / "Piano" / "b.mp3").write_bytes(b"\0\0\0\x1cftypM4A " * 50)
    with monkeypatch.context() as patched:
        patched.setattr(staging.decoding, "has_pyav", lambda: False)
        named = tracks.identify(epath.Path(music / "Piano" / "b.mp3"), folder=epath.Path(music))
        scanned = tracks.scan(named, RECIPE)
        # What counts is what was needed, however the reason is worded.
        metadata["left_out"][0] |= {"reason": "needs something", "needs": scanned.needs}
        assert staging.is_up_to_date(metadata, [file], RECIPE)
    assert staging.is_up_to_date(metadata, [file], RECIPE) is not staging.decoding.has_pyav()


def prepare_missing(folder):
    return r"--audio_dir=\S+ is not a folder"


def prepare_empty(folder):
    folder.mkdir()
    return "holds no folders. Each domain is a folder of sound files in it, such as"


def prepare_flat(folder):
    write_tone(folder / "a.wav")
    return "holds no folders. Each domain is a folder"


def prepare_domain_without_files(folder):
    write_tone(folder / "A" / "a.wav", seconds=10)
    (folder / "B").mkdir()
    return "B holds no sound files"


def prepare_same_name(folder):
    write_tone(folder / "Solo Cello" / "a.wav")
    write_tone(folder / "solo_cello" / "a.wav")
    return "Folders 'Solo Cello' and 'solo_cello' of .* would both be the domain solo_cello"


def prepare_domain_with_nothing(folder):
    write_tone(folder / "A" / "a.wav", seconds=10)
    for i in range(5):
        write_tone(folder / "B" / f"{i}.wav", seconds=0.01 + i * 0.001)
    return r"Domain B needs .* Left out: 0.wav is shorter .*; 2 more\."


@pytest.mark.parametrize(
    "prepare",
    [
        prepare_missing,
        prepare_empty,
        prepare_flat,
        prepare_domain_without_files,
        prepare_same_name,
        prepare_domain_with_nothing,
    ],
)
def test_bad_folders_are_refused_and_leave_nothing(tmp_path, prepare):
    message = prepare(tmp_path / "music")
    with pytest.raises((ValueError, OSError), match=message):
        run_build(tmp_path / "music", tmp_path / "data")
    assert not (tmp_path / "data").exists() or not os.listdir(tmp_path / "data")


@pytest.mark.thorough
def test_two_builds_of_one_folder_do_not_mix(music, tmp_path):
    with staging.staging(epath.Path(tmp_path / "data")):
        with pytest.raises(OSError, match="Another build is writing to"):
            run_build(music, tmp_path / "data")


def test_bad_input_to_the_command_is_one_line_and_exit_status_1(music, tmp_path):
    (tmp_path / "file").touch()
    finished = run_command(music, tmp_path / "file" / "data")
    assert finished.returncode == 1
    assert re.fullmatch(r"error: \S+: Not a directory\.", last_line(finished.stderr))


def test_a_full_disk_is_one_line_and_leaves_nothing(music, tmp_path):
    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    finished = subprocess.run(
        command(music, tmp_path / "data"), capture_output=True, text=True, preexec_fn=limit_files
    )
    assert finished.returncode == 1
    line = r"error: \S+-train\S+ could not be written: write\(\) failed: File too large"
    assert re.fullmatch(line, last_line(finished.stderr))
    assert "Traceback" not in finished.stderr
    assert not os.listdir(tmp_path / "data")


def descendants(pid):
    children = []
    for child in open_text(f"/proc/{pid}/task/{pid}/children").split():
        children += [int(child), *descendants(int(child))]
    return children


def open_text(path):
    with open(path) as file:
        return file.read()


def running(pid):
    return os.path.exists(f"/proc/{pid}") and ") Z" not in open_text(f"/proc/{pid}/stat")


@pytest.mark.thorough
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    "sent", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT]
)
def test_an_interrupted_build_leaves_whole_domains_only_and_no_workers(tmp_path, sent):
    music, data = tmp_path / "music", tmp_path / "data"
    write_tone(music / "A" / "a.wav", seconds=5.0)
    write_tone(music / "B" / "b.wav", seconds=900.0)
    process = subprocess.Popen(
        command(music, data),
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has it ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (data / "segments" / "A" / "1.0.0").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    started = descendants(process.pid)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert process.returncode == 1
        assert last_line(errors).startswith("Interrupted. Domains that were finished are kept")
        assert "Traceback" not in errors
        assert os.listdir(data) == ["segments"]
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in started):
        assert time.monotonic() < deadline, "a worker outlives the build"
        time.sleep(0.05)
    assert os.listdir(data / "segments") == ["A"]
    assert staging.read_metadata(epath.Path(data)).keys() == {"A"}

    write_tone(music / "B" / "b.wav", seconds=6.0)
    assert run_build(music, data) == ["B"]
    assert os.listdir(data) == ["segments"]
    run_build(music, tmp_path / "other")
    assert content(data) == content(tmp_path / "other")


def test_metadata_that_are_damaged_are_named(music, tmp_path):
    run_build(music, tmp_path / "data")
    path = tmp_path / "data" / "segments" / "Piano" / "1.0.0" / "metadata.json"
    assert json.loads(path.read_text())["domain"] == "Piano"
    path.write_text("{")
    with pytest.raises(ValueError, match="metadata.json is damaged"):
        run_build(music, tmp_path / "data")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam_options=--x"], "--beam_options are those of a runner: name it with"),
        (["--beam_runner=DirectRunner"], '--beam_runner needs Apache Beam: pip install "umt_jax'),
    ],
)
def test_beam_flags_that_cannot_be_followed_are_one_line(music, tmp_path, flags, message):
    if "needs" in message and importlib.util.find_spec("apache_beam"):
        pytest.skip("Apache Beam is installed.")
    finished = run_command(music, tmp_path / "data", *flags)
    assert finished.returncode == 1
    assert last_line(finished.stderr).startswith(f"error: {message}")

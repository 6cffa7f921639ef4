"""One file never ends a batch: folders of good and bad files through every way in."""

import dataclasses
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from conftest import TINY_MODEL
from etils import epath
from file_modes import counting

from data_prep import tracks
from data_prep.settings import Recipe
from umt_jax import command_line, infer, translator
from umt_jax.audio import sound_files
from umt_jax.config import SamplingConfig
from umt_jax.inference import planning
from umt_jax.studio import uploads

RATE_HZ = 8000
# No file holds more than a second. Far more than it takes, far less than a hang.
LIMIT_SECONDS = 300


@pytest.fixture(scope="module")
def model(tiny_config, tiny_parameters):
    sizes = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000)
    config = dataclasses.replace(tiny_config, model=sizes)
    return translator.Translator(config, tiny_parameters, domains=["Cello", "Piano"], engine="scan")


@pytest.fixture
def recordings(tmp_path, rng):
    """Two short recordings."""
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path in paths:
        soundfile.write(path, 0.1 * rng.normal(size=1200), RATE_HZ)
    return paths


def run(module, *flags, before=()):
    started = time.monotonic()
    finished = subprocess.run(
        [*before, sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert time.monotonic() - started < LIMIT_SECONDS
    assert "Traceback" not in finished.stderr
    return finished


def names(folder):
    return {os.fspath(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def translate(model, paths, output):
    output.mkdir(exist_ok=True)
    sources = [(path, Path(path.stem)) for path in paths]
    jobs = planning.plan(sources, model.domains, str(output), "wav")
    jobs, unwritten = planning.writable(jobs)
    sampling = SamplingConfig(temperature=0.0)
    failures = infer.translate(model, jobs, sampling=sampling, seed=0, num_streams=2)
    return failures, unwritten


def test_every_odd_file_is_read_or_refused_by_name_alone_and_as_an_upload(tmp_path):
    pytest.importorskip("av")
    import odd_files

    folder = tmp_path / "music"
    odd_files.write(folder)
    good, bad = odd_files.good(), odd_files.bad()
    recipe = Recipe(sample_rate_hz=RATE_HZ, segment_samples=1024, num_variants=1)
    found = {path.name for path in sound_files.find_sound_files(folder)}
    assert found == {*good, *bad, "unreadable.wav"}
    scanned = {}
    for path in tracks.find(epath.Path(folder)):
        file = tracks.identify(path, folder=epath.Path(folder))
        scanned[path.name] = tracks.scan(file, recipe)
    for name in good:
        assert isinstance(scanned[name], tracks.Track), scanned[name]
        assert scanned[name].num_samples / RATE_HZ == pytest.approx(odd_files.SECONDS, abs=0.07)
        waveform = uploads.read(str(folder / name), sample_rate_hz=RATE_HZ, max_seconds=2.0)
        assert len(waveform) == scanned[name].num_samples
    for name in [*bad, "unreadable.wav", *odd_files.PASSED_OVER]:
        if name not in odd_files.PASSED_OVER:
            assert isinstance(scanned[name], tracks.LeftOut), name
        with pytest.raises(ValueError) as refusal:
            uploads.read(str(folder / name), sample_rate_hz=RATE_HZ, max_seconds=2.0)
        assert str(refusal.value).startswith(name) and str(tmp_path) not in str(refusal.value)
    told = sound_files.passed_over(folder)
    for name in (*odd_files.PASSED_OVER, "1 with .txt"):
        assert told.count(name) == 1
    assert f"({len(odd_files.PASSED_OVER) + 1})" in told


@pytest.mark.slow
def test_a_folder_of_odd_files_is_built_and_translated_and_each_bad_one_is_named_once(
    tmp_path, trained_dir
):
    pytest.importorskip("av")
    import odd_files

    folder = tmp_path / "music" / "Piano"
    odd_files.write(folder)
    closed = odd_files.write_closed(folder)
    good, bad = odd_files.good(), [*odd_files.bad(), "unreadable.wav", *closed]
    num_files = len(good) + len(bad) + len(odd_files.PASSED_OVER)
    assert num_files >= 40

    built = run(
        "data_prep.build",
        f"--audio_dir={tmp_path / 'music'}",
        f"--data_dir={tmp_path / 'data'}",
        *(f"--sample_rate_hz={RATE_HZ}", "--segment_samples=1024", "--num_variants=1"),
        "--num_workers=2",
        before=counting(),
    )
    assert built.returncode == 1
    (error,) = built.stderr.splitlines()[-1:]
    assert error.startswith(f"error: {len(bad)} of {len(good) + len(bad)} files could not be read")
    for name in [*bad, *odd_files.PASSED_OVER]:
        assert built.stdout.count(name) == 1, (name, built.stdout)
    assert built.stdout.isascii() or all(line.isprintable() for line in built.stdout.splitlines())

    def translated(inputs, output, *flags):
        return run(
            "umt_jax.infer",
            *(f"--checkpoint={trained_dir}", "--engine=scan", f"--input={inputs}"),
            *("--domain=Piano", f"--output={output}", *flags),
            before=counting(),
        )

    latents = tmp_path / "latents"
    finished = translated(folder, tmp_path / "out", f"--save_latents={latents}")
    assert finished.returncode == 1
    error = finished.stderr.splitlines()[-1]
    assert error.startswith(f"error: {len(bad)} of {len(good) + len(bad)} inputs could not be tra")
    for name in bad:
        assert error.count(f"/{name} ") == 1, (name, error)
    for name in odd_files.PASSED_OVER:
        assert finished.stdout.count(name) == 1
    assert len(names(tmp_path / "out")) == len(names(latents)) == len(good)

    # One that is missing is made, and the bad ones are named again.
    (tmp_path / "out" / "float.Piano.wav").unlink()
    again = translated(folder, tmp_path / "out", "--resume")
    assert again.returncode == 1
    assert f"error: {len(bad)} of {len(bad) + 1} inputs" in again.stderr
    assert len(names(tmp_path / "out")) == len(good)

    (latents / "text.npz").write_bytes(b"no latents")
    (latents / "empty.npz").touch()
    from_latents = translated(latents, tmp_path / "from_latents")
    assert from_latents.returncode == 1
    assert from_latents.stderr.splitlines()[-1].count(" is not a whole file of latents") == 2
    made = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    for name, content in made.items():
        assert (tmp_path / "from_latents" / name).read_bytes() == content


def test_an_output_that_cannot_be_written_is_named_and_the_others_are_written(
    tmp_path, recordings, model, monkeypatch
):
    def write(writer, waveform):
        if writer._path.name == "b.Cello.wav":
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(writer._path))
        original(writer, waveform)

    original = sound_files.SoundFileWriter.write
    monkeypatch.setattr(sound_files.SoundFileWriter, "write", write)
    output = tmp_path / "out"
    (output / "a.Piano.wav").mkdir(parents=True)
    failures, unwritten = translate(model, recordings, output)
    assert failures.inputs == []
    assert failures.outputs == [f"{output}/b.Cello.wav: File too large."]
    assert unwritten == [
        f"{output}/a.Piano.wav is a folder, where a file is to be written: move it, or give "
        "another --output."
    ]
    assert names(output) == {"a.Cello.wav", "b.Piano.wav"}


def test_a_full_disk_ends_a_batch(tmp_path, recordings, model, monkeypatch):
    def write(writer, waveform):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(writer._path))

    monkeypatch.setattr(sound_files.SoundFileWriter, "write", write)
    with pytest.raises(OSError, match="No space left"):
        translate(model, recordings, tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_names_that_are_too_long_are_found_before_any_work(tmp_path):
    longest = "音" * 81 + "ab"  # 245 bytes, and 10 of .Piano.wav.
    sources = [(Path("x"), Path(longest)), (Path("y"), Path(longest + "c")), (Path("z"), Path("z"))]
    jobs = planning.plan(sources, ["Piano"], str(tmp_path / "out"), "wav")
    left, (unwritten,) = planning.writable(jobs)
    assert [job.source for job in left] == [Path("x"), Path("z")]
    assert unwritten.endswith(
        "has a name of 256 bytes, but the file system takes 255: shorten that of the input."
    )


def test_a_file_in_the_place_of_an_output_s_folder_leaves_the_others(tmp_path):
    sources = [(Path("x"), Path("disc 1/x")), (Path("y"), Path("y"))]
    jobs = planning.plan(sources, ["Piano"], str(tmp_path / "out"), "wav")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "disc 1").touch()
    left, (unwritten,) = planning.make_folders(jobs)
    assert [job.source for job in left] == [Path("y")]
    assert unwritten.startswith(f"{tmp_path}/out/disc 1/x.Piano.wav could not be written: ")
    with pytest.raises(OSError):
        planning.make_folders(jobs[:1])


def test_names_that_are_no_utf_8_are_read_and_written_and_shown_escaped(
    tmp_path, model, recordings
):
    path = tmp_path / os.fsdecode(b"caf\xe9\x1b[31m\n.wav")
    os.rename(recordings[1], path)
    failures, unwritten = translate(model, [recordings[0], path], tmp_path / "out")
    assert (failures.inputs, failures.outputs, unwritten) == ([], [], [])
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == [
        b"a.Cello.wav",
        b"a.Piano.wav",
        b"caf\xe9\x1b[31m\n.Cello.wav",
        b"caf\xe9\x1b[31m\n.Piano.wav",
    ]
    assert command_line.printable(path.name) == r"caf\xe9\x1b[31m\n.wav"
    assert command_line.printable("Flûte 音.wav") == "Flûte 音.wav"


def test_a_file_that_nobody_may_read_is_left_out(tmp_path, recordings, monkeypatch):
    recipe = Recipe(sample_rate_hz=RATE_HZ, segment_samples=1024, num_variants=1)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(recordings[0]))

    monkeypatch.setattr(type(epath.Path(recordings[0])), "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    file = tracks.identify(epath.Path(recordings[0]), folder=epath.Path(tmp_path))
    assert file.sha256 == ""
    left_out = tracks.scan(file, recipe)
    assert left_out.reason == "cannot be read (Permission denied)"


LOOK = """
import sys
from pathlib import Path
from etils import epath
from data_prep import tracks
from data_prep.settings import Recipe
from umt_jax.audio import sound_files
from umt_jax.inference import planning

folder = Path(sys.argv[1])
for path, _ in planning.find_inputs([str(folder)], []):
    print("input", path.relative_to(folder))
recipe = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=1)
for path in tracks.find(epath.Path(folder)):
    found = tracks.scan(tracks.identify(path, folder=epath.Path(folder)), recipe)
    print(found.file.name, getattr(found, "reason", "is good"))
print("passed over", sound_files.passed_over(folder) or "nothing")
for look in (sound_files.find_sound_files, lambda name: planning.find_inputs([str(name)], [])):
    try:
        look(folder if look is sound_files.find_sound_files else folder / "locked")
    except OSError as error:
        print("error", error.strerror, Path(error.filename).relative_to(folder))
"""


def test_a_folder_that_may_not_be_entered_is_an_input_that_cannot_be_read(tmp_path):
    pytest.importorskip("av")
    import odd_files

    (tmp_path / "a.wav").write_bytes(bytes(odd_files.wav(odd_files.tone(1.0))))
    odd_files.write_closed(tmp_path)
    looked = subprocess.run(
        [*counting(), sys.executable, "-c", LOOK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_SECONDS,
    )
    assert looked.stdout.splitlines() == [
        *("input a.wav", "input listed", "input locked"),
        "a.wav is good",
        "listed is a folder that cannot be entered (Permission denied)",
        "locked is a folder that cannot be entered (Permission denied)",
        "passed over nothing",
        *("error Permission denied listed", "error Permission denied locked"),
    ]


def test_a_comma_in_a_name_separates_no_input_that_exists(tmp_path):
    from absl import flags

    from umt_jax import path_flags

    values = flags.FlagValues()
    path_flags.define_list("input", None, "", flag_values=values)
    whole = tmp_path / "Suite No. 1, BWV 1007.wav"
    whole.touch()
    values(["", f"--input={whole}", "--input=a.wav,b.wav", f'--input="{whole}",c.wav'])
    assert values["input"].value == [str(whole), "a.wav", "b.wav", str(whole), "c.wav"]
    with pytest.raises(FileNotFoundError, match="Commas separate inputs: a name that has one is"):
        planning.find_inputs([str(tmp_path / "Suite No. 2"), " BWV 1008.wav"], [])

import errno
import os
import re
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
import soundfile
from conftest import mostly_thorough

import umt_jax
from umt_jax import infer
from umt_jax.audio import sound_files
from umt_jax.checkpoints import checkpoint
from umt_jax.config import SamplingConfig
from umt_jax.inference import planning


@pytest.fixture(scope="module")
def model(trained_dir):
    return umt_jax.load(str(trained_dir), engine="scan")


@pytest.fixture
def music(tmp_path, rng):
    """A folder with a sound file, and another of another kind in a folder of its own."""
    folder = tmp_path / "music"
    (folder / "disc 1").mkdir(parents=True)
    soundfile.write(folder / "a.wav", 0.1 * rng.normal(size=14_000), 16_000)
    soundfile.write(folder / "disc 1" / "b.ogg", 0.1 * rng.normal(size=(30_000, 2)), 44_100)
    return folder


def command(checkpoint, inputs, output, *flags, domain="all"):
    wanted = {"domain": domain, "output": output}
    return commands.run(
        "umt_jax.infer",
        *(f"--checkpoint={checkpoint}", "--engine=scan", f"--input={inputs}"),
        *(f"--{name}={value}" for name, value in wanted.items() if value is not None),
        *flags,
    )


def names(folder):
    """Returns all files, hidden ones too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def translate_files(model, files, output, *, extension="wav", seed=0, num_streams=2):
    output.mkdir(exist_ok=True)
    sources = [(file, Path(file.stem)) for file in files]
    jobs = planning.plan(sources, model.domains, str(output), extension)
    infer.translate(model, jobs, sampling=SamplingConfig(), seed=seed, num_streams=num_streams)


def test_every_file_is_translated_whole_into_every_domain(tmp_path, music, rng, model, trained_dir):
    soundfile.write(tmp_path / "c.v2.flac", 0.1 * rng.normal(size=900), 8000)
    finished = command(trained_dir, f"{music},{tmp_path / 'c.v2.flac'}", tmp_path / "out")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.fullmatch(
        r"3\.3 s of sound in \d+\.\d s, \d+\.\d\d times real time\.\n"
        + re.escape(f"Written: 6 files in {tmp_path / 'out'}, {tmp_path / 'out' / 'disc 1'}\n"),
        finished.stdout,
    )
    assert names(tmp_path / "out") == [
        f"{stem}.{domain}.wav"
        for stem in ("a", "c.v2", "disc 1/b")
        for domain in ("Cello", "Piano")
    ]
    for source, stem in [
        (music / "a.wav", "a"),
        (music / "disc 1" / "b.ogg", "disc 1/b"),
        (tmp_path / "c.v2.flac", "c.v2"),
    ]:
        waveform = sound_files.read(source, sample_rate_hz=8000)
        for domain in ("Cello", "Piano"):
            path = tmp_path / "out" / f"{stem}.{domain}.wav"
            written, rate_hz = soundfile.read(path)
            assert rate_hz == 8000
            expected = model.translate(waveform, 8000, domain=domain)
            np.testing.assert_allclose(written, expected, atol=1e-4)


def test_files_that_are_no_sound_are_named_and_the_others_written(
    tmp_path, music, model, trained_dir
):
    (music / "text.wav").write_text("not a sound " * 100)
    (music / "empty.mp3").touch()
    cut = (music / "disc 1" / "b.ogg").read_bytes()[:-4000]
    (music / "disc 1" / "cut.ogg").write_bytes(cut)
    output = tmp_path / "out"
    finished = command(
        trained_dir, music, output, "--format=flac", "--seed=3", "--streams=2", domain="Piano"
    )
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: 3 of 5 inputs could not be translated: ")
    for name in ("text.wav", "empty.mp3", "disc 1/cut.ogg"):
        assert line.count(f"{music / name} ") == 1
    assert names(output) == ["a.Piano.flac", "disc 1/b.Piano.flac"]
    written, _ = soundfile.read(output / "a.Piano.flac")
    source = sound_files.read(music / "a.wav", sample_rate_hz=8000)
    expected = model.translate(source, 8000, domain="Piano", seed=3)
    np.testing.assert_allclose(written, expected, atol=1e-4)


@pytest.mark.thorough
def test_pipes_and_dead_links_neither_hold_nor_end_a_translation(tmp_path, music, trained_dir):
    os.mkfifo(music / "pipe.wav")
    (music / "dead.wav").symlink_to(tmp_path / "missing")
    (music / "notes.txt").touch()
    finished = command(trained_dir, music, tmp_path / "out", domain="Piano")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines()[1:] == [
        f"Passed over in {music} (3): dead.wav (a link to nothing), pipe.wav (a pipe), "
        "1 with .txt.",
        f"Written: 2 files in {tmp_path / 'out'}, {tmp_path / 'out' / 'disc 1'}",
    ]
    assert names(tmp_path / "out") == ["a.Piano.wav", "disc 1/b.Piano.wav"]
    finished = command(trained_dir, music / "pipe.wav", tmp_path / "out", domain="Piano")
    assert finished.returncode == 1
    assert finished.stderr.endswith("pipe.wav is neither a file nor a folder.\n")


def test_outputs_that_exist_are_left_alone_unless_overwritten(tmp_path, music, trained_dir):
    output = tmp_path / "out"
    (output / "disc 1").mkdir(parents=True)
    (output / "disc 1" / "b.Piano.wav").write_text("precious")
    finished = command(trained_dir, music, output, domain="Piano")
    assert finished.returncode == 1
    assert finished.stderr == (
        f"error: {output}/disc 1/b.Piano.wav exists already. Pass --overwrite to replace what "
        "exists, --resume to make what is missing, or another --output.\n"
    )
    assert names(output) == ["disc 1/b.Piano.wav"]
    assert (output / "disc 1" / "b.Piano.wav").read_text() == "precious"


@pytest.mark.thorough
def test_a_resumed_run_makes_what_is_missing_and_nothing_else(tmp_path, music, model, trained_dir):
    output = tmp_path / "out"
    (output / "disc 1").mkdir(parents=True)
    there = [output / "a.Cello.wav", output / "disc 1/b.Cello.wav", output / "disc 1/b.Piano.wav"]
    for path in there:
        path.write_text("precious")
    finished = command(trained_dir, music, output, "--resume")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("0.9 s of sound")
    assert names(output) == [
        "a.Cello.wav",
        "a.Piano.wav",
        "disc 1/b.Cello.wav",
        "disc 1/b.Piano.wav",
    ]
    assert all(path.read_text() == "precious" for path in there)
    written, _ = soundfile.read(output / "a.Piano.wav")
    expected = model.translate(
        sound_files.read(music / "a.wav", sample_rate_hz=8000), 8000, domain="Piano"
    )
    np.testing.assert_allclose(written, expected, atol=1e-4)
    again = command(trained_dir, music, output, "--resume")
    assert (again.returncode, again.stdout) == (0, "Nothing is left to do: all outputs exist.\n")


def test_one_translation_goes_to_the_file_that_output_names(tmp_path, music, trained_dir):
    output = tmp_path / "new" / "cello.mp3"
    finished = command(trained_dir, music / "a.wav", output, domain="Cello")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines()[-1] == f"Written: {output}"
    assert names(tmp_path / "new") == ["cello.mp3"]
    assert soundfile.info(output).frames == 7000
    for given, flags, message in [
        (music / "a.wav", [], "is one file, not enough for 1 inputs in 2 domains. Name a folder"),
        (music / "a.wav", ["--format=ogg"], "to be a file of another format than --format=ogg"),
    ]:
        finished = command(trained_dir, given, tmp_path / "one.wav", *flags)
        assert finished.returncode == 1 and message in finished.stderr
        assert not (tmp_path / "one.wav").exists()


@pytest.mark.thorough
def test_saved_latents_translate_as_the_sound_they_come_from(tmp_path, music, trained_dir):
    (music / "text.wav").write_text("not a sound " * 100)
    encoded = command(
        trained_dir, music, None, f"--save_latents={tmp_path / 'latents'}", domain=None
    )
    # What cannot be read stops nothing else.
    assert encoded.returncode == 1
    assert encoded.stdout.startswith(f"Written: 2 files in {tmp_path / 'latents'}")
    assert encoded.stderr.startswith("error: 1 of 3 inputs could not be encoded: ")
    assert names(tmp_path / "latents") == ["a.npz", "disc 1/b.npz"]
    (music / "text.wav").unlink()

    from_sound = command(trained_dir, music, tmp_path / "sound", f"--save_latents={music / 'new'}")
    from_latents = command(trained_dir, tmp_path / "latents", tmp_path / "out")
    assert (from_sound.returncode, from_latents.returncode) == (0, 0)
    files = names(tmp_path / "out")
    assert files == names(tmp_path / "sound") and len(files) == 4
    for name in files:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "sound" / name).read_bytes()
    for name in names(tmp_path / "latents"):
        with np.load(tmp_path / "latents" / name) as one, np.load(music / "new" / name) as other:
            np.testing.assert_array_equal(one["latents"], other["latents"])
            assert str(one["source"]) == {"a.npz": "a.wav", "disc 1/b.npz": "b.ogg"}[name]


def test_a_resumed_run_goes_on_from_latents_that_are_there(tmp_path, music):
    sources = planning.find_inputs([str(music)], [])
    jobs = planning.plan(sources, ["Piano"], str(tmp_path), "wav", latents=str(tmp_path))
    assert planning.unfinished(jobs) == jobs
    (tmp_path / "a.npz").touch()
    (tmp_path / "disc 1").mkdir()
    (tmp_path / "disc 1" / "b.Piano.wav").touch()
    assert planning.unfinished(jobs) == [
        planning.Job(tmp_path / "a.npz", {"Piano": tmp_path / "a.Piano.wav"}),
        planning.Job(music / "disc 1" / "b.ogg", {}, tmp_path / "disc 1" / "b.npz"),
    ]
    (tmp_path / "a.Piano.wav").touch()
    (tmp_path / "disc 1" / "b.npz").touch()
    assert planning.unfinished(jobs) == []


def test_latents_of_another_encoder_are_named_and_others_translated(tmp_path, rng, model):
    latents = rng.normal(size=(30, 8)).astype(np.float32)
    model.save_latents(tmp_path / "good.npz", latents, num_samples=291)
    model.save_latents(tmp_path / "bad.npz", latents)
    with np.load(tmp_path / "bad.npz") as arrays:
        np.savez(tmp_path / "bad.npz", **(dict(arrays) | {"encoder": "0123456789abcdef"}))
    sources = planning.find_inputs([str(tmp_path)], [])
    jobs = planning.plan(sources, model.domains, str(tmp_path), "wav")
    failures = infer.translate(model, jobs, sampling=SamplingConfig(), seed=0, num_streams=2)
    (failure,) = failures.inputs
    assert failures.outputs == [] and failure.startswith(
        f"{tmp_path}/bad.npz holds latents of another encoder"
    )
    assert [name for name in names(tmp_path) if name.endswith("wav")] == [
        "good.Cello.wav",
        "good.Piano.wav",
    ]
    written, _ = soundfile.read(tmp_path / "good.Piano.wav")
    expected = model.generate(latents, domain="Piano")[:291]
    np.testing.assert_allclose(written, expected, atol=1e-4)


def test_outputs_within_the_folder_of_inputs_are_no_inputs(tmp_path, music):
    found = planning.find_inputs([str(music)], [str(music / "out")])
    for place in ("a.Piano.wav", "disc 1/b.Piano.wav"):
        (music / "out" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(music / "a.wav", music / "out" / place)
    assert planning.find_inputs([str(music)], [str(music / "out")]) == found
    assert len(planning.find_inputs([str(music)], [str(tmp_path / "elsewhere")])) == 4
    # What is named is meant.
    assert len(planning.find_inputs([str(music / "out")], [str(music / "out")])) == 2


def unknown_domain(arguments, folder):
    arguments["domain"] = "Piano,Oboe"
    return "There is no domain 'Oboe' in this model. There are: Cello, Piano."


def no_domain(arguments, folder):
    arguments["domain"] = ""
    return "--domain is empty. Domains to translate to, separated by commas, or 'all'."


def missing_checkpoint(arguments, folder):
    arguments["checkpoint"] = folder
    return (
        f"{folder} is not the folder of a training run: it has no folder "
        "'checkpoints'. Give the folder that training wrote, its workdir."
    )


def missing_input(arguments, folder):
    arguments["inputs"] = folder / "nowhere.wav"
    return f"--input={folder}/nowhere.wav is neither a file nor a folder."


def output_in_a_file(arguments, folder):
    (folder / "file").touch()
    arguments["output"] = folder / "file" / "out"
    return f"{folder}/file/out: Not a directory."


def with_flags(message, *flags, **changes):
    def prepare(arguments, folder):
        arguments["flags"] = flags
        arguments.update(changes)
        return message

    return prepare


BAD_INPUT = [
    unknown_domain,
    no_domain,
    missing_checkpoint,
    missing_input,
    output_in_a_file,
    with_flags(
        "--engine=fast is not known. Use one of auto, scan, native, pallas.",
        "--engine=fast",
    ),
    with_flags(
        "--top_p=0.0 must lie in (0, 1]: codes are drawn from the likeliest ones, which have "
        "so much of the probability together; 1 draws from all.",
        "--top_p=0",
    ),
    with_flags("--temperature=-1.0 must be a finite number, 0 or more.", "--temperature=-1"),
    with_flags(
        "--weights=float16 is not known. Use float32, bfloat16 or int8.", "--weights=float16"
    ),
    with_flags(
        "--overwrite makes all outputs again, --resume none that exists. Pass one.",
        "--overwrite",
        "--resume",
    ),
    with_flags(
        "--input_rate is for --input=-. Sound files say their rate themselves.",
        "--input_rate=8000",
    ),
    with_flags(
        "--input=- is standard input, and goes alone. Write a file - as ./-.",
        inputs="-,a.wav",
    ),
    with_flags(
        "--parallel_segments cuts recordings whose end is known; --input=- has none. Leave it out.",
        "--parallel_segments=2",
        inputs="-",
    ),
    with_flags(
        "Nothing is asked for. Name --domain and --output to translate, --save_latents to keep "
        "latents, or all three.",
        domain=None,
        output=None,
    ),
    with_flags(
        "--save_latents keeps latents of files; --input=- has no name and no end. Leave one out.",
        "--save_latents=latents",
        inputs="-",
    ),
    with_flags(
        "--output=- takes one translation, not 2 inputs in 1 domains. Name one --input and "
        "one --domain.",
        output="-",
        domain="Piano",
    ),
]


@pytest.mark.parametrize("prepare", mostly_thorough(BAD_INPUT, every_day=3))
def test_bad_input_is_one_line_and_exit_status_1(tmp_path, music, trained_dir, prepare):
    arguments = {
        "checkpoint": trained_dir,
        "inputs": music,
        "output": tmp_path / "out",
        "domain": "all",
    }
    message = prepare(arguments, tmp_path)
    values = [arguments[name] for name in ("checkpoint", "inputs", "output")]
    finished = command(*values, *arguments.get("flags", ()), domain=arguments["domain"])
    assert (finished.returncode, finished.stderr) == (1, f"error: {message}\n")
    assert finished.stdout == "" and not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_the_command_samples_as_the_model_says_unless_it_is_told_otherwise(
    tmp_path, music, trained_dir
):
    own = SamplingConfig(temperature=0.6, top_p=0.5)
    checkpoint.export(str(trained_dir), str(tmp_path / "exported"), sampling=own)
    exported = umt_jax.load(str(tmp_path / "exported"), engine="scan")
    waveform = sound_files.read(music / "a.wav", sample_rate_hz=exported.sample_rate_hz)
    for flags, expected in (([], own), (["--top_p=1"], SamplingConfig(temperature=0.6))):
        command(tmp_path / "exported", music / "a.wav", tmp_path, "--overwrite", *flags)
        written, _ = soundfile.read(tmp_path / "a.Piano.wav", dtype="float32")
        sampling = {"temperature": expected.temperature, "top_p": expected.top_p}
        made = exported.translate(waveform, exported.sample_rate_hz, domain="Piano", **sampling)
        np.testing.assert_allclose(written, made, atol=1e-4)


def test_inputs_of_one_name_do_not_collide(tmp_path):
    for name in ("x/a.wav", "x/a.mp3", "y/a.wav", "y/b.ogg", "y/a.wav.flac", "z/a-2.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    inputs = [tmp_path / "x", tmp_path / "y", tmp_path / "z", tmp_path / "x" / "a.wav"]
    found = planning.find_inputs([str(path) for path in inputs], [str(tmp_path / "out")])
    taken = [place.as_posix() for _, place in found]
    assert len(set(taken)) == len(taken) == 7
    assert taken[0] == "a.mp3"  # Sorted within a folder.
    paths = planning.files_of(planning.plan(found, ["A", "B"], str(tmp_path / "out"), "wav"))
    assert len(set(paths)) == 14
    assert {path.parent for path in paths} == {tmp_path / "out"}


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_the_header_says_how_long_a_file_is(tmp_path, rng, extension):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, 0.1 * rng.normal(size=(22_050, 2)), 44_100)
    assert sound_files.duration_seconds(path) == pytest.approx(0.5, abs=0.06)


def test_a_container_that_pyav_reads_says_how_long_it_is(tmp_path, rng):
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        waveform = 0.1 * rng.normal(size=(1, 44_100)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout="mono")
        frame.rate = 44_100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert sound_files.duration_seconds(path) == pytest.approx(1.0, abs=0.06)


def test_what_is_no_sound_has_no_length(tmp_path):
    (tmp_path / "text.wav").write_text("not a sound " * 100)
    (tmp_path / "empty.mp3").touch()
    for name in ("text.wav", "empty.mp3", "missing.ogg", "."):
        assert sound_files.duration_seconds(tmp_path / name) == 0.0


def test_a_folder_without_sound_is_an_error(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match="is a folder without any sound file"):
        planning.find_inputs([str(tmp_path)], ["out"])


def test_ogg_files_are_as_long_as_their_source(tmp_path, music, model):
    translate_files(model, [music / "a.wav", music / "disc 1" / "b.ogg"], tmp_path, extension="ogg")
    lengths = [
        soundfile.info(tmp_path / f"{name}.ogg").frames
        for name in ("a.Cello", "a.Piano", "b.Cello", "b.Piano")
    ]
    assert lengths == [7000, 7000, 5442, 5442]


def test_a_full_disk_leaves_whole_files_only(tmp_path, music, model, monkeypatch):
    shutil.copy(music / "a.wav", tmp_path / "short.wav")
    waveform, rate_hz = soundfile.read(music / "a.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(waveform, 3), rate_hz)

    def write(writer, waveform):
        nonlocal num_written
        num_written += len(waveform)
        if num_written > 40_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(writer, waveform)

    original, num_written = sound_files.SoundFileWriter.write, 0
    monkeypatch.setattr(sound_files.SoundFileWriter, "write", write)
    output = tmp_path / "out"
    with pytest.raises(OSError, match="No space left"):
        translate_files(model, [tmp_path / "short.wav", tmp_path / "long.wav"], output)
    assert names(output) == ["short.Cello.wav", "short.Piano.wav"]
    assert soundfile.info(output / "short.Piano.wav").frames == 7000


def test_help_lists_every_flag_of_the_command():
    finished = commands.run("umt_jax.infer", "--help")
    listed = set(re.findall(r"^  --(?:\[no\])?(\w+):", finished.stdout, re.MULTILINE))
    # Declared by the command, with the shipped model, with what commands share, and as paths.
    assert {
        "domain",
        "resume",
        "step",
        "temperature",
        "seed",
        "engine",
        "format",
        "input",
    } <= listed


def test_an_interrupted_run_leaves_whole_files_only(tmp_path, music, model, monkeypatch):
    def interrupted(path, *, sample_rate_hz):
        blocks = original(path, sample_rate_hz=sample_rate_hz)
        if path.name == "b.ogg":
            yield next(blocks)
            raise KeyboardInterrupt
        yield from blocks

    original = sound_files.read_blocks
    monkeypatch.setattr(sound_files, "read_blocks", interrupted)
    files = [music / "a.wav", music / "disc 1" / "b.ogg"]
    with pytest.raises(KeyboardInterrupt):
        translate_files(model, files, tmp_path / "out", num_streams=1)
    assert names(tmp_path / "out") == ["a.Cello.wav", "a.Piano.wav"]

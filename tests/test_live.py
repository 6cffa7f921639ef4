"""Raw samples through the pipes of `umt_jax.infer`."""

import dataclasses
import os
import subprocess

import commands
import numpy as np
import pytest
import soundfile
import soxr
from conftest import mostly_thorough, random_parameters

from umt_jax.audio import level, pcm, sound_files
from umt_jax.checkpoints import checkpoint, demo_model, reading
from umt_jax.config import SamplingConfig
from umt_jax.inference import low_latency
from umt_jax.model import networks
from umt_jax.training import train_state

RATE_HZ = 8000


def arguments(checkpoint, inputs, output, *flags, domain="Piano"):
    return [
        *("umt_jax.infer", f"--checkpoint={checkpoint}", "--engine=scan"),
        *(f"--input={inputs}", f"--domain={domain}", f"--output={output}", *flags),
    ]


def start(*args, **options):
    pipe = subprocess.PIPE
    return commands.start(
        *arguments(*args, **options), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
    )


def samples(rng, count):
    return rng.integers(-9000, 9000, size=count).astype("<i2")


@pytest.fixture(scope="module")
def by_file(tmp_path_factory, trained_dir):
    """A source, at 8 and at 16 kHz, and its translations by way of files."""
    folder = tmp_path_factory.mktemp("by_file")
    source = samples(np.random.default_rng(0), 21_007)
    for name, rate_hz in (("same", RATE_HZ), ("double", 2 * RATE_HZ)):
        soundfile.write(folder / f"{name}.wav", source, rate_hz)
    command = arguments(trained_dir, folder, folder / "out", "--streams=1", "--seed=4")
    commands.run(*command).check_returncode()
    read = {
        name: soundfile.read(folder / "out" / f"{name}.Piano.wav", dtype="int16")[0]
        for name in ("same", "double")
    }
    return folder, source, read


def test_sound_through_pipes_is_that_through_files_and_comes_before_the_end(trained_dir, by_file):
    _, source, expected = by_file
    process = start(trained_dir, "-", "-", "--seed=4")
    process.stdin.write(source[:12_000].tobytes())
    process.stdin.flush()
    # Two windows of half a second, while the pipe is open and more is to come.
    early = b""
    while len(early) < 2 * RATE_HZ:
        early += os.read(process.stdout.fileno(), 2 * RATE_HZ - len(early))
    rest, errors = process.communicate(source[12_000:].tobytes(), timeout=300)
    assert process.returncode == 0
    np.testing.assert_array_equal(np.frombuffer(early + rest, "<i2"), expected["same"])
    latency, speed = errors.decode().splitlines()
    assert latency == "The translation comes 0.50 s behind its source."
    assert speed.startswith("2.6 s of sound in ") and speed.endswith(" times real time.")


@pytest.mark.thorough
def test_sound_at_another_rate_is_resampled_as_it_comes(trained_dir, by_file):
    _, source, expected = by_file
    process = start(trained_dir, "-", "-", "--seed=4", f"--input_rate={2 * RATE_HZ}")
    output, _ = process.communicate(source.tobytes(), timeout=300)
    np.testing.assert_array_equal(np.frombuffer(output, "<i2"), expected["double"])


@pytest.mark.thorough
def test_a_pipe_can_be_written_to_a_file_and_a_file_to_a_pipe(tmp_path, trained_dir, by_file):
    folder, source, expected = by_file
    process = start(trained_dir, "-", tmp_path / "out", "--seed=4", domain="Piano,Cello")
    process.communicate(source.tobytes(), timeout=300)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "stdin.Cello.wav",
        "stdin.Piano.wav",
    ]
    written, _ = soundfile.read(tmp_path / "out" / "stdin.Piano.wav", dtype="int16")
    np.testing.assert_array_equal(written, expected["same"])
    process = start(trained_dir, folder / "same.wav", "-", "--seed=4")
    output, _ = process.communicate(timeout=300)
    np.testing.assert_array_equal(np.frombuffer(output, "<i2"), expected["same"])


@pytest.fixture(scope="module")
def by_file_natively(trained_dir, by_file):
    """The source's translations by way of files, by the native engine."""
    folder, source, _ = by_file
    flags = ("--streams=1", "--seed=4", "--engine=native")
    command = arguments(trained_dir, folder, folder / "native", *flags)
    commands.run(*command).check_returncode()
    return source, {
        name: soundfile.read(folder / "native" / f"{name}.Piano.wav", dtype="int16")[0]
        for name in ("same", "double")
    }


def test_low_latency_gives_the_file_s_samples_a_latent_frame_at_a_time(
    trained_dir, run_config, by_file_natively
):
    source, expected = by_file_natively
    with low_latency.open_player(str(trained_dir)) as player:
        latency = player.latency_samples
    process = start(trained_dir, "-", "-", "--seed=4", "--latency=low", "--engine=native")
    process.stdin.write(source[:latency].tobytes())
    process.stdin.flush()
    # A latent frame, while the pipe is open and more is to come.
    early = b""
    while len(early) < 2 * run_config.model.pool_samples:
        early += os.read(process.stdout.fileno(), 65_536)
    rest, errors = process.communicate(source[latency:].tobytes(), timeout=300)
    assert process.returncode == 0
    np.testing.assert_array_equal(np.frombuffer(early + rest, "<i2"), expected["same"])
    delay, speed = errors.decode().splitlines()
    assert delay == f"The translation comes {latency / RATE_HZ:.3f} s behind its source."
    assert speed.startswith("2.6 s of sound in ") and speed.endswith(" times real time.")


@pytest.mark.thorough
def test_low_latency_says_by_how_much_resampling_adds_to_it(trained_dir, by_file_natively):
    source, expected = by_file_natively
    flags = ("--seed=4", f"--input_rate={2 * RATE_HZ}", "--latency=low", "--engine=native")
    output, errors = start(trained_dir, "-", "-", *flags).communicate(source.tobytes(), timeout=300)
    np.testing.assert_array_equal(np.frombuffer(output, "<i2"), expected["double"])
    with low_latency.open_player(str(trained_dir)) as player:
        latency = player.latency_samples / RATE_HZ
    stated = float(errors.decode().split()[3])
    # What soxr holds back at most, counted here by single samples.
    resampler = soxr.ResampleStream(2 * RATE_HZ, RATE_HZ, 1, dtype="float32")
    given, behind = 0, 0.0
    for taken in range(1, 30_000):
        behind = max(behind, taken / (2 * RATE_HZ) - given / RATE_HZ)
        given += len(resampler.resample_chunk(np.zeros(1, np.float32)))
    assert stated == pytest.approx(latency + behind, abs=0.002)


@pytest.mark.parametrize(("guide_strength", "latency"), [(0.0, 1240), (10.0, 1240 + 13 * 200)])
def test_a_click_is_heard_as_late_as_is_stated(guide_strength, latency):
    config = reading.read_config(demo_model.path())
    reach, at = 1024, 5000
    emerged = {}  # By sound: of each sample, how many had come when it was generated.
    sounds = {}
    for name in ("silence", "click"):
        waveform = np.zeros(8000, np.float32)
        if name == "click":  # 0.1 s of a tone that dies away.
            times = np.arange(800)
            tone = np.sin(2 * np.pi * 440 / RATE_HZ * times) * np.exp(-times / 200)
            waveform[at : at + 800] = 0.8 * tone
        num_taken = 0

        def blocks(waveform=waveform):
            nonlocal num_taken
            for start in range(0, len(waveform), 8):
                num_taken = start + 8
                yield waveform[start : start + 8]

        with low_latency.open_player(demo_model.path()) as player:
            sampling = SamplingConfig(temperature=0.0, guide_strength=guide_strength)
            low_latency.choose(player, config, "Piano", sampling, seed=0)
            stated = low_latency.delay_seconds(player, config) * player.sample_rate_hz
            parts, taken = [], []
            for piece in low_latency.translate(player, config, blocks()):
                parts.append(piece.waveforms[0])
                taken += [num_taken] * piece.waveforms.size
        emerged[name], sounds[name] = np.array(taken), np.concatenate(parts)
    # Until the end, after which nothing more is waited for.
    waited = (emerged["click"] - np.arange(8000))[: 8000 - int(stated)]
    assert stated == waited.max() == latency
    changed = np.flatnonzero(sounds["silence"] != sounds["click"])
    # Not before the first latent frame that sees it, or whose guide does, and not after the tone.
    assert at - reach - 200 - (latency - 1240) < changed[0] < at + 800
    assert emerged["click"][at] - at <= stated


@pytest.mark.thorough
def test_low_latency_keeps_a_level_and_says_how_long_that_takes(tmp_path, levelled):
    folder, source = levelled
    flags = ("--seed=4", "--latency=low", "--engine=native")
    process = start(folder / "levelled", "-", "-", *flags)
    live, errors = process.communicate(source.tobytes(), timeout=300)
    assert "comes 0.500 s behind" in errors.decode() and "at -20 dBFS" in errors.decode()
    command = arguments(folder / "plain", folder / "b.wav", tmp_path, "--seed=4", "--engine=native")
    commands.run(*command).check_returncode()
    followed, _ = soundfile.read(tmp_path / "b.Piano.wav", dtype="int16")
    np.testing.assert_array_equal(np.frombuffer(live, "<i2"), followed)


NOT_LOW = [
    (["--latency=fast"], "Piano", "--latency=fast is not known. Use high or low."),
    (
        ["--latency=low"],
        "Piano",
        "--latency=low plays in C++, not with --engine=scan. Leave one of them out.",
    ),
    (
        ["--latency=low", "--engine=auto", "--weights=bfloat16"],
        "Piano",
        "--latency=low keeps weights in float32, not --weights=bfloat16. Leave one of them out.",
    ),
    (
        ["--latency=low", "--engine=auto", "--threads=2"],
        "Piano",
        "--latency=low plays by one thread, not by --threads=2. Leave one of them out.",
    ),
    (
        ["--latency=low", "--engine=native"],
        "Piano,Cello",
        "--latency=low plays one domain, not 2. Name one, or leave it out.",
    ),
]


@pytest.mark.parametrize(("flags", "domain", "message"), mostly_thorough(NOT_LOW))
def test_what_low_latency_cannot_take_is_one_line(tmp_path, trained_dir, flags, domain, message):
    words = arguments(trained_dir, "-", tmp_path / "out", *flags, domain=domain)
    finished = commands.run(*words)
    assert (finished.returncode, finished.stderr) == (1, f"error: {message}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_low_latency_is_for_what_comes_through_a_pipe(tmp_path, trained_dir, by_file):
    folder, _, _ = by_file
    flags = ("--latency=low", "--engine=native")
    finished = commands.run(*arguments(trained_dir, folder, tmp_path / "out", *flags))
    assert finished.stderr == (
        "error: --latency=low is for --input=-, sound that comes while it is translated. Leave it "
        "out.\n"
    )
    process = start(trained_dir, "-", tmp_path / "out", *flags)
    _, errors = process.communicate((folder / "same.wav").read_bytes(), timeout=300)
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1] == (
        "error: --latency=low takes raw samples as they come, and --input=- brought a sound file. "
        "Leave --latency out: a file is translated once it is there."
    )


@pytest.mark.parametrize("kind", mostly_thorough(["WAV", "FLAC", "AIFF", "CAF"]))
def test_a_sound_file_that_is_piped_in_is_read_as_what_it_is(tmp_path, trained_dir, by_file, kind):
    _, source, expected = by_file
    soundfile.write(tmp_path / "a", source, 2 * RATE_HZ, format=kind, subtype="PCM_16")
    process = start(trained_dir, "-", "-", "--seed=4")
    output, _ = process.communicate((tmp_path / "a").read_bytes(), timeout=300)
    np.testing.assert_array_equal(np.frombuffer(output, "<i2"), expected["double"])


@pytest.fixture(scope="module")
def levelled(tmp_path_factory, run_config):
    """One model that brings sounds to -20 dBFS, and one that does not; a source and its files."""
    folder = tmp_path_factory.mktemp("levelled")
    parameters = random_parameters(networks.Networks(run_config))
    for name, rms_dbfs in (("levelled", -20.0), ("plain", None)):
        sizes = dataclasses.replace(run_config.model, rms_dbfs=rms_dbfs)
        config = dataclasses.replace(run_config, model=sizes)
        optimizers = train_state.make_optimizers(config.training)
        state = train_state.create(parameters, optimizers, config)
        with checkpoint.Checkpoints(str(folder / name)) as checkpoints:
            checkpoints.save(state, config, {}, reconstruction=5.0)
    # Softer and softer: a gain that follows is another than that of the whole.
    fading = np.exp(-np.arange(14_007) / RATE_HZ)
    source = (samples(np.random.default_rng(1), 14_007) * fading).astype("<i2")
    soundfile.write(folder / "a.wav", source, RATE_HZ)
    followed = level.follow([source.astype(np.float32) / 32_768], -20.0, sample_rate_hz=RATE_HZ)
    soundfile.write(folder / "b.wav", np.concatenate(list(followed)), RATE_HZ, subtype="FLOAT")
    return folder, source


def through_pipe(model, data):
    process = start(model, "-", "-", "--seed=4")
    output, errors = process.communicate(data, timeout=300)
    assert process.returncode == 0, errors.decode()
    return np.frombuffer(output, "<i2"), errors.decode()


def through_files(model, path, output):
    command = arguments(model, path, output, "--seed=4")
    commands.run(*command).check_returncode()
    return soundfile.read(output / f"{path.stem}.Piano.wav", dtype="int16")[0]


@pytest.mark.thorough
def test_a_level_is_kept_through_pipes_as_the_documents_say(tmp_path, levelled):
    folder, source = levelled
    live, errors = through_pipe(folder / "levelled", source.tobytes())
    assert "The model plays sounds at -20 dBFS. That of the source is known at its end" in errors
    followed = through_files(folder / "plain", folder / "b.wav", tmp_path / "followed")
    np.testing.assert_array_equal(live, followed)
    # A file that is piped in has an end, and so the level of the whole.
    piped, errors = through_pipe(folder / "levelled", (folder / "a.wav").read_bytes())
    assert "dBFS" not in errors
    whole = through_files(folder / "levelled", folder / "a.wav", tmp_path / "whole")
    np.testing.assert_array_equal(piped, whole)
    assert not np.array_equal(live, whole)


@pytest.mark.thorough
def test_a_wav_whose_pipe_ends_too_early_is_one_line_that_names_the_input(
    tmp_path, trained_dir, by_file
):
    folder, _, _ = by_file
    process = start(trained_dir, "-", tmp_path / "out")
    _, errors = process.communicate((folder / "same.wav").read_bytes()[:-1000], timeout=300)
    assert process.returncode == 1
    assert "not be translated: --input=- is cut off: " in errors.decode().splitlines()[-1]


def test_a_reader_that_goes_away_ends_it_quietly(trained_dir, by_file):
    _, source, _ = by_file
    process = start(trained_dir, "-", "-")
    process.stdin.write(source[:12_000].tobytes())
    process.stdout.read(1)
    process.stdout.close()
    process.stdin.write(source.tobytes())
    process.stdin.close()
    errors = process.stderr.read().decode().splitlines()
    assert process.wait(timeout=300) == 0
    assert errors[1:] == ["Ended: whatever read --output=- has closed it."]
    process.stderr.close()


@pytest.mark.thorough
def test_a_pipe_without_samples_is_one_line(tmp_path, trained_dir):
    process = start(trained_dir, "-", tmp_path / "out")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1] == (
        "error: 1 of 1 inputs could not be translated: --input=- brought no samples."
    )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("sizes", [[1], [3, 2, 7], [1000]])
def test_samples_do_not_depend_on_how_their_bytes_arrive(rng, sizes):
    source = samples(rng, 400)
    data = source.tobytes()
    read, write = os.pipe()
    reader = pcm.Reader(read, sample_rate_hz=RATE_HZ).decode()
    blocks, start, turn = [], 0, 0
    os.write(write, data[:2])
    blocks.append(next(reader))
    start = 2
    while start < len(data):
        size = max(2, sizes[turn % len(sizes)])
        os.write(write, data[start : start + size])
        start, turn = start + size, turn + 1
        if start % 2 == 0:
            blocks.append(next(reader))
    os.close(write)
    blocks += list(reader)
    os.close(read)
    assert {rate_hz for rate_hz, _ in blocks} == {RATE_HZ}
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]) * 32_768, source)


def test_wav_flac_and_raw_samples_of_one_waveform_are_the_same_and_the_nearest(tmp_path, rng):
    halves = (np.arange(-8, 8) + 0.5) / 32_768  # Where rounding down and to the nearest part.
    noise = rng.uniform(-1.1, 1.1, size=5000)
    waveform = np.concatenate([halves, noise, [1.0, -1.0, 0.0]]).astype(np.float32)
    nearest = [round(max(-1.0, min(1.0, float(amplitude))) * 32_768) for amplitude in waveform]
    written = {}
    for name in ("a.wav", "a.flac"):
        sound_files.write(tmp_path / name, waveform, sample_rate_hz=RATE_HZ)
        written[name], _ = soundfile.read(tmp_path / name, dtype="int16")
    with (tmp_path / "a.raw").open("wb") as file, pcm.Writer(file.fileno()) as writer:
        writer.write(waveform)
    written["a.raw"] = np.fromfile(tmp_path / "a.raw", "<i2")
    for samples_of_file in written.values():
        np.testing.assert_array_equal(samples_of_file, np.minimum(nearest, 32_767))


@pytest.mark.parametrize("block_samples", [1, 100, 3333])
def test_resampling_in_blocks_is_resampling_the_whole(rng, block_samples):
    waveform = 0.1 * rng.normal(size=7000).astype(np.float32)
    starts = range(0, 7000, block_samples)
    blocks = ((44_100, waveform[at : at + block_samples]) for at in starts)
    resampled = np.concatenate(list(sound_files.resample_blocks(blocks, to_hz=RATE_HZ)))
    (whole,) = (sound_files.resample_blocks([(44_100, waveform)], to_hz=RATE_HZ),)
    np.testing.assert_array_equal(resampled, np.concatenate(list(whole)))

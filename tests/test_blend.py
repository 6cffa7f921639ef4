import absl.flags
import commands
import numpy as np
import pytest
import soundfile

import umt_jax
from umt_jax import blend
from umt_jax.audio import sound_files
from umt_jax.generation import blending


@pytest.fixture(scope="module")
def model(trained_dir):
    return umt_jax.load(str(trained_dir), engine="scan")


@pytest.fixture
def music(tmp_path, rng):
    """Four sounds of different lengths and levels, at two sample rates."""
    for name, seconds, level, rate_hz in (
        ("a", 0.5, 0.3, 8000),
        ("b", 0.4, 0.01, 16_000),
        ("c", 0.3, 0.1, 8000),
        ("d", 0.45, 0.1, 8000),
    ):
        waveform = level * rng.uniform(-1, 1, size=round(seconds * rate_hz))
        soundfile.write(tmp_path / f"{name}.wav", waveform, rate_hz)
    return tmp_path


def command(checkpoint, folder, inputs, *flags):
    paths = ",".join(str(folder / name) for name in inputs)
    output = f"--output={folder / 'out'}"
    return commands.run(
        *("umt_jax.blend", f"--checkpoint={checkpoint}", "--engine=scan"),
        *(f"--input={paths}", output, *flags),
    )


def names(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


def written(folder, name):
    waveform, rate_hz = soundfile.read(folder / "out" / name)
    assert rate_hz == 8000
    return waveform


def encode(model, folder, inputs):
    waveforms = [sound_files.read(folder / name, sample_rate_hz=8000) for name in inputs]
    return [model.encode(waveform, 8000) for waveform in blending.match_levels(waveforms)]


def test_a_blend_of_two_sounds_is_played_in_every_domain(music, model, trained_dir):
    finished = command(
        *(trained_dir, music, ["a.wav", "b.wav"], "--domain=all", "--schedule=constant"),
        "--weight=0.25",
    )
    assert finished.returncode == 0, finished.stderr
    first, second = encode(model, music, ["a.wav", "b.wav"])
    expected = 0.75 * first[: len(second)] + 0.25 * second
    files = [f"a+b.constant-0.25.{domain}.wav" for domain in ("Cello", "Piano")]
    assert finished.stdout == "".join(f"{music / 'out' / name}\n" for name in files)
    assert names(music) == files
    for domain, name in zip(("Cello", "Piano"), files, strict=True):
        waveform = model.generate(expected, domain=domain)
        assert waveform.shape == (3200,)
        np.testing.assert_allclose(written(music, name), waveform, atol=1e-4)


@pytest.mark.slow
def test_a_grid_has_the_sounds_at_its_corners(music, model, trained_dir):
    inputs = ["a.wav", "b.npz", "c.wav", "d.wav"]
    model.save_latents(music / "b.npz", encode(model, music, ["b.wav"])[0])
    finished = command(trained_dir, music, inputs, "--domain=Piano", "--grid=2", "--seed=3")
    assert finished.returncode == 0, finished.stderr
    files = [f"a+b+c+d.grid-2.row-{r}.column-{c}.Piano.wav" for r in (1, 2) for c in (1, 2)]
    assert names(music) == files
    corners = dict(zip("acd", encode(model, music, ["a.wav", "c.wav", "d.wav"]), strict=True))
    corners["b"] = model.load_latents(music / "b.npz")
    for corner, name in zip("abcd", files, strict=True):
        expected = model.generate(corners[corner][:240], domain="Piano", seed=3)
        np.testing.assert_allclose(written(music, name), expected, atol=1e-4)


@pytest.mark.slow
def test_a_morph_begins_as_one_decoder_and_ends_as_the_other(music, model, trained_dir):
    flags = ("--morph=Piano,Cello", "--schedule=ramp", "--temperature=0.5", "--format=flac")
    finished = command(trained_dir, music, ["c.wav"], *flags)
    assert finished.returncode == 0, finished.stderr
    assert names(music) == ["c.ramp.Piano-to-Cello.flac"]
    (latents,) = encode(model, music, ["c.wav"])
    weights = (np.arange(240) + 0.5) / 240
    pieces = model.morph(latents, domains=("Piano", "Cello"), weights=weights, temperature=0.5)
    expected = np.concatenate(list(pieces))
    np.testing.assert_allclose(written(music, "c.ramp.Piano-to-Cello.flac"), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"domain": None}, "Name what plays: --domain for mixtures of sounds, or --morph="),
        ({"input": ["a.wav"]}, "--input names 1 sounds, but a blend goes from one to another"),
        ({"grid": 3}, "--input names 2 sounds, but --grid has one at each corner: name 4"),
        ({"morph": ["A", "B"], "domain": None}, "--input names 2 sounds, but --morph plays one"),
        ({"morph": ["A"], "domain": None}, "--morph=A is not two domains, as in --morph=A,B."),
        ({"morph": ["A", "B"], "grid": 3}, "--grid mixes sounds, --morph decoders. Pass one."),
        ({"weight": 0.3}, "--weight is for --schedule=constant, without --grid."),
    ],
)
def test_flags_that_cannot_go_together_are_named(flags, message):
    args = absl.flags.FlagValues()
    given = {"input": ["a.wav", "b.wav"], "domain": ["A"], "morph": None, "grid": None}
    for name, value in {**given, "schedule": "paper", "weight": None, **flags}.items():
        absl.flags.DEFINE_string(name, None, "", flag_values=args)
        args[name].value = value
    args.mark_as_parsed()
    with pytest.raises(ValueError) as caught:
        blend.check_flags(args)
    assert message in str(caught.value)


def test_bad_input_is_one_line_and_leaves_nothing(music, trained_dir):
    finished = command(trained_dir, music, ["a.wav", "none.wav"], "--domain=Piano")
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ") and "none.wav" in line
    assert not (music / "out").exists()


def test_the_former_name_of_the_command_does_the_same_and_says_the_new_one():
    now, before = (
        commands.run(name, "--helpshort") for name in ("umt_jax.blend", "experiments.blend")
    )
    assert "--morph" in now.stdout and before.stdout == now.stdout
    assert before.returncode == now.returncode
    assert before.stderr.startswith("experiments.blend is now umt_jax.blend")

import dataclasses
import itertools
import pydoc
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from conftest import TINY_MODEL

import umt_jax
from umt_jax import translator
from umt_jax.audio import mu_law
from umt_jax.config import SamplingConfig
from umt_jax.model import networks

# Windows of 50 latent frames of 10 samples.
MODEL = dataclasses.replace(TINY_MODEL, sample_rate_hz=1000)
WINDOW = 500
PIECES = 5  # In a window.


@pytest.fixture(scope="module")
def config(tiny_config):
    return dataclasses.replace(tiny_config, model=MODEL)


@pytest.fixture(scope="module")
def model(config, tiny_parameters):
    return translator.Translator(config, tiny_parameters)


@pytest.fixture
def latents(rng):
    # Two windows and a bit.
    return rng.normal(size=(113, MODEL.latent_channels)).astype(np.float32)


def noise(rng, *shape):
    return rng.uniform(-0.9, 0.9, size=shape).astype(np.float32)


def collect(pieces):
    """Joins the pieces of each recording; returns the errors too."""
    parts, ended, errors = {}, set(), {}
    for piece in pieces:
        assert piece.recording not in ended
        parts.setdefault(piece.recording, []).append(piece.waveforms)
        if piece.is_last:
            ended.add(piece.recording)
        if piece.error:
            errors[piece.recording] = piece.error
    assert ended == set(parts)
    return {index: np.concatenate(part, axis=-1) for index, part in parts.items()}, errors


def test_latents_are_those_of_the_encoder(rng, model, config, tiny_parameters):
    waveform = noise(rng, 1200)
    latents = model.encode(waveform, 1000)
    nets = networks.Networks(config)
    expected = nets.encode(tiny_parameters.encoder, mu_law.encode(waveform, "rounded"))
    np.testing.assert_allclose(latents, expected, rtol=1e-5, atol=1e-5)


def test_another_sample_rate_is_resampled_first(model):
    def tone(rate_hz):
        return (0.5 * np.sin(2 * np.pi * 50 * np.arange(rate_hz) / rate_hz)).astype(np.float32)

    native, resampled = model.encode(tone(1000), 1000), model.encode(tone(4000), 4000)
    assert native.shape == resampled.shape == (100, MODEL.latent_channels)
    # Away from the ends, where a resampler has to guess, only rounding to codes differs.
    distance = np.abs(native - resampled)[10:-10].mean() / np.abs(native)[10:-10].mean()
    assert distance < 0.05


@pytest.mark.parametrize(
    ("num_samples", "rate_hz", "expected"),
    [(1, 1000, 1), (509, 1000, 509), (1000, 1000, 1000), (8000, 44_100, 181), (300, 500, 600)],
)
def test_a_translation_is_as_long_as_its_source(rng, model, num_samples, rate_hz, expected):
    waveform = model.translate(noise(rng, num_samples), rate_hz, domain="Flute")
    assert waveform.shape == (expected,)
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() <= 1


def test_generating_is_decoding_what_the_decoder_predicts(model, latents):
    waveform = model.generate(latents, domain="Piano", temperature=0.0)
    codes = mu_law.encode(waveform, "rounded")
    logits = model.code_logits(codes, latents, domain="Piano")
    chosen = np.take_along_axis(logits, codes[:, None].astype(int), axis=-1)[:, 0]
    # Codes 0 and 1 have the same amplitude.
    np.testing.assert_allclose(chosen[codes > 1], logits.max(axis=-1)[codes > 1], atol=1e-4)
    assert len(np.unique(codes)) > 3


def test_a_streamed_translation_is_the_whole_one(model, latents):
    pieces = list(model.generate_stream(latents, domain="Piano", seed=5))
    assert [len(piece) for piece in pieces] == [100] * 11 + [30]
    whole = model.generate(latents, domain="Piano", seed=5)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_the_bth_recording_of_a_batch_has_seed_plus_b(rng, model):
    batch = noise(rng, 2, 640)
    together = model.translate(batch, 1000, domain="Cello", seed=7)
    assert together.shape == (2, 640)
    for b in range(2):
        alone = model.translate(batch[b], 1000, domain="Cello", seed=7 + b)
        np.testing.assert_array_equal(together[b], alone)


def test_the_seed_decides_the_samples(model, latents):
    def generate(seed, temperature=1.0):
        return model.generate(latents, domain="Flute", seed=seed, temperature=temperature)

    first = generate(1)
    np.testing.assert_array_equal(generate(1), first)
    assert np.mean(generate(2) != first) > 0.5
    np.testing.assert_array_equal(generate(1, temperature=0.0), generate(2, temperature=0.0))


def test_without_being_asked_for_another_sampling_is_the_models_own(
    rng, config, tiny_parameters, model, latents
):
    own = dataclasses.replace(config, sampling=SamplingConfig(temperature=0.5, top_p=0.6))
    its_own = translator.Translator(own, tiny_parameters)
    both, waveform = {"temperature": 0.5, "top_p": 0.6}, noise(rng, 640)

    def all_ways(model, **sampling):
        yield model.generate(latents, domain="Piano", **sampling)
        yield np.concatenate(list(model.generate_stream(latents, domain="Flute", **sampling)))
        yield model.translate(waveform, 1000, domain="Piano", **sampling)
        yield collect(model.translate_recordings([[waveform]], **sampling))[0][0]
        weights = np.full(len(latents), 0.5)
        pieces = model.morph(latents, domains=("Flute", "Piano"), weights=weights, **sampling)
        yield np.concatenate(list(pieces))

    for given, expected, plain in zip(
        all_ways(its_own), all_ways(model, **both), all_ways(model), strict=True
    ):
        np.testing.assert_array_equal(given, expected)
        assert np.mean(given != plain) > 0.2
    overridden = all_ways(its_own, temperature=1.0, top_p=1.0)
    for given, expected in zip(overridden, all_ways(model), strict=True):
        np.testing.assert_array_equal(given, expected)


def test_a_domain_sounds_the_same_whatever_is_translated_beside_it(
    rng, model, config, tiny_parameters
):
    waveform = noise(rng, 640)
    pieces = model.translate_recordings([[waveform]], seed=3, num_streams=2)
    together = collect(pieces)[0][0]
    lone = translator.Translator(config, tiny_parameters, domains=["Piano"])
    assert lone.domains == ("Piano",)
    for k, domain in enumerate(model.domains):
        expected = model.translate(waveform, 1000, domain=domain, seed=3)
        np.testing.assert_array_equal(together[k], expected)
    np.testing.assert_array_equal(
        together[2], lone.translate(waveform, 1000, domain="Piano", seed=3)
    )


def test_recordings_of_any_length_are_translated_as_each_is_alone(rng, model):
    recordings = [noise(rng, length) for length in (640, 1, 1500, 500, 77)]
    blocks = ([part[:333], part[333:]] for part in recordings)
    waveforms, errors = collect(model.translate_recordings(blocks, seed=3, num_streams=2))
    assert not errors and list(waveforms) == [0, 1, 2, 3, 4]
    for index, recording in enumerate(recordings):
        assert waveforms[index].shape == (3, len(recording))
        expected = model.translate(recording, 1000, domain="Flute", seed=3)
        np.testing.assert_array_equal(waveforms[index][1], expected)


def test_many_recordings_at_once_are_each_by_domain_what_they_are_alone(rng, model):
    recordings = [noise(rng, length) for length in (640, 77, 1500)]
    options = {"domains": ["Piano", "Cello", "Flute"], "seed": 3, "num_streams": 2}
    together = model.translate_many(recordings, **options)
    for recording, by_domain in zip(recordings, together, strict=True):
        assert list(by_domain) == options["domains"]
        expected = model.translate(recording, 1000, domain="Flute", seed=3)
        np.testing.assert_array_equal(by_domain["Flute"], expected)
    assert model.translate_many([]) == []
    with pytest.raises(ValueError, match="not finite"):
        model.translate_many([recordings[0], np.full(9, np.nan, np.float32)], **options)


def test_wanted_domains_come_in_the_wanted_order(rng, model):
    waveform = noise(rng, 30)
    (piece, last) = model.translate_recordings([[waveform]], domains=["Piano"], seed=1)
    assert (piece.is_last, last.is_last, last.waveforms.shape) == (False, True, (1, 0))
    expected = model.translate(waveform, 1000, domain="Piano", seed=1)
    np.testing.assert_array_equal(piece.waveforms[0], expected)


@pytest.mark.parametrize("error", [ValueError("is damaged"), OSError("is gone")])
def test_a_recording_that_cannot_be_read_on_ends_alone(rng, model, error):
    good = noise(rng, 1100)

    def broken():
        yield good[:600]
        raise error

    def unreadable():
        raise error
        yield

    recordings = [broken(), unreadable(), [good], [np.full(9, np.nan, np.float32)], [good]]
    waveforms, errors = collect(model.translate_recordings(recordings, seed=3, num_streams=2))
    assert errors.keys() == {0, 1, 3}
    assert errors[0] is errors[1] is error
    assert "not finite" in str(errors[3])
    assert [waveforms[index].shape[1] for index in range(5)] == [500, 0, 1100, 0, 1100]
    np.testing.assert_array_equal(waveforms[2], waveforms[4])


def test_no_recordings_give_no_pieces(model):
    assert list(model.translate_recordings([])) == []


def test_memory_does_not_grow_with_the_length_of_a_recording(model):
    num_read = 0

    def endless():
        nonlocal num_read
        while True:
            num_read += 1
            yield np.zeros(WINDOW, np.float32)

    pieces = model.translate_recordings([endless(), endless()], num_streams=2)
    for _ in itertools.islice(pieces, 8 * PIECES):
        pass
    tracemalloc.start()
    for _ in itertools.islice(pieces, 40 * PIECES):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 24 windows of 2 recordings, and one each that is read ahead.
    assert num_read == 24 * 2 + 2
    # All the windows, as float32 of three domains, would take 288 kB without their latents.
    assert peak_bytes < 200_000


def without_past(parameters):
    """Returns parameters whose decoders do not hear what they played."""
    first = jax.tree.map(np.zeros_like, parameters.decoders["first"])
    return parameters.replace(decoders={**parameters.decoders, "first": first})


def test_segments_of_decoders_that_need_no_past_join_to_the_whole_bit_by_bit(
    rng, config, tiny_parameters
):
    model = translator.Translator(config, without_past(tiny_parameters))
    recordings = [noise(rng, length) for length in (3333, 700, 2000)]
    waveforms = {
        count: collect(
            model.translate_recordings(
                ([recording] for recording in recordings),
                seed=3,
                num_streams=3,
                parallel_segments=count,
            )
        )[0]
        for count in (1, 2, 4)
    }
    for count, index in itertools.product((2, 4), range(3)):
        assert waveforms[1][index].shape == (3, len(recordings[index]))
        np.testing.assert_array_equal(waveforms[count][index], waveforms[1][index])


def test_a_segment_is_what_its_own_latents_give_after_the_warm_up(rng, model, tiny_parameters):
    recording = noise(rng, 2005)  # 201 frames: segments begin at 0, 67 and 134.
    pieces = model.translate_recordings(
        [[recording]], domains=["Flute"], seed=5, num_streams=3, parallel_segments=3
    )
    joined = collect(pieces)[0][0][0]
    assert joined.shape == recording.shape
    latents = model.encode(recording, 1000)
    warm_up = 4  # The decoder hears 32 samples.
    for start, end in ((0, 67), (67, 134), (134, 201)):
        first = max(0, start - warm_up)
        generator = model._streams(["Flute"], 1, SamplingConfig())
        generator.begin(0, 5, first_sample=first * 10)
        parts = [piece[0, 0] for piece in generator.advance(latents[None, first:end])]
        alone = np.concatenate(parts)[(start - first) * 10 :]
        stop = min(end * 10, 2005) - (20 if end < 201 else 0)  # Then it fades out.
        np.testing.assert_array_equal(joined[start * 10 : stop], alone[: stop - start * 10])


def test_segments_of_an_unreadable_recording_are_its_error_alone(rng, model):
    good = noise(rng, 1100)

    def broken():
        yield good
        raise OSError("is gone")

    recordings = [[good], broken(), [], [good]]
    pieces = model.translate_recordings(recordings, num_streams=2, parallel_segments=2)
    waveforms, errors = collect(pieces)
    assert [waveforms[index].shape[1] for index in range(4)] == [1100, 0, 0, 1100]
    assert errors.keys() == {1}


def test_code_logits_are_those_of_the_decoder(rng, model, config, tiny_parameters):
    codes = rng.integers(256, size=(2, 60)).astype(np.uint8)
    latents = rng.normal(size=(2, 6, MODEL.latent_channels)).astype(np.float32)
    decoder = networks.select(tiny_parameters.decoders, 1)
    expected = networks.Networks(config).decode_one(decoder, codes, latents)
    logits = model.code_logits(codes, latents, domain="Flute")
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert logits.shape == (2, 60, 256)


def test_the_classifier_scores_every_domain_whatever_decoders_are_kept(
    model, config, tiny_parameters, latents
):
    lone = translator.Translator(config, tiny_parameters, domains=["Piano"])
    expected = networks.Networks(config).classify(tiny_parameters.classifier, latents)
    for translator_ in (model, lone):
        assert translator_.classify(latents).shape == (3,)
        np.testing.assert_allclose(translator_.classify(latents), expected, rtol=1e-5)
    assert lone.classify(np.stack([latents] * 2)).shape == (2, 3)


def good_waveform():
    return np.zeros(100, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model: model.translate(good_waveform(), 1000, domain="Oboe"),
            "There is no domain 'Oboe' in this model. There are: Cello, Flute, Piano.",
        ),
        (
            lambda model: list(model.translate_recordings([], domains=["Piano", "Oboe"])),
            "There is no domain 'Oboe' in this model. There are: Cello, Flute, Piano.",
        ),
        (
            lambda model: model.encode(np.zeros((2, 3, 4), np.float32), 1000),
            r"A waveform of shape \(2, 3, 4\) is not \[T\], mono, or \[B, T\]",
        ),
        (lambda model: model.encode(np.zeros(0, np.float32), 1000), r"of shape \(0,\) is not"),
        (
            lambda model: model.encode(np.array([0.0, np.nan], np.float32), 1000),
            "not finite",
        ),
        (
            lambda model: model.encode(np.zeros(2, np.float32), 44_100),
            "2 samples at 44100 Hz are less than one at 1000 Hz",
        ),
        (lambda model: model.encode(good_waveform(), 0), "sample_rate_hz=0 must be above 0"),
        (
            lambda model: list(model.translate_recordings([[]], parallel_segments=0)),
            "parallel_segments=0 must be 1 or more",
        ),
        (
            lambda model: model.generate(np.zeros((3, 4), np.float32), domain="Piano"),
            r"latents of shape \(3, 4\) are not \[F, 5\] or \[B, F, 5\]",
        ),
        (
            lambda model: model.classify(np.zeros((3, 4), np.float32)),
            r"latents of shape \(3, 4\) are not",
        ),
        (
            lambda model: model.generate(np.zeros((0, 5), np.float32), domain="Piano"),
            r"latents of shape \(0, 5\) are not",
        ),
        (
            lambda model: model.code_logits(
                np.zeros(29, np.uint8), np.zeros((3, 5), np.float32), domain="Piano"
            ),
            r"codes of shape \(29,\) do not fit 3 latent frames of 10 samples: give \(30,\)",
        ),
        (
            lambda model: model.translate(good_waveform(), 1000, domain="Piano", temperature=-1.0),
            "temperature=-1.0 must be a finite number, 0 or more",
        ),
        (
            lambda model: model.generate(
                np.zeros((3, 5), np.float32), domain="Piano", temperature=float("inf")
            ),
            "temperature=inf must be a finite number, 0 or more",
        ),
        *(
            (call, r"top_p=0.0 must lie in \(0, 1\]: codes are drawn from the likeliest")
            for call in (
                lambda model: model.translate(good_waveform(), 1000, domain="Piano", top_p=0.0),
                lambda model: list(model.translate_recordings([[]], top_p=0.0)),
                lambda model: model.morph(
                    np.zeros((1, 5), np.float32),
                    domains=("Flute", "Piano"),
                    weights=np.zeros(1),
                    top_p=0.0,
                ),
            )
        ),
        (
            lambda model: model.translate(good_waveform(), 1000, domain="Piano", seed=-1),
            "seed=-1 must lie in 0..4294967295",
        ),
    ],
)
def test_bad_arguments_are_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def unchecked(method, *arguments, **options):
    """Calls a method as users do: the annotations, checked in tests, would refuse first."""
    function = getattr(translator.Translator, method)
    return getattr(function, "__wrapped__", function)(*arguments, **options)


STEREO = np.zeros((441, 2), np.float32)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(100, np.int16), "holds integers .int16.* Divide 16-bit samples by 32768"),
        (np.zeros(100, np.int32), "Divide 32-bit samples by 2147483648"),
        (np.zeros(100, np.uint8), "Subtract 128, the code of silence, and divide by it"),
        (np.zeros(100, complex), "waveform of type complex128 must hold floats"),
        (np.zeros(100, bool), "waveform of type bool must hold floats"),
        (np.array(["a.wav"]), "waveform of type <U5 must hold floats"),
        ([[0.0], [0.0, 0.1]], "waveform cannot be made one array"),
        (np.float32(0.5), r"shape \(\) is not \[T\]"),
        (
            STEREO,
            r"shape \(441, 2\) looks like samples by channels.*mean\(axis=1\).*waveform.T for 2",
        ),
        (STEREO[:, :1], r"samples by channels.*or waveform\[:, 0\] for one\.$"),
        (np.full(100, 20_000.0), "samples of 2e\\+04, where full scale is 1. Divide them by full"),
        (np.full(100, 1e300), "not finite"),
    ],
)
def test_what_is_no_recording_is_refused_in_a_sentence_that_says_what_to_pass(
    model, waveform, message
):
    calls = [
        lambda: unchecked("encode", model, waveform, 1000),
        lambda: unchecked("level", model, waveform),
        lambda: unchecked("translate", model, waveform, 1000, domain="Piano"),
    ]
    if isinstance(waveform, np.ndarray):
        calls.append(lambda: unchecked("translate_many", model, waveform, domains=["Piano"]))
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("rms_dbfs", [None, -20.0])
@pytest.mark.parametrize("kind", [list, iter])
def test_blocks_of_another_rank_or_type_are_refused_as_they_come(
    config, tiny_parameters, rms_dbfs, kind
):
    levelled = dataclasses.replace(
        config, model=dataclasses.replace(config.model, rms_dbfs=rms_dbfs)
    )
    model = translator.Translator(levelled, tiny_parameters, domains=["Piano"])
    for block, message in [
        (STEREO, r"A block of shape \(441, 2\) is not \[T\], mono"),
        (0.5, r"A block of shape \(\) is not"),
        (np.zeros(9, np.int16), "holds integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            list(unchecked("encode_blocks", model, kind([block])))
    with pytest.raises(
        ValueError, match=r"shape \(441, 2\) is given as a recording.* \[waveform\]"
    ):
        list(unchecked("encode_blocks", model, STEREO))
    # A click in silence, brought to a level, is beyond full scale, and none of the user's doing.
    click = np.zeros(400, np.float32)
    click[200] = 0.5
    assert len(list(unchecked("encode_blocks", model, kind([click, click[:0]])))) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model: unchecked("classify", model, np.zeros((5, 9), np.float32)),
            r"are not \[F, 5\] or \[B, F, 5\]. They look like \[Z, F\]: pass latents.T",
        ),
        (
            lambda model: unchecked("classify", model, np.zeros((9, 5), complex)),
            "latents of type complex128 must hold floats",
        ),
        (
            lambda model: unchecked("windows", model, np.zeros((2, 9, 5), np.float32)),
            r"those of 2 recordings. Pass them one by one, \[F, 5\]",
        ),
        (
            lambda model: unchecked("save_latents", model, "a.npz", np.zeros((2, 9, 5))),
            "those of 2 recordings",
        ),
        (
            lambda model: unchecked(
                "code_logits", model, np.zeros(30), np.zeros((3, 5)), domain="Piano"
            ),
            "codes are float64, not integers",
        ),
        (
            lambda model: model.code_logits(
                np.arange(30) - 1, np.zeros((3, 5), np.float32), domain="Piano"
            ),
            r"codes lie in -1\.\.28, not in 0\.\.255",
        ),
        (
            lambda model: unchecked(
                "morph", model, np.zeros((1, 5)), domains=("Flute", "Piano"), weights=["a"]
            ),
            "weights of type <U1 must hold floats",
        ),
        (
            lambda model: unchecked("translate_many", model, good_waveform()),
            r"shape \(100,\) is one recording where several belong. Pass \[waveform\]",
        ),
        (
            lambda model: unchecked("encode", model, 1000, good_waveform()),
            "sample_rate_hz must be one number.* The waveform is passed first",
        ),
    ],
)
def test_latents_codes_weights_and_rates_of_another_kind_are_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_file_translated_is_the_translation_of_its_sound(rng, model, tmp_path):
    source = noise(rng, 1700, 2)
    soundfile.write(tmp_path / "in.wav", source, 1000, subtype="FLOAT")
    output = model.translate_file(
        tmp_path / "in.wav", "Flute", tmp_path / "new" / "out.flac", seed=3
    )
    assert output == tmp_path / "new" / "out.flac"
    written, rate_hz = soundfile.read(output)
    expected = model.translate(source.mean(axis=1), 1000, domain="Flute", seed=3)
    assert rate_hz == 1000
    np.testing.assert_allclose(written, expected, rtol=0, atol=0.5001 / 32768)


def test_a_file_that_cannot_be_translated_leaves_no_output(model, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for name, domain, output, message in [
        ("text.wav", "Flute", "out.wav", "text.wav"),
        ("none.wav", "Flute", "out.wav", "none.wav"),
        ("text.wav", "Oboe", "out.wav", "There are: Cello, Flute, Piano"),
        ("text.wav", "Flute", "out.xyz", "out.xyz: sound is written as"),
    ]:
        with pytest.raises((ValueError, OSError), match=message):
            model.translate_file(tmp_path / name, domain, tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["text.wav"]


def test_a_translator_shows_its_domains_rate_and_sizes(model):
    assert repr(model) == (
        "<Translator (tiny) to Cello, Flute, Piano at 1000 Hz: encoder of 2 x 3 layers of 6, "
        "latents of 5 at 100 Hz, decoders of 2 x 4 layers of 7>"
    )


def test_the_public_names_are_what_dir_and_help_show():
    public = [name for name in dir(umt_jax) if not name.startswith("_")]
    assert public == sorted(umt_jax.__all__) == ["Config", "Translator", "load"]
    page = pydoc.render_doc(umt_jax, renderer=pydoc.plaintext)
    for words in ("load(", "class Translator", "class Config", "translate_file("):
        assert words in page
    assert (Path(umt_jax.__file__).parent / "py.typed").exists()

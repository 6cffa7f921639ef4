import dataclasses
import pydoc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_translator import MODEL, collect, noise
from small_translator import config as config  # Fixtures, this one and the next two.
from small_translator import latents as latents
from small_translator import model as model

import umt_jax
from umt_jax import translator
from umt_jax.audio import mu_law
from umt_jax.config import SamplingConfig
from umt_jax.model import networks


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


def test_code_logits_are_those_of_the_decoder(rng, model, config, tiny_parameters):
    codes = rng.integers(256, size=(2, 60)).astype(np.uint8)
    latents = rng.normal(size=(2, 6, MODEL.latent_channels)).astype(np.float32)
    decoder = networks.select(tiny_parameters.decoders, 1)
    expected = networks.Networks(config).decode_one(decoder, codes, latents)
    logits = model.code_logits(codes, latents, domain="Flute")
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert logits.shape == (2, 60, 256)


def test_a_model_trained_in_bfloat16_is_played_in_float32(rng, model, config, tiny_parameters):
    training = dataclasses.replace(config.training, compute_dtype="bfloat16")
    rounded = dataclasses.replace(config, training=training)
    codes = rng.integers(256, size=(1, 60)).astype(np.uint8)
    latents = rng.normal(size=(1, 6, MODEL.latent_channels)).astype(np.float32)
    both = [
        played.code_logits(codes, latents, domain="Flute")
        for played in (model, translator.Translator(rounded, tiny_parameters))
    ]
    np.testing.assert_array_equal(*both)


def test_the_classifier_scores_every_domain_whatever_decoders_are_kept(
    model, config, tiny_parameters, latents
):
    lone = translator.Translator(config, tiny_parameters, domains=["Piano"])
    expected = networks.Networks(config).classify(tiny_parameters.classifier, latents)
    for translator_ in (model, lone):
        assert translator_.classify(latents).shape == (3,)
        np.testing.assert_allclose(translator_.classify(latents), expected, rtol=1e-5)
    assert lone.classify(np.stack([latents] * 2)).shape == (2, 3)


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

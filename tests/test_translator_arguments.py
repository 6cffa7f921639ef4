"""What a translator is given and refuses: each in a sentence that says what to pass."""

import dataclasses

import numpy as np
import pytest
from small_translator import config as config  # Fixtures, this one and the next.
from small_translator import model as model

from umt_jax import translator


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

"""What the faster ways of generating change, measured on a trained model and a recording.

Some of them are approximations: `--weights=bfloat16` and `--weights=int8`, whose effect is a
distance between distributions of the next code, and `--parallel_segments`, whose effect is heard at
the seams, if anywhere.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.typing import DTypeLike

import umt_jax
from umt_jax import path_flags, text_tables
from umt_jax.audio import mel_spectrogram, mu_law, sound_files
from umt_jax.checkpoints import checkpoint
from umt_jax.config import ModelConfig
from umt_jax.generation import generate, pieces, segments
from umt_jax.model import layers, networks
from umt_jax.shapes import Array, CodeLogits, Codes, Float, Latents, Parameters, Waveform

ROUNDED = ("bfloat16", "int8")
"""Types of weights that are compared with float32."""

_AT_A_SEAM = 2
"""Frames of the spectrogram, on either side of a seam, in which it would be heard."""


def define_flags() -> None:
    """Declares the flags of this stage."""
    path_flags.define("checkpoint", None, "For approximations: folder of a training run.")
    path_flags.define("input", None, "For approximations: a sound file.")
    flags.DEFINE_float("seconds", 24.0, "For approximations: how much of it to use.", 1.0)
    flags.DEFINE_integer(
        "parallel_segments", 8, "For approximations: segments to cut the recording into.", 2
    )


def report() -> str:
    """Measures as the flags say, and returns the section of this stage as Markdown.

    Raises:
        ValueError: A flag is missing, or the recording is too short to be cut.
    """
    args = flags.FLAGS
    for name in ("checkpoint", "input"):
        if not args[name].value:
            raise ValueError(
                f"--stage=approximations needs --{name}: a trained model and a recording that it "
                "has not heard."
            )
    translator = umt_jax.load(args.checkpoint)
    rate_hz = translator.sample_rate_hz
    waveform = sound_files.read(Path(args.input), sample_rate_hz=rate_hz)[
        : round(args.seconds * rate_hz)
    ]
    waveform = translator.level(waveform)
    lines = [
        f"Of {Path(args.input).name}, {len(waveform) / rate_hz:.1f} s, by {args.checkpoint}.",
        "",
        "Next-code distributions of weights, and of what they are multiplied with, in fewer bits "
        "and in float32, given the recording's own codes: total variation over its samples, and "
        "how often the likeliest code is another.",
        "",
        _rounding_table(rounding_distances(args.checkpoint, translator, waveform)),
        "",
        f"Seams of {args.parallel_segments} parallel segments: where the change of the spectrum at "
        "a seam ranks among all places of the translation made in one piece (50% is a place like "
        "any other), and the distance of the second after it to the translation in one piece, "
        "beside that of two such translations with different seeds.",
        "",
        _seam_table(
            {
                domain: measure_seams(translator, waveform, domain, args.parallel_segments)
                for domain in translator.domains
            }
        ),
    ]
    return "\n".join(["## Approximations", "", *lines])


def _rounding_table(distances: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> str:
    heads = ("weights", "domain", "mean", "99th percentile", "largest", "other likeliest code")
    rows = [
        (
            weights,
            domain,
            f"{distance.mean():.5f}",
            f"{np.percentile(distance, 99):.5f}",
            f"{distance.max():.5f}",
            f"{is_other.mean():.2%}",
        )
        for (weights, domain), (distance, is_other) in distances.items()
    ]
    return text_tables.markdown(heads, rows)


def _seam_table(seams: Mapping[str, tuple[np.ndarray, float, float]]) -> str:
    heads = (
        *("domain", "rank, median", "rank, highest"),
        *("log-mel distance, dB", "of two seeds, dB"),
    )
    rows = [
        (domain, f"{np.median(ranks):.0%}", f"{ranks.max():.0%}", f"{apart:.1f}", f"{natural:.1f}")
        for domain, (ranks, apart, natural) in seams.items()
    ]
    return text_tables.markdown(heads, rows)


def total_variation(
    logits: Float[Array, "*B Q"], other_logits: Float[Array, "*B Q"]
) -> Float[np.ndarray, "*B"]:
    """Returns half the L1 distance of two distributions over codes, in [0, 1]."""
    difference = jax.nn.softmax(logits) - jax.nn.softmax(other_logits)
    return 0.5 * np.abs(np.asarray(difference)).sum(axis=-1)


def seam_ranks(
    whole: Waveform, joined: Waveform, seams: Sequence[int], sample_rate_hz: int
) -> Float[np.ndarray, "S"]:
    """Returns how abrupt a sound is at its seams, as ranks among the places of a seamless one.

    Args:
        whole: The seamless sound, [T].
        joined: The sound with seams, [T].
        seams: Samples at which they are.
        sample_rate_hz: Rate of both.

    Returns:
        For each seam the fraction of places in `whole` at which the spectrum changes less, [S].
    """

    def changes(waveform):
        spectrum = mel_spectrogram.log_mel(waveform, sample_rate_hz)
        steps = np.abs(np.diff(spectrum, axis=1)).mean(axis=0)
        near = np.lib.stride_tricks.sliding_window_view(
            np.pad(steps, _AT_A_SEAM, mode="edge"), 2 * _AT_A_SEAM + 1
        )
        return near.max(axis=1)

    everywhere, with_seams = changes(whole), changes(joined)
    columns = [mel_spectrogram.column_of(seam, sample_rate_hz) for seam in seams]
    at_seams = with_seams[np.minimum(columns, len(with_seams) - 1)]
    return (everywhere[None] < at_seams[:, None]).mean(axis=1)


def rounding_distances(
    workdir: str, translator: umt_jax.Translator, waveform: Waveform
) -> dict[tuple[str, str], tuple[Float[np.ndarray, "T"], np.ndarray]]:
    """Returns the total variation and whether the likeliest code is another, by type and domain."""
    config = translator.config
    nets, decoders = networks.Networks(config), checkpoint.restore_parameters(workdir).decoders
    waveform = waveform[: len(waveform) // config.model.pool_samples * config.model.pool_samples]
    latents = translator.encode(waveform, translator.sample_rate_hz)
    codes = mu_law.encode(waveform, config.model.mu_law)
    distances = {}
    for index, domain in enumerate(config.domains):
        decoder = networks.select(decoders, index)
        exact = np.asarray(networks.decode_one(nets, decoder, codes, latents))
        for weights in ROUNDED:
            rounded = np.asarray(rounded_logits(decoder, codes, latents, config.model, weights))
            is_other = exact.argmax(axis=-1) != rounded.argmax(axis=-1)
            distances[weights, domain] = total_variation(exact, rounded), is_other
    return distances


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def rounded_logits(
    decoder: Parameters,
    codes: Codes,
    latents: Latents,
    config: ModelConfig,
    dtype: DTypeLike,
) -> CodeLogits:
    """Returns the logits of each code given those before it, [T, Q], with rounded products.

    As `native` computes them with weights of that type: kernels are rounded, and what they are
    multiplied with. Where the processor does not multiply bfloat16 it rounds to that kernels only.
    """
    kernels = generate.round_kernels(decoder, dtype)
    conditioning = jax.tree.map(
        lambda of_frames: jnp.repeat(of_frames, config.pool_samples, axis=0),
        generate.condition(decoder, latents, config),
    )

    rounded = functools.partial(generate.rounded_to, dtype=dtype, axis=-1)

    scaled = layers.scale(codes)[:, None]
    lags = range(config.decoder_taps, 0, -1)
    taps = jnp.concatenate([layers.shift(scaled, lag) for lag in lags], axis=-1)
    x = layers.affine(taps, kernels["first"]["kernel"][:, 0], kernels["first"]["bias"])
    skips = layers.affine(rounded(x), **kernels["skip"])
    all_layers = zip(config.decoder_dilations, generate.layers_of(kernels, config), strict=True)
    for index, (dilation, layer) in enumerate(all_layers):
        h = sum(
            layers.shift(rounded(x), lag * dilation) @ kernel
            for lag, kernel in enumerate(layer["dilated"]["kernel"][::-1])
        )
        gated = rounded(layers.gate(h + conditioning.gates[:, index]))
        skips += layers.affine(gated, **layer["skip"])
        x += layers.affine(gated, **layer["residual"])
    head = rounded(jax.nn.relu(skips)) @ kernels["head"]["kernel"]
    head = jax.nn.relu(head + conditioning.head)
    if jnp.dtype(dtype) != jnp.int8:  # Which leaves the last product in float32.
        head = rounded(head)
    return layers.affine(head, **kernels["logits"])


def measure_seams(
    translator: umt_jax.Translator, waveform: Waveform, domain: str, num_segments: int
) -> tuple[Float[np.ndarray, "S"], float, float]:
    """Returns the seams' ranks, and the log-mel distances after them: to one piece, of two seeds.

    Raises:
        ValueError: The recording is too short to be cut.
    """
    rate_hz = translator.sample_rate_hz
    seams = seam_samples(translator.config.model, len(waveform), num_segments)
    if not seams:
        raise ValueError(
            f"A recording of {len(waveform) / rate_hz:.1f} s is too short for segments. Give a "
            "longer --input or more --seconds."
        )

    def translate(seed, num_segments=1):
        (by_domain,) = translator.translate_many(
            [waveform],
            domains=[domain],
            seed=seed,
            num_streams=num_segments,
            parallel_segments=num_segments,
        )
        return by_domain[domain]

    whole, other, joined = translate(0), translate(1), translate(0, num_segments)

    def distance(sound):
        apart = [
            np.abs(
                mel_spectrogram.log_mel(sound[seam : seam + rate_hz], rate_hz)
                - mel_spectrogram.log_mel(whole[seam : seam + rate_hz], rate_hz)
            ).mean()
            for seam in seams
        ]
        return float(np.mean(apart))

    return seam_ranks(whole, joined, seams, rate_hz), distance(joined), distance(other)


def seam_samples(config: ModelConfig, num_samples: int, num_segments: int) -> list[int]:
    """Returns the samples at which a recording's parallel segments meet."""
    shortest = max(pieces.window_frames(config), segments.warm_up_frames(config))
    bounds = segments.segment_bounds(
        -(-num_samples // config.pool_samples), num_segments=num_segments, shortest=shortest
    )
    return [frame * config.pool_samples for frame in bounds[1:-1]]

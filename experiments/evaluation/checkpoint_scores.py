"""What a checkpoint scores without generating: its losses, and how confused domains are."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.evaluation.pieces import Music
from umt_jax.audio import mu_law
from umt_jax.config import Config
from umt_jax.data import dataset
from umt_jax.data.dataset import Batch
from umt_jax.model import classifier, layers
from umt_jax.model.networks import NetworkParameters, Networks
from umt_jax.shapes import UInt8, Waveform
from umt_jax.training import losses, train_step

_BATCH = 8  # Segments of each domain at once.
_MOST_SEGMENTS = 64  # Of each domain and split.
_PROBE_STEPS, _PROBE_BATCH, _PROBE_LEARNING_RATE = 1000, 32, 1e-3


@dataclasses.dataclass(frozen=True)
class SplitScores:
    """What a checkpoint scores on one set of segments.

    Attributes:
        reconstruction: By domain, nats per sample, each given the true samples before it.
        classifier_accuracy: Of the classifier that was trained along with the encoder; None where
            none was.
        segments: How many there are of each domain.
    """

    reconstruction: dict[str, float]
    classifier_accuracy: float | None
    segments: int

    @property
    def bits(self) -> dict[str, float]:
        """Reconstruction in bits per sample."""
        return {domain: nats / math.log(2) for domain, nats in self.reconstruction.items()}


def segments_of(
    music: Mapping[str, Sequence[Waveform]], config: Config, most: int
) -> UInt8[np.ndarray, "K N T"]:
    """Cuts sounds into segments as long as those of training, as many of each domain, as codes.

    What is left at a sound's end is left out.

    Args:
        music: Sounds at the model's rate, [T] each, of every trained domain.
        config: What the model was trained with.
        most: At most so many of each domain, spread over all that there are.

    Raises:
        ValueError: A domain has no sound that is long enough.
    """
    length = config.training.segment_samples
    per_domain = []
    for domain in config.trained_domains:
        codes = [mu_law.encode(sound, config.model.mu_law) for sound in music[domain]]
        segments = [
            sound[first : first + length]
            for sound in codes
            for first in range(0, len(sound) - length + 1, length)
        ]
        if not segments:
            raise ValueError(f"{domain} has no sound of {length} samples, one training segment.")
        per_domain.append(np.stack(segments))
    shortest = min(map(len, per_domain))
    chosen = np.rint(np.linspace(0, shortest - 1, min(shortest, most))).astype(int)
    return np.stack([segments[chosen] for segments in per_domain])


def by_split(
    parameters: NetworkParameters,
    config: Config,
    *,
    data_dir: str | None,
    music: Music,
    learned: Mapping[str, Sequence[Waveform]],
    seed: int,
) -> tuple[dict[str, SplitScores], dict[str, float]]:
    """Returns losses and accuracy by split, and what fresh probes find in the latents.

    Args:
        parameters: What is scored.
        config: What they were trained with.
        data_dir: Prepared recordings, all of whose splits are scored; may be None.
        music: The test; scored as "pairs" if it is paired and of all trained domains.
        learned: Music of each domain from which probes learn that are tested on pairs.
        seed: Decides the probes' initial parameters and the order of their batches.
    """
    segments = {}
    if data_dir:
        prepared = dataset.Dataset(data_dir, config.trained_domains)
        prepared.check(config)
        for split in ("train", "validation", "test"):
            segments[split] = split_segments(prepared, config, split, _MOST_SEGMENTS)
    is_whole = set(config.trained_domains) <= set(music.domains)
    if music.paired and is_whole:
        recordings = {domain: list(of.values()) for domain, of in music.recordings.items()}
        segments["pairs"] = segments_of(recordings, config, _MOST_SEGMENTS)
    splits = {split: score(parameters, config, codes) for split, codes in segments.items()}
    probes: dict[str, float] = {}
    for test in ("test", "pairs"):
        if test in segments:
            train = segments.get("train")
            # The same notes in all domains, as in the pairs: nothing but the instrument to go by.
            if test == "pairs" and is_whole:
                train = segments_of(learned, config, _MOST_SEGMENTS)
            assert train is not None
            probes[test] = probe_accuracy(
                parameters, config, train=train, test=segments[test], seed=seed
            )
    return splits, probes


def split_segments(
    prepared: dataset.Dataset, config: Config, split: str, most: int
) -> UInt8[np.ndarray, "K N T"]:
    """Returns segments of a split of prepared data, at most `most` of each domain."""
    batches = prepared.eval_batches(
        dataclasses.replace(config.training, domain_batch=1, microbatches=1),
        split=split,
        num_batches=min(most, prepared.num_segments(split)),
    )
    return np.concatenate([batch.codes for batch in batches], axis=1)


def score(
    parameters: NetworkParameters, config: Config, codes: UInt8[np.ndarray, "K N T"]
) -> SplitScores:
    """Returns loss and accuracy on segments of the trained domains."""
    nets = Networks(config)
    step = jax.jit(lambda parameters, batch: train_step.eval_step(parameters, batch, networks=nets))
    parts = [codes[:, i : i + _BATCH] for i in range(0, codes.shape[1], _BATCH)]
    metrics = [jax.device_get(step(parameters, Batch(part, part))) for part in parts]
    weights = np.array([part.shape[1] for part in parts]) / codes.shape[1]

    def mean(name):
        return np.tensordot(weights, np.stack([of_part[name] for of_part in metrics]), 1)

    return SplitScores(
        reconstruction=dict(
            zip(config.trained_domains, mean("reconstruction").tolist(), strict=True)
        ),
        classifier_accuracy=(
            float(mean("classifier_accuracy")) if "classifier_accuracy" in metrics[0] else None
        ),
        segments=codes.shape[1],
    )


def probe_accuracy(
    parameters: NetworkParameters,
    config: Config,
    *,
    train: UInt8[np.ndarray, "K N T"],
    test: UInt8[np.ndarray, "K M T"],
    seed: int = 0,
) -> float:
    """Returns how often a fresh classifier, trained on the frozen encoder's latents, is right.

    It has the architecture of the model's own, which may have been fooled where a fresh one is not.

    Args:
        parameters: The encoder's are used.
        config: What they were trained with.
        train: Segments to learn from.
        test: Segments of other music.
        seed: Decides the probe's initial parameters and the order of its batches.
    """
    nets = Networks(config)
    encode = jax.jit(nets.encode)

    def latents_of(codes):
        parts = [codes[:, i : i + _BATCH] for i in range(0, codes.shape[1], _BATCH)]
        latents = jnp.concatenate([encode(parameters.encoder, part) for part in parts], axis=1)
        labels = jnp.broadcast_to(jnp.arange(len(codes))[:, None], codes.shape[:2])
        return latents.reshape(-1, *latents.shape[2:]), labels.reshape(-1)

    latents, labels = latents_of(train)
    test_latents, test_labels = latents_of(test)
    mean = latents.mean(axis=(0, 1), keepdims=True)
    spread = latents.std(axis=(0, 1), keepdims=True) + 1e-6
    probe = classifier.Classifier(config.model, len(config.trained_domains))
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    optimizer = optax.adam(_PROBE_LEARNING_RATE)

    def logits(probe_parameters, latents):
        return probe.apply({"params": probe_parameters}, (latents - mean) / spread)

    def loss(probe_parameters, chosen):
        return losses.classification(logits(probe_parameters, latents[chosen]), labels[chosen])

    def update(carry, key):
        probe_parameters, state = carry
        chosen = jax.random.choice(key, len(labels), (min(_PROBE_BATCH, len(labels)),))
        updates, state = optimizer.update(jax.grad(loss)(probe_parameters, chosen), state)
        return (optax.apply_updates(probe_parameters, updates), state), None

    one_latent = jax.ShapeDtypeStruct((1, *latents.shape[1:]), latents.dtype)
    fresh = layers.init(probe, init_key, one_latent)
    keys = jax.random.split(batch_key, _PROBE_STEPS)
    (trained, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, keys))(
        (fresh, optimizer.init(fresh))
    )
    return float(losses.accuracy(logits(trained, test_latents), test_labels))

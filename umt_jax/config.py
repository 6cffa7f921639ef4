"""Hyper-parameters, checked when built, to and from JSON.

The defaults are the paper's; each recipe in `experiments/configs/` says where it differs.
"""

import dataclasses
import json
import math
import reprlib
import sys
import unicodedata
from collections.abc import Collection
from typing import Any

DATASET_NAME = "segments"
"""Name of the TFDS dataset that `data_prep` writes and `umt_jax.data.dataset` reads."""

MU_LAW_CONVENTIONS = ("rounded", "truncated")
"""Mu-law conventions: that of this project, and that of the published code."""


ENCODER_ACTIVATIONS = ("relu", "tanh")
"""Activations between the encoder's convolutions: that of the paper, and an alternative."""

ENCODER_KINDS = ("learned", "cqt")
"""What makes latents: the paper's network, or a constant-Q transform (`umt_jax.model.cqt`)."""


def domain_name(name: str) -> str:
    """Returns the one form of a domain's name, since letters with accents have two in Unicode."""
    return unicodedata.normalize("NFC", name)


# More than any model has; what a checkpoint from elsewhere says is compared with these before
# anything is made of it. The last dilation of 30 layers is nine hours at 16 kHz.
_MOST = {
    "rate_hz": 10_000_000,
    "blocks": 1000,
    "layers": 30,
    "channels": 2**20,
    "samples": 2**30,
    "taps": 1024,
    "octave": 1200,
}
MOST_DOMAINS = 10_000
"""Domains that a model may have, each with a decoder."""

_MOST_WAVELETS = 2**27
"""Samples of all wavelets of a constant-Q transform, each as long as the longest."""

MOST_GUIDE_STRENGTH = 10.0
"""Of `SamplingConfig.guide_strength`: no code but the guide's own is left to choose."""

_MOST_CHARACTERS = 4096
_MOST_SEGMENTS = 2**20
_MOST_CONTEXT_FRAMES = 2**14


class NewerVersionError(ValueError):
    """A configuration has all fields of this version, and more."""


def check_mu_law(convention: str) -> None:
    """Raises `ValueError` if there is no such convention."""
    if convention not in MU_LAW_CONVENTIONS:
        raise ValueError(
            f"mu_law={convention} is not known. Use {' or '.join(MU_LAW_CONVENTIONS)}."
        )


def check_rms(rms_dbfs: float | None) -> None:
    """Raises `ValueError` for a level that no recording has."""
    if rms_dbfs is not None and not -60 <= rms_dbfs <= 0:
        raise ValueError(
            f"rms_dbfs={rms_dbfs:g} must lie between -60 and 0; music is often near -20."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the three networks (§3.1).

    Attributes:
        sample_rate_hz: Rate of the waveforms the model reads and writes.
        mu_law: How waveforms become codes, `rounded` or `truncated` (see
            `umt_jax.audio.mu_law`), and codes waveforms. With `truncated`, as in the published
            code, generation starts from code 128 instead of from nothing.
        rms_dbfs: Root mean square, in dB of full scale, that recordings are brought to before they
            are encoded, as those of the training data were (see `umt_jax.audio.level`); None
            leaves them as they are.
        encoder_kind: What makes latents: `learned`, the paper's network, or `cqt`, magnitudes of a
            constant-Q transform with one bin for each of `latent_channels`, of which nothing is
            trained.
        cqt_lowest_hz: With `cqt`, centre of its lowest bin; the default is key 36, the cello's
            lowest string.
        cqt_bins_per_octave: With `cqt`, its bins in an octave.
        encoder_blocks: Repetitions of the encoder's series of dilations 1, 2, 4, ...
        encoder_layers: Number of dilations in each of `encoder_blocks`.
        encoder_channels: Width C of the encoder's residual stream.
        encoder_preactivation: One more ReLU before each dilated convolution, as in NSynth.
        encoder_activation: Between the two convolutions of each of the encoder's layers, `relu`, or
            `tanh`, which the published code offers.
        latent_channels: Width Z of a latent frame.
        pool_samples: Audio samples averaged into one latent frame.
        decoder_blocks: Repetitions of the decoder's series of dilations 1, 2, 4, ...
        decoder_layers: Number of dilations in each of `decoder_blocks`.
        decoder_taps: Samples that each of the decoder's convolutions along time reads, the newest
            and those one dilation before each other. With more than two the engine scan alone
            generates.
        residual_channels: Width C of the decoder's residual stream.
        skip_channels: Width S of the decoder's skip sum and head.
        guide_channels: Width of each domain's guide, which predicts a spectrogram from latents for
            its decoder to follow (see `umt_jax.model.guide`); 0 for none.
        classifier_channels: Width of the classifier's hidden layers.
        classifier_layers: Number of the classifier's hidden layers.
    """

    sample_rate_hz: int = 16_000
    mu_law: str = "rounded"
    rms_dbfs: float | None = None
    encoder_kind: str = "learned"
    cqt_lowest_hz: float = 65.40639
    cqt_bins_per_octave: int = 24
    encoder_blocks: int = 3
    encoder_layers: int = 10
    encoder_channels: int = 128
    encoder_preactivation: bool = False
    encoder_activation: str = "relu"
    latent_channels: int = 64
    pool_samples: int = 800
    decoder_blocks: int = 4
    decoder_layers: int = 10
    decoder_taps: int = 2
    residual_channels: int = 128
    skip_channels: int = 128
    guide_channels: int = 0
    classifier_channels: int = 100
    classifier_layers: int = 3

    def __post_init__(self) -> None:
        """Checks that every size is a positive number, and the conventions known ones."""
        check_mu_law(self.mu_law)
        if self.encoder_activation not in ENCODER_ACTIVATIONS:
            raise ValueError(
                f"encoder_activation={self.encoder_activation} is not known. Use "
                f"{' or '.join(ENCODER_ACTIVATIONS)}."
            )
        if self.encoder_kind not in ENCODER_KINDS:
            raise ValueError(
                f"encoder_kind={self.encoder_kind} is not known. Use {' or '.join(ENCODER_KINDS)}."
            )
        check_rms(self.rms_dbfs)
        for name, value in dataclasses.asdict(self).items():
            most = next((most for end, most in _MOST.items() if name.endswith(f"_{end}")), None)
            least = 0 if name == "guide_channels" else 1
            if most is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}.")
            if most is not None and value > most:
                raise ValueError(f"{name}={reprlib.repr(value)} must be at most {most}.")
        if self.decoder_taps < 2:
            raise ValueError(
                f"decoder_taps={self.decoder_taps} must be at least 2, so that there is a past."
            )
        if not 0 < self.cqt_lowest_hz < math.inf:
            raise ValueError(f"cqt_lowest_hz={self.cqt_lowest_hz} must be above 0, and finite.")
        if self.encoder_kind == "cqt":
            self._check_cqt()

    def _check_cqt(self) -> None:
        """Raises `ValueError` unless every bin's band lies below half the sample rate."""
        most_bins = self.cqt_most_bins
        if most_bins < 1:
            raise ValueError(
                f"cqt_lowest_hz={self.cqt_lowest_hz:g} leaves no bin: it must be at most "
                f"{self._cqt_most_hz:.6g} with sample_rate_hz={self.sample_rate_hz} and "
                f"cqt_bins_per_octave={self.cqt_bins_per_octave}."
            )
        if self.latent_channels > most_bins:
            raise ValueError(
                f"latent_channels={self.latent_channels} bins from "
                f"cqt_lowest_hz={self.cqt_lowest_hz:g} reach beyond half of "
                f"sample_rate_hz={self.sample_rate_hz}. With "
                f"cqt_bins_per_octave={self.cqt_bins_per_octave} there is room for {most_bins}."
            )
        if self.cqt_longest_samples * self.latent_channels > _MOST_WAVELETS:
            raise ValueError(
                f"cqt_lowest_hz={self.cqt_lowest_hz:g} gives wavelets of "
                f"{self.cqt_longest_samples:.3g} samples, too long for "
                f"latent_channels={self.latent_channels} of them."
            )

    @property
    def encoder_dilations(self) -> tuple[int, ...]:
        """Dilation of each of the encoder's layers, in samples: 1, 2, 4, ... in each block."""
        return _dilations(self.encoder_blocks, self.encoder_layers)

    @property
    def decoder_dilations(self) -> tuple[int, ...]:
        """Dilation of each of the decoder's layers, in samples: 1, 2, 4, ... in each block."""
        return _dilations(self.decoder_blocks, self.decoder_layers)

    @property
    def encoder_reach_samples(self) -> int:
        """Samples on either side of itself that a feature of the encoder sees."""
        if self.encoder_kind == "cqt":
            return math.ceil(self.cqt_longest_samples / 2)
        return sum(self.encoder_dilations) + 1

    @property
    def cqt_quality(self) -> float:
        """Q of a constant-Q transform: each bin's frequency divided by its bandwidth."""
        ratio = 2 ** (2 / self.cqt_bins_per_octave)
        return (ratio + 1) / (ratio - 1)

    @property
    def cqt_most_bins(self) -> int:
        """How many bins from the lowest have their whole band below half the sample rate."""
        octaves = math.log2(self._cqt_most_hz / self.cqt_lowest_hz)
        return max(0, 1 + math.floor(octaves * self.cqt_bins_per_octave))

    @property
    def _cqt_most_hz(self) -> float:
        return self.sample_rate_hz / 2 / (1 + 1 / self.cqt_quality)

    @property
    def cqt_longest_samples(self) -> float:
        """Length of a constant-Q transform's longest wavelet, that of its lowest bin."""
        return self.cqt_quality * self.sample_rate_hz / self.cqt_lowest_hz

    @property
    def guide_hop_samples(self) -> int:
        """Samples from one frame of a guide's spectrogram to the next: a latent frame's, or fewer.

        They are the most, up to 12.5 ms, that divide a latent frame evenly.
        """
        most = max(1, self.sample_rate_hz // 80)
        return max(hop for hop in range(1, most + 1) if self.pool_samples % hop == 0)

    @property
    def guide_fft_samples(self) -> int:
        """Length of the window of a guide's spectrogram: the power of two nearest to 64 ms."""
        return max(2, 2 ** round(math.log2(0.064 * self.sample_rate_hz)))

    @property
    def decoder_receptive_field(self) -> int:
        """Past inputs that one output of the decoder sees, itself included."""
        # So many taps of each layer, and of the first convolution.
        return (self.decoder_taps - 1) * (sum(self.decoder_dilations) + 1) + 1


def _dilations(blocks, layers):
    return tuple(2**layer for _ in range(blocks) for layer in range(layers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training step (§3.3).

    Attributes:
        segment_samples: Audio samples in one training segment; a multiple of `pool_samples`.
        domain_batch: Segments of each domain in one step.
        learning_rate: Adam's step size for encoder and decoders at step 0.
        learning_rate_decay: Factor on `learning_rate` every `decay_steps` steps.
        classifier_learning_rate: Adam's step size for the classifier at step 0.
        classifier_learning_rate_decay: Factor on `classifier_learning_rate` every
            `decay_steps` steps.
        classifier_updates: Updates of the classifier in one step: the first with the step's own
            latents, the others with those of recent steps.
        classifier_memory_steps: How many recent steps `classifier_updates` draws on.
        classifier_standardised: Whether the classifier sees latents of mean 0 and variance 1, by
            running statistics.
        classifier_context_frames: Frames on either side that each layer of a second head of the
            classifier sees; 0 for the paper's head alone, which sees one frame at a time.
        decay_steps: Steps from one decay to the next.
        gradient_clip: Bound on the absolute value of each gradient of encoder and decoders; 0
            for none.
        confusion_weight: Lambda, the weight of the confusion loss; 0 trains plain autoencoders.
        confusion_ramp_steps: Steps in which `confusion_weight` grows from 0 to its value; 0 has
            all of it at once.
        latent_noise: Standard deviation of the noise that decoders and classifier find on the
            latents in training.
        latent_range_weight: Weight of the mean square by which latents leave [-1, 1].
        init_from: Folder of a run, or of imported weights, that this one starts from: its sizes,
            encoder, classifier and decoders. Optimizers start afresh. Empty for fresh weights.
        freeze_encoder: Trains decoders alone: encoder and classifier stay as they are, which is a
            way to add a domain.
        ema_decay: How much of the running average of all parameters stays at each step (exponential
            moving average); 0 for none. Where there is one, evaluation, checkpoints and inference
            take it instead of the newest parameters.
        past_detune_semitones: How far the past that decoders read in training may be out of tune
            (see `umt_jax.training.detuning`), so that they learn the pitch from the latents; 4
            is a good value, 0 leaves the past as it is.
        past_detune_share: Share of the segments whose past is detuned; 1 is a good value. The
            default is that of older runs, which could not be resumed with another.
        past_detune_samples: About how many samples one detuning lasts before the next; 0.2 s is a
            good value.
        past_noise: Most of the noise on the past that decoders read in training, as a share of
            full scale in mu-law; each segment has a strength of its own, from a thirtieth of it up.
            0.03 is a good value, 0 for none.
        compute_dtype: Type of activations in training, float32 or bfloat16; parameters, logits and
            losses stay float32.
        remat: What the backward pass computes once more instead of keeping it. `none`: nothing.
            `layer`: all but the inputs of layers. `block`: all but the inputs of blocks of layers,
            and of the layers of one block at a time.
        microbatches: Equal parts of the batch whose gradients are computed one after the other, in
            the memory of one, and averaged.
        seed: Decides initial parameters, order of segments, crops and augmented variants.
    """

    segment_samples: int = 16_000
    domain_batch: int = 16
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.98
    classifier_learning_rate: float = 1e-3
    classifier_learning_rate_decay: float = 0.98
    classifier_updates: int = 1
    classifier_memory_steps: int = 64
    classifier_standardised: bool = False
    classifier_context_frames: int = 0
    decay_steps: int = 625
    gradient_clip: float = 0.0
    confusion_weight: float = 0.01
    confusion_ramp_steps: int = 0
    latent_noise: float = 0.0
    latent_range_weight: float = 0.0
    init_from: str = ""
    freeze_encoder: bool = False
    ema_decay: float = 0.0
    past_detune_semitones: float = 0.0
    past_detune_share: float = 0.6
    past_detune_samples: int = 3_000
    past_noise: float = 0.0
    compute_dtype: str = "float32"
    remat: str = "none"
    microbatches: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks each value's range."""
        for name in (
            "segment_samples",
            "domain_batch",
            "decay_steps",
            "microbatches",
            "classifier_updates",
            "classifier_memory_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        for name, most in (
            ("domain_batch", _MOST_SEGMENTS),
            ("classifier_context_frames", _MOST_CONTEXT_FRAMES),
        ):
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name)} must be at most {most}.")
        for name in ("learning_rate", "classifier_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0.")
        for name in ("learning_rate_decay", "classifier_learning_rate_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in (0, 1].")
        for name in (
            "gradient_clip",
            "confusion_weight",
            "confusion_ramp_steps",
            "latent_noise",
            "latent_range_weight",
            "classifier_context_frames",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must be 0 or more, and below 1.")
        self._check_past()
        if self.freeze_encoder and not self.init_from:
            raise ValueError(
                "freeze_encoder=True keeps the encoder as it is, but this run begins with a random "
                "one. Name a trained one with init_from=CHECKPOINT."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} must lie in 0..{2**32 - 1}.")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"compute_dtype={self.compute_dtype} is not known. Use float32 or bfloat16."
            )
        if self.domain_batch % self.microbatches:
            divisors = [n for n in range(1, self.domain_batch + 1) if self.domain_batch % n == 0]
            raise ValueError(
                f"microbatches={self.microbatches} must divide domain_batch="
                f"{self.domain_batch} evenly. Use one of {', '.join(map(str, divisors))}."
            )
        if self.remat not in ("none", "layer", "block"):
            raise ValueError(f"remat={self.remat} is not known. Use none, layer or block.")

    def _check_past(self) -> None:
        if not 0 <= self.past_detune_semitones <= 12:
            raise ValueError(
                f"past_detune_semitones={self.past_detune_semitones} must lie in 0..12."
            )
        for name in ("past_detune_share", "past_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..1.")
        longest = self.segment_samples if self.past_detune_semitones else math.inf
        if not 1 <= self.past_detune_samples <= longest:
            raise ValueError(
                f"past_detune_samples={self.past_detune_samples} must be at least 1 and at most "
                f"segment_samples={self.segment_samples}, so that the detuning of a segment "
                "comes back."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Default settings with which a model's codes are drawn.

    Attributes:
        temperature: Scale of the randomness; 0 takes the likeliest code every time.
        top_p: Codes are drawn from the likeliest ones alone, as few as have so much of the
            probability together; 1 draws from all.
        guide_strength: How closely a decoder follows its guide: 1 / the standard deviation, in
            codes, of a normal distribution around the guide's code by which the decoder's
            probabilities are multiplied. 0 leaves it free, and from 10 on the guide is heard
            alone. Means nothing for models without guides.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    guide_strength: float = 0.0

    def __post_init__(self) -> None:
        """Checks each value's range."""
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be a finite number, 0 or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p} must lie in (0, 1]: codes are drawn from the likeliest ones, "
                "which have so much of the probability together; 1 draws from all."
            )
        if not 0 <= self.guide_strength <= MOST_GUIDE_STRENGTH:
            raise ValueError(
                f"guide_strength={self.guide_strength} must lie in 0..{MOST_GUIDE_STRENGTH:g}: "
                "0 leaves the decoder free, and with the most its guide is heard alone."
            )

    @property
    def is_cut(self) -> bool:
        """Whether `top_p` leaves codes out that the temperature would let through."""
        return self.top_p < 1 and self.temperature > 0

    @property
    def follows_alone(self) -> bool:
        """Whether guides are so strong that decoders need not be asked."""
        return self.guide_strength >= MOST_GUIDE_STRENGTH

    def override(
        self,
        *,
        temperature: float | None,
        top_p: float | None,
        guide_strength: float | None = None,
    ) -> "SamplingConfig":
        """Returns the same, but for what is given."""
        return SamplingConfig(
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p if top_p is None else top_p,
            guide_strength=self.guide_strength if guide_strength is None else guide_strength,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A model, its domains and its training: all that decides a run's numbers.

    Attributes:
        domains: Names, in the order of the decoders.
        train_domains: Those whose decoders are trained; none named means all. The others stay as
            they are, which needs a frozen encoder.
        preset: Name of the preset that the sizes are from, as its flagfile gives it; "" for none.
            A label: no number depends on it.
        model: Sizes of the networks.
        training: What one step computes.
        sampling: How the finished model is to be played; no number of the training depends on it.
    """

    domains: tuple[str, ...]
    train_domains: tuple[str, ...] = ()
    preset: str = ""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Brings names to their one form, and checks what depends on more than one field."""
        for field in ("domains", "train_domains"):
            object.__setattr__(self, field, tuple(map(domain_name, getattr(self, field))))
        if not self.domains:
            raise ValueError("No domains given. Name at least one.")
        for names in (self.domains, self.train_domains):
            if len(names) > MOST_DOMAINS:
                raise ValueError(
                    f"{len(names)} domains are more than a model can have, {MOST_DOMAINS}."
                )
            if len(set(names)) != len(names):
                raise ValueError(f"A domain is named twice in {', '.join(names)}.")
        self._check_train_domains()
        has_confusion = self.training.confusion_weight > 0 and self.trains_encoder
        if len(self.domains) == 1 and has_confusion:
            raise ValueError(
                f"One domain ({self.domains[0]}) leaves the classifier nothing to tell apart, but "
                f"confusion_weight={self.training.confusion_weight}. Add a second domain, or "
                "train a single-domain autoencoder with confusion_weight=0 "
                "(preset=nsynth sets it)."
            )
        segment, pool = self.training.segment_samples, self.model.pool_samples
        if segment % pool:
            lower = segment // pool * pool
            nearest = [str(n) for n in (lower, lower + pool) if n > 0]
            raise ValueError(
                f"segment_samples={segment} must be a multiple of pool_samples={pool}, so "
                "that latent frames cover whole segments. Nearest: "
                f"segment_samples={' or '.join(nearest)}."
            )
        if self.model.encoder_kind == "cqt" and segment < self.model.cqt_longest_samples:
            raise ValueError(
                f"segment_samples={segment} is shorter than the constant-Q transform's longest "
                f"wavelet, {self.model.cqt_longest_samples:.0f} samples. Use longer segments, a "
                f"higher cqt_lowest_hz={self.model.cqt_lowest_hz:g} or fewer "
                f"cqt_bins_per_octave={self.model.cqt_bins_per_octave}."
            )

    def _check_train_domains(self) -> None:
        known = set(self.domains)
        unknown = [domain for domain in self.train_domains if domain not in known]
        if unknown:
            raise ValueError(
                f"train_domains={','.join(unknown)} is not among the model's domains: "
                f"{', '.join(self.domains)}."
            )
        trained = set(self.trained_domains)
        left_out = [domain for domain in self.domains if domain not in trained]
        if left_out and not self.training.freeze_encoder:
            raise ValueError(
                f"train_domains={','.join(self.train_domains)} leaves out {', '.join(left_out)}, "
                "whose decoders would no longer fit an encoder that changes. Add "
                "freeze_encoder=True, or leave them out of the model with "
                f"domains={','.join(self.train_domains)}."
            )

    def without_guides(self) -> "Config":
        """Returns the same model without guides."""
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, guide_channels=0),
            sampling=dataclasses.replace(self.sampling, guide_strength=0.0),
        )

    @property
    def trains_encoder(self) -> bool:
        """Whether encoder and classifier are trained, rather than decoders alone."""
        return self.model.encoder_kind == "learned" and not self.training.freeze_encoder

    @property
    def trained_domains(self) -> tuple[str, ...]:
        """Names of the domains that batches hold, in their order there."""
        return self.train_domains or self.domains

    @property
    def trained_indices(self) -> tuple[int, ...]:
        """The trained domains' places among all."""
        return tuple(map(self.domains.index, self.trained_domains))

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists, dicts, strings and numbers."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, fields: Any) -> "Config":
        """Inverse of `to_json`.

        Raises:
            ValueError: A field is missing, unknown, or has a value that is not allowed.
        """
        fields = _section(fields)
        missing = [name for name in ("domains", "model", "training") if name not in fields]
        if missing:
            raise ValueError(f"This is no configuration of umt_jax: it lacks {missing[0]!r}.")
        _check_known([field.name for field in dataclasses.fields(cls)], fields)
        # Older models are played as they were.
        sampling = _known_fields(SamplingConfig, fields.get("sampling", {}), "sampling")
        return cls(
            domains=_names(fields["domains"], "domains"),
            train_domains=_names(fields.get("train_domains", []), "train_domains"),
            preset=_names([fields.get("preset", "")], "preset")[0],
            model=model_from_json(fields["model"]),
            training=TrainingConfig(
                **_known_fields(TrainingConfig, fields["training"], "training")
            ),
            sampling=SamplingConfig(**sampling),
        )


_KINDS = {
    int: "a whole number up to 2**32",
    float: "a finite number",
    str: "a short text",
    bool: "true or false",
}


def _check_type(field: dataclasses.Field[Any], value: Any) -> None:
    """Raises `ValueError` if a value in JSON is of another type than a field's default."""
    if value is None and field.default is None:
        return
    kind = float if field.default is None else type(field.default)
    # A whole number is a number too; Python takes truth values for whole numbers.
    is_one = isinstance(value, int | float if kind is float else kind)
    if kind is not bool:
        is_one &= not isinstance(value, bool)
    if is_one and kind is float:
        is_one = not abs(value) > sys.float_info.max  # Ranges leave out NaN.
    if is_one and kind is int:
        is_one = abs(value) <= 2**32
    if is_one and kind is str:
        is_one = len(value) <= _MOST_CHARACTERS
    if not is_one:
        raise ValueError(f"{field.name}={reprlib.repr(value)} must be {_KINDS[kind]}.")


def _section(value: Any, name: str = "it") -> dict[str, Any]:
    """Returns a part of the JSON of a configuration, if it has names of fields."""
    if not isinstance(value, dict):
        raise ValueError(
            f"This is no configuration of umt_jax: {name} is {reprlib.repr(value)}, without fields."
        )
    return value


def _names(value: Any, name: str) -> tuple[str, ...]:
    """Returns a list of names in the JSON of a configuration."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(entry, str) and len(entry) <= _MOST_CHARACTERS for entry in value
    ):
        raise ValueError(
            f"This is no configuration of umt_jax: {name} is {reprlib.repr(value)}, not "
            "short names."
        )
    return tuple(value)


def _known_fields(kind: type, value: Any, name: str) -> dict[str, Any]:
    """Returns one section of JSON, if its fields are those of a class and of their types."""
    fields = _section(value, name)
    known = {field.name: field for field in dataclasses.fields(kind)}
    _check_known(list(known), fields, f"{name}.")
    for field, content in fields.items():
        _check_type(known[field], content)
    return {
        field: content
        if content is None or not isinstance(known[field].default, float | None)
        else float(content)
        for field, content in fields.items()
    }


def _check_known(known: Collection[str], fields: dict[str, Any], prefix: str = "") -> None:
    """Raises `ValueError` if JSON has a field that is not known."""
    unknown = [prefix + name for name in fields if name not in known]
    if unknown:
        # A newer version writes all that this one does; a damaged name is missing as well.
        kind = NewerVersionError if all(name in fields for name in known) else ValueError
        raise kind(
            f"This version of umt_jax does not know {', '.join(unknown)[:200]}, which a newer one "
            "wrote. Update umt_jax."
        )


def model_from_json(value: Any) -> ModelConfig:
    """Returns the sizes of a model out of JSON from anywhere.

    Raises:
        ValueError: A field is unknown, of another type, or not allowed.
    """
    return ModelConfig(**_known_fields(ModelConfig, value, "model"))

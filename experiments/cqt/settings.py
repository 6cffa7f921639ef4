"""All that decides the numbers of a CycleGAN on constant-Q frames, checked when built.

From sources are the pieces it is made of: a CycleGAN on constant-Q spectrograms and a conditional
WaveNet behind it (abstract of arXiv:1811.09620); nearest-neighbour interpolation in the place of
transposed convolutions, and a discriminator that sees the whole spectrum (an overview of that paper
at emergentmind.com). Its text could not be read in full, so every number here is our choice, made
for a few core-hours, as is everything else: the form of the losses, layers, residual output.
"""

import dataclasses
from typing import Any

from umt_jax.config import ModelConfig, domain_name
from umt_jax.model import cqt

TRANSFORM = ModelConfig(encoder_kind="cqt", latent_channels=140, pool_samples=200)
"""Default bins and hop, for flags."""

TRANSFORM_FIELDS = ("cqt_lowest_hz", "cqt_bins_per_octave", "latent_channels", "pool_samples")
"""Fields of the model that a CycleGAN has flags for; those of the data come from there."""

FEWEST_FRAMES = 24
"""That a discriminator sees at once: three places, eight frames apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanSettings:
    """Sizes and training of the generators and discriminators.

    Attributes:
        segment_samples: Audio samples in one training segment; frames that see beyond its ends are
            left out.
        domain_batch: Segments of each domain in one step.
        generator_channels: Width of a generator's first layer; its inner ones have four times as
            many.
        generator_blocks: Residual blocks in the middle of a generator.
        discriminator_channels: Width of a discriminator's first layer.
        learning_rate: Adam's step size for the generators at step 0.
        discriminator_learning_rate: Adam's step size for the discriminators at step 0.
        decay_steps: Steps in which both step sizes fall to a tenth, evenly; then they stay.
        cycle_weight: Of the mean absolute difference between frames and what comes back from the
            other domain.
        identity_weight: Of the mean absolute difference between frames and what the generator of
            their own domain makes of them, at step 0.
        identity_steps: Steps in which that weight falls to 0, evenly.
        penalty_weight: Of the squared norm of a discriminator's gradient at true frames.
        ema_decay: How much of the running average of the generators stays at each step; the average
            is what translates.
        init_from: Folder of another run whose networks this one starts from, with fresh optimizers
            and another count of steps. Empty for fresh ones.
        seed: Decides initial parameters, and order and crops of segments.
    """

    segment_samples: int = 16_000
    domain_batch: int = 2
    generator_channels: int = 16
    generator_blocks: int = 4
    discriminator_channels: int = 32
    learning_rate: float = 4e-4
    discriminator_learning_rate: float = 4e-4
    decay_steps: int = 4000
    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    identity_steps: int = 2000
    penalty_weight: float = 1.0
    ema_decay: float = 0.995
    init_from: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks each value's range."""
        for name, value in dataclasses.asdict(self).items():
            least = 0 if name.endswith("_weight") or name == "seed" else None
            if least is None and isinstance(value, int):
                least = 1
            if least is not None and not value >= least:
                raise ValueError(f"{name}={value} must be at least {least}.")
            if name.endswith("learning_rate") and not 0 < value < float("inf"):
                raise ValueError(f"{name}={value} must be above 0, and finite.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must be 0 or more, and below 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanConfig:
    """A CycleGAN between two domains.

    Attributes:
        domains: Names of the two.
        model: The constant-Q transform; its other sizes mean nothing here.
        training: Sizes and training.
    """

    domains: tuple[str, ...]
    model: ModelConfig
    training: GanSettings

    def __post_init__(self) -> None:
        """Checks that there are two domains, and segments long enough for a discriminator."""
        object.__setattr__(self, "domains", tuple(map(domain_name, self.domains)))
        if len(self.domains) != 2 or len(set(self.domains)) != 2:
            raise ValueError(
                f"domains={','.join(self.domains)} are {len(set(self.domains))}, and a CycleGAN is "
                "between exactly two. Name two."
            )
        if self.model.encoder_kind != "cqt":
            raise ValueError(
                f"encoder_kind={self.model.encoder_kind} makes no constant-Q frames, of which a "
                "CycleGAN is made. Use cqt."
            )
        segment, pool = self.training.segment_samples, self.model.pool_samples
        if segment % pool:
            raise ValueError(
                f"segment_samples={segment} must be a multiple of pool_samples={pool}."
            )
        least = pool * (FEWEST_FRAMES + 2 * cqt.margin_frames(self.model))
        if segment < least:
            raise ValueError(
                f"segment_samples={segment} are too few: the constant-Q transform's longest "
                f"wavelet has {self.model.cqt_longest_samples:.0f} samples, and a discriminator "
                f"sees {FEWEST_FRAMES} frames. Use at least {least}, a higher "
                f"cqt_lowest_hz={self.model.cqt_lowest_hz:g} or fewer "
                f"cqt_bins_per_octave={self.model.cqt_bins_per_octave}."
            )

    @classmethod
    def from_json(cls, fields: Any) -> "GanConfig":
        """Returns what `dataclasses.asdict` wrote as JSON.

        Raises:
            ValueError: A field is missing, unknown, or has a value that is not allowed.
        """
        try:
            return cls(
                domains=tuple(fields["domains"]),
                model=ModelConfig(**fields["model"]),
                training=GanSettings(**fields["training"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"It is no configuration of a CycleGAN: {error}.") from error

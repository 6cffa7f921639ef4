"""How recordings become segments: all that decides the bytes of a dataset but the music."""

import dataclasses

from umt_jax.config import ModelConfig, TrainingConfig, check_mu_law, check_rms

# A quarter of it, the shortest augmented slice, then still holds a few periods of a low note.
_MIN_SEGMENT_SAMPLES = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings that all domains of a dataset share. Each is a flag of `data_prep.build`.

    Attributes:
        sample_rate_hz: Rate of the segments, in hertz.
        mu_law: How waveforms become codes: `rounded`, or `truncated` for training that continues
            from the published weights (see `umt_jax.audio.mu_law`).
        segment_samples: Audio samples T in one segment. Training crops shorter ones out of it at
            random.
        num_variants: Versions of each segment with modulated pitch; training draws one of them
            each time.
        timbre_variants: Further versions of each segment whose timbre is changed as well, by a
            random waveshaper and equalizer; training draws one of all.
        rms_dbfs: RMS to which each track is brought, in decibels relative to full scale; peaks
            beyond full scale are clipped. A model trained on them brings what it translates to it
            as well. None leaves levels as they are.
        seed: Decides slices and shifts of the pitch modulation, and the timbres.
        splits: Shares of a domain's music that training, validation and test get; their sum is 1.
    """

    sample_rate_hz: int = ModelConfig.sample_rate_hz
    mu_law: str = ModelConfig.mu_law
    segment_samples: int = TrainingConfig.segment_samples
    num_variants: int = 4
    timbre_variants: int = 0
    rms_dbfs: float | None = None
    seed: int = 0
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        """Checks each value's range."""
        check_mu_law(self.mu_law)
        if self.sample_rate_hz < 1000:
            raise ValueError(f"sample_rate_hz={self.sample_rate_hz} must be at least 1000.")
        if self.segment_samples < _MIN_SEGMENT_SAMPLES:
            raise ValueError(
                f"segment_samples={self.segment_samples} must be at least "
                f"{_MIN_SEGMENT_SAMPLES}, so that a part of it has a pitch to modulate."
            )
        if self.num_variants < 1:
            raise ValueError(f"num_variants={self.num_variants} must be at least 1.")
        if self.timbre_variants < 0:
            raise ValueError(f"timbre_variants={self.timbre_variants} must be 0 or more.")
        check_rms(self.rms_dbfs)
        shares = self.splits
        if (
            len(shares) != 3
            or not all(share > 0 for share in shares)
            or abs(sum(shares) - 1) > 1e-6
        ):
            raise ValueError(
                f"splits={','.join(f'{share:g}' for share in shares)} must be three shares above 0 "
                "whose sum is 1: of training, validation and test, such as 0.8,0.1,0.1."
            )

    @property
    def num_augmented(self) -> int:
        """Versions A of each segment that the encoder may hear, all together."""
        return self.num_variants + self.timbre_variants

    @property
    def segment_seconds(self) -> float:
        """Length of one segment."""
        return self.segment_samples / self.sample_rate_hz

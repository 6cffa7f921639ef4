"""How much sound is encoded and generated in one go."""

from umt_jax.config import ModelConfig

WINDOW_SECONDS = 0.5
"""Length of sound that is encoded at once."""

PIECE_SECONDS = 0.1
"""Most sound that is generated at once, so that the first sound need not wait for a window."""


def window_frames(config: ModelConfig) -> int:
    """Returns the latent frames of one window."""
    return max(1, round(WINDOW_SECONDS * config.sample_rate_hz / config.pool_samples))


def piece_frames(config: ModelConfig) -> int:
    """Returns the latent frames that are generated in one go; a window is a multiple of them."""
    frames = max(1, round(PIECE_SECONDS * config.sample_rate_hz / config.pool_samples))
    return largest_divisor(window_frames(config), frames)


def largest_divisor(samples: int, limit: int) -> int:
    """Returns the largest number up to `limit` of which `samples` is a multiple."""
    return max(divisor for divisor in range(1, limit + 1) if samples % divisor == 0)

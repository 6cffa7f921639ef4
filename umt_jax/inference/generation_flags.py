"""The flags of commands that play a model: how codes are drawn, where not as the model says."""

from absl import flags

from umt_jax.config import SamplingConfig


def define_flags() -> None:
    """Declares --temperature and --top_p."""
    flags.DEFINE_float(
        "temperature",
        None,
        "Scale of the randomness; 0 takes the likeliest code every time. Default: the model's own, "
        "which umt_jax.export records; 1 where it has none.",
    )
    flags.DEFINE_float(
        "top_p",
        None,
        "Draw from the likeliest codes alone, as few as have so much of the probability together, "
        "in (0, 1]; 1 draws from all. Default: the model's own; 1 where it has none.",
    )


def chosen(own: SamplingConfig | None = None) -> SamplingConfig:
    """Returns a model's own sampling, or the usual one for None, overridden by the flags.

    Raises:
        ValueError: A flag's value is not allowed.
    """
    args = flags.FLAGS
    try:
        own = own or SamplingConfig()
        return own.override(temperature=args.temperature, top_p=args.top_p)
    except ValueError as error:
        raise ValueError(f"--{error}") from error

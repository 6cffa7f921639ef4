"""The flags that commands which play a model share.

Each command declares those that it uses: how codes are drawn, the engine that generates, and the
sound files that are written.
"""

from absl import flags

from umt_jax import config_flags
from umt_jax.audio import sound_files
from umt_jax.config import SamplingConfig

flags.disclaim_key_flags()  # They are flags of the command, whose --help lists them.


def define_sampling(*, seed: bool = True) -> None:
    """Declares --temperature and its kin, which `sampling` reads, and --seed if wanted."""
    for name, text in config_flags.help_by_field(SamplingConfig).items():
        usual = getattr(SamplingConfig(), name)
        default = f"the model's own, which umt_jax.export records; {usual:g} where it has none"
        flags.DEFINE_float(name, None, f"{text} Default: {default}.")
    if seed:
        flags.DEFINE_integer("seed", 0, "Decides the random numbers.", lower_bound=0)


def define_engine(*, weights: bool = False) -> None:
    """Declares --engine, --threads and, if wanted, --weights; `engines.choose` checks them."""
    flags.DEFINE_string("engine", "auto", "What generates: auto, scan, native or pallas.")
    flags.DEFINE_integer(
        "threads",
        None,
        "Threads by which native generates, at most the cores that the process may use. Default: "
        "as many as are measured to be the fastest. The sound is the same.",
    )
    if weights:
        flags.DEFINE_string(
            "weights",
            "float32",
            "Type in which native and pallas keep weights: float32 or bfloat16, or, native alone, "
            "int8. The shorter, the faster, and the coarser.",
        )


def define_outputs() -> None:
    """Declares --format and --overwrite, for commands that write sound files."""
    flags.DEFINE_enum("format", "wav", sound_files.WRITTEN_FORMATS, "Format of the output.")
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")


def sampling(own: SamplingConfig | None = None) -> SamplingConfig:
    """Returns a model's own sampling, or the usual one for None, overridden by the flags.

    Raises:
        ValueError: A flag's value is not allowed.
    """
    args = flags.FLAGS
    return (own or SamplingConfig()).override(
        temperature=args.temperature, top_p=args.top_p, guide_strength=args.guide_strength
    )

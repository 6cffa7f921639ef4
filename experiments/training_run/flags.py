"""Every training flag, and the configuration they make.

A flag that decides a run's numbers takes its default from `umt_jax.config` and is named after the
field there. The others only say where, how long and how often.
"""

import dataclasses
import re

from absl import flags

from experiments import configs
from umt_jax import config_flags, path_flags
from umt_jax.config import Config, ModelConfig, SamplingConfig, TrainingConfig, domain_name
from umt_jax.data import dataset
from umt_jax.training import partitioning, step_engines

OF_DATA = ("sample_rate_hz", "mu_law", "rms_dbfs")
"""Fields of the model that have no flag, since the prepared segments decide them."""

_MODEL = ModelConfig()
_TRAINING = TrainingConfig()

DATA_DIR = path_flags.define(
    "data_dir", None, "Folder of prepared domains (data_prep.build --data_dir).", required=True
)
WORKDIR = path_flags.define(
    "workdir", None, "Folder of this run: checkpoints, metrics, TensorBoard.", required=True
)
DOMAINS = flags.DEFINE_list(
    "domains",
    [],
    "Domains of the model, in the order of the decoders. Default: all prepared ones; with "
    "--init_from, those of its model, and then what --train_domains adds.",
)
TRAIN_DOMAINS = flags.DEFINE_list(
    "train_domains",
    [],
    "Domains whose decoders are trained, and whose data are needed. Default: all of the model. "
    "Fewer need --freeze_encoder.",
)
PRESET = flags.DEFINE_string(
    "preset",
    "",
    f"Takes sizes and training from a preset: {', '.join(configs.NAMES)}. Flags that are given "
    "override it. Checkpoints and files of latents record the name; in a --flagfile of your own it "
    "is a name alone. Default with --init_from: that of its model.",
)
CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices",
    1,
    "Where there is no accelerator: devices that the CPU stands for, which share each step. One "
    "for each core makes small models faster where --engine=xla; they must share --domain_batch "
    "evenly (--mesh).",
    lower_bound=1,
)
PARTITIONING = flags.DEFINE_enum(
    "partitioning",
    "jit",
    partitioning.NAMES,
    "How devices share a step: jit lets the compiler split it, pmap runs it once on each device, "
    "which then has all decoders. The numbers are the same.",
)
ENGINE = flags.DEFINE_enum(
    "engine",
    "auto",
    step_engines.NAMES,
    "What computes encoder and decoders in training: xla everywhere; native, in C++, on CPUs with "
    "a C++ compiler, in bfloat16 where --compute_dtype asks for it and the processor multiplies "
    "it, otherwise in float32; auto takes native where it can.",
)
MESH = flags.DEFINE_string(
    "mesh",
    "",
    "Layout of the devices of all hosts, as 2x4: decoders split in two, segments of each in four. "
    "Default: decoders over as many devices as divide their number.",
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Trains on several hosts: start the same command on each. They find one another on Cloud TPU, "
    "Slurm and Kubernetes; elsewhere the next three flags say how.",
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "With --distributed: HOST:PORT of process 0, any free port."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --distributed: number of processes in all.", 1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --distributed: number of this process, from 0.", 0
)
NUM_STEPS = flags.DEFINE_integer(
    "num_steps", 250_000, "Training steps in all, counted from the run's beginning.", 1
)
MORE_STEPS = flags.DEFINE_integer(
    "more_steps",
    None,
    "Trains the run in --workdir for so many steps more than its newest checkpoint has, whatever "
    "--num_steps says.",
    lower_bound=1,
)
LOG_EVERY = flags.DEFINE_integer("log_every", 50, "Steps between two lines of progress.", 1)
EVAL_EVERY = flags.DEFINE_integer(
    "eval_every", 2_000, "Steps between two evaluations, each of which saves a checkpoint.", 1
)
CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every",
    0,
    "Steps between two checkpoints beside those of evaluations; 0 for those alone. A run that is "
    "killed loses what it did since the last one.",
    lower_bound=0,
)
EVAL_BATCHES = flags.DEFINE_integer("eval_batches", 8, "Batches in one evaluation.", 1)
EVAL_AUDIO_SECONDS = flags.DEFINE_float(
    "eval_audio_seconds",
    2.0,
    "Seconds of each domain translated into every other at an evaluation, for TensorBoard; 0 for "
    "none. Large models are slow at it without an accelerator.",
    lower_bound=0.0,
)

ACCEPT_CHANGED_DATA = flags.DEFINE_bool(
    "accept_changed_data",
    False,
    "Resumes a run although its domains were built anew since, out of other recordings or with "
    "other settings.",
)

# Guides are trained afterwards, by `experiments.guides`.
_MODEL_FLAGS = config_flags.define(_MODEL, leave_out=(*OF_DATA, "guide_channels"))
_TRAINING_FLAGS = config_flags.define(_TRAINING, paths=("init_from",))
INIT_FROM = _TRAINING_FLAGS["init_from"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a run takes and how often it reports; may change when the run is resumed."""

    num_steps: int
    log_every: int
    eval_every: int
    eval_batches: int
    eval_audio_seconds: float
    checkpoint_every: int = 0

    def evaluates(self, step: int) -> bool:
        """Says whether this step is followed by an evaluation, which the last one always is."""
        return step % self.eval_every == 0 or step == self.num_steps

    def logs(self, step: int) -> bool:
        """Says whether the metrics of this step and those before it are logged."""
        return step % self.log_every == 0 or self.evaluates(step)

    def saves(self, step: int) -> bool:
        """Says whether there is a checkpoint of this step."""
        extra = self.checkpoint_every and step % self.checkpoint_every == 0
        return bool(extra) or self.evaluates(step)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How devices share each step; may change when the run is resumed.

    Attributes:
        partitioning: One of `partitioning.NAMES`.
        mesh: Devices along (domain, data); None for the best.
        engine: One of `step_engines.NAMES`.
    """

    partitioning: str = "jit"
    mesh: tuple[int, int] | None = None
    engine: str = "auto"


BEST_LAYOUT = Layout()


def layout_from_flags() -> Layout:
    """Returns the layout that the flags describe.

    Raises:
        ValueError: --mesh is not two numbers.
    """
    mesh = MESH.value
    if mesh and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", mesh):
        raise ValueError(
            f"--mesh={mesh} is not a layout. Write DOMAINxDATA, as --mesh=2x4 for eight devices: "
            "decoders split in two, segments of each in four."
        )
    domain_axis, _, data_axis = mesh.partition("x")
    split = (int(domain_axis), int(data_axis)) if mesh else None
    return Layout(PARTITIONING.value, split, ENGINE.value)


def schedule_from_flags(newest_step: int | None) -> Schedule:
    """Returns the schedule that the flags describe.

    Args:
        newest_step: That of the newest checkpoint in --workdir, if there is one.

    Raises:
        ValueError: --more_steps has no run to train on.
    """
    num_steps = NUM_STEPS.value
    if MORE_STEPS.value is not None:
        if newest_step is None:
            raise ValueError(
                f"--more_steps={MORE_STEPS.value} trains a run on, but --workdir={WORKDIR.value} "
                "has no checkpoint yet. For a new run --num_steps says how long."
            )
        num_steps = newest_step + MORE_STEPS.value
    return Schedule(
        num_steps=num_steps,
        log_every=LOG_EVERY.value,
        eval_every=EVAL_EVERY.value,
        eval_batches=EVAL_BATCHES.value,
        eval_audio_seconds=EVAL_AUDIO_SECONDS.value,
        checkpoint_every=CHECKPOINT_EVERY.value,
    )


def domains_from_flags(data_dir: str, base: Config | None) -> tuple[tuple[str, ...], ...]:
    """Returns the model's domains, and those of them to train: () for all.

    Args:
        data_dir: Folder of prepared domains.
        base: The run that this one starts from, if there is one.

    Raises:
        FileNotFoundError: No domain is named, and none prepared.
    """
    domains, train_domains = (
        tuple(map(domain_name, names)) for names in (DOMAINS.value, TRAIN_DOMAINS.value)
    )
    if not domains:
        there = base.domains if base else dataset.find_domains(data_dir)
        domains = tuple(dict.fromkeys([*there, *train_domains]))
    return domains, () if set(train_domains) == set(domains) else train_domains


def config_from_flags(
    domains: tuple[str, ...],
    train_domains: tuple[str, ...],
    *,
    sample_rate_hz: int,
    mu_law: str,
    rms_dbfs: float | None,
    base: Config | None,
) -> Config:
    """Returns the configuration that the flags describe.

    Args:
        domains: Names, in the order of the decoders.
        train_domains: Those to train; () for all.
        sample_rate_hz: Rate of the prepared segments.
        mu_law: Convention of their codes.
        rms_dbfs: Level that their tracks were brought to, if any.
        base: The run that this one starts from, if there is one: decides the model, so that flags
            need not repeat it, and how it is played.

    Raises:
        ValueError: Flags that contradict one another or `base`, or a value that is not allowed.
    """
    if base is None:
        preset = PRESET.value
        model = ModelConfig(
            sample_rate_hz=sample_rate_hz,
            mu_law=mu_law,
            rms_dbfs=rms_dbfs,
            **{name: flag.value for name, flag in _MODEL_FLAGS.items()},
        )
    else:
        preset = PRESET.value or base.preset
        model = base.model
        if model.rms_dbfs is None:
            model = dataclasses.replace(model, rms_dbfs=rms_dbfs)
        for name, flag in _MODEL_FLAGS.items():
            if flag.present and flag.value != getattr(model, name):
                raise ValueError(
                    f"--{name}={flag.value} contradicts the model that --init_from names, which "
                    f"has {getattr(model, name)}. Leave the flag out; sizes come from there."
                )
    training = TrainingConfig(**{name: flag.value for name, flag in _TRAINING_FLAGS.items()})
    return Config(
        domains=domains,
        train_domains=train_domains,
        preset=preset,
        model=model,
        training=training,
        sampling=base.sampling if base else SamplingConfig(),
    )

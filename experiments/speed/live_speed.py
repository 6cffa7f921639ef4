"""Delay, dropouts and speed of what plays while sound comes: the plug-ins and `umt_jax.live`.

Many minutes are streamed block by block, by a host whose clock runs with the CPU time of the thread
that translates: a block comes when that thread has worked, and slept, for as long as the blocks
before it last. So the plug-in counts the dropouts that it would have on a core of its own, whatever
else this machine does, and minutes pass as fast as they are translated.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import flags

from experiments.speed import clap_host, lv2_host
from umt_jax import path_flags, text_tables
from umt_jax.checkpoints import demo_model, reading
from umt_jax.inference import low_latency
from umt_jax.live import session as live_session
from umt_jax.shapes import Float

_CLAP_TEMPERATURE, _CLAP_DROPOUTS = 1, 5
_POLL_SECONDS = 1e-4
_SLACK_SECONDS = 0.05
"""How late the thread may be, in plug-ins and in `umt_jax.live`."""
_THREAD_CLOCK = 6
"""Lowest bits of Linux's number for the CPU time of a thread, whose others are the inverted id."""


def define_flags() -> None:
    """Declares the flags of this stage."""
    flags.DEFINE_float("live_minutes", 1, "Sound to stream through each.", lower_bound=0.01)
    flags.DEFINE_integer("live_rate", 48_000, "Samples per second of the host.", lower_bound=1)
    flags.DEFINE_integer("live_block", 256, "Samples of each of its blocks.", lower_bound=1)
    flags.DEFINE_multi_enum(
        "live", ["LV2", "CLAP", "umt-live", "page"], list(OPENERS) + ["page"], "What to measure."
    )
    path_flags.define("plugins", "build", "Where `make plugins` has put the plug-ins.")


@dataclasses.dataclass
class Opened:
    """Something that plays.

    Attributes:
        play: Gives it the next block, [any].
        delay_samples: How late its output is, at the host's rate.
        num_dropouts: Returns how many blocks it has missed so far.
        thread_id: The system's, of the thread that translates.
        is_idle: Returns whether that thread has done all that it can.
    """

    play: Callable[[Float[np.ndarray, "_"]], object]
    delay_samples: int
    num_dropouts: Callable[[], int]
    thread_id: int
    is_idle: Callable[[], bool]


@dataclasses.dataclass(frozen=True)
class Streamed:
    """How it went.

    Attributes:
        delay_seconds: Between input and output.
        num_blocks: Given.
        num_dropouts: Of these, as the plug-in counts them.
        most_behind_seconds: How long after a block had come its work was done, at most.
        speed: Seconds of sound for each second of CPU time.
    """

    delay_seconds: float
    num_blocks: int
    num_dropouts: int
    most_behind_seconds: float
    speed: float


def stream(opened: Opened, sound: Float[np.ndarray, "_"], *, block: int, rate_hz: int) -> Streamed:
    """Streams a recording, on the clock of the thread that translates.

    Args:
        opened: What plays it.
        sound: Samples, [T]; the rest of the last block is left out.
        block: Samples of each block.
        rate_hz: Of the sound.
    """
    clock = ~opened.thread_id << 3 | _THREAD_CLOCK
    started, slept = time.clock_gettime(clock), 0.0
    num_blocks = len(sound) // block
    behind_since, most_behind = 0.0, 0.0
    for index in range(num_blocks):
        due = index * block / rate_hz
        while True:
            is_idle = opened.is_idle()  # Before the clock, which then stands.
            now = time.clock_gettime(clock) - started + slept
            if is_idle:
                most_behind = max(most_behind, now - behind_since)
                behind_since = due
                slept += max(0.0, due - now)
            if is_idle or now >= due:
                break
            time.sleep(_POLL_SECONDS)
        opened.play(sound[index * block : (index + 1) * block])
    worked = time.clock_gettime(clock) - started
    return Streamed(
        delay_seconds=opened.delay_samples / rate_hz,
        num_blocks=num_blocks,
        num_dropouts=opened.num_dropouts(),
        most_behind_seconds=most_behind,
        speed=num_blocks * block / rate_hz / worked,
    )


def is_asleep(thread_id: int) -> Callable[[], bool]:
    """Returns a function that says whether a thread of this process waits for something.

    A thread that was woken is not asleep, though it may not run yet.
    """
    status = os.open(f"/proc/self/task/{thread_id}/stat", os.O_RDONLY)

    def look() -> bool:
        text = os.pread(status, 1000, 0)
        return text[text.rindex(b")") + 2 :].startswith(b"S")

    return look


def melody(seconds: float, rate_hz: int) -> Float[np.ndarray, "T"]:
    """Returns notes of half a second with overtones, as loud as an instrument that is near."""
    num_samples = round(seconds * rate_hz)
    steps = np.random.default_rng(0).integers(0, 25, int(seconds * 2) + 1)

    def note(index: int) -> Float[np.ndarray, "_"]:
        first, end = (min(-(-at * rate_hz // 2), num_samples) for at in (index, index + 1))
        time_of = np.arange(first, end) / rate_hz
        pitch_hz = 220 * 2 ** (steps[index] / 12)
        sound = sum(np.sin(2 * np.pi * n * pitch_hz * time_of) / n for n in range(1, 5))
        return (0.2 * sound * np.exp(-3 * (time_of % 0.5))).astype(np.float32)

    # Note by note: half an hour at once would take 4 GB.
    return np.concatenate([note(index) for index in range(len(steps))])


@contextlib.contextmanager
def _open_lv2(plugins: Path, rate_hz: int, block: int) -> Iterator[Opened]:
    bundle = _plugin(plugins, "lv2/umt.lv2")
    length = lv2_host.BlockLength(block)
    with _new_thread() as thread_ids:
        instance = lv2_host.Instance(
            bundle,
            rate_hz,
            ports={lv2_host.FREEWHEEL: 0, lv2_host.TEMPERATURE: 1},
            features=length.features,
        )
    instance.run(np.zeros(block, np.float32), [block])  # Which reports the delay.
    yield Opened(
        play=lambda samples: instance.run(samples, [block]),
        delay_samples=int(instance.controls[lv2_host.LATENCY].value),
        num_dropouts=lambda: int(instance.controls[lv2_host.DROPOUTS].value),
        thread_id=thread_ids[0],
        is_idle=is_asleep(thread_ids[0]),
    )
    instance.close()


@contextlib.contextmanager
def _open_clap(plugins: Path, rate_hz: int, block: int) -> Iterator[Opened]:
    path = _plugin(plugins, "clap/umt_jax") / "umt.clap"
    with clap_host.Instance(path, is_rendering=False) as instance:
        instance.flush({_CLAP_TEMPERATURE: 1})
        with _new_thread() as thread_ids:
            instance.activate(rate_hz, block)
        yield Opened(
            play=lambda samples: instance.run(samples, [block]),
            delay_samples=instance.latency,
            num_dropouts=lambda: int(instance.value(_CLAP_DROPOUTS)),
            thread_id=thread_ids[0],
            is_idle=is_asleep(thread_ids[0]),
        )


@contextlib.contextmanager
def _open_live(_: Path, rate_hz: int, block: int) -> Iterator[Opened]:
    workdir = demo_model.path()
    config = reading.read_config(workdir)
    out = np.zeros((block, 1), np.float32)
    with low_latency.open_player(workdir) as player:
        sampling = dataclasses.replace(config.sampling, temperature=1.0)
        low_latency.choose(player, config, config.domains[0], sampling, seed=0)
        with live_session.Session(
            player, config, rate_hz=rate_hz, slack_seconds=_SLACK_SECONDS
        ) as session:
            (thread,) = (thread for thread in threading.enumerate() if thread.name == "player")
            assert thread.native_id is not None
            yield Opened(
                play=lambda samples: session.callback(samples[:, np.newaxis], out),
                delay_samples=session.delay_samples,
                num_dropouts=lambda: session.num_dropouts,
                thread_id=thread.native_id,
                is_idle=lambda: session.is_idle,
            )


OPENERS = {"LV2": _open_lv2, "CLAP": _open_clap, "umt-live": _open_live}
"""Open what plays, given the folder of plug-ins, the host's rate, and samples of its blocks."""


def _plugin(plugins: Path, name: str) -> Path:
    path = plugins / name
    if not path.is_dir():
        raise ValueError(
            f"There is no plug-in {path}. Type: make plugins, or name its folder by --plugins."
        )
    return path.resolve()


@contextlib.contextmanager
def _new_thread() -> Iterator[list[int]]:
    """Yields a list that afterwards has the ids of the threads that were started meanwhile."""
    before, found = set(os.listdir("/proc/self/task")), list[int]()
    yield found
    found += sorted(int(name) for name in set(os.listdir("/proc/self/task")) - before)


def _page_speed() -> str:
    """Returns the least and the most of times real time, of the page's program in node."""
    script = Path(__file__).with_name("page_speed.mjs")
    if shutil.which("node") is None:
        return "no node"
    command = ["node", "--single-threaded", str(script)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    speeds = [float(number) for number in re.findall(r": ([\d.]+)$", printed, re.MULTILINE)]
    return f"{min(speeds):.1f} to {max(speeds):.1f} (median {statistics.median(speeds):.1f})"


def report() -> str:
    """Streams through each, and returns a Markdown section."""
    args = flags.FLAGS
    rate_hz, block = args.live_rate, args.live_block
    sound = melody(60 * args.live_minutes, rate_hz)
    rows = []
    for name in args.live:
        if name == "page":
            rows.append([name, "", "", "", _page_speed()])
            continue
        with OPENERS[name](Path(args.plugins), rate_hz, block) as opened:
            result = stream(opened, sound, block=block, rate_hz=rate_hz)
        rows.append(
            [
                name,
                f"{result.delay_seconds:.3f} s",
                f"{result.num_dropouts} of {result.num_blocks:,}",
                f"{result.most_behind_seconds * 1000:.0f} ms",
                f"{result.speed:.1f}",
            ]
        )
    head = ["what", "delay", "late blocks", "most behind", "times real time"]
    return "\n".join(
        [
            "## While sound comes",
            "",
            f"The shipped model at temperature 1, {args.live_minutes:g} minutes of notes at "
            f"{rate_hz:,} Hz in blocks of {block}, on the clock of the thread that translates. "
            f"Delay: as reported, with {_SLACK_SECONDS * 1000:.0f} ms for that thread to be late.",
            "",
            text_tables.markdown(head, rows),
        ]
    )

"""Plays a microphone or a line as another instrument, while it comes.

    python -m umt_jax.live --list_devices
    python -m umt_jax.live --domain=Cello

takes what the system's input hears and plays its translation on the system's output. While it
plays, keys 1 to 9 choose the domain, + and - the temperature, and q ends it. Use headphones: a
microphone hears loudspeakers.

The meters are the loudest amplitude and the level, in dB of full scale, of the last moment.
Dropouts are blocks of sound that came too late, or that the sound card lost. --slack_ms plays
everything so much later, against dropouts. The guides of a model look 0.3 s ahead: with
--guide_strength=0 decoders play without them, sooner, and with more wrong notes.

Without --checkpoint the model that ships with umt_jax plays. Needs a C++ compiler, PortAudio, and
pip install "umt_jax[live]".
"""

import math
import sys
import time

from absl import flags

from umt_jax import command_line
from umt_jax.audio import level
from umt_jax.checkpoints import demo_model, reading
from umt_jax.config import SamplingConfig
from umt_jax.inference import generation_flags, low_latency
from umt_jax.live import devices, keys
from umt_jax.live import session as live_session

_KEYBOARD = 0  # Descriptor of standard input.
_LOOK_SECONDS = 0.1
_METER_LETTERS = 20
_LOWEST_DBFS = -60.0
_TEMPERATURE_STEP = 0.1


def define_flags() -> None:
    """Declares this command's flags."""
    demo_model.define_flags()
    flags.DEFINE_bool("list_devices", False, "List the sound cards, and end.")
    for kind in ("input", "output"):
        flags.DEFINE_string(
            f"{kind}_device",
            None,
            f"Number, or part of the name, of the {kind}. Default: the system's.",
        )
    flags.DEFINE_integer(
        "rate", None, "Samples per second of both. Default: the input's own.", lower_bound=1
    )
    flags.DEFINE_integer(
        "block_samples", 0, "Samples that the sound card takes at once; 0: as it likes.", 0
    )
    flags.DEFINE_float(
        "slack_ms", 50, "How much later than it could be the sound is played.", lower_bound=0
    )
    flags.DEFINE_string("domain", None, "What is played at first. Default: the model's first.")
    flags.DEFINE_float("seconds", None, "End after so long. Default: when q is pressed.", 0)
    generation_flags.define_sampling()


def main() -> None:
    """Plays until q is pressed."""
    args = flags.FLAGS
    sounddevice = devices.portaudio()
    if args.list_devices:
        lines = devices.describe(sounddevice)
        command_line.say(*(lines or ["PortAudio finds no sound card."]))
        return
    workdir = demo_model.chosen()
    config = reading.read_config(workdir, args.step)
    sampling = generation_flags.sampling(config.sampling)
    domain = args.domain or config.domains[0]
    cards = (
        devices.choose(sounddevice, args.input_device, "input"),
        devices.choose(sounddevice, args.output_device, "output"),
    )
    rate_hz = args.rate or round(cards[0]["default_samplerate"])
    with low_latency.open_player(workdir, args.step) as player:
        low_latency.choose(player, config, domain, sampling, args.seed)
        with live_session.Session(
            player, config, rate_hz=rate_hz, slack_seconds=args.slack_ms / 1000
        ) as session:
            stream = devices.open_stream(
                sounddevice,
                cards,
                rate_hz=rate_hz,
                block_samples=args.block_samples,
                callback=session.callback,
            )
            with stream:
                say_delay(session, stream.latency, rate_hz)
                if hint := low_latency.hint(config, sampling):
                    command_line.say(hint)
                play(session, player.domains, domain, sampling, args.seconds)
    command_line.say(f"Dropouts: {session.num_dropouts}.")


def say_delay(
    session: live_session.Session, card_seconds: tuple[float, float], rate_hz: int
) -> None:
    """Says how late the sound comes, and whose delays these are."""
    own, cards = session.delay_samples / rate_hz, sum(card_seconds)
    command_line.say(
        f"The translation comes {own + cards:.3f} s behind its source: {own:.3f} s here, and "
        f"{cards:.3f} s in the sound cards, as PortAudio says."
    )


def play(
    session: live_session.Session,
    domains: tuple[str, ...],
    domain: str,
    sampling: SamplingConfig,
    seconds: float | None,
) -> None:
    """Shows meters and obeys keys until q, the end of the time, or an error.

    Raises:
        ValueError: The player's thread has ended.
    """
    command_line.say(
        "Keys: " + ", ".join(f"{n} {name}" for n, name in enumerate(domains[:9], 1)),
        "+ and - change the temperature, q ends.",
    )
    ends = math.inf if seconds is None else seconds
    temperature, started, is_open = sampling.temperature, time.monotonic(), True
    is_terminal = sys.stderr.isatty()
    with keys.unbuffered(_KEYBOARD):
        while (left := started + ends - time.monotonic()) > 0:
            if session.error is not None:
                raise ValueError(f"The translation has stopped: {session.error}")
            wait = min(_LOOK_SECONDS, left)
            pressed: str | None = ""
            if is_open:
                pressed = keys.pressed(_KEYBOARD, wait)
                is_open = pressed is not None
            else:
                time.sleep(wait)
            for key in pressed or "":
                if key == "q":
                    return
                if key in "123456789" and int(key) <= len(domains):
                    domain = domains[int(key) - 1]
                    session.set(domain=int(key) - 1)
                elif key in "+-":
                    change = _TEMPERATURE_STEP if key == "+" else -_TEMPERATURE_STEP
                    temperature = max(0.0, round(temperature + change, 6))
                    session.set(temperature=temperature)
                else:
                    continue
                if not is_terminal:
                    command_line.say(f"{domain} at temperature {temperature:g}.", error=True)
            if is_terminal:
                line = f"{meters(session)} {domain}, temperature {temperature:g}"
                command_line.say_over(line)
    if is_terminal:
        command_line.say("", error=True)


def meters(session: live_session.Session) -> str:
    """Returns one line of both meters and the dropouts."""
    seen = session.meters()
    return f"in {meter(seen.input)} out {meter(seen.output)} dropouts {session.num_dropouts}"


def meter(loudness: level.Loudness) -> str:
    """Returns a bar of the level, with a mark at the peak, and the level in dB of full scale."""

    def letters(amplitude: float) -> int:
        return round(_METER_LETTERS * min(1.0, 1 - _dbfs(amplitude) / _LOWEST_DBFS))

    bar = list("#" * letters(loudness.rms) + " " * (_METER_LETTERS - letters(loudness.rms)))
    peak = letters(loudness.peak)
    if peak:
        bar[peak - 1] = "!" if loudness.peak >= 1 else "|"
    return f"[{''.join(bar)}] {_dbfs(loudness.rms):4.0f} dB"


def _dbfs(amplitude: float) -> float:
    """Returns dB of full scale, at least what the meters begin with."""
    return max(_LOWEST_DBFS, 20 * math.log10(max(amplitude, 1e-9)))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)

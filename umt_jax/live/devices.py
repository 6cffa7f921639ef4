"""Sound cards, through PortAudio (the package sounddevice)."""

import importlib
from collections.abc import Callable
from typing import Any

_INSTALL = 'pip install "umt_jax[live]"'


def portaudio() -> Any:
    """Returns the module sounddevice.

    Raises:
        ValueError: It is not installed, or PortAudio is not.
    """
    try:
        return importlib.import_module("sounddevice")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Sound cards need the package {error.name}, which is not installed: {_INSTALL}."
        ) from error
    except OSError as error:
        raise ValueError(
            "PortAudio is not installed, through which sound cards are reached. Install it "
            "(Debian: apt install libportaudio2)."
        ) from error


def describe(sounddevice: Any) -> list[str]:
    """Returns a line for each device: its number, name and system, channels, and rate."""
    systems = [api["name"] for api in sounddevice.query_hostapis()]
    return [
        f"{number}: {device['name']}, {systems[device['hostapi']]} "
        f"({device['max_input_channels']} in, {device['max_output_channels']} out, "
        f"{device['default_samplerate']:g} Hz)"
        for number, device in enumerate(sounddevice.query_devices())
    ]


def choose(sounddevice: Any, name: str | None, kind: str) -> dict[str, Any]:
    """Returns what PortAudio knows of a device.

    Args:
        sounddevice: The module.
        name: Its number, or a part of its name; None for the system's default.
        kind: `input` or `output`.

    Raises:
        ValueError: There is no such device, or none at all.
    """
    wanted = int(name) if name is not None and name.isdigit() else name
    try:
        return sounddevice.query_devices(wanted, kind)
    except (ValueError, sounddevice.PortAudioError) as error:
        what = f"{kind}_device={name} is none" if name else f"This machine has no {kind} device"
        raise ValueError(
            f"{what}. --list_devices shows those there are: "
            f"{'; '.join(describe(sounddevice)) or 'none'}."
        ) from error


def open_stream(
    sounddevice: Any,
    devices: tuple[dict[str, Any], dict[str, Any]],
    *,
    rate_hz: int,
    block_samples: int,
    callback: Callable[..., None],
) -> Any:
    """Returns a stream from the first device to the second, not yet started.

    Args:
        sounddevice: The module.
        devices: What `choose` returned for input and output.
        rate_hz: Of both.
        block_samples: Of each call; 0 leaves it to PortAudio.
        callback: As `live.session.Session.callback`.

    Raises:
        ValueError: PortAudio cannot open them so.
    """

    def call(heard: Any, played: Any, frames: int, time: Any, status: Any) -> None:
        callback(heard, played, has_dropout=bool(status))

    try:
        return sounddevice.Stream(
            samplerate=rate_hz,
            blocksize=block_samples,
            device=tuple(device["index"] for device in devices),
            channels=(1, min(2, devices[1]["max_output_channels"])),
            dtype="float32",
            latency="low",
            callback=call,
        )
    except sounddevice.PortAudioError as error:
        names = " and ".join(dict.fromkeys(device["name"] for device in devices))
        raise ValueError(
            f"PortAudio cannot open {names} at {rate_hz} Hz: {error}. Name other devices or "
            "another --rate."
        ) from error

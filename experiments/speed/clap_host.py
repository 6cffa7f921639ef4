"""A host of CLAP plug-ins, as small as can be: one mono effect, through ctypes.

It follows the protocol of https://github.com/free-audio/clap: the calls, their order, and which may
come while the plug-in is active.
"""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.speed import clap_tables
from umt_jax.shapes import Float

VALUE_EVENT = 5
"""Type of the event that sets a parameter."""
RESCAN_VALUES, RESCAN_ALL = 1, 8
"""What a plug-in asks of `Host.rescans`."""


class Instance:
    """One instance of the first plug-in of a file.

    Attributes:
        asked: What the plug-in has asked of its host since it was last emptied: `restart`,
            `callback`, `latency`.
        rescans: What it wants to be read again, each as the protocol's flags.
        told: Values of parameters that it has reported, by their numbers.
        is_active: Whether it may be given blocks.
    """

    def __init__(self, path: Path | str, *, is_rendering: bool = True) -> None:
        """Loads a file and makes an instance, which is not active yet.

        Args:
            path: A file `.clap`.
            is_rendering: The plug-in may keep its host waiting.

        Raises:
            ValueError: The plug-in refuses.
        """
        self.asked: list[str] = []
        self.rescans: list[int] = []
        self.told: dict[int, float] = {}
        self.is_active = False
        self._host = self._table()
        library = ctypes.CDLL(str(path))
        entry = clap_tables.Entry.in_dll(library, "clap_entry")
        if not entry.init(str(path).encode()):
            raise ValueError(f"{path}: its entry says no.")
        factory = clap_tables.Factory.from_address(entry.get_factory(b"clap.plugin-factory"))
        self._factory, self.descriptor = factory, factory.describe(None, 0).contents
        self.num_plugins = factory.count(None)
        address = factory.create(None, ctypes.addressof(self._host), self.descriptor.id)
        if not address:
            raise ValueError(f"{path}: it gives no plug-in.")
        self._address, self._table_of_it = address, clap_tables.PluginTable.from_address(address)
        if not self._table_of_it.init(address):
            raise ValueError(f"{path}: the plug-in does not start.")
        if is_rendering:
            self.extension(b"clap.render", clap_tables.Render).set(address, 1)

    def _table(self) -> clap_tables.HostTable:
        """Returns what a plug-in can ask of its host; all of it is noted."""

        def note(what: str) -> Any:
            return clap_tables.function(None, clap_tables.POINTER)(
                lambda _: self.asked.append(what)
            )

        params = clap_tables.HostParams(
            clap_tables.function(None, clap_tables.POINTER, clap_tables.UINT)(
                lambda _, flags: self.rescans.append(flags)
            ),
            clap_tables.function(None, clap_tables.POINTER, clap_tables.UINT, clap_tables.UINT)(
                lambda *_: None
            ),
            clap_tables.function(None, clap_tables.POINTER)(lambda _: None),
        )
        latency = clap_tables.HostLatency(note("latency"))
        tables = {b"clap.params": params, b"clap.latency": latency}

        def extension(_: Any, name: bytes) -> int | None:
            return ctypes.addressof(tables[name]) if name in tables else None

        self._kept = tables
        return clap_tables.HostTable(
            clap_tables.Version((1, 1, 1)),
            None,
            *(text.encode() for text in ("umt_jax's host", "umt_jax", "", "1")),
            clap_tables.function(clap_tables.POINTER, clap_tables.POINTER, clap_tables.TEXT)(
                extension
            ),
            note("restart"),
            note("process"),
            note("callback"),
        )

    def __enter__(self) -> "Instance":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stops and frees the plug-in."""
        self.deactivate()
        self._table_of_it.destroy(self._address)

    def extension(self, name: bytes, kind: Any) -> Any:
        """Returns a table of the plug-in's functions.

        Raises:
            ValueError: It has none of that name.
        """
        found = self._table_of_it.get_extension(self._address, name)
        if not found:
            raise ValueError(f"The plug-in has no {name.decode()}.")
        return kind.from_address(found)

    def activate(self, rate_hz: float, most_block: int = 4096) -> bool:
        """Makes ready for blocks of up to `most_block` samples; returns whether it agrees."""
        if not self._table_of_it.activate(self._address, rate_hz, 1, most_block):
            return False
        self.is_active = self._table_of_it.start_processing(self._address)
        return self.is_active

    def deactivate(self) -> None:
        """Ends what `activate` has started, if it has."""
        if self.is_active:
            self._table_of_it.stop_processing(self._address)
            self._table_of_it.deactivate(self._address)
        self.is_active = False

    def reset(self) -> None:
        """Has the plug-in forget all sound."""
        self._table_of_it.reset(self._address)

    def on_main_thread(self) -> None:
        """Does what a plug-in that has asked for a callback waits for."""
        self._table_of_it.on_main_thread(self._address)

    @property
    def latency(self) -> int:
        """Samples by which the output is late."""
        return self.extension(b"clap.latency", clap_tables.Latency).get(self._address)

    def ports(self, *, is_input: bool) -> list[tuple[bytes, int]]:
        """Returns type and number of channels of each port."""
        ports = self.extension(b"clap.audio-ports", clap_tables.Ports)
        found = []
        for index in range(ports.count(self._address, is_input)):
            info = clap_tables.PortInfo()
            if not ports.get(self._address, index, is_input, ctypes.byref(info)):
                raise ValueError(f"Port {index} says nothing of itself.")
            found.append((info.type, info.num_channels))
        return found

    def parameters(self) -> list[tuple[str, float, float, float]]:
        """Returns name, least, most and initial value of each parameter."""
        params, found = self.extension(b"clap.params", clap_tables.Params), []
        for index in range(params.count(self._address)):
            info = clap_tables.ParamInfo()
            if not params.get_info(self._address, index, ctypes.byref(info)) or info.id != index:
                raise ValueError(f"Parameter {index} says nothing of itself.")
            found.append((info.name.decode(), info.least, info.most, info.initial))
        return found

    def value(self, param: int) -> float:
        """Returns a parameter's value."""
        value = clap_tables.DOUBLE()
        params = self.extension(b"clap.params", clap_tables.Params)
        if not params.get_value(self._address, param, ctypes.byref(value)):
            raise ValueError(f"Parameter {param} has no value.")
        return value.value

    def text(self, param: int, value: float) -> str:
        """Returns a value as the plug-in writes it."""
        text = ctypes.create_string_buffer(200)
        params = self.extension(b"clap.params", clap_tables.Params)
        if not params.to_text(self._address, param, value, text, len(text)):
            raise ValueError(f"{value} of parameter {param} has no text.")
        return text.value.decode()

    def value_of(self, param: int, text: str) -> float:
        """Returns the value that a text means.

        Raises:
            ValueError: It means none.
        """
        value = clap_tables.DOUBLE()
        params = self.extension(b"clap.params", clap_tables.Params)
        if not params.to_value(self._address, param, text.encode(), ctypes.byref(value)):
            raise ValueError(f"{text!r} is no value of parameter {param}.")
        return value.value

    def flush(self, values: Mapping[int, float]) -> None:
        """Sets parameters without a block."""
        events = _Events([(0, param, value) for param, value in values.items()])
        params = self.extension(b"clap.params", clap_tables.Params)
        params.flush(self._address, ctypes.byref(events.table), None)

    def process(
        self,
        block: Float[np.ndarray, "_"] | None,
        events: Sequence[tuple[int, int, float]] = (),
        *,
        num_frames: int | None = None,
    ) -> tuple[int, Float[np.ndarray, "_"]]:
        """Has the plug-in play one block.

        Args:
            block: The input; None for a host that gives no buffers.
            events: Sample of the block, parameter and value of each change.
            num_frames: How many samples the host says that there are; None: as there are.

        Returns:
            What the plug-in says (0 is an error), and the output, which begins as nines.
        """
        size = 0 if block is None else len(block)
        out = np.full(size, 9, np.float32)
        given = _Events(events)

        def push(_: Any, event: Any) -> bool:
            if event.contents.type == VALUE_EVENT:
                self.told[event.contents.param] = event.contents.value
            return True

        taken = clap_tables.OutEvents(None, clap_tables.OutEvents._fields_[1][1](push))
        buffers = []
        for samples in (block, out):
            if block is None or samples is None:
                buffers.append(clap_tables.Buffer())
            else:
                channel = (clap_tables.POINTER * 1)(samples.ctypes.data)
                buffers.append(clap_tables.Buffer(channel, None, 1, 0, 0))
        process = clap_tables.Process(
            -1,
            size if num_frames is None else num_frames,
            None,
            ctypes.pointer(buffers[0]),
            ctypes.pointer(buffers[1]),
            1,
            1,
            ctypes.pointer(given.table),
            ctypes.pointer(taken),
        )
        return self._table_of_it.process(self._address, ctypes.byref(process)), out

    def run(
        self, waveform: Float[np.ndarray, "_"], blocks: Sequence[int]
    ) -> Float[np.ndarray, "_"]:
        """Returns the output of blocks that are as long as these, in turn.

        Raises:
            ValueError: The plug-in reports an error.
        """
        parts, turn = [np.zeros(0, np.float32)], 0
        while len(waveform):
            block = np.array(waveform[: blocks[turn % len(blocks)]], np.float32)
            status, out = self.process(block)
            if not status:
                raise ValueError("The plug-in reports an error.")
            waveform = waveform[len(block) :]
            parts.append(out)
            turn += 1
        return np.concatenate(parts)

    def save(self, *, bytes_at_once: int = 7) -> bytes | None:
        """Returns the plug-in's state, taken in parts of a few bytes; None where it has none."""
        state = bytearray()

        def write(_: Any, data: int, size: int) -> int:
            count = min(size, bytes_at_once)
            state.extend(ctypes.string_at(data, count))
            return count

        stream = clap_tables.Stream(None, clap_tables.Stream._fields_[1][1](write))
        saved = self.extension(b"clap.state", clap_tables.State).save(
            self._address, ctypes.byref(stream)
        )
        return bytes(state) if saved else None

    def load(self, state: bytes, *, bytes_at_once: int = 7, fails: bool = False) -> bool:
        """Gives the plug-in a state, in parts of a few bytes; returns whether it took it."""
        position = 0

        def read(_: Any, data: int, size: int) -> int:
            nonlocal position
            if fails:
                return -1
            part = state[position : position + min(size, bytes_at_once)]
            ctypes.memmove(data, part, len(part))
            position += len(part)
            return len(part)

        stream = clap_tables.Stream(None, clap_tables.Stream._fields_[1][1](read))
        return self.extension(b"clap.state", clap_tables.State).load(
            self._address, ctypes.byref(stream)
        )


class _Events:
    """A list of changes of parameters: sample, parameter and value of each."""

    def __init__(self, changes: Sequence[tuple[int, int, float]]) -> None:
        self._events = [
            clap_tables.ValueEvent(
                ctypes.sizeof(clap_tables.ValueEvent),
                time,
                0,
                VALUE_EVENT,
                0,
                param,
                None,
                -1,
                -1,
                -1,
                -1,
                value,
            )
            for time, param, value in changes
        ]
        self.table = clap_tables.InEvents(
            None,
            clap_tables.InEvents._fields_[1][1](lambda _: len(self._events)),
            clap_tables.InEvents._fields_[2][1](
                lambda _, index: ctypes.addressof(self._events[index])
            ),
        )

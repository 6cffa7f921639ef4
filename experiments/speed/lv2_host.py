"""A host of the LV2 plug-in, as small as can be, through ctypes (https://lv2plug.in)."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umt_jax.shapes import Float

URI = b"urn:umt_jax:translator"
IN, OUT, DOMAIN, TEMPERATURE, WET, LEVEL, FREEWHEEL, LATENCY, DROPOUTS, CONTROL = range(10)
"""Numbers of its ports."""
_BLOCK_LENGTH = "http://lv2plug.in/ns/ext/buf-size#maxBlockLength"
_INT = "http://lv2plug.in/ns/ext/atom#Int"


class Descriptor(ctypes.Structure):
    """What a plug-in is, and its functions."""

    _handle, _size = ctypes.c_void_p, ctypes.c_uint32
    _fields_ = [
        ("uri", ctypes.c_char_p),
        (
            "instantiate",
            ctypes.CFUNCTYPE(_handle, _handle, ctypes.c_double, ctypes.c_char_p, _handle),
        ),
        ("connect_port", ctypes.CFUNCTYPE(None, _handle, _size, _handle)),
        ("activate", ctypes.CFUNCTYPE(None, _handle)),
        ("run", ctypes.CFUNCTYPE(None, _handle, _size)),
        ("deactivate", _handle),
        ("cleanup", ctypes.CFUNCTYPE(None, _handle)),
        ("extension_data", _handle),
    ]


class Pair(ctypes.Structure):
    """Two addresses: a feature's name and what it is, or a function and whom it is of."""

    _fields_ = [("first", ctypes.c_void_p), ("second", ctypes.c_void_p)]


class _Option(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("context", "subject", "key", "size", "type")),
        ("value", ctypes.c_void_p),
    ]


class BlockLength:
    """Features of a host that says how long its blocks are at most.

    Attributes:
        features: For `Instance`; as long as this object lives.
    """

    def __init__(self, most_block: int) -> None:
        """Takes samples."""
        numbers: dict[bytes, int] = {}

        def number(_: Any, name: bytes) -> int:
            return numbers.setdefault(name, len(numbers) + 1)

        call = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_char_p)(number)
        mapping = Pair(None, ctypes.cast(call, ctypes.c_void_p))
        value = ctypes.c_int32(most_block)
        options = (_Option * 2)()
        options[0] = _Option(
            0,
            0,
            number(None, _BLOCK_LENGTH.encode()),
            4,
            number(None, _INT.encode()),
            ctypes.addressof(value),
        )
        names = [ctypes.c_char_p(b"http://lv2plug.in/ns/ext/urid#map")]
        names.append(ctypes.c_char_p(b"http://lv2plug.in/ns/ext/options#options"))
        pairs = [
            Pair(ctypes.cast(name, ctypes.c_void_p), ctypes.addressof(what))
            for name, what in zip(names, (mapping, options), strict=True)
        ]
        self.features = (ctypes.c_void_p * 3)(*map(ctypes.addressof, pairs), None)
        self._kept = (call, mapping, value, options, names, pairs)


class Instance:
    """One instance of the plug-in, whose host renders a file unless `FREEWHEEL` is set to 0.

    Attributes:
        descriptor: The plug-in.
        controls: Values of its ports, by their numbers.
        handle: What its functions want; None where the plug-in has refused.
    """

    def __init__(
        self,
        bundle: Path,
        rate_hz: float,
        *,
        ports: Mapping[int, float] | None = None,
        features: Any = None,
    ) -> None:
        """Makes an instance of the plug-in in a bundle, and activates it."""
        self._library = ctypes.CDLL(str(bundle / "umt.so"))
        self._library.lv2_descriptor.restype = ctypes.POINTER(Descriptor)
        self.descriptor = self._library.lv2_descriptor(0).contents
        assert self.descriptor.uri == URI and not self._library.lv2_descriptor(1)
        self.handle = self.descriptor.instantiate(None, rate_hz, f"{bundle}/".encode(), features)
        self.controls = {port: ctypes.c_float(0) for port in range(DOMAIN, DROPOUTS + 1)}
        for port, value in self.controls.items():
            self.descriptor.connect_port(self.handle, port, ctypes.addressof(value))
        self.tell(None)
        self.set({WET: 1, FREEWHEEL: 1, **(ports or {})})
        self.descriptor.activate(self.handle)

    def tell(self, message: Any) -> None:
        """Connects a sequence of messages, or none."""
        self.message = message
        address = ctypes.addressof(message) if message else None
        self.descriptor.connect_port(self.handle, CONTROL, address)

    def set(self, ports: Mapping[int, float]) -> None:
        """Changes values of ports."""
        for port, value in ports.items():
            self.controls[port].value = value

    def run(
        self, waveform: Float[np.ndarray, "_"], blocks: Sequence[int]
    ) -> Float[np.ndarray, "_"]:
        """Returns the output; blocks are as long as these, in turn."""
        parts, turn = [np.zeros(0, np.float32)], 0
        while len(waveform):
            block = np.array(waveform[: blocks[turn % len(blocks)]], np.float32)
            waveform, out = waveform[len(block) :], np.full(len(block), 9, np.float32)
            self.descriptor.connect_port(self.handle, IN, block.ctypes.data)
            self.descriptor.connect_port(self.handle, OUT, out.ctypes.data)
            self.descriptor.run(self.handle, len(block))
            parts.append(out)
            turn += 1
        return np.concatenate(parts)

    def close(self) -> None:
        """Frees it."""
        self.descriptor.cleanup(self.handle)

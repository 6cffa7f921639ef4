"""The tables of functions and values through which hosts and plug-ins of CLAP talk, for ctypes."""

import ctypes
from typing import Any

POINTER, TEXT, BOOL = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool
UINT, INT, DOUBLE = ctypes.c_uint32, ctypes.c_int32, ctypes.c_double
LONG, SHORT = ctypes.c_int64, ctypes.c_int16


def function(result: Any, *arguments: Any) -> Any:
    """Returns the type of a function."""
    return ctypes.CFUNCTYPE(result, *arguments)


class Version(ctypes.Structure):
    """Of the protocol: major, minor, revision."""

    _fields_ = [("numbers", UINT * 3)]


class HostTable(ctypes.Structure):
    """What a host gives to its plug-ins."""

    _fields_ = [
        ("version", Version),
        ("data", POINTER),
        *((name, TEXT) for name in ("name", "vendor", "url", "host_version")),
        ("get_extension", function(POINTER, POINTER, TEXT)),
        *(
            (name, function(None, POINTER))
            for name in ("request_restart", "request_process", "request_callback")
        ),
    ]


class Entry(ctypes.Structure):
    """What a file of plug-ins exports as `clap_entry`."""

    _fields_ = [
        ("version", Version),
        ("init", function(BOOL, TEXT)),
        ("deinit", function(None)),
        ("get_factory", function(POINTER, TEXT)),
    ]


class Descriptor(ctypes.Structure):
    """What a plug-in is."""

    _fields_ = [
        ("version", Version),
        *((name, TEXT) for name in ("id", "name", "vendor", "url", "manual_url", "support_url")),
        *((name, TEXT) for name in ("plugin_version", "description")),
        ("features", ctypes.POINTER(TEXT)),
    ]


class Factory(ctypes.Structure):
    """Makes plug-ins."""

    _fields_ = [
        ("count", function(UINT, POINTER)),
        ("describe", function(ctypes.POINTER(Descriptor), POINTER, UINT)),
        ("create", function(POINTER, POINTER, POINTER, TEXT)),
    ]


class PluginTable(ctypes.Structure):
    """What each plug-in can do."""

    _fields_ = [
        ("descriptor", POINTER),
        ("data", POINTER),
        ("init", function(BOOL, POINTER)),
        ("destroy", function(None, POINTER)),
        ("activate", function(BOOL, POINTER, DOUBLE, UINT, UINT)),
        ("deactivate", function(None, POINTER)),
        ("start_processing", function(BOOL, POINTER)),
        ("stop_processing", function(None, POINTER)),
        ("reset", function(None, POINTER)),
        ("process", function(INT, POINTER, POINTER)),
        ("get_extension", function(POINTER, POINTER, TEXT)),
        ("on_main_thread", function(None, POINTER)),
    ]


class ValueEvent(ctypes.Structure):
    """A change of a parameter."""

    _fields_ = [
        ("size", UINT),
        ("time", UINT),
        ("space", ctypes.c_uint16),
        ("type", ctypes.c_uint16),
        ("flags", UINT),
        ("param", UINT),
        ("cookie", POINTER),
        ("note_id", INT),
        *((name, SHORT) for name in ("port", "channel", "key")),
        ("value", DOUBLE),
    ]


class InEvents(ctypes.Structure):
    """A list of events for the plug-in."""

    _fields_ = [
        ("context", POINTER),
        ("size", function(UINT, POINTER)),
        ("get", function(POINTER, POINTER, UINT)),
    ]


class OutEvents(ctypes.Structure):
    """Where the plug-in puts its events."""

    _fields_ = [
        ("context", POINTER),
        ("try_push", function(BOOL, POINTER, ctypes.POINTER(ValueEvent))),
    ]


class Buffer(ctypes.Structure):
    """The channels of a port."""

    _fields_ = [
        ("data32", ctypes.POINTER(POINTER)),
        ("data64", POINTER),
        ("num_channels", UINT),
        ("latency", UINT),
        ("constant_mask", ctypes.c_uint64),
    ]


class Process(ctypes.Structure):
    """One block."""

    _fields_ = [
        ("steady_time", LONG),
        ("num_frames", UINT),
        ("transport", POINTER),
        ("inputs", ctypes.POINTER(Buffer)),
        ("outputs", ctypes.POINTER(Buffer)),
        ("num_inputs", UINT),
        ("num_outputs", UINT),
        ("in_events", ctypes.POINTER(InEvents)),
        ("out_events", ctypes.POINTER(OutEvents)),
    ]


class ParamInfo(ctypes.Structure):
    """What a parameter is."""

    _fields_ = [
        ("id", UINT),
        ("flags", UINT),
        ("cookie", POINTER),
        ("name", ctypes.c_char * 256),
        ("module", ctypes.c_char * 1024),
        ("least", DOUBLE),
        ("most", DOUBLE),
        ("initial", DOUBLE),
    ]


class Params(ctypes.Structure):
    """The plug-in's extension `clap.params`."""

    _fields_ = [
        ("count", function(UINT, POINTER)),
        ("get_info", function(BOOL, POINTER, UINT, ctypes.POINTER(ParamInfo))),
        ("get_value", function(BOOL, POINTER, UINT, ctypes.POINTER(DOUBLE))),
        ("to_text", function(BOOL, POINTER, UINT, DOUBLE, TEXT, UINT)),
        ("to_value", function(BOOL, POINTER, UINT, TEXT, ctypes.POINTER(DOUBLE))),
        ("flush", function(None, POINTER, ctypes.POINTER(InEvents), POINTER)),
    ]


class PortInfo(ctypes.Structure):
    """What a port is."""

    _fields_ = [
        ("id", UINT),
        ("name", ctypes.c_char * 256),
        ("flags", UINT),
        ("num_channels", UINT),
        ("type", TEXT),
        ("in_place_pair", UINT),
    ]


class Ports(ctypes.Structure):
    """The plug-in's extension `clap.audio-ports`."""

    _fields_ = [
        ("count", function(UINT, POINTER, BOOL)),
        ("get", function(BOOL, POINTER, UINT, BOOL, ctypes.POINTER(PortInfo))),
    ]


class Latency(ctypes.Structure):
    """The plug-in's extension `clap.latency`."""

    _fields_ = [("get", function(UINT, POINTER))]


class Stream(ctypes.Structure):
    """Where a state is written to, or read from."""

    _fields_ = [
        ("context", POINTER),
        ("move", function(LONG, POINTER, POINTER, ctypes.c_uint64)),
    ]


class State(ctypes.Structure):
    """The plug-in's extension `clap.state`."""

    _fields_ = [
        ("save", function(BOOL, POINTER, ctypes.POINTER(Stream))),
        ("load", function(BOOL, POINTER, ctypes.POINTER(Stream))),
    ]


class Render(ctypes.Structure):
    """The plug-in's extension `clap.render`."""

    _fields_ = [
        ("has_hard_realtime_requirement", function(BOOL, POINTER)),
        ("set", function(BOOL, POINTER, INT)),
    ]


class HostParams(ctypes.Structure):
    """The host's extension `clap.params`."""

    _fields_ = [
        ("rescan", function(None, POINTER, UINT)),
        ("clear", function(None, POINTER, UINT, UINT)),
        ("request_flush", function(None, POINTER)),
    ]


class HostLatency(ctypes.Structure):
    """The host's extension `clap.latency`."""

    _fields_ = [("changed", function(None, POINTER))]

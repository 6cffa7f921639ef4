"""The frames of MP3 files (and of MPEG layers I and II), counted one by one."""

import dataclasses
import mmap
from collections.abc import Iterator

_KILOBITS = {
    # By version 1 or 2, and layer.
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)

# Frames of one file agree in these bits: version, layer, sample rate.
_SAME = 0xFFFE0C00

_APE_BYTES = 32
_ID3V1_BYTES = 128


@dataclasses.dataclass(frozen=True)
class Run:
    """Frames that follow each other, of one recording.

    Attributes:
        start: Its first byte.
        end: The byte behind its last whole frame.
        header: A frame that tells how many there are, to be put before them; empty if it is there.
        num_promised: Frames that the recording's own header tells of; 0 if none does.
        num_missing: How many of these are not there.
        is_broken_off: Whether the last frame is not whole, and no header says that it is not one.
    """

    start: int
    end: int
    header: bytes
    num_promised: int
    num_missing: int
    is_broken_off: bool


def runs(data: mmap.mmap, start: int) -> Iterator[Run]:
    """Yields the recordings of an MP3, whose first frame begins at `start`."""
    at = run_start = frames_end = start
    first = _word(data, start)
    promised, num_frames, is_broken_off = _promised(data, start), 0, False
    while at >= 0:
        size = _frame_bytes(data, at, first)
        if not size:
            at = _behind_tags(data, at)
            if is_start(data, at):
                if _frame_bytes(data, at, first):
                    continue
                # Joined with a recording of another kind.
                yield _run(data, run_start, frames_end, promised, num_frames, False)
                run_start = frames_end = at
                first, promised, num_frames = _word(data, at), _promised(data, at), 0
                if promised is not None:
                    at += _size(first)
            else:
                at = _next_frame(data, at, first)
            continue
        if at + size > len(data):
            is_broken_off = promised is None or num_frames < promised
            break
        told = _promised(data, at)
        # One frame more is an encoder's own way to count.
        is_new = told is not None or (promised is not None and num_frames > promised + 1)
        if is_new and at > run_start:
            yield _run(data, run_start, frames_end, promised, num_frames, False)
            run_start, promised, num_frames = at, told, 0
        if told is None:
            num_frames += 1
        at = frames_end = at + size
    yield _run(data, run_start, frames_end, promised, num_frames, is_broken_off)


def _run(
    data: mmap.mmap, start: int, end: int, promised: int | None, num_frames: int, is_broken: bool
) -> Run:
    missing = 0
    # A frame fewer is an encoder's that counts its header.
    if promised and num_frames < promised - 1:
        missing = promised - num_frames
    header = b"" if promised else _header(_word(data, start), num_frames)
    if promised == 0:
        start += _frame_bytes(data, start, _word(data, start))
    return Run(start, end, header, promised or 0, missing, is_broken and not missing)


def is_start(data: mmap.mmap, at: int) -> bool:
    """Whether frames begin here: three in a row, or all that the file has."""
    first = _word(data, at)
    for index in range(3):
        size = _frame_bytes(data, at, first)
        if not size:
            return index > 0 and at >= without_tags(data, 0, len(data))
        at += size
    return True


def id3_bytes(data: mmap.mmap, at: int) -> int:
    """Returns the length of the tag that begins here with `ID3`."""
    sizes = data[at + 6 : at + 10].ljust(4, b"\0")
    size = 0
    for byte in sizes:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if data[at + 5 : at + 6] and data[at + 5] & 0x10 else 0)


def skip_zeros(data: mmap.mmap, at: int) -> int:
    """Returns the place of the first byte from here on that is not zero, or the file's end."""
    while at < len(data):
        block = data[at : at + 65_536]
        rest = block.lstrip(b"\0")
        if rest:
            return at + len(block) - len(rest)
        at += len(block)
    return at


def without_tags(data: mmap.mmap, start: int, end: int) -> int:
    """Returns where a file ends without the tags of MP3 files, which stand behind all kinds."""
    while True:
        if data[max(start, end - _ID3V1_BYTES) :][:3] == b"TAG":
            end -= _ID3V1_BYTES
        elif data[max(start, end - _APE_BYTES) :][:8] == b"APETAGEX":
            footer = data[end - _APE_BYTES : end]
            has_header = footer[23] & 0x80
            end -= int.from_bytes(footer[12:16], "little") + (_APE_BYTES if has_header else 0)
        else:
            return max(start, end)


def _word(data: mmap.mmap, at: int) -> int:
    return int.from_bytes(data[at : at + 4].ljust(4, b"\0"), "big")


def _layout(word: int) -> tuple[int, int, int, bool] | None:
    """Returns version, layer, sample rate and whether it is mono, of a frame's first 32 bits."""
    version, layer, rate = word >> 19 & 3, 4 - (word >> 17 & 3), word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or rate == 3:
        return None
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return (1 if version == 3 else 2), layer, rate_hz, word >> 6 & 3 == 3


def _size(word: int) -> int:
    layout, code = _layout(word), word >> 12 & 15
    if layout is None or code in (0, 15):
        return 0
    version, layer, rate_hz, _ = layout
    bits = 1000 * _KILOBITS[version, layer][code - 1]
    padding = word >> 9 & 1
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4
    return (72 if version == 2 and layer == 3 else 144) * bits // rate_hz + padding


def _frame_bytes(data: mmap.mmap, at: int, first: int) -> int:
    """Returns the length of the frame that begins here, of the same kind as the first; or 0."""
    word = _word(data, at)
    return _size(word) if (word ^ first) & _SAME == 0 else 0


def _behind_tags(data: mmap.mmap, at: int) -> int:
    """Returns the place behind tags and zeros."""
    while True:
        before = at
        if data[at : at + 3] == b"ID3":
            at += id3_bytes(data, at)
        elif data[at : at + 3] == b"TAG":
            at += _ID3V1_BYTES
        elif data[at : at + 8] == b"APETAGEX" and len(data) >= at + _APE_BYTES:
            is_header = data[at + 23] & 0x20
            size = int.from_bytes(data[at + 12 : at + 16], "little")
            at += (size if is_header else 0) + _APE_BYTES
        else:
            at = skip_zeros(data, at)
        if at == before:
            return at


def _next_frame(data: mmap.mmap, at: int, first: int) -> int:
    """Returns where frames continue after other bytes, at least a byte later; -1 if nowhere."""
    at += 1
    sync = (first >> 16).to_bytes(2, "big")
    other = bytes((sync[0], sync[1] ^ 1))  # With or without a checksum.
    while at < len(data):
        found = [place for mark in (sync, other) if (place := data.find(mark, at)) >= 0]
        if not found:
            return -1
        at = min(found)
        size = _frame_bytes(data, at, first)
        second = _frame_bytes(data, at + size, first) if size else 0
        if second and _frame_bytes(data, at + size + second, first):
            return at
        at += 1
    return -1


def _side_bytes(version: int, is_mono: bool) -> int:
    return (17 if is_mono else 32) if version == 1 else (9 if is_mono else 17)


def _promised(data: mmap.mmap, at: int) -> int | None:
    """Returns the number of frames that a header declares, 0 if unknown; None if no header."""
    head = data[at : at + 64]
    if not any(name in head for name in (b"Xing", b"Info", b"VBRI")):
        return None
    if head[36:40] == b"VBRI":
        return 0  # Its own count is not known to all decoders: it is made anew.
    layout = _layout(_word(data, at))
    if layout is None or layout[1] != 3:
        return None
    offset = 4 + _side_bytes(layout[0], layout[3])
    if head[offset : offset + 4] not in (b"Xing", b"Info"):
        return None
    return int.from_bytes(head[offset + 8 : offset + 12], "big") if head[offset + 7] & 1 else 0


def _header(word: int, num_frames: int) -> bytes:
    """Returns a silent frame that declares how many frames follow it, as encoders write one."""
    layout = _layout(word)
    if layout is None or layout[1] != 3:
        return b""
    word = word & ~0xF200 | 0x9000 | 0x10000  # 128 or 80 kbit/s, no padding, no checksum.
    offset = 4 + _side_bytes(layout[0], layout[3])
    frame = bytearray(_size(word))
    frame[:4] = word.to_bytes(4, "big")
    frame[offset : offset + 12] = b"Xing" + (1).to_bytes(4, "big") + num_frames.to_bytes(4, "big")
    return bytes(frame)

"""Finds the start and end of each sound in a file, and whether the last one is complete.

Decoders believe headers: they stop at the first of several joined recordings, guess lengths from
bit rates, and take a file that was cut off for a short one. Here the frames, pages and chunks of a
file are counted, without decoding any, up to its last byte.
"""

import dataclasses
import functools
import io
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

from umt_jax.audio import mpeg_frames

_RIFF = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_AIFF = (b"AIFF", b"AIFC")
_RAW_AIFC = tuple(b"NONE sowt in24 in32 fl32 FL32 fl64 FL64".split())
"""Those of AIFC whose samples are not compressed."""
_FLAC_STARTS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")

# Lengths from here on stand for "not known when the header was written", as do round ones.
_UNKNOWN_BYTES = 0x7FFFF000
_ROUND_BYTES = 10_000_000

# What stands behind a sound and is neither a chunk nor a tag may be anything, up to this size.
_JUNK_BYTES = 65_536

# Bytes of one sample, by the encoding of an .au file; others are compressed.
_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}

_AMR_FRAME_BYTES = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}

_AC3_KILOBITS = tuple(
    map(int, "32 40 48 56 64 80 96 112 128 160 192 224 256 320 384 448 512 576 640".split())
)


class CutOffError(ValueError):
    """The end of a file is missing; the message completes the sentence that its name begins."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a file that is a sound file by itself.

    Attributes:
        start: Its first byte in the file.
        end: The byte behind its last.
        before: Bytes that stand before it, for decoders.
        patches: Offsets in `before` and the stretch, and what decoders find there instead.
        has_guessed_length: Whether nothing in it says how long it is, so that decoders guess.
    """

    start: int
    end: int
    before: bytes = b""
    patches: tuple[tuple[int, bytes], ...] = ()
    has_guessed_length: bool = False


class View(io.RawIOBase):
    """Reads one part of an open file as if it were a file; moves the file's position nowhere."""

    def __init__(self, descriptor: int, part: Part) -> None:
        """Takes a descriptor, which stays open when the view is closed."""
        self._descriptor, self._part, self._at = descriptor, part, 0
        self._num_bytes = len(part.before) + part.end - part.start

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset from the beginning, the present place or the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._num_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as there are bytes; returns how many."""
        wanted = max(0, min(len(buffer), self._num_bytes - self._at))
        before = self._part.before[self._at : self._at + wanted]
        content = bytearray(before)
        if len(content) < wanted:
            at = self._part.start + self._at + len(content) - len(self._part.before)
            content += os.pread(self._descriptor, wanted - len(content), at)
        for offset, patch in self._part.patches:
            first, last = max(offset, self._at), min(offset + len(patch), self._at + len(content))
            if first < last:
                content[first - self._at : last - self._at] = patch[first - offset : last - offset]
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


_Reader = Callable[[mmap.mmap, int], Iterator[Part]]
"""Finds the parts of a file of one kind, from a byte on."""


def find(descriptor: int) -> list[Part]:
    """Returns the parts of an open file that is not empty, one after the other.

    A file of a kind that is not known here is one part.

    Raises:
        CutOffError: The last part is not whole.
    """
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        start = 0
        while data[start : start + 3] == b"ID3" and start < len(data):
            start += mpeg_frames.id3_bytes(data, start)
        reader = _reader(data, start)
        return list(reader(data, start)) if reader else [Part(0, len(data))]


def is_sound_file(content: bytes) -> bool:
    """Says whether these first 12 bytes or more of a file identify its format."""
    return (
        content[:4] == b"caff" or content[:3] == b"ID3" or _named_reader(content[:12]) is not None
    )


def _named_reader(magic: bytes) -> _Reader | None:
    """Returns what reads files whose first 12 bytes name their kind."""
    if magic[:4] in _RIFF and magic[8:] == b"WAVE":
        return _wav
    if magic[:4] == b"FORM" and magic[8:] in _AIFF:
        return _aiff
    if magic[:4] == b".snd":
        return _au
    if magic[:4] == b"OggS":
        return _ogg
    if magic[:4] == b"fLaC":
        return _flac
    if magic[4:8] == b"ftyp":
        return _mp4
    if magic.startswith(tuple(_AMR_FRAME_BYTES)):
        return _amr
    return None


def _reader(data: mmap.mmap, start: int) -> _Reader | None:
    magic = data[start : start + 12]
    named = _named_reader(magic)
    if named:
        return named
    if magic[4:8] in (b"moov", b"mdat"):
        return _mp4
    if magic[:2] == b"\x0b\x77":
        return _ac3
    if _adts_bytes(data, start):
        return _adts
    if mpeg_frames.is_start(data, mpeg_frames.skip_zeros(data, start)):
        return _mp3
    return None


def _check_promise(start: int, promised: int, end: int, frame_bytes: int, name: str) -> None:
    """Raises `CutOffError` if a header's length counts samples that are not there.

    A recorder that cannot go back to the header writes the largest length or a round one: that is
    no promise. Nor is a length too large by less than a sample.
    """
    there = end - start
    missing = promised // frame_bytes - there // frame_bytes
    if missing > 0 and promised < _UNKNOWN_BYTES and promised % _ROUND_BYTES:
        raise CutOffError(
            f"is cut off: its end is missing; {name} tells of {promised} bytes of sound, of which "
            f"{there} are there"
        )


def _chunks(data: mmap.mmap, at: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, content's offset and size of chunks that may reach beyond the file's end."""
    while at + 8 <= len(data):
        size = struct.unpack(f"{order}I", data[at + 4 : at + 8])[0]
        yield data[at : at + 4], at + 8, size
        at += 8 + size + size % 2


def _chunks_up_to_sound(
    data: mmap.mmap, at: int, order: str, *names: bytes
) -> dict[bytes, tuple[int, int]]:
    """Returns content's offset and size of chunks of these names, of which the last is the sound's.

    What lies behind the sound is not looked at.
    """
    found = {}
    for name, content, size in _chunks(data, at, order):
        if name in names:
            found[name] = content, size
        if name == names[-1]:
            break
    return found


def _end_of_chunks(data: mmap.mmap, at: int, order: str, starts: tuple[bytes, ...]) -> int | None:
    """Returns where chunks end that follow a sound: the file's end, or that of another sound.

    None if what follows is not chunks, nor zeros, nor a tag.
    """
    for name, content, size in _chunks(data, at, order):
        begin = content - 8
        if name in starts:
            return begin
        if name[:3] == b"TAG" or name in (b"ID3\3", b"ID3\4", b"APET") or not name.strip(b"\0"):
            return len(data)
        if not all(32 <= byte < 127 for byte in name) or content + size > len(data):
            return None
    return len(data)


def _wav(data: mmap.mmap, start: int) -> Iterator[Part]:
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    chunks = _chunks_up_to_sound(data, start + 12, order, b"fmt ", b"ds64", b"data")
    if b"data" not in chunks:
        yield Part(start, len(data))
        return
    at, size = chunks[b"data"]
    frame_bytes, patch_at, kind = 1, at - 4, f"{order}I"
    format_at, _ = chunks.get(b"fmt ", (len(data), 0))
    if format_at + 16 <= len(data):
        (declared,) = struct.unpack(f"{order}H", data[format_at + 12 : format_at + 14])
        frame_bytes = max(1, declared)
    if b"ds64" in chunks and size == 0xFFFFFFFF:
        patch_at, kind = chunks[b"ds64"][0] + 8, "<Q"
        size = struct.unpack(kind, data[patch_at : patch_at + 8].ljust(8, b"\0"))[0]
    starts = (b"RIFF", b"RIFX", b"RF64")
    yield from _chunk_part(data, start, at, size, frame_bytes, order, starts, patch_at, kind)


def _chunk_part(
    data: mmap.mmap,
    start: int,
    at: int,
    size: int,
    frame_bytes: int,
    order: str,
    starts: tuple[bytes, ...],
    patch_at: int,
    kind: str,
    header_bytes: int = 0,
    further_patches: Callable[[int], tuple[tuple[int, bytes], ...]] = lambda num_bytes: (),
) -> Iterator[Part]:
    """Yields the part whose sound begins at `at`, and those that follow it."""
    _check_promise(at, size, len(data), frame_bytes, "its header")
    end = _end_of_chunks(data, at + size + size % 2, order, starts)
    if end is None:
        end = _end_of_chunks(data, at + size, order, starts)
    actual = len(data) - at
    is_silent_start = data[at + header_bytes : at + header_bytes + 4] == bytes(4)
    was_never_finished = size <= header_bytes < actual and (end is None or is_silent_start)
    if size > actual or was_never_finished:
        num_bytes = actual - actual % frame_bytes
        value = min(num_bytes, 2 ** (8 * struct.calcsize(kind)) - 1)
        patches = ((patch_at - start, struct.pack(kind, value)),)
        yield Part(start, len(data), patches=patches + further_patches(num_bytes))
        return
    rest = len(data) - at - size
    if end is None and rest > _JUNK_BYTES:
        raise CutOffError(
            f"goes on behind the sound that its header tells of: {rest} bytes more than its "
            f"{size}. Convert it with a program that ignores lengths, such as ffmpeg "
            "-ignore_length 1"
        )
    end = len(data) if end is None else end
    yield Part(start, end)
    if end < len(data):
        reader = _reader(data, end)
        if reader:
            yield from reader(data, end)


def _aiff(data: mmap.mmap, start: int) -> Iterator[Part]:
    chunks = _chunks_up_to_sound(data, start + 12, ">", b"COMM", b"SSND")
    if b"SSND" not in chunks:
        yield Part(start, len(data))
        return
    at, size = chunks[b"SSND"]
    frame_bytes, num_frames_at = 1, None
    format_at, _ = chunks.get(b"COMM", (len(data), 0))
    if format_at + 18 <= len(data):
        channels, _, bits = struct.unpack(">HIH", data[format_at : format_at + 8])
        is_raw = data[start + 8 : start + 12] == b"AIFF"
        if is_raw or data[format_at + 18 : format_at + 22] in _RAW_AIFC:
            frame_bytes, num_frames_at = max(1, channels * ((bits + 7) // 8)), format_at + 2

    def patches(num_bytes: int) -> tuple[tuple[int, bytes], ...]:
        form = (4, struct.pack(">I", min(len(data) - start - 8, 2**32 - 1)))
        if num_frames_at is None:
            return (form,)
        num_frames = min(max(0, num_bytes - 8) // frame_bytes, 2**32 - 1)
        return form, (num_frames_at - start, struct.pack(">I", num_frames))

    # Eight bytes of the chunk stand before its samples.
    yield from _chunk_part(
        data, start, at, size, frame_bytes, ">", (b"FORM",), at - 4, ">I", 8, patches
    )


def _au(data: mmap.mmap, start: int) -> Iterator[Part]:
    offset, size, encoding, _, channels = struct.unpack(
        ">IIIII", data[start + 4 : start + 24].ljust(20, b"\0")
    )
    frame_bytes = max(1, channels * _AU_SAMPLE_BYTES.get(encoding, 1))
    at = start + offset
    actual = max(0, len(data) - at)
    _check_promise(at, size, len(data), frame_bytes, "its header")
    if size and size < actual and data[at + size : at + size + 4] == b".snd":
        yield Part(start, at + size)
        yield from _au(data, at + size)
    elif size == 0 or size > actual:
        yield Part(start, len(data), patches=((8, struct.pack(">I", min(actual, 2**32 - 2))),))
    else:
        yield Part(start, len(data))


def _ogg(data: mmap.mmap, start: int) -> Iterator[Part]:
    """Yields a part for each group of streams that begin together."""
    at = part_start = end = last_page = start
    in_beginning = True
    continues = False
    while at >= 0:
        header = data[at : at + 27]
        table = data[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
        page_end = at + 27 + len(table) + sum(table)
        if len(header) < 27 or len(table) < header[26] or page_end > len(data):
            raise CutOffError("is cut off: its end is missing; its last page is not whole")
        is_beginning = bool(header[5] & 2)
        if is_beginning and not in_beginning:
            yield _ogg_part(data, part_start, last_page, end)
            part_start = at
        last_page = at
        in_beginning = is_beginning
        continues = table[-1:] == b"\xff"
        end = page_end
        at = end if data[end : end + 4] == b"OggS" else data.find(b"OggS", end)
    if continues:
        raise CutOffError("is cut off: its end is missing; its last page promises another one")
    yield _ogg_part(data, part_start, last_page, end)


def _ogg_part(data: mmap.mmap, start: int, last_page: int, end: int) -> Part:
    """Marks the last page as such, which many recorders do not and libsndfile relies on."""
    if data[last_page + 5] & 4:
        return Part(start, end)
    page = bytearray(data[last_page:end])
    page[5] |= 4
    page[22:26] = bytes(4)
    page[22:26] = _crc(page, 0x04C11DB7, 32).to_bytes(4, "little")
    return Part(start, end, patches=((last_page - start, bytes(page[:26])),))


def _flac(data: mmap.mmap, start: int) -> Iterator[Part]:
    found = [data.find(magic, start + 4) for magic in _FLAC_STARTS]
    end = min((at for at in found if at >= 0), default=len(data))
    num_samples = int.from_bytes(data[start + 21 : start + 26], "big") & (2**36 - 1)
    if num_samples:
        yield Part(start, end)
    else:
        num_samples, sound_end = _end_of_flac(data, start, end)
        # The last 36 bits of five bytes; the four bits before them are those of the sample size.
        size = (data[start + 21] >> 4 << 36) + num_samples
        yield Part(start, sound_end, patches=((21, size.to_bytes(5, "big")),))
    if end < len(data):
        yield from _flac(data, end)


def _end_of_flac(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """Returns how many samples a FLAC of unknown length has, and where its last frame ends."""
    end = mpeg_frames.without_tags(data, start, end)
    at = end
    for _ in range(_FLAC_TRIES):
        at = _last_flac_header(data, start, at)
        if at < 0:
            break
        block_samples, first_sample, header_bytes = _flac_header(data, at)
        if header_bytes and _crc16(data[at:end]) == 0:
            return first_sample + block_samples, end
    raise CutOffError("is cut off: its end is missing; its last frame is not whole")


# Headers that are looked at from the end on: one in 65,536 is none.
_FLAC_TRIES = 4


def _last_flac_header(data: mmap.mmap, start: int, before: int) -> int:
    while True:
        before = max(data.rfind(b"\xff\xf8", start, before), data.rfind(b"\xff\xf9", start, before))
        if before < 0 or _flac_header(data, before)[2]:
            return before


def _flac_header(data: mmap.mmap, at: int) -> tuple[int, int, int]:
    """Returns samples in a frame, the number of its first, and bytes of its header; 0 if none."""
    header = data[at : at + 16].ljust(16, b"\0")
    size_code, rate_code = header[2] >> 4, header[2] & 15
    # The number is coded as characters are in UTF-8, up to 36 bits.
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    if size_code == 0 or rate_code == 15 or ones in (1, 8) or header[3] & 1:
        return 0, 0, 0
    number = header[4] & (0x7F >> ones)
    length = max(1, ones)
    for byte in header[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    next_at = 4 + length
    if size_code in (6, 7):
        width = size_code - 5
        block_samples = int.from_bytes(header[next_at : next_at + width], "big") + 1
        next_at += width
    else:
        block_samples = {1: 192}.get(size_code) or (
            576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
        )
    next_at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if _crc8(header[:next_at]) != header[next_at]:
        return 0, 0, 0
    if header[1] & 1:
        return block_samples, number, next_at + 1
    return block_samples, number * _fixed_block(data, at, block_samples), next_at + 1


def _fixed_block(data: mmap.mmap, at: int, block_samples: int) -> int:
    """Returns how many samples each frame has, but the last one, which may have fewer."""
    start = max(data.rfind(magic, 0, at) for magic in _FLAC_STARTS)
    smallest = int.from_bytes(data[start + 8 : start + 10], "big")
    largest = int.from_bytes(data[start + 10 : start + 12], "big")
    return largest if start >= 0 and smallest == largest else block_samples


def _crc8(content: bytes) -> int:
    return _crc(content, 0x07, 8)


def _crc16(content: bytes) -> int:
    return _crc(content, 0x8005, 16)


@functools.cache
def _crc_table(polynomial: int, width: int) -> list[int]:
    table = []
    top, mask = 1 << (width - 1), (1 << width) - 1
    for byte in range(256):
        value = byte << (width - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


def _crc(content: bytes | bytearray, polynomial: int, width: int) -> int:
    table, mask = _crc_table(polynomial, width), (1 << width) - 1
    value = 0
    for byte in content:
        value = (value << 8 ^ table[value >> (width - 8) ^ byte]) & mask
    return value


def _mp4(data: mmap.mmap, start: int) -> Iterator[Part]:
    at = start
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if not all(32 <= byte < 127 for byte in name):
            break  # Zeros, or whatever was left behind the last box.
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if name == b"ftyp" and at > start:
            yield Part(start, at)
            start = at
        if size == 0:
            at = len(data)
        elif size < 8:
            break
        elif at + size > len(data):
            if name in (b"mdat", b"moov", b"moof"):
                missing = at + size - len(data)
                raise CutOffError(f"is cut off: its end is missing, {missing} bytes of it")
            break
        else:
            at += size
    yield Part(start, len(data))


def _adts_bytes(data: mmap.mmap, at: int) -> int:
    """Returns the bytes of a frame of AAC that has a header of its own; 0 if none begins here."""
    header = data[at : at + 6]
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 and (header[2] >> 2 & 15) < 13 else 0


def _adts(data: mmap.mmap, start: int) -> Iterator[Part]:
    yield from _frames(data, start, lambda at: _adts_bytes(data, at))


def _amr(data: mmap.mmap, start: int) -> Iterator[Part]:
    magic = next(magic for magic in _AMR_FRAME_BYTES if data[start : start + 9].startswith(magic))
    sizes = _AMR_FRAME_BYTES[magic]
    yield from _frames(data, start, lambda at: sizes[data[at] >> 3 & 15], len(magic))


def _ac3(data: mmap.mmap, start: int) -> Iterator[Part]:
    yield from _frames(data, start, lambda at: _ac3_bytes(data, at))


def _ac3_bytes(data: mmap.mmap, at: int) -> int:
    header = data[at : at + 6]
    if len(header) < 6 or header[:2] != b"\x0b\x77":
        return 0
    if header[5] >> 3 > 10:  # Enhanced AC-3.
        return 2 * (((header[2] & 7) << 8 | header[3]) + 1)
    rate, size = header[4] >> 6, header[4] & 63
    if rate == 3 or size // 2 >= len(_AC3_KILOBITS):
        return 0
    kilobits = _AC3_KILOBITS[size // 2]
    return 2 * (2 * kilobits, 320 * kilobits // 147 + (size & 1), 3 * kilobits)[rate]


def _frames(
    data: mmap.mmap, start: int, frame_bytes: Callable[[int], int], header_bytes: int = 0
) -> Iterator[Part]:
    """Yields the one part of a file that is nothing but frames that tell their sizes."""
    at = start + header_bytes
    end = mpeg_frames.without_tags(data, start, len(data))
    while at < end and (size := frame_bytes(at)):
        if at + size > end:
            raise CutOffError("is cut off: its end is missing; its last frame is not whole")
        at += size
    if at == start + header_bytes:
        yield Part(start, len(data), has_guessed_length=True)
        return
    yield Part(start, end, has_guessed_length=True)


def _mp3(data: mmap.mmap, start: int) -> Iterator[Part]:
    start = mpeg_frames.skip_zeros(data, start)
    for run in mpeg_frames.runs(data, start):
        if run.num_missing > 0:
            raise CutOffError(
                f"is cut off: its end is missing; {run.num_missing} of {run.num_promised} frames"
            )
        if run.is_broken_off:
            raise CutOffError("is cut off: its end is missing; its last frame is not whole")
        yield Part(run.start, run.end, before=run.header)

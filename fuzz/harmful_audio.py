"""Audio files that are small and do harm to a decoder that trusts them, written box by box."""

from __future__ import annotations

import base64
import struct

# -- MP4: ISO/IEC 14496-12 -----------------------------------------------------------------------------


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, *parts: bytes) -> bytes:
    """With version and flags, all zero."""
    return box(kind, bytes(4), *parts)


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def mp4(tracks: int, samples: int, channels: int = 1, composition_offsets: bool = False) -> bytes:
    """Tracks of raw sound that declare `samples` samples, a few bytes each, without holding them."""
    moov = box(
        b"moov",
        full_box(b"mvhd", words(0, 0, 8000, samples), bytes(80)),
        *[_track(number + 1, samples, channels, composition_offsets) for number in range(tracks)],
    )
    return box(b"ftyp", b"isom", words(0), b"isom") + box(b"mdat", bytes(64)) + moov


def _track(number: int, samples: int, channels: int, composition_offsets: bool) -> bytes:
    sound = struct.pack(">6xH8xHHHHI", 1, channels, 16, 0, 0, 8000 << 16)
    tables = box(
        b"stbl",
        full_box(b"stsd", words(1), box(b"sowt", sound)),
        full_box(b"stts", words(1), words(samples, 2)),
        full_box(b"ctts", words(1), words(samples, 1)) if composition_offsets else b"",
        full_box(b"stsc", words(1), words(1, samples, 1)),
        full_box(b"stsz", words(2 * channels, samples)),
        full_box(b"stco", words(1), words(48)),
    )
    address = full_box(b"dref", words(1), box(b"url ", words(1)))
    media = box(b"minf", full_box(b"smhd", bytes(4)), box(b"dinf", address), tables)
    return box(
        b"trak",
        box(b"tkhd", words(3, 0, 0, number, 0, samples), bytes(60)),
        box(
            b"mdia",
            full_box(b"mdhd", words(0, 0, 8000, samples), bytes(4)),
            full_box(b"hdlr", bytes(4), b"soun", bytes(13)),
            media,
        ),
    )


# -- Ogg Opus: RFC 3533, RFC 7845 ----------------------------------------------------------------------


def _checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def ogg_page(flags: int, position: int, serial: int, number: int, packet: bytes) -> bytes:
    lengths = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    page = struct.pack("<4sBBqIII", b"OggS", 0, flags, position, serial, number, 0)
    page += bytes([len(lengths)]) + lengths + packet
    return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


def ogg_opus(channels: int, packets: int = 5, serial: int = 1) -> bytes:
    """A valid stream of that many channels, each coded for itself (mapping family 255), 20 ms a packet."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, channels, 0, 48_000, 0, 255)
    head += bytes([channels, 0]) + bytes(range(channels))
    tags = b"OpusTags" + struct.pack("<I", 1) + b"x" + bytes(4)
    packet = b"\xf8\x02\xff\xfe" * (channels - 1) + b"\xf8\xff\xfe"
    pages = [ogg_page(2, 0, serial, 0, head), ogg_page(0, 0, serial, 1, tags)]
    for number in range(packets):
        flags = 4 if number == packets - 1 else 0
        pages.append(ogg_page(flags, 960 * (number + 1), serial, number + 2, packet))
    return b"".join(pages)


# -- AAC: ISO/IEC 14496-3 ------------------------------------------------------------------------------


def adts(channel_configuration: int, frame: bytes, frames: int = 20) -> bytes:
    """Frames of AAC that announce this configuration of channels (7 is 7.1), each with `frame` as its data."""
    length = 7 + len(frame)
    head = bytes(
        (
            0xFF,
            0xF1,
            0x50 | channel_configuration >> 2,
            (channel_configuration & 3) << 6 | length >> 11,
            length >> 3 & 0xFF,
            (length & 7) << 5 | 0x1F,
            0xFC,
        )
    )
    return (head + frame) * frames


# -- WAV: RIFF -----------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    """`size`: what its header says, if that is not the truth."""
    length = len(body) if size is None else size
    return struct.pack("<4sI", kind, length) + body + bytes(len(body) % 2)


def wav(*chunks: bytes, channels: int = 1, rate_hz: int = 8_000, seconds: float = 0.5) -> bytes:
    """A recording of silence with `chunks` before its samples."""
    shape = struct.pack(
        "<HHIIHH", 1, channels, rate_hz, rate_hz * 2 * channels, 2 * channels & 0xFFFF, 16
    )
    silence = bytes(2 * channels * round(rate_hz * seconds))
    body = b"WAVE" + chunk(b"fmt ", shape) + b"".join(chunks) + chunk(b"data", silence)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def list_chunk(tags: int, body: bytes = b"x", size: int | None = None) -> bytes:
    """A `LIST` of that many notes, each under another name."""
    names = (struct.pack(">I", 0x41414141 + number) for number in range(tags))
    return chunk(b"LIST", b"INFO" + b"".join(chunk(name, body) for name in names), size)


def riff_lists() -> dict[str, bytes]:
    """Kinds of `LIST` that a reader can lose itself in."""
    return {
        "many tags": wav(list_chunk(100_000)),
        "many lists": wav(*[list_chunk(1)] * 50_000),
        "many tiny chunks": wav(*[chunk(b"junk", b"")] * 300_000),
        "a list of 4 GB": wav(list_chunk(10, size=0xFFFFFFFF)),
        "a list of half the sizes": wav(list_chunk(10, size=0x7FFFFFFF)),
        "an odd list": wav(list_chunk(10, b"abc", size=77)),
        "an empty list": wav(chunk(b"LIST", b"")),
        "a list in a list": wav(chunk(b"LIST", b"INFO" + list_chunk(1_000) * 100)),
        "a long tag": wav(list_chunk(1, bytes(8 << 20))),
    }


# -- SWF -----------------------------------------------------------------------------------------------

DAMAGED_SWF = base64.b64decode(
    "RldTBAAAQAZwAAyAAAB9AAAKcBdGCw4uOhEAAP8E1AA1pFejRzBwEAQBB0Hwf5Ddy/hj241bKj4Ho/+DFe3EN1RMv+cXfPSX0W1b"
    "7L/tF+xwLOemWW6xiFM4FCuzfoE6AHHZhUuuBkoS0azx1poPpuuQnJvhk/oo2euLHQkiIZVCIQIdT0Z+swj79Wy/i6akgCT64CRQ"
    "MXFTPD44OZMUYf44x/zjiQIAMW40JOP/9akyyDJkMLmHXTTc+Rk0yuUDZyfOD0I1iXgMRU3wMEGdwxK6QMuX2Urv/9i9VqY6//7P"
    "/F//9FGqyvpVMgSUMijLMt1CNNJzMLFHgjSoujo0iMdaMKCCJTRakMwEU2qlGTN0eFfRH+p7V27t6Kv6/P6neMr+Pt6Pej/R91v1"
    "pqJgQjSqAIcGWyGauTR02omGFCDxqBb+QacgITGGJgwZ2CHGrmcaVX5AAP/ndTfGf0Uf6Ue//X/01ACvr4CIgjzUsPvA6gB6DGZC"
    "tOsejSl4zhh0ogGa/k9vmuwiCJh1AMUedlZsN5mmHQaLy5lE8mBAEw8="
)
"""A track that is found only while the file is read. Found by `fuzz.decoders`, and made as short as it could be."""

"""The format and size of a picture file, read from its first bytes before any decoder sees it."""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself.

    Attributes
    ----------
    format : str
        "png", "jpeg", "webp", "bmp", "gif" or "tiff".
    height, width : int
        Of the stored picture, before its EXIF orientation is applied, in pixels.
    orientation : int
        EXIF orientation, 1 (upright) to 8, that is still to be applied after decoding.
    alpha : bool
        The picture may hold an alpha channel.
    """

    format: str
    height: int
    width: int
    orientation: int = 1
    alpha: bool = False


def read_header(file: BinaryIO) -> Header:
    """Format, size and orientation of a picture.

    Parameters
    ----------
    file : binary file
        Open for reading and seekable; only the parts that hold these facts are read.

    Raises
    ------
    ValueError
        If the file is of no known format or too short, or says that it has no pixels.
    """
    start = file.read(12)
    reader = next((reader for is_one, reader in _READERS if is_one(start)), None)
    if reader is None:
        raise ValueError("neither PNG, JPEG, WebP, BMP, GIF nor TIFF")
    try:
        header = reader(file)
    except (struct.error, KeyError, OverflowError, OSError) as error:
        raise ValueError("a damaged header") from error
    if header.height < 1 or header.width < 1:
        raise ValueError(f"a header that says {header.width}x{header.height} pixels")
    return header


def is_complete(file: BinaryIO, format: str) -> bool:
    """Whether a picture file holds its end: the usual damage is a transfer that broke off.

    Parameters
    ----------
    file : binary file
        Open for reading and seekable.
    format : str
        As `Header.format` says. Formats without a marked end (BMP, GIF, TIFF) are left to the decoder.
    """
    length = file.seek(0, io.SEEK_END)
    if format == "webp":
        file.seek(4)
        return int.from_bytes(file.read(4), "little") + 8 <= length
    if format == "png":
        return _after_last(file, b"IDAT", b"IEND")
    # Older OpenCV fills the rest of a truncated JPEG with grey and says nothing.
    return format != "jpeg" or _after_last(file, b"\xff\xda", b"\xff\xd9")


def _after_last(file: BinaryIO, begin: bytes, end: bytes) -> bool:
    """Whether `end` comes after the last `begin`; looked for in the last bytes first, then before any trailer."""
    for tail in (64, 1 << 62):
        file.seek(-min(tail, file.seek(0, io.SEEK_END)), io.SEEK_END)
        data = file.read()
        if data.rfind(end) > data.rfind(begin):
            return True
    return False


def _png(file: BinaryIO) -> Header:
    """https://www.w3.org/TR/png-3/#11IHDR."""
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8))
    file.seek(33)
    chunks = _chunks(file, ">I4s", crc=4)
    exif = next((body for kind, body in chunks if kind == b"eXIf"), b"")
    return Header("png", height, width, _orientation(exif), alpha=True)


def _chunks(file: BinaryIO, layout: str, crc: int = 0, padded: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body (EXIF only) of the chunks of a PNG, up to its pixels, or of a WebP."""
    while len(head := file.read(8)) == 8:
        first, second = struct.unpack(layout, head)
        kind, length = (second, first) if isinstance(second, bytes) else (first, second)
        if kind == b"IDAT":
            return
        is_exif = kind in (b"eXIf", b"EXIF")
        yield kind, file.read(min(length, 1 << 16)) if is_exif else b""
        if is_exif:
            return
        file.seek(length + crc + (length % 2 if padded else 0), 1)


def _webp(file: BinaryIO) -> Header:
    """https://developers.google.com/speed/webp/docs/riff_container; the three kinds of first chunk."""
    file.seek(12)
    kind, data = file.read(8)[:4], file.read(10)
    width, height = _WEBP_SIZES[kind](data)
    file.seek(12)
    exif = next((body for name, body in _chunks(file, "<4sI", padded=True) if name == b"EXIF"), b"")
    return Header("webp", height, width, _orientation(exif.removeprefix(b"Exif\0\0")), alpha=True)


def _webp_lossy(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack("<HH", data[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _webp_lossless(data: bytes) -> tuple[int, int]:
    bits = struct.unpack("<I", data[1:5])[0]
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _webp_extended(data: bytes) -> tuple[int, int]:
    if len(data) < 10:
        raise ValueError("a damaged header")
    return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"VP8 ": _webp_lossy,
    b"VP8L": _webp_lossless,
    b"VP8X": _webp_extended,
}


def _bmp(file: BinaryIO) -> Header:
    """A negative height means that the rows go from top to bottom."""
    file.seek(14)
    (size_of_header,) = struct.unpack("<I", file.read(4))
    width, height = struct.unpack("<HH", file.read(4)) if size_of_header == 12 else struct.unpack("<ii", file.read(8))
    return Header("bmp", abs(height), width)


def _gif(file: BinaryIO) -> Header:
    file.seek(6)
    width, height = struct.unpack("<HH", file.read(4))
    return Header("gif", height, width, alpha=True)


def _jpeg(file: BinaryIO) -> Header:
    """Walks the segments up to the frame header (SOF), which holds the size; APP1 may hold EXIF."""
    file.seek(2)
    orientation = 1
    while True:
        marker = _jpeg_marker(file)
        (length,) = struct.unpack(">H", file.read(2))
        if length < 2:
            raise ValueError("a damaged header")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _, height, width = struct.unpack(">BHH", file.read(5))
            return Header("jpeg", height, width, orientation)
        body = file.read(length - 2) if marker == 0xE1 else b""
        if body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        file.seek(length - 2 - len(body), 1)


def _jpeg_marker(file: BinaryIO) -> int:
    """The next marker that has a length; 0xFF may be repeated as filling."""
    while True:
        if (byte := file.read(1)) != b"\xff":
            raise ValueError("a damaged header")
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte[0] in (0xD9, 0xDA):
            raise ValueError("a damaged header")
        if byte[0] != 0x01 and not 0xD0 <= byte[0] <= 0xD7:
            return byte[0]


def _tiff(file: BinaryIO) -> Header:
    """OpenCV applies the orientation of a TIFF itself; the fourth sample of RGB is alpha where ExtraSamples says so."""
    file.seek(0)
    fields = _first_directory(file)
    return Header(
        "tiff", fields[0x0101], fields[0x0100], alpha=fields.get(0x0106) == 2 and fields.get(0x0152) in (1, 2)
    )


def _first_directory(file: BinaryIO) -> dict[int, int]:
    """Tag -> value of the first directory of a TIFF or an EXIF block, single integers only."""
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        raise ValueError("a damaged header")
    (version,) = struct.unpack(order + "H", file.read(2))
    if version == 43:
        file.seek(8)
    offset, count, entry = ("Q", "Q", "HHQ8s") if version == 43 else ("I", "H", "HHI4s")
    file.seek(*struct.unpack(order + offset, file.read(struct.calcsize(order + offset))))
    (entries,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
    size = struct.calcsize(order + entry)
    rows = (struct.unpack(order + entry, file.read(size)) for _ in range(min(entries, 4096)))
    return {tag: _integer(order, kind, value) for tag, kind, many, value in rows if many == 1 and kind in _INTEGERS}


_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _integer(order: str, kind: int, value: bytes) -> int:
    code = order + _INTEGERS[kind]
    return int(struct.unpack(code, value[: struct.calcsize(code)])[0])


def _orientation(exif: bytes) -> int:
    """EXIF orientation; a damaged EXIF block is no reason to refuse a picture."""
    try:
        value = _first_directory(io.BytesIO(exif)).get(_ORIENTATION, 1)
    except (struct.error, ValueError, OverflowError, OSError):
        return 1
    return value if 1 <= value <= 8 else 1


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO], Header]], ...] = (
    (lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda start: start.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP", _webp),
    (lambda start: start.startswith(b"BM"), _bmp),
    (lambda start: start[:6] in (b"GIF87a", b"GIF89a"), _gif),
    (lambda start: start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
)

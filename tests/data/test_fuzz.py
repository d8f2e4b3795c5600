"""2,000 damaged files, seeded: never a traceback, and no film is kept with other pixels than it has.

Each file is made small and plain, then damaged. What becomes of it is compared with decoders written here from the
specifications, with struct, zlib and numpy only; they judge the damaged file, and say nothing (None) of whatever
they don't know for sure. Their levels are those before rounding: half a level for that, and half for the rest.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causalcxr.data.images import read_image
from causalcxr.data.source import Unusable
from causalcxr.data.table import read_table
from causalcxr.support.errors import DataError

SIDE, EACH = 16, 500
TOLERANCE = 1.0


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """One to three of: bytes changed, a run overwritten, cut off, taken out, put in. Headers are hit most."""
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        reach = len(data) if random.random() < 0.3 else min(len(data), 300)
        at = int(random.integers(0, max(reach, 1)))
        n = int(random.integers(1, 9))
        match random.integers(0, 7):
            case 0 | 1:
                data[at : at + 1] = random.bytes(1)
            case 2:
                data[at : at + n] = bytes([random.choice([0, 255, 1, 127])]) * n
            case 3:
                data[at : at + 4] = (
                    random.choice([0, 1, 2, 2**16 - 1, 2**31, 2**32 - 1]).astype(np.uint32).tobytes()
                )
            case 4:
                del data[at : at + n]
            case 5:
                data[at:at] = random.bytes(n)
            case _ if random.random() < 0.3:
                del data[int(random.integers(0, max(len(data), 1))) :]
    return bytes(data)


# PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
PNG = b"\x89PNG\r\n\x1a\n"


def make_png(random: np.random.Generator, inside: bool = False) -> bytes:
    """Any depth of 8 or 16 bits, any channels, any filters; with alpha, stated bits, and a transparent colour.

    With damage inside, one of the parts is damaged before it is packed, so that no checksum gives it away.
    """
    hit = random.integers(0, 4) if inside else -1
    kind, depth = int(random.choice([0, 2, 4, 6])), int(random.choice([8, 16]))
    size = CHANNELS[kind] * depth // 8
    rows = b"".join(
        bytes([random.integers(0, 5)]) + random.integers(0, 256, SIDE * size, np.uint8).tobytes()
        for _ in range(SIDE)
    )
    parts = {b"IHDR": struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0)}
    if depth == 16 and random.random() < 0.3:
        parts[b"sBIT"] = bytes([random.integers(9, 17)]) * CHANNELS[kind]
    if kind in (0, 2) and random.random() < 0.2:
        parts[b"tRNS"] = (random.bytes(2) if depth == 16 else b"\0\7") * CHANNELS[kind]
    parts[b"IDAT"] = rows
    if inside:
        name = list(parts)[hit % len(parts)]
        parts[name] = damaged(parts[name], random)
    packed = zlib.compress(parts.pop(b"IDAT"))
    start = b"".join(chunk(name, body) for name, body in parts.items())
    return PNG + start + chunk(b"IDAT", packed[:100]) + chunk(b"IDAT", packed[100:]) + chunk(b"IEND", b"")


def png_levels(content: bytes) -> np.ndarray | None:
    """Levels of the picture over black; None if anything is unusual."""
    found: dict[bytes, bytes] = {}
    at = 8
    while content[:8] == PNG and at + 12 <= len(content):
        n, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + n]
        if chunk(kind, body) != content[at : at + 12 + n] or (kind != b"IDAT" and kind in found):
            return None
        found[kind] = found.get(kind, b"") + body
        at += 12 + n
    if at != len(content) or not {b"IHDR", b"IDAT", b"IEND"} <= set(found) <= KNOWN:
        return None
    if len(found[b"IHDR"]) != 13 or found[b"IEND"]:
        return None
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", found[b"IHDR"])
    if rest != [0, 0, 0] or depth not in (8, 16) or kind not in CHANNELS or (width, height) != (SIDE, SIDE):
        return None
    try:
        rows = zlib.decompress(found[b"IDAT"])
    except zlib.error:
        return None
    pixel = CHANNELS[kind] * depth // 8
    if len(rows) != SIDE * (1 + SIDE * pixel):
        return None
    samples = unfilter(rows, pixel)
    if samples is None:
        return None
    values = samples.view(f">u{depth // 8}").reshape(SIDE, SIDE, -1).astype(float)
    top = 2.0**depth - 1
    alpha = values[..., -1] / top if kind in (4, 6) else np.ones((SIDE, SIDE))
    colours = values[..., :-1] if kind in (4, 6) else values
    if b"tRNS" in found:
        if len(found[b"tRNS"]) != 2 * CHANNELS[kind] or kind in (4, 6):
            return None
        alpha = 1.0 - (values == np.frombuffer(found[b"tRNS"], ">u2")).all(-1)
    bits = found.get(b"sBIT", b"")
    if bits and depth == 16:
        if len(bits) != CHANNELS[kind] or not 1 <= min(bits) <= max(bits) <= 16:
            return None
        low = 2 ** max(bits) - 1
        upper = not (colours % 2 ** (16 - max(bits))).any()
        top = low if colours.max() <= low and not upper else top
    grey = colours @ [0.299, 0.587, 0.114] if colours.shape[-1] == 3 else colours[..., 0]
    return grey / top * 255 * alpha


KNOWN = {b"IHDR", b"IDAT", b"IEND", b"sBIT", b"tRNS"}


def unfilter(rows: bytes, pixel: int) -> np.ndarray | None:
    """Byte by byte, as PNG's specification has it."""
    stride = SIDE * pixel
    before, done = [0] * stride, []
    for start in range(0, len(rows), stride + 1):
        kind, line = rows[start], list(rows[start + 1 : start + 1 + stride])
        for i in range(stride):
            a, b, c = (line[i - pixel], before[i], before[i - pixel]) if i >= pixel else (0, before[i], 0)
            if kind == 1:
                line[i] += a
            elif kind == 2:
                line[i] += b
            elif kind == 3:
                line[i] += (a + b) // 2
            elif kind == 4:
                p = a + b - c
                line[i] += min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            elif kind:
                return None
            line[i] &= 255
        done.append(line)
        before = line
    return np.array(done, np.uint8)


# TIFF


def make_tiff(random: np.random.Generator) -> bytes:
    """Grey, 8 or 16 bits, either byte order and polarity, turned or not, in one or several strips."""
    order, bits = str(random.choice(["<", ">"])), int(random.choice([8, 16]))
    rows = int(random.choice([SIDE, 4]))
    data = random.integers(0, 2**bits, (SIDE, SIDE)).astype(f"{order}u{bits // 8}").tobytes()
    strips = SIDE // rows
    length = len(data) // strips
    after = 8 + len(data)
    places = struct.pack(f"{order}{strips}I", *(8 + i * length for i in range(strips)))
    lengths = struct.pack(f"{order}{strips}I", *[length] * strips)
    tags = [(256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, 1, bits), (259, 3, 1, 1)]
    tags += [(262, 3, 1, int(random.integers(0, 2)))]
    tags += [(273, 4, strips, after if strips > 1 else 8), (274, 3, 1, int(random.integers(1, 9)))]
    tags += [(277, 3, 1, 1), (278, 3, 1, rows)]
    tags += [(279, 4, strips, after + len(places) if strips > 1 else length)]
    entries = b"".join(
        struct.pack(order + ("HHIHH" if kind == 3 else "HHII"), tag, kind, n, *((v, 0) if kind == 3 else (v,)))
        for tag, kind, n, v in tags
    )
    if strips == 1:
        places = lengths = b""
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, after + len(places + lengths))
    return start + data + places + lengths + directory


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a[::-1].T,
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}


def tiff_levels(content: bytes) -> np.ndarray | None:
    """Levels of the first picture; None if anything is unusual."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (n,) = struct.unpack_from(order + "H", content, start)
        if struct.unpack_from(order + "I", content, start + 2 + 12 * n)[0]:
            return None  # another picture
        values: dict[int, list[int]] = {}
        for i in range(n):
            tag, kind, count = struct.unpack_from(order + "HHI", content, start + 2 + 12 * i)
            if tag in values or kind not in (3, 4) or not 1 <= count <= 64:
                return None
            form = f"{order}{count}{'HI'[kind - 3]}"
            at = start + 2 + 12 * i + 8
            if struct.calcsize(form) > 4:
                (at,) = struct.unpack_from(order + "I", content, at)
            values[tag] = list(struct.unpack_from(form, content, at))
        one = {tag: given[0] for tag, given in values.items() if len(given) == 1}
        if (
            set(values) != {256, 257, 258, 259, 262, 273, 274, 277, 278, 279}
            or one[257] != SIDE
            or one[256] != SIDE
        ):
            return None
        if one[258] not in (8, 16) or (one[259], one[277]) != (1, 1) or one[262] not in (0, 1):
            return None
        if one[274] not in TURNED or len(values[273]) != -(-SIDE // one[278]):
            return None
        rows = [min(one[278], SIDE - i * one[278]) for i in range(len(values[273]))]
        sizes = [height * SIDE * one[258] // 8 for height in rows]
        if values[279] != sizes:
            return None
        data = b"".join(content[at : at + size] for at, size in zip(values[273], sizes, strict=True))
        levels = np.frombuffer(data, f"{order}u{one[258] // 8}").reshape(SIDE, SIDE).astype(float)
    except (struct.error, KeyError, ValueError, ZeroDivisionError):
        return None
    full = 2 ** one[258] - 1
    return TURNED[one[274]](full - levels if one[262] == 0 else levels) / full * 255


# DICOM


def element(order: str, tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    value += b"\0" if len(value) % 2 and vr in (b"UI", b"OW") else b" " * (len(value) % 2)
    form, more = ("HH2sHI", (0,)) if vr in (b"OW", b"SQ") else ("HH2sH", ())
    return struct.pack(order + form, *tag, vr, *more, len(value)) + value


def make_dicom(random: np.random.Generator) -> bytes:
    """Uncompressed, either byte order, 8 or 16 bits with rubbish beside those stored, rescaled, with a window."""
    order, allocated = str(random.choice(["<", "<", ">"])), int(random.choice([8, 16]))
    stored = int(random.integers(allocated // 2, allocated + 1))
    high = stored - 1 if random.random() < 0.8 else allocated - 1
    words = random.integers(0, 2**allocated, (SIDE, SIDE)).astype(f"{order}u{allocated // 8}").tobytes()
    if order == ">" and allocated == 8:
        words = np.frombuffer(words, "u2").byteswap().tobytes()
    syntax = b"1.2.840.10008.1.2.1" if order == "<" else b"1.2.840.10008.1.2.2"
    meta = element("<", (2, 0x10), b"UI", syntax)
    body = [
        ((8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.1.1"),
        ((0x10, 0x20), b"LO", b"nobody"),
        ((0x28, 2), b"US", 1),
        ((0x28, 4), b"CS", random.choice([b"MONOCHROME1", b"MONOCHROME2"])),
        ((0x28, 0x10), b"US", SIDE),
        ((0x28, 0x11), b"US", SIDE),
        ((0x28, 0x100), b"US", allocated),
        ((0x28, 0x101), b"US", stored),
        *([((0x28, 0x102), b"US", high)] if high != stored - 1 or random.random() < 0.8 else []),
        ((0x28, 0x103), b"US", int(random.integers(0, 2))),
    ]
    if random.random() < 0.5:
        body += [((0x28, 0x1050), b"DS", f"{random.integers(0, 2**stored)}".encode())]
        body += [((0x28, 0x1051), b"DS", f"{random.integers(1, 2**stored)}\\100".encode())]
    if random.random() < 0.5:
        body += [((0x28, 0x1052), b"DS", f"{random.integers(-500, 500)}".encode())]
        body += [((0x28, 0x1053), b"DS", str(random.choice(["1", "-1", "0.5", "2.25"])).encode())]
    if random.random() < 0.3:
        body += [((0x28, 0x1056), b"CS", random.choice([b"LINEAR", b"LINEAR_EXACT", b"SIGMOID"]))]
    body += [((0x7FE0, 0x10), b"OW", words)]
    content = b"".join(
        element(order, tag, vr, struct.pack(order + "H", value) if isinstance(value, int) else bytes(value))
        for tag, vr, value in body
    )
    length = element("<", (2, 0), b"UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + length + meta + content


def dicom_elements(content: bytes) -> tuple[str, dict[tuple[int, int], tuple[bytes, bytes]]] | None:
    """Byte order and all elements; None if anything is unusual."""
    order, at, found, last = "<", 132, {}, (0, 0)
    big = False
    while at < len(content):
        if big and at + 2 <= len(content) and content[at : at + 2] != b"\2\0":
            order = ">"
        if at + 8 > len(content):
            return None
        *tag, vr = struct.unpack_from(order + "HH2s", content, at)
        if vr in (b"OW", b"UN", b"OB", b"UT", b"SQ"):
            if at + 12 > len(content) or vr != b"OW":
                return None
            (n,), at = struct.unpack_from(order + "I", content, at + 8), at + 12
        else:
            (n,), at = struct.unpack_from(order + "H", content, at + 6), at + 8
        tag = (tag[0], tag[1])
        if at + n > len(content) or tag <= last or n % 2 or (tag, vr) not in EXPECTED:
            return None
        found[tag], last = (vr, content[at : at + n]), tag
        if tag == (2, 0x10):
            syntax = content[at : at + n].rstrip(b"\0")
            if syntax not in (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2"):
                return None
            big = syntax.endswith(b".2.2")
        at += n
    return (order, found) if (2, 0x10) in found and (2, 0) in found else None


US, DS, CS, UI = b"US", b"DS", b"CS", b"UI"
EXPECTED = {
    *(((2, 0), b"UL"), ((2, 0x10), UI), ((8, 0x16), UI), ((0x10, 0x20), b"LO"), ((0x7FE0, 0x10), b"OW")),
    *(((0x28, tag), US) for tag in (2, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103)),
    *(((0x28, tag), DS) for tag in (0x1050, 0x1051, 0x1052, 0x1053)),
    *(((0x28, 4), CS), ((0x28, 0x1056), CS)),
}


def dicom_levels(content: bytes) -> np.ndarray | None:
    """Levels as PS3.3 C.11 has them; None if anything is unusual."""
    if content[128:132] != b"DICM" or (parsed := dicom_elements(content)) is None:
        return None
    order, elements = parsed
    file: dict[int, Any] = {}
    for (group, tag), (vr, value) in elements.items():
        if group != 0x28:
            continue
        try:
            if vr == US and len(value) != 2:
                return None
            text = value.decode("ascii").split("\\")[0].strip(" \0") if vr != US else ""
            file[tag] = struct.unpack(order + "H", value)[0] if vr == US else float(text) if vr == DS else text
        except ValueError:
            return None
    needed = {2, 4, 0x10, 0x11, 0x100, 0x101, 0x103}
    if not needed <= set(file) or (0x7FE0, 0x10) not in elements or (file[0x10], file[0x11]) != (SIDE, SIDE):
        return None
    allocated, stored, words = file[0x100], file[0x101], elements[0x7FE0, 0x10][1]
    high = file.get(0x102, stored - 1)
    if file[2] != 1 or allocated not in (8, 16) or not 1 <= stored <= allocated or file[0x103] > 1:
        return None
    if len(words) != SIDE**2 * allocated // 8 or not stored - 1 <= high < allocated:
        return None
    if order == ">" and allocated == 8:
        words = np.frombuffer(words, "u2").byteswap().tobytes()
    values = np.frombuffer(words, f"{order}u{allocated // 8}").reshape(SIDE, SIDE).astype(int)
    values = (values >> (high + 1 - stored)) % 2**stored
    low = 0
    if file[0x103]:
        values, low = np.where(values >= 2 ** (stored - 1), values - 2**stored, values), -(2 ** (stored - 1))
    ends = np.array([low, low + 2**stored - 1], float)
    values = values.astype(float)
    if 0x1052 in file and 0x1053 in file:
        values, ends = (x * file[0x1053] + file[0x1052] for x in (values, ends))
    shown = shares(values, ends, file)
    if shown is None or file[4] not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    return 255 * (1 - shown if file[4] == "MONOCHROME1" else shown)


def shares(values: np.ndarray, ends: np.ndarray, file: dict[int, Any]) -> np.ndarray | None:
    """Of the way from black to white."""
    if 0x1050 not in file or 0x1051 not in file:
        return (values - ends.min()) / np.ptp(ends) if np.ptp(ends) else None
    center, width, function = file[0x1050], file[0x1051], file.get(0x1056) or "LINEAR"
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp((-4 * (values - center) / width).clip(-500, 500)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        return None
    if width <= 0:
        return None
    return ((values - center) / width + 0.5).clip(0, 1)


# Tables


def make_table(random: np.random.Generator) -> bytes:
    lines = ["path,patient_id,sex,age,finding"]
    lines += [f"{i}.png,p{i // 2},{'FM'[i % 2]},{20 + i},No Finding" for i in range(int(random.integers(1, 20)))]
    return "\n".join(lines).encode()


def read_pixels(path: Path) -> np.ndarray | Unusable:
    if path.suffix == ".dcm":
        pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
        from causalcxr.data.dicom_file import read_dicom

        return read_dicom(path, [SIDE], 1)[0]
    return read_image(path, SIDE, 1)


FORMATS: dict[str, tuple[Callable[..., bytes], Callable[[bytes], np.ndarray | None]]] = {
    "png": (make_png, png_levels),
    "tif": (make_tiff, tiff_levels),
    "dcm": (make_dicom, dicom_levels),
}


@pytest.mark.parametrize("ending", FORMATS)
def test_undamaged_files_are_kept_and_right(tmp_path, ending):
    make, levels_of = FORMATS[ending]
    for seed in range(60):
        content = make(np.random.default_rng(seed))
        path = tmp_path / f"{seed}.{ending}"
        path.write_bytes(content)
        levels, kept = levels_of(content), read_pixels(path)
        assert levels is not None, seed
        if isinstance(kept, Unusable):  # by a window that shows nothing
            assert kept.reason == "constant image" and np.ptp(levels) <= TOLERANCE, (seed, kept)
            continue
        assert np.abs(kept[0] - levels).max() <= TOLERANCE, seed


@pytest.mark.filterwarnings("ignore")  # libraries remark on what is damaged
@pytest.mark.parametrize("ending", FORMATS)
def test_no_damaged_film_is_kept_with_other_pixels(tmp_path, ending):
    make, levels_of = FORMATS[ending]
    known = kept_films = 0
    for seed in range(EACH):
        random = np.random.default_rng([1, seed])
        inside = ending == "png" and seed % 4 != 0
        content = make_png(random, inside=True) if inside else damaged(make(random), random)
        path = tmp_path / f"a.{ending}"
        path.write_bytes(content)
        kept = read_pixels(path)
        if isinstance(kept, Unusable):
            assert kept.reason and "\n" not in kept.detail, seed
            continue
        assert kept.shape == (1, SIDE, SIDE) and kept.dtype == np.uint8
        kept_films += 1
        if (levels := levels_of(content)) is not None:
            known += 1
            assert np.abs(kept[0] - levels).max() <= TOLERANCE, seed
    assert known >= kept_films / 3 > 10, (known, kept_films)  # the test can fail


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_table_is_a_table_or_one_line(tmp_path):
    path = tmp_path / "metadata.csv"
    for seed in range(EACH):
        random = np.random.default_rng([2, seed])
        path.write_bytes(damaged(make_table(random), random))
        try:
            assert isinstance(read_table(path), pd.DataFrame)
        except DataError as error:
            assert "\n" not in str(error), seed

"""An images.npy that grows chunk by chunk and outlives a kill: a journal beside it says which rows are done.

A chunk is first appended to the images and then noted in the journal with the checksum of each image, so that
whatever stands in the journal stands in the images. What a dead process wrote after its last note is cut off.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from causalcxr.data.source import Unusable

__all__ = ["PartialImages"]

LITTLE = 64  # of 256 levels
SAMPLED = 61  # every so many pixels


class PartialImages:
    """The images of `rows` rows in `path`, as far as they are done; unusable rows leave no gap.

    `done` counts the rows that need not be read again; `unusable` has those without an image, by position. Of the
    images kept, `checksums` has the CRC-32 and `dim` counts those that use little of the levels there are.
    """

    def __init__(self, path: Path, journal: Path, rows: int, shape: tuple[int, ...]):
        self.rows, self.shape = rows, shape
        self.done, self.kept, self.dim = 0, 0, 0
        self._checksums = bytearray()
        self.unusable: dict[int, Unusable] = {}
        for file in (path, journal):
            file.touch()
        self._images = path.open("r+b", buffering=0)
        self._journal = journal.open("r+b", buffering=0)
        self._take_over()

    def append(self, position: int, images: Sequence[np.ndarray | Unusable]) -> None:
        """Add the rows from `position` on; those that are done already are skipped. Raises OSError: disk full."""
        assert position <= self.done, (position, self.done)
        images = images[self.done - position :]
        if not images:
            return
        unusable = {self.done + i: image for i, image in enumerate(images) if isinstance(image, Unusable)}
        usable = [image for image in images if isinstance(image, np.ndarray)]
        assert all(image.shape == self.shape and image.dtype == np.uint8 for image in usable), self.shape
        content = b"".join(image.tobytes() for image in usable)
        checksums = _checksums(content, self._bytes)
        note = {"rows": len(images), "unusable": unusable, "checksums": checksums.hex(), "dim": self._dim(content)}
        _write(self._images, content)
        _write(self._journal, _line(note))
        self._count(note)

    @property
    def checksums(self) -> np.ndarray:
        """Of each image kept, uint32 `(N,)`; equal images have equal ones."""
        return np.frombuffer(bytes(self._checksums), "<u4")

    def finish(self) -> None:
        """Give the file the header that fits what was kept, and flush it to disk."""
        self._images.seek(0)
        self._write_header(self.kept)
        os.fsync(self._images.fileno())

    def close(self) -> None:
        """Close both files; what is done stays."""
        self._images.close()
        self._journal.close()

    def _take_over(self) -> None:
        """Start behind the last chunk whose note and images are whole."""
        self._write_header(self.rows)
        length = self._count_whole(self._journal.read().splitlines(keepends=True))
        self._journal.truncate(length)
        self._journal.seek(length)
        self._images.truncate()

    def _count_whole(self, lines: Sequence[bytes]) -> int:
        """Count the chunks whose images are as noted; returns the length of their notes."""
        length, start = 0, self._images.tell()
        for line in lines:
            try:
                note = json.loads(line)
            except ValueError:  # cut off while it was written
                break
            n = (note["rows"] - len(note["unusable"])) * self._bytes
            content = _read(self._images, n)
            whole = line.endswith(b"\n") and len(content) == n
            if not whole or _checksums(content, self._bytes).hex() != note["checksums"]:
                break
            self._count(note)
            length, start = length + len(line), start + n
        self._images.seek(start)
        return length

    def _count(self, note: dict[str, Any]) -> None:
        self.unusable |= {int(position): Unusable(*why) for position, why in note["unusable"].items()}
        self.done += note["rows"]
        self.kept = self.done - len(self.unusable)
        self.dim += note["dim"]
        self._checksums += bytes.fromhex(note["checksums"])

    def _dim(self, content: bytes) -> int:
        """How many of the images use less than LITTLE of the levels."""
        levels = np.frombuffer(content, np.uint8).reshape(-1, self._bytes)
        sampled = np.ascontiguousarray(levels[:, ::SAMPLED].T)  # most show at once that they are not
        levels = levels[np.ptp(sampled, axis=0) < LITTLE]
        return int((np.ptp(levels, axis=1) < LITTLE).sum())

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.shape))

    def _write_header(self, n: int) -> None:
        """numpy leaves room for a number of rows that changes, so the images begin at the same place."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, *self.shape)}
        np.lib.format.write_array_header_1_0(self._images, header)


def _checksums(content: bytes, size: int) -> bytes:
    """CRC-32 of every image of `size` bytes, 4 bytes each."""
    starts = range(0, len(content), size)
    view = memoryview(content)
    return np.array([zlib.crc32(view[start : start + size]) for start in starts], "<u4").tobytes()


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _write(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:  # a disk that fills up takes a part first
        view = view[file.write(view) :]


def _read(file: BinaryIO, n: int) -> bytes:
    parts = []
    while n and (part := file.read(n)):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)

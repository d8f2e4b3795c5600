"""Files that are written whole or not at all."""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from causalcxr.support.errors import RunError

__all__ = [
    "load_metadata",
    "load_tensors",
    "pack_tensors",
    "save_tensors",
    "unpack_tensors",
    "write_atomically",
    "write_json",
]


def write_atomically(path: Path, content: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Write `content` to a temporary file beside `path`, flush it to disk, and move it into place.

    Raises RunError when the disk is full or the folder can't be written; the old file, if any, is kept.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(
            f"could not write '{path}': {error.strerror or error}; "
            "free room or choose another folder, then run the same command again (what was there is kept)"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON a person can read. NaN is refused by json.loads elsewhere, so it is written as null."""
    write_atomically(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False) + "\n")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Save tensors as safetensors, with JSON metadata under the key `causalcxr`, and a checksum of all of it.

    One key alone: the library writes several in any order, and the same tensors should give the same bytes.
    """
    write_atomically(path, pack_tensors(tensors, metadata))


def pack_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """What `save_tensors` writes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"metadata": metadata, "crc32": _checksum(plain, metadata)}
    return safetensors.torch.save(plain, {"causalcxr": json.dumps(header)})


def unpack_tensors(content: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of `pack_tensors`. Raises RunError: damaged, or not ours."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["causalcxr"])
        tensors = safetensors.torch.load(content)
        if header["crc32"] != _checksum(tensors, header["metadata"]):
            raise ValueError("its checksum is another")
        return tensors, header["metadata"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{what} is damaged or none of ours ({' '.join(str(error).split())})") from None


def load_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata that `save_tensors` wrote.

    Raises RunError: missing, truncated, changed since it was written (by its checksum), or not ours.
    """
    return _load(path, device, with_tensors=True)


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading a tensor. Raises RunError: missing, truncated, or not ours."""
    return _load(path, "cpu", with_tensors=False)[1]


def _load(path: Path, device: str, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            header = json.loads((file.metadata() or {})["causalcxr"])
            metadata = header["metadata"]
            tensors = {name: file.get_tensor(name) for name in (file.keys() if with_tensors else [])}
            if with_tensors and header["crc32"] != _checksum(tensors, metadata):
                raise ValueError("its checksum is another: the file has changed since it was written")
            return tensors, metadata
    except FileNotFoundError:
        raise RunError(f"no file '{path}'; train the run first") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"'{path}' is damaged or none of ours ({reason}); {_mend(path)}") from None


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """CRC-32 of the metadata and of every tensor's name and bytes, in the order of the names."""
    crc = zlib.crc32(json.dumps(metadata).encode())
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().view(-1)
        content = flat.view(torch.uint8) if flat.numel() else flat.new_empty(0, dtype=torch.uint8)
        crc = zlib.crc32(memoryview(content.numpy()), zlib.crc32(name.encode(), crc))  # pyright: ignore[reportArgumentType]
    return f"{crc:08x}"


def _mend(path: Path) -> str:
    """What is lost with a file of a run, and what brings it back."""
    if path.parent.name == "state":
        return f"delete it, and the stage '{path.name.partition('.')[0]}' is trained again by the same command"
    if path.stem == "model":
        return "delete it and train with the same command: finished stages are taken from state/ if that is whole"
    return "copy it from a backup, or delete it with model.safetensors: the same command makes both again"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return value

"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from causalcxr.support.errors import RunError

__all__ = ["load_metadata", "load_tensors", "save_tensors", "write_atomically", "write_json"]


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
    """Save tensors as safetensors, with JSON metadata under the key `causalcxr`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"causalcxr": json.dumps(metadata)}
    write_atomically(path, safetensors.torch.save(plain, header))


def load_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata that `save_tensors` wrote. Raises RunError: missing, truncated, or not ours."""
    return _load(path, device, with_tensors=True)


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading a tensor. Raises RunError: missing, truncated, or not ours."""
    return _load(path, "cpu", with_tensors=False)[1]


def _load(path: Path, device: str, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            metadata = json.loads((file.metadata() or {})["causalcxr"])
            names = file.keys() if with_tensors else []
            return {name: file.get_tensor(name) for name in names}, metadata
    except FileNotFoundError:
        raise RunError(f"no file '{path}'; train the run first") from None
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"'{path}' can't be read as a causalcxr checkpoint ({reason}); delete it") from None


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return value

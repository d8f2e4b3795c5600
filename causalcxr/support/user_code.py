"""A function of the user's own file, given as `FILE.py:FUNCTION`."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from causalcxr.support.errors import CausalCXRError, ConfigError

__all__ = ["call_function"]


def call_function(where: str, option: str, *arguments: Any) -> Any:
    """What the function at `FILE.py:FUNCTION` returns; `option` is what an error calls it.

    Raises ConfigError: no such file or function, or it fails.
    """
    file, colon, name = where.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError(f"{option} '{where}': expected FILE.py:FUNCTION")
    function = _function(Path(file), name, option)
    try:
        return function(*arguments)
    except CausalCXRError:
        raise
    except Exception as error:
        raise ConfigError(f"{option}: {name} in '{file}' fails with {type(error).__name__}: {error}") from error


def _function(path: Path, name: str, option: str) -> Callable[..., Any]:
    if not path.is_file():
        raise ConfigError(f"{option}: no file '{path}'")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except CausalCXRError:
        raise
    except Exception as error:
        raise ConfigError(f"{option}: '{path}' fails with {type(error).__name__}: {error}") from error
    if not callable(found := getattr(module, name, None)):
        raise ConfigError(f"{option}: '{path}' has no function '{name}'")
    return found

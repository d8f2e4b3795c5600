"""Errors meant for a person: one line that names the thing, what came, what was expected and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["CausalCXRError", "ConfigError", "DataError", "GraphError", "RunError", "TrainingError", "nearest"]


class CausalCXRError(Exception):
    """Base of every error that the user can mend. The command line prints it as one line and exits with 2."""


class GraphError(CausalCXRError):
    """A graph declaration, or a value that a graph does not allow."""


class ConfigError(CausalCXRError):
    """A configuration key or value."""


class DataError(CausalCXRError):
    """An image, a table, or a prepared cohort."""


class RunError(CausalCXRError):
    """A run folder: missing, unreadable, or made by another graph or configuration."""


class TrainingError(CausalCXRError):
    """Training cannot go on (non-finite loss, full disk)."""


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint that names the valid option most like `name`, or lists the options when none is alike."""
    options = [str(option) for option in options]
    close = get_close_matches(str(name), options, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"expected one of: {', '.join(options)}" if options else "none is known here"

"""Every `key=value` setting with its default and a line on it, read from the code of the configuration.

The code is parsed and not imported, so that help is there at once.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Setting", "list_settings"]

PACKAGE = Path(__file__).parents[1]
FILES = (
    "config.py",
    "data/config.py",
    "training/config.py",
    "evaluation/config.py",
    "audit/config.py",
    "bias/config.py",
    "federation/config.py",
    "mechanisms/flow.py",
    "mechanisms/hvae_network.py",
    "mechanisms/registry.py",
    "mechanisms/spline.py",
    "mechanisms/template.py",
    "predictors/networks.py",
)


class Setting(NamedTuple):
    """A key such as `train.seed`, its default as it is written, and what it is for."""

    key: str
    default: str
    about: str


def list_settings(sections: tuple[str, ...] = (), root: str = "Config") -> list[Setting]:
    """All settings of the dataclass `root`, or those whose key begins with one of `sections`."""
    classes = {node.name: (node, code) for node, code in _classes()}
    found = list(_fields(root, "", classes))
    return [setting for setting in found if not sections or setting.key.split(".")[0] in sections]


def _classes() -> Iterator[tuple[ast.ClassDef, list[str]]]:
    for name in FILES:
        code = (PACKAGE / name).read_text("utf-8")
        for node in ast.parse(code).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                yield node, code.splitlines()


def _fields(
    name: str, prefix: str, classes: dict[str, tuple[ast.ClassDef, list[str]]], given: dict[str, str] | None = None
) -> Iterator[Setting]:
    """The settings of a class; `given` are defaults that stand where the class is used."""
    (node, code), given = classes[name], given or {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from _fields(base.id, prefix, classes, given)
    described = _described(ast.get_docstring(node) or "")
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name) or field.value is None:
            continue
        key, kind = field.target.id, ast.unparse(field.annotation)
        if kind in classes:
            yield from _fields(kind, f"{prefix}{key}.", classes, _given(field.value))
        else:
            comment = code[(field.end_lineno or 1) - 1].partition("  # ")[2]
            yield Setting(
                f"{prefix}{key}", given.get(key, _default(field.value)), comment or described.get(key, "")
            )


def _given(value: ast.expr) -> dict[str, str]:
    """The keywords of `field(default_factory=lambda: StageConfig(steps=2000))`."""
    calls = [node for node in ast.walk(value) if isinstance(node, ast.Call)]
    words = [word for call in calls for word in call.keywords if word.arg != "default_factory"]
    return {word.arg: _written(word.value) for word in words if word.arg}


def _described(docstring: str) -> dict[str, str]:
    """What a docstring says of each field: the text from "`name`:" or "`one`, `other`:" to the next such."""
    parts = re.split(r"((?:`\w+`, )*`\w+`): ", " ".join(docstring.split()))
    pairs = zip(parts[1::2], parts[2::2], strict=False)
    return {name: text.strip() for names, text in pairs for name in re.findall(r"\w+", names)}


def _default(value: ast.expr) -> str:
    """The default of a field: its own, or what `bounded`, `choice` or a factory make it."""
    if isinstance(value, ast.Call) and value.args:
        return _written(value.args[0])
    if isinstance(value, ast.Call):
        factories = [word.value for word in value.keywords if word.arg == "default_factory"]
        made = next((made.body for made in factories if isinstance(made, ast.Lambda)), None)
        return _written(made) if made else "[]" if any(ast.unparse(made) == "list" for made in factories) else "{}"
    return _written(value)


def _written(value: ast.expr) -> str:
    """A value as a person writes it on the command line."""
    text = ast.unparse(value)
    return {"True": "true", "False": "false"}.get(text, text.replace("'", ""))

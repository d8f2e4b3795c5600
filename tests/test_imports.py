"""The shape of the package: no import leads in a circle, and every folder stands only on those below it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "causalcxr"
# From the ground up. A folder, or a file of the top level, imports nothing that stands after it; those that share
# a line do not import each other.
FLOORS = [
    {"support"},
    {"graph", "randomness"},
    {"values"},
    {"interventions", "mechanisms", "simulator"},
    {"scm"},
    {"data"},
    {"predictors"},
    {"training.config", "evaluation.config", "audit.config"},  # read by the one configuration
    {"config"},
    {"building"},
    {"runs", "answers", "metrics"},
    {"report", "training"},
    {"check", "evaluation"},
    {"audit", "bias", "debias", "explorer", "federation"},
    {"commands"},
]


def modules() -> dict[str, Path]:
    """Dotted names below `causalcxr`, packages' own files under the package's name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Every module of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        inside = [name.removeprefix("causalcxr.") for name in names if name.startswith("causalcxr.")]
        deepest = [name for name in inside if name in known]
        found |= {name for name in deepest if not any(other.startswith(f"{name}.") for other in deepest)}
    return found


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path, set(known)) - {name} for name, path in known.items()}


def test_no_import_leads_in_a_circle(imported):
    try:
        list(TopologicalSorter(imported).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_every_folder_stands_on_those_below_it(imported):
    floors = {name: floor for floor, names in enumerate(FLOORS) for name in names}

    def room(module: str) -> str:
        return module if module in floors else module.partition(".")[0]

    unknown = {room(name) for name in imported} - set(floors) - {"", "__main__"}
    assert not unknown, f"say in FLOORS where these stand: {sorted(unknown)}"
    climbs = [
        f"{name} imports {other}"
        for name, others in imported.items()
        for other in others
        if name not in ("", "__main__") and room(name) != room(other) and floors[room(other)] >= floors[room(name)]
    ]
    assert not climbs, climbs


def test_a_circle_would_be_found(tmp_path):
    """The reader sees imports inside functions, `from package import module`, and plain ones."""
    file = tmp_path / "file.py"
    file.write_text("from causalcxr import b\nimport causalcxr.c.d\ndef f():\n    from causalcxr.e import name\n")
    assert imports(file, {"b", "c", "c.d", "e"}) == {"b", "c.d", "e"}

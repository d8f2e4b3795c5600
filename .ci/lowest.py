"""Prints pip constraints that pin every direct dependency to the lowest version that pyproject.toml admits."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *(r for name in extras for r in extras[name])]:
    if found := re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", requirement):
        print(f"{found[1]}=={found[2]}")

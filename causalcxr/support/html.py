"""Self-contained HTML pages: templates with our filters, pictures as data URIs, numbers and intervals as text."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

__all__ = ["figure_source", "interval_text", "number_text", "p_text", "page_template", "png_source"]

NARROWEST = 1e-4  # an interval that is narrower is shown by its value alone
ROUNDING = 1e-9  # below this a number is a zero with the rounding of float64


def page_template(package: str, name: str) -> Template:
    """A template of a package, with the shared style sheet and our filters; what is filled in is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("causalcxr.support", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "source": figure_source,
        "number": number_text,
        "interval": interval_text,
        "p_value": p_text,
        "parts": interval_parts,
    }
    return environment.get_template(name)


def figure_source(path: Path) -> str:
    """A PNG file as a data URI."""
    return png_source(Path(path).read_bytes())


def png_source(content: bytes) -> str:
    """The content of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def number_text(value: Any, digits: int = 3) -> str:
    """A number with about three digits; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) < 10.0**-digits:
        return f"< {10.0**-digits:g}" if abs(value) > ROUNDING else "0"
    text = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def p_text(p: float | None) -> str:
    """A p-value; below 0.001 that it is."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def interval_text(entry: Mapping[str, Any] | None, decimals: int | None = None) -> str:
    """`0.52 [0.50, 0.55]`; the value alone where the interval has no width.

    `decimals`: how many, where they are not to follow from the interval's width.
    """
    if entry is None:
        return "–"
    value, low, high = interval_parts(entry, decimals)
    return value if low == high else f"{value} [{low}, {high}]"


def interval_parts(entry: Mapping[str, Any], decimals: int | None = None) -> tuple[str, str, str]:
    """Value and both ends with as many decimals as the interval's width gives a meaning to."""
    value, low, high = (entry[key] for key in ("value", "low", "high"))
    if not high - low > NARROWEST:  # NaN included
        return number_text(value), number_text(low), number_text(high)
    if decimals is None:
        decimals = max(0, math.ceil(-math.log10((high - low) / 2)))
    value, low, high = (_fixed(x, decimals) for x in (value, low, high))
    return value, low, high


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "" if float(text.replace(",", "")) == 0 else "−")

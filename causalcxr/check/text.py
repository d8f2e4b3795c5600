"""What was found, as sentences, as a table, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from causalcxr.check.calibration import TOLERANCE, Calibration
from causalcxr.check.check import LEVEL, Findings
from causalcxr.check.claims import Claim
from causalcxr.check.independence import Independence

__all__ = ["as_json", "as_text", "complaints", "notes"]


def complaints(findings: Findings) -> list[str]:
    """One sentence for every missing edge and every mechanism that the data contradict."""
    tested = {one.claim: one for one in findings.independences}
    edges = [
        _missing_edge(tested[claim], explained, findings.tests) for claim, explained in findings.missing.items()
    ]
    return edges + [_misfit(fit, findings) for fit in findings.mechanisms if fit.adjusted <= LEVEL]


def notes(findings: Findings) -> list[str]:
    """One sentence for every edge of the graph that the data do not support; that contradicts nothing."""
    return [_unsupported(one) for one in findings.unsupported]


def as_text(findings: Findings) -> str:
    """Everything tested as two tables, then what it means in words."""
    parts = [_heading(findings), _table(*_independences(findings)), _table(*_mechanisms(findings))]
    said = complaints(findings)
    verdict = said or [
        f"The data contradict nothing that the graph says (level {LEVEL:g}, {findings.tests} tests)."
    ]
    return "\n\n".join([part for part in parts if part] + ["\n".join([*verdict, *notes(findings)])])


def as_json(findings: Findings) -> dict[str, Any]:
    """The same for programs."""
    cohort = findings.cohort
    return {
        "graph": cohort.graph.name,
        "source": cohort.source,
        "rows": len(cohort.manifest),
        "patients": len(set(cohort.manifest["patient_id"])),
        "rejected": cohort.rejected,
        "level": LEVEL,
        "tests": findings.tests,
        "contradicted": findings.contradicted,
        "complaints": complaints(findings),
        "notes": notes(findings),
        "missing_edges": [[claim.earlier, claim.later] for claim in findings.missing],
        "unsupported_edges": [[one.claim.earlier, one.claim.later] for one in findings.unsupported],
        "independences": [asdict(one) for one in findings.independences],
        "mechanisms": [asdict(fit) for fit in findings.mechanisms],
        "tolerance_of_mechanisms": TOLERANCE,
    }


def _heading(findings: Findings) -> str:
    cohort = findings.cohort
    patients = len(set(cohort.manifest["patient_id"]))
    rejected = ", ".join(f"{reason} {n:,}" for reason, n in cohort.rejected.items()) or "none"
    rows = f"{len(cohort.manifest):,} rows of {patients:,} patients (rejected: {rejected})"
    return f"graph '{cohort.graph.name}' on {rows}"


def _independences(findings: Findings) -> tuple[list[str], list[list[str]]]:
    rows = [
        [_in_words(one.claim), f"{one.strength:.3f}", *_p_values(one), "CONTRADICTED" * (one.adjusted <= LEVEL)]
        for one in findings.independences
    ]
    return ["the graph says: independent", "strength", "p", "corrected", ""], rows


def _mechanisms(findings: Findings) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            fit.variable,
            f"{fit.event or 'too few rows to say'}, {fit.group}",
            f"{fit.predicted:.1%}",
            f"{fit.observed:.1%}",
            *_p_values(fit),
            "CONTRADICTED" * (fit.adjusted <= LEVEL),
        ]
        for fit in findings.mechanisms
    ]
    return ["mechanism", "largest gap on held-out rows", "predicted", "observed", "p", "corrected", ""], rows


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width if name else "" for width, name in zip(widths, header, strict=True)], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _missing_edge(tested: Independence, explained: Sequence[Claim], tests: int) -> str:
    claim = tested.claim
    given = f"given {_names(claim.given)}, " if claim.given else ""
    sentence = (
        f"The data contradict the missing edge {claim.earlier} -> {claim.later}: {given}{claim.earlier} and "
        f"{claim.later} are not independent (p = {_p(tested.adjusted)} after correction for {tests} tests, "
        f"strength {tested.strength:.3f})."
    )
    if explained:
        others = "; ".join(_in_words(one) for one in explained)
        sentence += f" Once {claim.later} has the edges named here, nothing more speaks against: {others}."
    return sentence


def _misfit(fit: Calibration, findings: Findings) -> str:
    what = fit.event if findings.cohort.graph[fit.variable].is_discrete else f"a {fit.variable} {fit.event}"
    return (
        f"The mechanism of {fit.variable} does not describe held-out rows: in {fit.group} it predicts {what} for "
        f"{fit.predicted:.1%}, and {fit.observed:.1%} have it (p = {_p(fit.adjusted)} after correction for "
        f"{findings.tests} tests); fit it longer, or give it other parents."
    )


def _unsupported(one: Independence) -> str:
    given = f"given {_names(one.claim.given)}, " if one.claim.given else ""
    edge = f"{one.claim.earlier} -> {one.claim.later}"
    return (
        f"Note: the data do not show the edge {edge}: {given}the two could be independent (p = {_p(one.p)}); "
        "it may be weak."
    )


def _in_words(claim: Claim) -> str:
    given = f" given {_names(claim.given)}" if claim.given else ""
    return f"{claim.earlier} and {claim.later}{given}"


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _p_values(one: Independence | Calibration) -> list[str]:
    return [_p(one.p), _p(one.adjusted)]


def _p(p: float) -> str:
    return f"{p:.2g}" if p > 1e-300 else "below 1e-300"

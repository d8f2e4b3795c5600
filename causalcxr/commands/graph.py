"""`causalcxr graph check GRAPH COHORT`: what a graph claims, tested against data."""

from pathlib import Path

from causalcxr.check.check import check_graph
from causalcxr.check.text import as_json, as_text
from causalcxr.commands.arguments import Parser, refuse_replacing, say
from causalcxr.support.files import write_json

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Print what was found; status 1 if the data contradict the graph."""
    parser = Parser("causalcxr graph")
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="test what a graph claims against data; status 1 if they contradict it"
    )
    check.add_argument("graph", help="a shipped graph's name, or a YAML file")
    check.add_argument(
        "cohort",
        nargs="+",
        help="a CSV or the folder of a prepared cohort, or neither; then key=value as in train",
    )
    check.add_argument("--json", metavar="FILE", help="also write all that was tested as JSON")
    options = parser.parse_args(arguments)
    if options.json is not None:
        refuse_replacing([Path(options.json)], [Path(options.graph), Path(options.cohort[0])])
    findings = check_graph(options.graph, options.cohort)
    if options.json is not None:
        write_json(Path(options.json), as_json(findings))
    say(as_text(findings))
    return int(findings.contradicted)

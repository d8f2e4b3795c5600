"""`causalcxr sites train STUDY.yaml`: learn across hospitals whose images stay where they are."""

from pathlib import Path
from typing import TYPE_CHECKING

from causalcxr.commands.arguments import Parser, say
from causalcxr.support.errors import ConfigError

if TYPE_CHECKING:
    from causalcxr.federation.config import SitesConfig

__all__ = ["HELP", "ROOT", "SECTIONS", "run"]

SECTIONS = ()
ROOT = "SitesConfig"
HELP = """usage: causalcxr sites train STUDY.yaml [key=value ...]
       causalcxr sites export STUDY.yaml --clients A B C --out JOBS [key=value ...]
       causalcxr sites prepare KIT [KIT ...]

train: every strategy with every seed; writes report.html and study.json into its folder, and a run folder for each
model. Killed, it goes on by the same command.
export: one strategy with one seed as a job for hospitals that nvflare connects; needs causalcxr[federation].
prepare: let the startup kit of a server or hospital, which nvflare's provisioning wrote, run such jobs and
send no log; a hospital then says in local/causalcxr.yaml where its films are.

STUDY.yaml is a file, or a study that comes along: hospitals8, network83. Such a file:
  run: runs/sites
  data: {train: 2000, val: 300, test: 500}
  sizes: [1000, 500, 300, 150, 50]       # films of each site; or by: site, an attribute of the graph
  strategies: [central, local, fedavg, fedprox, travelling, fedtm]
  predict: [finding]
  rounds: {predictors: 20}
"""


def run(arguments: list[str]) -> None:
    """Run a study and write its report."""
    settings = [word for word in arguments if "=" in word]
    parser = Parser("causalcxr sites", add_help=False)
    parser.add_argument("action", nargs="?", choices=["train", "export", "prepare"])
    parser.add_argument("study", nargs="*")
    parser.add_argument("--clients", nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("jobs"))
    options = parser.parse_args([word for word in arguments if "=" not in word])
    if options.action == "prepare" and options.study and not settings:
        _prepare([Path(kit) for kit in options.study])
        return
    if len(options.study) != 1:
        raise ConfigError("sites: expected causalcxr sites train STUDY.yaml; see causalcxr sites --help")
    (name,) = options.study
    from causalcxr.config import read_settings  # slow to import, and help needs none of it
    from causalcxr.federation.config import SitesConfig, shipped_studies

    shipped = shipped_studies()
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise ConfigError(f"sites: no study '{name}': not a file and none of {', '.join(sorted(shipped))}")
    config = read_settings(SitesConfig, path, settings)
    if options.action == "train":
        _train(config)
    else:
        _export(config, options.clients, options.out)


def _train(config: "SitesConfig") -> None:
    from causalcxr.federation.report import conclusions, write_report
    from causalcxr.federation.study import run_study

    study = run_study(config)
    report = write_report(study)
    for sentence in conclusions(study):
        say(sentence)
    say(f"report: {report}")


def _export(config: "SitesConfig", clients: list[str], out: Path) -> None:
    from causalcxr.federation.config import check_nvflare
    from causalcxr.federation.sites import open_sites_graph

    check_nvflare()
    from causalcxr.federation.flare import export

    say(f"job: {export(config, open_sites_graph(config), clients, out)}")


def _prepare(kits: list[Path]) -> None:
    from causalcxr.federation.kits import prepare_kit

    for kit in kits:
        say(f"wrote {', '.join(str(path) for path in prepare_kit(kit))}")

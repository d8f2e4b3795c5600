"""Startup kits that nvflare's provisioning wrote: what of their settings must differ for our jobs."""

import json
from pathlib import Path
from typing import Any

from causalcxr.support.errors import ConfigError
from causalcxr.support.files import write_atomically

__all__ = ["ALLOWED", "OWN_DATA", "prepare_kit"]

ALLOWED = "causalcxr."  # the classes that a job may name besides nvflare's
OWN_DATA = "causalcxr.yaml"  # in a client's folder local/: the `data` settings of that hospital
LOGS = ("site_log_streamer", "log_receiver")  # send a site's error log to the server, and take it
CLOSED = ("byoc", "shell_commands")  # rights nobody has there: code in a job, reading files from afar
OPEN = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate")
TEMPLATE = """# The films of this hospital; nothing in this file leaves it. Absolute paths; see docs/own-data.md.
data:
  source: folder
  root: /where/the/films/are
  table: metadata.csv
  size: 64                # as in the study
  cache: /where/the/prepared/films/go
"""


def prepare_kit(folder: Path) -> list[Path]:
    """Write `resources.json` and `authorization.json` of a kit, and a client's `causalcxr.yaml` to fill in.

    Our classes are allowed, code that comes with a job is not; no log is sent to the server, and nobody reads
    files from afar. The server keeps its jobs in the kit's folder `store`, not in /tmp. The files written; one
    that is there keeps all else. Raises ConfigError: no kit.
    """
    folder = folder.absolute()
    local, startup = folder / "local", folder / "startup"
    server = (startup / "fed_server.json").is_file()
    if not server and not (startup / "fed_client.json").is_file():
        raise ConfigError(f"'{folder}' is no startup kit of a server or client; expected a folder of prod_00")
    settings, rights = _read(local / "resources.json"), _read(local / "authorization.json")
    allowed = settings.setdefault("class_allow_list", [])
    allowed += [] if ALLOWED in allowed else [ALLOWED]
    settings["components"] = [each for each in settings["components"] if each["id"] not in LOGS]
    for role, granted in rights["permissions"].items():
        before = dict.fromkeys(OPEN, granted) if isinstance(granted, str) else granted
        rights["permissions"][role] = {**before, **dict.fromkeys(CLOSED, "none")}
    written = [local / "resources.json", local / "authorization.json"]
    if server:
        manager = next(each for each in settings["components"] if each["id"] == "job_manager")
        manager["args"]["uri_root"] = str(folder / "store" / "jobs")
        settings["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(folder / "store" / "snapshots")
    else:
        settings["allow_log_streaming"] = False
        if not (local / OWN_DATA).exists():
            write_atomically(local / OWN_DATA, TEMPLATE)
            written.append(local / OWN_DATA)
    for path, content in zip(written, (settings, rights), strict=False):
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    return written


def _read(path: Path) -> dict[str, Any]:
    """A file of local/, or what the kit came with in its place. Raises ConfigError: neither is there."""
    for name in (path, path.with_name(f"{path.name}.default")):
        if name.is_file():
            return json.loads(name.read_text("utf-8"))
    raise ConfigError(f"no '{path}.default'; expected it in a startup kit")

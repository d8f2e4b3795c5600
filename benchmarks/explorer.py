"""How fast the page answers: in headless Chromium, and beside a counterfactual from the image, in turn.

    python benchmarks/explorer.py runs/demo-counterfactual      a minute; writes explorer.json beside this file

`slider_ms`: from the release of the slider to the drawn picture, median over one patient's ages, each new.
`first_ms`: the same where the patient is new as well, so that the page abducts. `decode_ms` and `fresh_ms`: the
model alone, a counterfactual of an abducted patient and one from the image; `ratio` is theirs. `start_s`: from the
command to the address. `requests_off_machine`: of the browser, over all of this. `hvae64`: that preset's model,
untrained.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from selenium import webdriver

from causalcxr.answers import abduct_patient, answer, answer_abducted
from causalcxr.building import build_model, open_graph
from causalcxr.commands.explore import open_explorer
from causalcxr.config import load_config
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.files import write_json
from causalcxr.values import Batch

HERE = Path(__file__).parent
TIMED = """
    const [slider, value, done] = arguments;
    const input = document.getElementById(slider);
    const begun = performance.now();
    const watch = new MutationObserver(() => {
        watch.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
    });
    watch.observe(document.body, { attributes: true, attributeFilter: ["data-answers"] });
    if (input.type === "range") input.value = value;
    input.dispatchEvent(new Event(input.type === "range" ? "input" : "click", { bubbles: true }));
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="a trained run of simulated or real films, with the attribute age")
    parser.add_argument("--moves", type=int, default=40)
    options = parser.parse_args()
    found = time_page(options.run, options.moves) | time_run(options.run, options.moves)
    found["hvae64"] = time_preset("hvae64", options.moves)
    write_json(HERE / "explorer.json", found | {"moves": options.moves})
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def time_page(run: str, moves: int) -> dict[str, Any]:
    """The page as a person uses it."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "causalcxr", "explore", run], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    started = time.perf_counter() - begun
    try:
        url = next(word for word in line.split() if word.startswith("http://"))
        return _in_browser(url, moves) | {"start_s": started}
    finally:
        process.terminate()
        process.wait()


def _in_browser(url: str, moves: int) -> dict[str, Any]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.ChromeService(shutil.which("chromedriver"))  # named, so that selenium looks for none
    browser = webdriver.Chrome(options=options, service=driver)
    try:
        browser.get(url)
        time.sleep(3)
        slider = [_move(browser, "slider-age", 20 + i * 75 / moves) for i in range(moves)]
        first = [_move(browser, "next", None) for _ in range(moves)]
        entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    finally:
        browser.quit()
    off = sum(not asked.startswith((url, "data:")) for asked in urls)
    medians = {"slider_ms": statistics.median(slider), "first_ms": statistics.median(first)}
    return medians | {"slider_worst_ms": max(slider), "requests": len(urls), "requests_off_machine": off}


def _move(browser: Any, element: str, value: float | None) -> float:
    return float(browser.execute_async_script(TIMED, element, value))


def time_run(run: str, moves: int) -> dict[str, float]:
    """The model of a run, on its first patient."""
    explorer = open_explorer([run])
    return time_model(explorer.runs[0].scm, *explorer.patients.film(0), moves)


def time_preset(preset: str, moves: int) -> dict[str, float]:
    """The untrained model of a preset of simulated films, whose passes cost what those of a trained one do."""
    config, graph = open_graph(load_config([f"preset={preset}", "run=none"]))
    scm = build_model(config, graph).eval().requires_grad_(False)
    drawn = scm.sample(100, seed=0)
    scm.calibrate(drawn)
    film = (255 * drawn.pop(scm.image_mechanism.variable.name)[0]).to(torch.uint8)
    return time_model(scm, film, {name: value[:1] for name, value in drawn.items()}, moves)


def time_model(scm: StructuralCausalModel, film: torch.Tensor, given: Batch, moves: int) -> dict[str, float]:
    """One intervention on an abducted patient beside one from the image, on one thread, in turn."""
    torch.set_num_threads(1)  # as the page does
    abduction = abduct_patient(scm, film, given, seed=0)
    asked = [{"age": 20 + i * 75 / moves} for i in range(moves)]
    pairs = [
        (
            _milliseconds(lambda do=do: answer_abducted(scm, abduction, do)),
            _milliseconds(lambda do=do: answer(scm, film, given, do, seed=0)),
        )
        for do in asked
    ]
    decode, fresh = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"decode_ms": decode, "fresh_ms": fresh, "ratio": fresh / decode}


def _milliseconds(do: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    do()
    return 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()

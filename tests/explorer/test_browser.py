"""The page in a real browser: headless Chromium, driven by selenium."""

import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from causalcxr.data.cohort import Cohort
from causalcxr.explorer.explorer import Explored, Explorer
from causalcxr.explorer.gallery import write_gallery
from causalcxr.explorer.page import LIMIT
from causalcxr.explorer.patients import Patients
from causalcxr.explorer.question import Question
from causalcxr.graph import graph_from_dict
from causalcxr.metrics.truth import find_truth
from causalcxr.report.gallery import choose_rows
from tests.models import tiny_scm

selenium = pytest.importorskip("selenium", reason="no selenium to drive a browser")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no Chromium with its driver on this machine", allow_module_level=True)

SECONDS = 60
PIXELS = """
    const canvas = document.getElementById(arguments[0]);
    const { width, height } = canvas;
    return [height, width, Array.from(canvas.getContext("2d").getImageData(0, 0, width, height).data)];
"""
MOVE = """
    const input = document.getElementById(arguments[0]);
    input.value = arguments[1];
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
"""

CHOOSE = """
    const input = document.querySelectorAll(arguments[0])[arguments[1]];
    input.value = arguments[2];
    input.dispatchEvent(new Event("change", { bubbles: true }));
"""

SECONDS_LATE = 0.7
LATE = f"""
    const quick = window.fetch;
    window.fetch = async (...all) => {{
        if (all[0] === "answer") await new Promise((go) => setTimeout(go, {1000 * SECONDS_LATE}));
        return quick(...all);
    }};
"""


class Browser:
    """A page in a browser of its own."""

    def __init__(self, url: str, width: int = 1280, height: int = 1800):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        quiet = [
            "--disable-background-networking",
            "--no-first-run",
            "--disable-component-update",
            "--disable-sync",
        ]
        for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(url)
        self.answers = 0

    def answered(self) -> None:
        """Wait until the page shows another answer."""
        self.answers = self.until(lambda: (n := self.count()) > self.answers and n)

    def count(self) -> int:
        return int(self.run("return document.body.dataset.answers || 0"))

    def until(self, found: Any) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, SECONDS, 0.02).until(lambda _: found())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def move(self, name: str, value: float) -> None:
        """Move a slider and wait for the answer."""
        self.answers = self.count()
        self.run(MOVE, f"slider-{name}", value)
        self.answered()

    def click(self, selector: str) -> None:
        """Click, as a user who opens what it lies in."""
        element = self.find(selector)
        self.run(
            "for (let e = arguments[0]; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true",
            element,
        )
        element.click()

    def take_another_sex(self) -> str:
        """Choose the label that is not recorded, and wait for the answer."""
        self.answers = self.count()
        radio = self.find("input[name='do-sex']:not(:checked)")
        radio.click()
        self.answered()
        return radio.get_attribute("value")

    def levels(self, canvas: str) -> np.ndarray:
        """What a canvas shows, `(H, W, 4)`."""
        height, width, flat = self.run(PIXELS, canvas)
        return np.array(flat, np.uint8).reshape(height, width, 4)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.driver.get_log(kind)


@pytest.fixture
def browser(server: Any) -> Iterator[Browser]:
    page = Browser(server.url)
    page.answered()
    yield page
    said = [entry["message"] for entry in page.log("browser") if entry["level"] == "SEVERE"]
    page.driver.quit()
    assert not said


def grey(image: torch.Tensor) -> np.ndarray:
    return (255 * image[0].double()).round().clamp(0, 255).numpy().astype(np.uint8)


def model_image(explorer: Explorer, run: int, question: Question) -> np.ndarray:
    import causalcxr

    assert question.row is not None
    film, given = explorer.patients.film(question.row)
    return grey(causalcxr.answer(explorer.runs[run].scm, film, given, question.do, question.effect, seed=0).image)


def test_move_the_slider_and_the_film_follows(browser: Browser, explorer: Explorer) -> None:
    """The pixels in the browser are exactly those of the model, of the simulator and of the cohort."""
    before = browser.levels("run-0")
    browser.move("age", 85)
    truth = find_truth(explorer.patients.cohort)
    assert truth is not None
    expected = {
        "factual": explorer.patients.film(0)[0][0].numpy(),
        "run-0": model_image(explorer, 0, Question(0, {"age": 85})),
        "run-1": model_image(explorer, 1, Question(0, {"age": 85})),
        "exact": grey(truth.images(torch.tensor([int(explorer.patients.split.ids[0])]), {"age": 85}, "total")[0]),
    }
    for canvas, levels in expected.items():
        shown = browser.levels(canvas)
        assert all(np.array_equal(shown[..., channel], levels) for channel in range(3)), canvas
        assert (shown[..., 3] == 255).all()
    assert not np.array_equal(before, browser.levels("run-0"))
    assert "do(age = 85 years)" in browser.find("#status").text


def test_the_difference_has_one_scale(browser: Browser, explorer: Explorer) -> None:
    """White is no change; full red and blue are the ends, whatever the picture."""
    browser.move("age", 85)
    film = explorer.patients.film(0)[0][0].numpy().astype(float)
    change = ((model_image(explorer, 0, Question(0, {"age": 85})) - film) / LIMIT).clip(-1, 1)[..., None]
    end = np.where(change > 0, [178.0, 24.0, 43.0], [33.0, 102.0, 172.0])
    expected = 255 + (end - 255) * np.abs(change)
    assert np.abs(browser.levels("change-0")[..., :3] - expected).max() <= 0.5 + 1e-6


def test_choose_and_intervene(browser: Browser, explorer: Explorer) -> None:
    """By filter, by id and at random; radio buttons; several interventions; back to what is recorded."""
    browser.click("#filters select")
    browser.run(CHOOSE, "#filters select", 0, 1)
    sex = explorer.patients.split.attributes["sex"]
    browser.until(lambda: f"{int((sex == 1).sum())} of {len(sex)} match" in browser.find("#who").text)
    browser.answers = browser.count()
    browser.run(CHOOSE, "#filters select", 0, "")
    patient = explorer.patients.split.patients[7]
    browser.find("#find").send_keys(patient + "\n")
    browser.until(lambda: patient in browser.find("#who").text)
    browser.answered()
    other = browser.take_another_sex()
    browser.move("age", 60)
    browser.until(lambda: f"do(sex = {other}, age = 60 years)" in browser.find("#status").text)
    values = browser.find("#values").text
    assert "sex (set)" in values and "finding (follows)" in values
    assert "Intervened on: sex, age" in browser.find("#graph").get_attribute("aria-label")
    browser.answers = browser.count()
    browser.click("#clear")
    browser.answered()
    assert "Nothing is asked" in browser.find("#status").text
    browser.click("#random")
    browser.answered()


def test_how_it_is_answered(browser: Browser, explorer: Explorer) -> None:
    """Direct effect, no pixel noise, several draws: each changes the question."""
    browser.move("age", 85)
    for selector in ("input[name='effect'][value='direct']", "input[name='pixel_noise'][value='off']"):
        browser.answers = browser.count()
        browser.click(selector)
        browser.answered()
    browser.answers = browser.count()
    browser.run(MOVE, "draws", 3)
    browser.answered()
    assert "effect='direct', draws=3, seed=0, pixel_noise='off'" in browser.run("return shown.python")
    assert browser.find("#draw-0-2").is_displayed() and "mean of 3 draws" in browser.find("#films").text
    browser.click("#blink")
    assert browser.find("#blink").get_attribute("aria-pressed") == "true"


def test_the_keyboard_is_enough(browser: Browser) -> None:
    """Tab reaches the slider, an arrow moves it, and the picture follows."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.driver.switch_to.active_element.get_attribute("id") == "slider-age":
            break
    else:
        raise AssertionError("no way to the slider by the Tab key")
    browser.answers = browser.count()
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    browser.answered()
    assert "do(age = " in browser.find("#status").text


def test_everything_has_a_name(browser: Browser) -> None:
    """For a screen reader: no control and no picture without words, in the browser's own accessibility tree."""
    for details in browser.driver.find_elements("css selector", "details"):
        browser.run("arguments[0].open = true", details)
    browser.move("age", 70)
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "slider", "radio", "combobox", "searchbox", "spinbutton", "image", "group", "textbox"}
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert not [role for role in unnamed if role != "group"]
    assert sum(node["role"]["value"] in ("image", "img") for node in nodes if not node.get("ignored")) >= 8


def test_a_phone(server: Any) -> None:
    """At 360 points nothing lies beyond the edge, and pictures are no smaller than a thumbnail."""
    page = Browser(server.url, width=360, height=800)
    page.answered()
    assert page.run("return document.scrollingElement.scrollWidth <= 360")
    assert page.run("return document.getElementById('run-0').getBoundingClientRect().width") > 90
    page.driver.quit()


def test_two_browsers_at_once(server: Any, browser: Browser, explorer: Explorer) -> None:
    """Each keeps its own patient and intervention."""
    other = Browser(server.url)
    other.answered()
    other.click("#next")
    other.answered()
    browser.move("age", 30)
    other.move("age", 90)
    assert np.array_equal(browser.levels("run-0")[..., 0], model_image(explorer, 0, Question(0, {"age": 30})))
    assert np.array_equal(other.levels("run-0")[..., 0], model_image(explorer, 0, Question(1, {"age": 90})))
    other.driver.quit()


def test_upload(browser: Browser, tmp_path: Path) -> None:
    """A broken file is one line; a good one is asked of once its attributes are stated."""
    broken, good = tmp_path / "broken.png", tmp_path / "good.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    levels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(levels).save(good)
    browser.run("document.getElementById('with').value = 2")  # the exact one, which nobody knows of a film
    browser.find("#film").send_keys(str(broken))
    browser.until(lambda: "broken.png" in browser.find("#error").text)
    assert "\n" not in browser.find("#error").text
    browser.find("#film").send_keys(str(good))
    browser.until(lambda: "recorded of this patient: sex, race, age, finding" in browser.find("#status").text)
    assert np.array_equal(browser.levels("factual")[..., 0], levels) and not browser.find("#error").is_displayed()
    assert not browser.find("#save-picture").is_enabled() and not browser.find("#values").text
    browser.answers = browser.count()
    for i, value in enumerate(["female", "white", "50", "No Finding"]):
        browser.run(CHOOSE, "#given select, #given input", i, value)
    browser.answered()
    assert np.array_equal(browser.levels("factual")[..., 0], levels)
    assert "Uploaded: good.png" in browser.find("#who").text


def test_an_answer_that_is_late(browser: Browser, tmp_path: Path, explorer: Explorer) -> None:
    """It is shown only if it is still asked for; until then nothing can be kept, and it changes no control."""
    browser.move("age", 95)
    browser.run(LATE)
    browser.click("#next")
    assert not browser.find("#save-picture").is_enabled()
    browser.run(MOVE, "slider-age", 90)
    browser.click("#clear")
    browser.until(lambda: "Nothing is asked" in browser.find("#status").text)
    browser.until(browser.find("#save-picture").is_enabled)
    assert browser.find("#attribute-finding .state").text.startswith("recorded")
    assert np.array_equal(browser.levels("factual")[..., 0], explorer.patients.film(1)[0][0].numpy())
    film = tmp_path / "film.png"
    levels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(levels).save(film)
    before = browser.count()
    browser.click("#next")
    browser.find("#film").send_keys(str(film))
    browser.until(lambda: "State what is recorded" in browser.find("#status").text)
    time.sleep(2 * SECONDS_LATE)
    assert browser.count() == before and "film.png" in browser.find("#who").text
    assert [one.get_attribute("id") for one in browser.driver.find_elements("css selector", "#films canvas")] == [
        "factual"
    ]
    assert np.array_equal(browser.levels("factual")[..., 0], levels)
    assert not browser.find("#save-picture").is_enabled()


def test_nothing_leaves_the_machine(browser: Browser, server: Any) -> None:
    """Every request in the browser's network log goes to the server."""
    browser.move("age", 40)
    entries = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    urls = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert len(urls) >= 3
    assert all(url.startswith((server.url, "data:")) for url in urls), urls


def test_keep_it(browser: Browser, tmp_path: Path, explorer: Explorer) -> None:
    """Picture, numbers and Python lines are written to files, and say what the page says."""
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    browser.move("age", 85)
    patient = explorer.patients.split.patients[0]
    kept = {ending: tmp_path / f"patient-{patient}-age-85.{ending}" for ending in ("png", "json", "py")}
    for button, ending in (("picture", "png"), ("numbers", "json"), ("python", "py")):
        browser.click(f"#save-{button}")
        browser.until(kept[ending].exists)
    numbers, answer = json.loads(kept["json"].read_text()), explorer.answer(Question(0, {"age": 85}))
    assert numbers["question"] == answer["question"] and numbers["near"] == answer["near"]
    assert numbers["patient"] == {"split": "test", "id": int(explorer.patients.split.ids[0]), "patient": patient}
    assert numbers["runs"][0]["error"] == pytest.approx(answer["runs"][0]["error"])
    reads = answer["runs"][0]["reads"]
    for name, said in numbers["runs"][0]["reads"].items():
        assert (said["before"], said["after"]) == pytest.approx((reads[name]["before"], reads[name]["after"]))
    assert kept["py"].read_text() == answer["python"]
    with Image.open(io.BytesIO(kept["png"].read_bytes())) as picture:
        assert picture.width > 600 and picture.height > 600


def test_the_gallery_needs_no_server(explorer: Explorer, tmp_path: Path) -> None:
    """One file: the same page with its answers, one attribute at a time; no patient's id is in it."""
    path = tmp_path / "gallery.html"
    write_gallery(explorer, path, 2)
    text = path.read_text("utf-8")
    assert not any(patient in text for patient in explorer.patients.split.patients)
    assert '"row":' not in text and "open_cohort" not in text
    page = Browser(path.as_uri())
    page.answered()
    page.move("age", 8)
    assert "do(age = " in page.find("#status").text
    rows = choose_rows(explorer.graph, explorer.patients.split.attributes, 2)
    asked = Question(rows[0], page.run("return shown.question.do"))
    assert np.array_equal(page.levels("run-0")[..., 0], model_image(explorer, 0, asked))
    page.take_another_sex()
    assert page.run("return Object.keys(shown.question.do)") == ["sex"]
    entries = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    urls = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:")) for url in urls)
    page.driver.quit()


NAMES = ("constructor", "__proto__", "id", "patient", "toString")


def odd_explorer(tmp_path: Path) -> Explorer:
    """An untrained model of attributes that JavaScript or our own tables might take for something else."""
    numbers = {name: {"kind": "continuous", "range": [0, 1]} for name in NAMES[1:]}
    labels = {NAMES[0]: {"kind": "binary", "labels": ["</script><b>x", 'it\'s "y" \u00fc']}}
    image = {"image": {"kind": "image", "channels": 3, "parents": list(NAMES)}}
    graph = graph_from_dict({"variables": labels | numbers | image})
    random, n = np.random.default_rng(0), 40
    manifest = pd.DataFrame({"row": range(n), "path": "", "patient_id": [f"<i>{i}" for i in range(n)]})
    manifest["split"] = ["train"] * 30 + ["test"] * 10
    manifest[NAMES[0]] = random.choice(graph[NAMES[0]].labels, n)
    for name in NAMES[1:]:
        manifest[name] = random.random(n).astype(np.float32)
    images = random.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    cohort = Cohort(graph, 16, tmp_path, manifest, {}, "", {"source": "folder"}, images)
    return Explorer([Explored("odd", tmp_path, tiny_scm(graph), None)], Patients(cohort))


def test_whatever_attributes_are_called(tmp_path: Path) -> None:
    """Names and labels stay what they are, in three channels and without an evaluator or a truth."""
    explorer, path = odd_explorer(tmp_path), tmp_path / "odd.html"
    write_gallery(explorer, path, 1)
    page = Browser(path.as_uri())
    page.answered()
    rows = choose_rows(explorer.graph, explorer.patients.split.attributes, 1)
    film = explorer.patients.film(rows[0])[0].numpy()
    assert np.array_equal(page.levels("factual")[..., :3], film.transpose(1, 2, 0))
    for name in NAMES:
        assert "recorded" in page.find(f"#attribute-{name} .state").text
    for name in NAMES[1:]:
        page.move(name, 8)
        assert page.run("return Object.keys(shown.question.do)") == [name]
        assert "set to" in page.find(f"#attribute-{name} .state").text
    page.answers = page.count()
    page.find("input[name='do-constructor']:not(:checked)").click()
    page.answered()
    label = page.run("return shown.question.do.constructor")
    assert label in explorer.graph["constructor"].labels and label in page.find("#values").text
    assert not page.find("#read").is_displayed()
    assert not [entry for entry in page.log("browser") if entry["level"] == "SEVERE"]
    page.driver.quit()

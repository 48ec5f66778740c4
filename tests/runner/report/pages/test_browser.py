"""The report in headless Chromium: no errors, no requests, a filter that filters, readable on a phone and at night."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.pipeline.manifest import Manifest
from runner.report.pages import write_report
from runner.storage.artifact import scan_folder
from stages.data.example import Example, write_examples
from tests.runner.report.pages.conftest import record
from tests.stages.evaluate.test_pictures import uri

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "NO CHROMIUM: the report is not tested in a browser; apt-get install chromium"

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root may not use Chromium's sandbox; the page is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """The report in a window, with what the browser complained of and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def shown(self, selector: str) -> int:
        return int(self.page.locator(f"{selector}:visible").count())


@pytest.fixture
def report(run_folder: Path) -> Path:
    """With a table of the data, and a remark that holds a long word."""
    lengths = {"50": 120, "90": 1180, "99": 12220, "longest": 123_260}
    data = {
        "rows": {"train": 384_000, "test": 40},
        "skipped": {"train": 2},
        "chars": {"train": lengths, "test": lengths},
        "remarks": [f"train: the prompt does not use the column {'long' * 12}"],
    }
    manifest = Manifest.load(run_folder)
    manifest.stages.insert(0, record("ingest", [], data, 70.0))
    manifest.save(run_folder)
    return write_report(run_folder)[0]


def test_it_loads_without_errors_and_asks_for_nothing(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    assert opened.page.title() == "viggo_quickstart · 20260101-120000-abcdef"  # hostile answers would have changed it
    assert opened.page.locator("figure svg").count() == 2


def test_rows_can_be_searched_filtered_and_sorted(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    assert opened.shown("#cases .case") == 20
    opened.page.click("#cases .more")
    assert opened.shown("#cases .case") == 40
    opened.page.select_option("[data-key=verdict]", "wrong")
    assert opened.page.inner_text("[data-for=cases] output") == "10 of 40"
    opened.page.fill("[data-for=cases] input", "game 24")
    assert opened.shown("#cases .case") == 1
    opened.page.fill("[data-for=cases] input", "")
    opened.page.select_option("[data-key=slice-function]", "confirm")
    assert opened.shown("#cases .case") == 2
    opened.page.select_option("[data-key=slice-function]", "")
    opened.page.select_option("[data-key=verdict]", "")
    opened.page.select_option("[data-sort]", "number")
    first = opened.page.locator("#cases .case header span:first-child").all_inner_texts()[:3]
    assert [text.split(" ")[0] for text in first] == ["test-000000", "test-000001", "test-000002"]
    opened.page.select_option("[data-sort]", "metric-exact_match")
    assert opened.page.locator("#cases .case").first.get_attribute("data-verdict") == "wrong"
    opened.page.fill("[data-for=cases] input", "no such words")
    assert opened.shown("#cases .case") == 0


def test_the_recipe_can_be_searched(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    opened.page.fill("[data-for=keys] input", "train.lora_rank")
    assert opened.page.locator("#keys tr[data-item]:visible").all_inner_texts() == [
        "train.lora_rank\t8\trecipes/train/lora.yaml"
    ]


def test_images_of_rows_are_seen_without_a_request(browser: Any, run_folder: Path, tmp_path: Path) -> None:
    images = {"test-000000": [uri(64, 64), uri(1200, 300)], "test-000001": [uri(1000, 1000)]}
    (tmp_path / "test_set").mkdir()
    write_examples(tmp_path / "test_set" / "test.jsonl", (Example(name, images=each) for name, each in images.items()))
    manifest = Manifest.load(run_folder)
    manifest.stages.insert(0, record("ingest", [scan_folder("test_set", tmp_path / "test_set")], {}, 70.0))
    manifest.save(run_folder)
    page = write_report(run_folder)[0]
    opened = Opened(browser, page, 390)
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    sizes = "[...document.querySelectorAll('.pictures img')].map((each) => [each.naturalWidth, each.naturalHeight])"
    assert opened.page.evaluate(sizes) == [[64, 64], [224, 56], [224, 224]]
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, width: int) -> None:
    opened = Opened(browser, report, width)
    opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1280])
def test_a_failed_run_with_a_long_log_is_not_wider_than_the_window(browser: Any, run_folder: Path, width: int) -> None:
    manifest = Manifest.load(run_folder)
    failed = {"name": "infer", "status": "failed", "error": f"ValueError: {'x' * 200}", "artifacts": []}
    manifest.stages = [manifest.stages[0], manifest.stages[1].model_copy(update=failed)]
    manifest.status = "failed"
    manifest.save(run_folder)
    (run_folder / "logs").mkdir()
    (run_folder / "logs" / "infer.log").write_text(f"{'y' * 300}\n" * 50)
    opened = Opened(browser, write_report(run_folder)[0], width)
    assert opened.shown("details.log") == 1
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width


def test_dark_mode_has_light_text_on_dark_ground(browser: Any, report: Path) -> None:
    colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    light, dark = (Opened(browser, report, scheme=scheme).page.evaluate(colours) for scheme in ("light", "dark"))
    assert brightness(light[0]) < 0.3 < 0.9 < brightness(light[1])
    assert brightness(dark[1]) < 0.2 < 0.8 < brightness(dark[0])


def brightness(colour: str) -> float:
    """Mean of a computed `rgb(r, g, b)` as a share of white."""
    return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")) / (3 * 255)

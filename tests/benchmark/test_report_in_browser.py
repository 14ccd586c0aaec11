"""The page of a run in Chromium, driven by Selenium: what a reader sees, clicks and types."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tables import number, results

from benchmark.results.claims import read_claims
from benchmark.results.ledger import CLAIMS, PUBLISHED
from benchmark.results.page import write_report
from benchmark.results.published import PublishedNumbers
from benchmark.results.record import failed
from benchmark.results.results_file import write_results

pytestmark = pytest.mark.browser
COMMITTED = Path(__file__).parents[2] / "results" / "digits.json"
HOSTILE = """<img src=x onerror="document.title='run'"><b>bold</b><script>document.title='run'</script>"""
WIDTHS = (400, 1400)
LEGIBLE = 4.5
"""Least contrast of text to what lies behind it, WCAG 2.1 AA."""
CONTRASTS = """
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = (color) => parts(color).slice(0, 3).map((part) => part / 255)
  .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (element) => {
  for (let above = element; above; above = above.parentElement) {
    const color = getComputedStyle(above).backgroundColor;
    if ((parts(color)[3] ?? 1) === 1) return color;
  }
  throw new Error("nothing behind " + element.tagName);
};
const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
const field = document.querySelector("input");
const hint = luminance(getComputedStyle(field, "::placeholder").color);
const found = [[field.placeholder, ["INPUT"], ratio(hint, luminance(behind(field)))]];
for (const element of document.body.querySelectorAll("*")) {
  const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("").trim();
  if (!text || !element.checkVisibility() || element.closest("script, style")) continue;
  const style = getComputedStyle(element);
  const ink = element.closest("svg") ? style.fill : style.color;
  const [cell, row] = [element.closest("th, td"), element.closest("tr")];
  const kinds = [element.tagName, cell?.tagName, ...element.classList, ...(row?.classList ?? [])];
  found.push([text, kinds, ratio(luminance(ink), luminance(behind(element)))]);
}
return found;
"""


@pytest.fixture(scope="module")
def chromium():
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium or chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The page of the committed digits table."""
    folder = tmp_path_factory.mktemp("committed")
    shutil.copy(COMMITTED, folder / "results.json")
    shutil.copy(COMMITTED.with_suffix(".npz"), folder / "answers.npz")
    return write_report(folder, floors={"training_copies"})


def judged_claims():
    """Four claims on accuracies of digits that share no cell."""
    taken, found = set(), []
    for claim in read_claims(CLAIMS, PublishedNumbers(PUBLISHED)):
        pair = claim.pair("digits")
        if pair and pair.a.metric == pair.b.metric and pair.a.metric.startswith("accuracy"):
            cells = {pair.a.cell, pair.b.cell}
            if not cells & taken:
                found.append(pair)
                taken |= cells
    return found[:4]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page with every part: claims of several verdicts, a floor, failures, samples and names of HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    records = []
    for pair, gain in zip(judged_claims(), (0.4, -0.4, 0.0, 0.4), strict=True):
        for side, value in ((pair.a, 0.5 + gain), (pair.b, 0.5)):
            scale = {} if side.scale is None else {"guidance_scale": side.scale}
            for seed in range(3):
                records.append(number(side.cell, seed, side.metric, value + 0.001 * seed, **scale, **pair.where))
    for seed in range(2):
        records.append(number(HOSTILE, seed, "accuracy/middle", 0.7, method=HOSTILE, note=HOSTILE))
        records.append(number(HOSTILE, seed, "accuracy/t=0.5", 0.7, sigma=0.5))
        records.append(number(HOSTILE, seed, "accuracy/t=0.9", 0.6, sigma=0.9))
        records.append(number("trivial", seed, "accuracy/middle", 0.99))
    records += [failed("broken", "m", seed, "accuracy/middle", f"diverged {HOSTILE}") for seed in range(2)]
    pictured = next(record.cell for record in records)
    samples = folder / pictured / "seed0"
    samples.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    np.savez(samples / "samples.npz", images=images, labels=np.arange(100) % 10)
    (samples / "per_class.json").write_text(json.dumps([{"label": k, "class_name": HOSTILE} for k in range(10)]))
    write_results(folder / "results.json", results(*records, commit=HOSTILE))
    return write_report(folder, floors={"trivial"})


@pytest.fixture(params=["committed", "hostile"])
def page(request):
    return request.getfixturevalue(request.param)


def opened(chromium, page, width=1400, scheme="light"):
    """Open a page in a window of so many pixels, 900 high; returns the browser."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get_log("browser")
    chromium.get(page.as_uri())
    return chromium


def column(browser, place):
    """Texts of one column of the first table."""
    script = (
        "return [...document.querySelector('table').tBodies[0].rows].map((row) => row.cells[arguments[0]].innerText)"
    )
    return browser.execute_script(script, place)


def shown_cells(browser):
    """Names of the rows of the first table that are seen."""
    script = "return [...document.querySelectorAll('table')[0].tBodies[0].rows].filter((row) => row.checkVisibility())"
    return browser.execute_script(script + ".map((row) => row.dataset.cell)")


def test_the_page_is_small_and_opens_without_a_word_on_the_console(chromium, page):
    assert page.stat().st_size < 5e6
    browser = opened(chromium, page)
    assert browser.get_log("browser") == []
    assert browser.title == "digits: benchmark report"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_document_is_no_wider_than_the_window(chromium, page, width):
    browser = opened(chromium, page, width)
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    seen, needed = browser.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    assert seen > width - 30
    assert needed <= seen


def test_methods_and_claims_begin_on_the_first_screen(chromium, page):
    browser = opened(chromium, page)
    bottoms = browser.execute_script(
        "return ['#headline + div tbody tr:nth-child(3)', '#claims + p'].map("
        "(chosen) => document.querySelector(chosen).getBoundingClientRect().bottom)"
    )
    assert 0 < bottoms[0] < bottoms[1] < 900


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_lies_behind_it(chromium, page, scheme):
    browser = opened(chromium, page, scheme=scheme)
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    found = browser.execute_script(CONTRASTS)
    kinds = {kind for _, of_text, _ in found for kind in of_text}
    assert {"H1", "H2", "P", "TH", "TD", "A", "LI", "BUTTON", "SUMMARY", "floor"} <= kinds
    if "broken" in page.read_text(encoding="utf-8"):
        assert {"failed", "reproduced", "contradicted", "none"} <= kinds
    assert [(text, of_text, round(ratio, 2)) for text, of_text, ratio in found if ratio < LEGIBLE] == []
    white = browser.execute_script("return getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'")
    assert white == (scheme == "light")


def test_a_click_on_a_heading_sorts_by_numbers_and_leaves_rows_without_one_at_the_end(chromium, committed):
    browser = opened(chromium, committed)
    heading = next(h for h in browser.find_elements("css selector", "thead th") if h.text.startswith("accuracy"))
    place = browser.execute_script("return arguments[0].cellIndex", heading)
    before = column(browser, place)
    numbers = sorted(float(text.split("(")[0]) for text in before if text != "–")
    for way, order in (("ascending", numbers), ("descending", numbers[::-1])):
        heading.find_element("css selector", "button").click()
        texts = column(browser, place)
        assert heading.get_attribute("aria-sort") == way
        assert [float(text.split("(")[0]) for text in texts[: len(numbers)]] == order
        assert texts[len(numbers) :] == ["–"] * (len(before) - len(numbers))


def test_the_keyboard_reaches_headings_and_sorts_by_names(chromium, committed):
    from selenium.webdriver.common.keys import Keys

    browser = opened(chromium, committed)
    names = column(browser, 0)
    browser.find_element("id", "chosen").send_keys(Keys.TAB)
    for _ in range(20):
        if browser.switch_to.active_element.tag_name == "button":
            break
        browser.switch_to.active_element.send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert first.text == "cell"
    for key, reverse in ((Keys.ENTER, False), (Keys.SPACE, True)):
        first.send_keys(key)
        assert column(browser, 0) == sorted(names, key=lambda name: name.replace("_", " "), reverse=reverse)


def test_typed_words_choose_methods_in_every_part(chromium, committed):
    browser = opened(chromium, committed)
    every = shown_cells(browser)
    field = browser.find_element("id", "chosen")
    field.send_keys("CDM, joint\n")
    chosen = shown_cells(browser)
    assert chosen == [name for name in every if "cdm" in name or "joint" in name]
    assert 1 < len(chosen) < len(every)
    others = "return [...document.querySelectorAll('[data-cell]')].filter((item) => item.checkVisibility())"
    assert set(browser.execute_script(others + ".map((item) => item.dataset.cell)")) == set(chosen)
    field.clear()
    field.send_keys(" ")
    assert shown_cells(browser) == every


def test_names_of_html_are_read_and_not_run(chromium, hostile):
    browser = opened(chromium, hostile)
    assert browser.title == "digits: benchmark report"
    assert browser.find_elements("css selector", "body b, body img[src=x], td script, th script") == []
    assert HOSTILE in column(browser, 0)
    assert HOSTILE in [mark.get_attribute("title") for mark in browser.find_elements("css selector", ".names span")]
    assert f"Commit {HOSTILE}" in browser.find_element("tag name", "body").text


def test_a_phone_shows_the_first_numbers_beside_long_names_and_the_verdicts_beside_claims(chromium, hostile):
    browser = opened(chromium, hostile, 400)
    rights = browser.execute_script(
        "return ['#headline + div tbody td:nth-child(3)', '#claims ~ div tbody td:nth-child(2)'].map("
        "(chosen) => document.querySelector(chosen).getBoundingClientRect().right)"
    )
    assert max(rights) < 400


def test_a_failed_cell_reads_failed_with_its_reason(chromium, hostile):
    browser = opened(chromium, hostile)
    row = browser.find_element("css selector", "tr[data-cell=broken]")
    cell = row.find_element("css selector", "td.failed")
    assert (row.is_displayed(), cell.text) == (True, "failed")
    ordinary = browser.find_element("css selector", "tbody td:not([class])")
    assert cell.value_of_css_property("color") != ordinary.value_of_css_property("color")
    assert f"failed: broken: diverged {HOSTILE}" in browser.find_element("tag name", "body").text

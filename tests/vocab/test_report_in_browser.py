"""The report page in a real browser: what it shows, sorts, finds, on a phone too; hostile tokens stay text.

These tests need chromium and chromedriver (Debian: apt-get install chromium chromium-driver) and the selenium
package, and say which of them is missing. Nothing is downloaded.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reporting import HOSTILE, SMALL_CLOSED, decision, hostile, small, write

from vocabkit.files import open_text
from vocabkit.tokenizer import bpe
from vocabkit.vocab.report import PART_OF_KEPT, write_html_report
from vocabkit.vocab.rules import decide

pytestmark = pytest.mark.slow

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, driven through the chromedriver that came with it."""
    for path in (CHROMIUM, CHROMEDRIVER):
        if not path.exists():
            pytest.skip(f"no {path}: apt-get install chromium chromium-driver")
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("no selenium: pip install -r requirements-dev.txt")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in f"{flags} disable-component-update disable-sync".split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


class Report:
    """A report open in the browser: what a person can do with it."""

    def __init__(self, driver: Any, path: Path, width: int = 1280, height: int = 900) -> None:
        self.driver = driver
        driver.get("about:blank")  # metrics apply to the next page, and its logs begin empty
        for log in ("browser", "performance"):
            driver.get_log(log)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(path.as_uri())

    def run(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def rows(self) -> list[list[str]]:
        """The shown rows of all tokens: token, id, count, share, state, script, category, rule."""
        return self.run(
            "return [...document.querySelectorAll('#table tbody tr')].map("
            "row => [...row.children].map(cell => cell.textContent))"
        )

    def found(self) -> str:
        return self.one("#found").text

    def settle(self) -> None:
        """Wait until the table follows the filters, which it does 80 ms after the last change."""
        self.run("return new Promise(done => setTimeout(done, 160))")

    def choose(self, selector: str, value: str = "") -> None:
        """Press a radio button, or pick a list's entry or fill in a field."""
        self.run(
            "const node = document.querySelector(arguments[0]);"
            "if (node.type === 'radio') node.click();"
            "else { node.value = arguments[1]; node.dispatchEvent(new Event('input', {bubbles: true})); }",
            selector,
            value,
        )
        self.settle()

    def search(self, text: str) -> None:
        self.one("#query").clear()
        self.one("#query").send_keys(text)
        self.settle()

    def clear(self) -> None:
        self.one("#filters button[type=reset]").click()
        self.settle()

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        return self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture(scope="module")
def real_report(assets: Path, real: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on all tokens of Qwen2.5 with counts of a real corpus, as build_vocab.py decides."""
    tokenizer = real("qwen2.5-instruct").tokenizer
    counts_file = assets / "token_counts" / "qwen2.5" / "counts.json.xz"
    if not counts_file.exists():
        pytest.skip(f"no {counts_file}")
    with open_text(counts_file) as file:
        counts = {int(token_id): count for token_id, count in json.load(file).items()}
    added = set(tokenizer.added.values())
    decisions = decide(tokenizer.token_bytes, counts, added=added)
    own = {token_id: token for token, token_id in tokenizer.vocab.items() if token_id not in added}
    wanted = [own[d.id] for d in decisions if d.keep and d.id in own]
    closed = bpe.closure(wanted, bpe.rank_merges(tokenizer.merges).get)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html_report(
        path,
        decisions=decisions,
        closed={tokenizer.vocab[token] for token in closed} | added,
        summary={"counted_tokens": sum(counts.values()), "min_count": 1000, "sure_count": 20_000},
        title="Qwen2.5-1.5B-Instruct",
        command="python3 build_vocab.py -m ../Qwen2.5-1.5B-Instruct corpora",
    )
    return path


@pytest.mark.assets
def test_a_real_report_is_small(real_report: Path) -> None:
    assert real_report.stat().st_size < 4_000_000


@pytest.mark.assets
def test_a_real_report_is_soon_ready_and_loads_nothing(browser: Any, real_report: Path) -> None:
    report = Report(browser, real_report)
    ready = report.run("return document.documentElement.dataset.ready")
    assert ready is not None, "the script did not reach its end"
    assert float(ready) < 3000, "milliseconds from the start of loading until it can be used"
    assert browser.get_log("browser") == []
    assert report.run("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith(("data:", "about:"))} <= {real_report.as_uri()}
    lede = report.one("#lede").text
    assert "of 151,665 tokens stay" in lede and "3.37 billion" in lede
    assert report.run("return document.querySelectorAll('#table tbody tr').length") == 50
    assert report.one("#curve .line").get_attribute("d").count("L") > 300


@pytest.mark.assets
def test_search_and_sort(browser: Any, real_report: Path) -> None:
    report = Report(browser, real_report)
    top = report.rows()
    counts = [int(row[2].replace(",", "")) for row in top]
    assert counts == sorted(counts, reverse=True)
    report.search(" Việt")
    (row,) = [row for row in report.rows() if row[0] == "␣Việt"]
    assert row[1:3] == ["128324", "2,044,782"] and row[4:7] == ["kept", "Latin", "vietnamese"]
    report.search("␣người")  # the mark that is shown finds the space as well
    assert report.rows()[0][0] == "␣người"
    report.clear()
    assert report.found().startswith("151,665 ")
    # The first press sorts numbers of occurrences from the top, all else upwards; the next one turns it
    # round.
    for key, column, first in (("id", 1, "ascending"), ("count", 2, "descending")):
        for direction in (first, {"ascending": "descending", "descending": "ascending"}[first]):
            report.one(f"[data-sort={key}]").click()
            assert report.one(f"th:has([data-sort={key}])").get_attribute("aria-sort") == direction
            values = [int(row[column].replace(",", "")) for row in report.rows()]
            assert values == sorted(values, reverse=direction == "descending")
    report.one("[data-sort=token]").click()
    report.one("[data-sort=token]").click()
    assert report.one("th:has([data-sort=token])").get_attribute("aria-sort") == "descending"
    assert report.rows()[0][0] > report.rows()[-1][0]
    assert browser.get_log("browser") == []


@pytest.mark.assets
def test_filters(browser: Any, real_report: Path) -> None:
    report = Report(browser, real_report)
    report.choose("[name=state][value='0']")
    report.choose("#script", "Han")
    rows = report.rows()
    assert len(rows) == 50 and report.found().startswith("25,941 tokens")
    assert {(row[4], row[5]) for row in rows} == {("removed", "Han")}
    assert all(any("\u3400" <= char <= "\u9fff" for char in row[0]) for row in rows)
    report.choose("[name=state][value='1']")
    assert report.rows() == [] and report.found().startswith("0 tokens")
    report.choose("#script", "")
    report.choose("#reason", PART_OF_KEPT)
    assert report.found().startswith("376 tokens")
    report.choose("#reason", "")
    report.choose("[name=state][value='']")
    report.choose("#id-query", "0-255")
    assert report.found().startswith("256 tokens")
    report.choose("#id-query", "94")
    assert [row[:2] for row in report.rows()] == [["<0xA1>", "94"]]
    report.choose("#id-query", "many")
    assert "Give an id" in report.found() and report.rows() == []
    report.clear()
    report.run(
        "[...document.querySelectorAll('#by-script button')].find(b => b.textContent === 'Thai').click()"
    )
    assert {row[5] for row in report.rows()} == {"Thai"}, "a name in a chart opens its tokens"


@pytest.mark.assets
def test_pages(browser: Any, real_report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    report = Report(browser, real_report)
    assert report.one("#page-count").text == "of 3,034"  # 151,665 / 50, rounded up
    first = report.rows()
    assert not report.one("#previous").is_enabled()
    report.one("#next").click()
    second = report.rows()
    assert second[0] not in first and len(second) == 50
    report.one("#last").click()
    assert len(report.rows()) == 15 and not report.one("#next").is_enabled()
    report.one("#page").send_keys(Keys.CONTROL + "a")
    report.one("#page").send_keys("2" + Keys.ENTER)
    assert report.rows() == second
    report.one("#first").click()
    assert report.rows() == first


@pytest.mark.assets
def test_the_keyboard_is_enough(browser: Any, real_report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    report = Report(browser, real_report)
    report.one("body").send_keys("/")
    assert report.run("return document.activeElement.id") == "query"
    report.search("<0xe1>")
    assert report.rows() and all("<0xE1>" in row[0] for row in report.rows())
    before = report.one("#curve-value").text
    curve = report.one("#curve")
    curve.send_keys(Keys.ARROW_RIGHT)
    assert "most counted tokens cover" in report.one("#curve-value").text != before
    unnamed = report.run(
        "return [...document.querySelectorAll('input, select, button')].filter("
        "node => !(node.labels?.length || node.ariaLabel || node.textContent.trim())).length"
    )
    assert unnamed == 0


@pytest.mark.assets
def test_curve_shows_values_under_the_pointer(browser: Any, real_report: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    report = Report(browser, real_report)
    assert report.one("#curve-value").text.startswith("The kept 94,948 tokens cover 99.59")
    lines = set()
    for x_scale in ("linear", "log"):
        for y_scale in ("covered", "left"):
            report.run(f"document.querySelector('[value={x_scale}]').click()")
            report.run(f"document.querySelector('[value={y_scale}]').click()")
            lines.add(report.one("#curve .line").get_attribute("d"))
            assert "NaN" not in report.one("#curve").get_attribute("innerHTML")
    assert len(lines) == 4
    ActionChains(browser).move_to_element(report.one("#curve")).perform()
    assert report.one("#cursor").get_attribute("visibility") == "visible"
    assert "the last of them was counted" in report.one("#curve-value").text


@pytest.mark.assets
@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_window(browser: Any, real_report: Path, width: int) -> None:
    report = Report(browser, real_report, width=width)
    assert report.run("return innerWidth") == width
    assert report.overflow() == 0
    report.choose("#category", "ascii_long")  # the longest tokens there are
    assert report.overflow() == 0


def test_hostile_tokens_stay_text(browser: Any, tmp_path: Path) -> None:
    write(tmp_path / "report.html", hostile(), {0, 2, 4}, title=HOSTILE[1], command=HOSTILE[0])
    report = Report(browser, tmp_path / "report.html")
    assert report.run("return window.hacked") is None
    assert report.one("#title").text == HOSTILE[1] and report.one("#command").text == HOSTILE[0]
    assert browser.title.startswith(HOSTILE[1])
    shown = [row[0] for row in report.rows()]
    assert shown[:3] == [text.replace(" ", "␣") for text in HOSTILE[:3]]
    assert shown[3] == "]]>&lt;\\u003cU+2028U+2029U+0000␍↵⇥␣U+007F"
    assert report.run("return document.images.length") == 0
    assert browser.get_log("browser") == []
    blocked = "try { document.body.innerHTML = '<p>'; return false } catch { return true }"
    assert report.run(blocked), "the page itself refuses markup out of strings"


def test_tokens_are_shown_so_that_they_can_be_told_apart(browser: Any, tmp_path: Path) -> None:
    texts = {
        " a": "␣a",
        "\u00a0": "U+00A0",
        "\u202eabc": "U+202Eabc",
        "\u0301": "◌\u0301",
        "<0xE1>x": "<0xE1>x",
    }
    texts |= {"👨\u200d👩": "👨\u200d👩", "\u200d": "U+200D", "\u3000字": "U+3000字"}
    decisions = [decision(i, text, 100 - i, True) for i, text in enumerate(texts)]
    write(tmp_path / "report.html", decisions, set(range(len(texts))))
    report = Report(browser, tmp_path / "report.html")
    assert [row[0] for row in report.rows()] == list(texts.values())


@pytest.mark.parametrize("counted", [True, False])
def test_small_and_uncounted_reports_open(browser: Any, tmp_path: Path, counted: bool) -> None:
    decisions = small() if counted else [decision(i * 3, "x", 0, i == 0) for i in range(3)]
    write(tmp_path / "report.html", decisions, SMALL_CLOSED if counted else {0})
    report = Report(browser, tmp_path / "report.html", width=390)
    assert report.run("return document.documentElement.dataset.ready") is not None
    assert browser.get_log("browser") == [] and report.overflow() == 0
    assert ("cover" in report.one("#lede").text) == counted
    assert report.one("#coverage").is_displayed() == counted
    assert "This is no tokenizer of Qwen2.5" in report.one("#sizes-text").text
    assert len(report.rows()) == len(decisions)

"""vocabkit/vocab/report.py: its numbers by hand, what may stand in the page, and the page in a real browser.

The browser tests need chromium and chromedriver (Debian: apt-get install chromium chromium-driver) and the
selenium package, and say which of them is missing. Nothing is downloaded.
"""

import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT

from vocabkit.files import open_text
from vocabkit.tokenizer import bpe
from vocabkit.vocab.report import (
    PART_OF_KEPT,
    STRIP_COLUMNS,
    Group,
    Token,
    after_closure,
    best_share,
    compact,
    coverage_curve,
    facts,
    group,
    json_for_script,
    largest_removed,
    read_family,
    script_of_token,
    sizes,
    strip,
    write_html_report,
)
from vocabkit.vocab.rules import Decision, decide

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<!--<script>",
    "]]>&lt;\\u003c\u2028\u2029\x00\r\n\t \x7f",
    "'\"`${window.hacked = 1}",
    "$data {{data}} $title",
]


def decision(token_id: int, text: str, count: int, keep_it: bool, **changes: Any) -> Decision:
    reason = "English word in use" if keep_it else "rare"
    return Decision(token_id, text, count, keep_it, **{"reason": reason, "category": "english", **changes})


def small() -> list[Decision]:
    """Five tokens, 100 occurrences; in another order than that of the ids."""
    return [
        decision(2, "字", 10, False, reason="script Han", category="others"),
        decision(0, " the", 60, True),
        decision(1, "th", 5, False),
        decision(4, " ti<0xE1>", 0, False, category="others"),
        decision(3, "việc", 25, True, reason="Vietnamese syllable", category="vietnamese"),
    ]


SMALL_CLOSED = {0, 1, 3}


# --- Numbers


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", "Common"),
        ("123 ", "Common"),
        ("🙂", "Common"),
        ("\u0301", "Common"),  # Inherited: whatever it stands on
        ("\u0301字", "Han"),
        (" a", "Latin"),
        ("ệ", "Latin"),
        ("，я", "Cyrillic"),
        ("<0xE1>", "bytes"),
        ("字<0x80>", "bytes"),
        ("<0x41>", "Latin"),  # five ASCII characters: no byte below 80 is written so
        ("\ue000", "Unknown"),
    ],
)
def test_script_of_token(text: str, script: str) -> None:
    assert script_of_token(text) == script


def test_closure_decides_what_stays() -> None:
    tokens = after_closure(small(), SMALL_CLOSED)
    assert [(t.id, t.stays, t.reason) for t in tokens] == [
        (0, True, "English word in use"),
        (1, True, PART_OF_KEPT),
        (2, False, "script Han"),
        (3, True, "Vietnamese syllable"),
        (4, False, "rare"),
    ]
    assert [t.script for t in tokens] == ["Latin", "Latin", "Han", "Latin", "bytes"]


@pytest.mark.parametrize(
    ("closed", "more", "message"),
    [
        ({0, 1}, [], "token 3 is kept but not in closed"),
        ({0, 1, 3, 99}, [], "closed holds 99"),
        ({0, 1, 3}, [decision(0, "again", 1, True)], "6 decisions for 5 ids"),
    ],
)
def test_decisions_that_do_not_fit(closed: set[int], more: list[Decision], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        after_closure([*small(), *more], closed)


def test_curve_of_few_tokens_has_each_of_them() -> None:
    curve = coverage_curve([5, 10, 60, 25, 0])
    assert [(p.size, p.share, p.count) for p in curve] == [
        (1, 0.6, 60),
        (2, 0.85, 25),
        (3, 0.95, 10),
        (4, 1.0, 5),
        (5, 1.0, 0),
    ]
    assert best_share([5, 10, 60, 25, 0], 3) == 0.95


@pytest.mark.parametrize("counts", [[], [0], [0, 0, 0]])
def test_curve_of_nothing(counts: list[int]) -> None:
    assert coverage_curve(counts) == []
    assert best_share(counts, 1) is None


@given(st.lists(st.integers(0, 10**6), max_size=300), st.integers(2, 60))
def test_curve_rises_and_ends_at_all(counts: list[int], points: int) -> None:
    curve = coverage_curve(counts, points=points)
    if not any(counts):
        assert curve == []
        return
    assert (curve[0].size, curve[-1].size, curve[-1].share) == (1, len(counts), 1.0)
    assert len(curve) <= max(points, 4)
    for one, other in zip(curve, curve[1:], strict=False):
        assert one.size < other.size and one.share <= other.share and one.count >= other.count
    for point in curve:
        assert point.share == best_share(counts, point.size)


def test_curve_of_a_real_size_is_small() -> None:
    curve = coverage_curve(10**9 // (rank + 1) for rank in range(151_665))
    assert 300 <= len(curve) <= 400
    assert {1, 2, 3, 4, 5, 151_665} <= {point.size for point in curve}


def test_groups() -> None:
    tokens = after_closure(small(), SMALL_CLOSED)
    assert group(tokens, lambda token: token.script) == [
        Group("Latin", 3, 0, 90, 0),
        Group("Han", 0, 1, 0, 10),
        Group("bytes", 0, 1, 0, 0),
    ]
    assert group(tokens, lambda token: token.category) == [
        Group("english", 2, 0, 65, 0),
        Group("others", 0, 2, 0, 10),
        Group("vietnamese", 1, 0, 25, 0),
    ]


def test_strip() -> None:
    assert strip([]) == []
    assert strip([True]) == [1.0]
    assert strip([True, False, True, True, True], columns=2) == [0.5, 1.0]
    assert len(strip([True] * 1000)) == STRIP_COLUMNS


def test_largest_removed() -> None:
    tokens = after_closure([*small(), decision(9, "x", 10, False), decision(7, "y", 11, False)], SMALL_CLOSED)
    assert [t.id for t in largest_removed(tokens)] == [7, 2, 9]  # 4 was never counted
    assert [t.id for t in largest_removed(tokens, 1)] == [7]


def test_bytes_saved_by_hand() -> None:
    """94,948 tokens → 94,976 rows; 7B: 152,064 − 94,976 = 57,088 rows × 3,584 × 2 bytes × 2 matrices."""
    by_name = {size.name: size for size in sizes(151_665, 94_948, read_family())}
    assert list(by_name) == ["0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B"]
    half, seven = by_name["0.5B"], by_name["7B"]
    assert (half.old_rows, half.new_rows, half.matrices) == (151_936, 94_976, 1)
    assert (half.old_bytes, half.new_bytes) == (272_269_312, 170_196_992)
    assert half.saved_bytes == 56_960 * 896 * 2 == 102_072_320
    assert half.share == pytest.approx(102_072_320 / 988_065_536)
    assert (seven.old_rows, seven.matrices) == (152_064, 2)
    assert seven.saved_bytes == 57_088 * 3584 * 2 * 2 == 818_413_568
    assert by_name["72B"].saved_bytes == 57_088 * 8192 * 4 == 1_870_659_584
    assert by_name["14B"].saved_bytes == by_name["32B"].saved_bytes


@pytest.mark.parametrize("tokens", [151_642, 151_937, 256_000, 128_256])
def test_bytes_saved_of_another_tokenizer(tokens: int) -> None:
    for size in sizes(tokens, 1000, read_family()):
        assert size.old_rows == -(-tokens // 64) * 64 and size.new_rows == 1024
        assert size.share is None


@pytest.mark.parametrize(
    ("name", "layers", "intermediate", "kv_width"),
    [
        ("0.5B", 24, 4864, 128),
        ("1.5B", 28, 8960, 256),
        ("3B", 36, 11008, 256),
        ("7B", 28, 18944, 512),
        ("14B", 48, 13824, 1024),
        ("32B", 64, 27648, 1024),
        ("72B", 80, 29568, 1024),
    ],
)
def test_parameters_follow_from_config(name: str, layers: int, intermediate: int, kv_width: int) -> None:
    """q, k, v with bias, o, three matrices of the MLP and two norms per layer, one norm at the end."""
    shape = next(shape for shape in read_family().shapes if shape.name == name)
    width = shape.hidden_size
    layer = (
        2 * width * width + 2 * width * kv_width + width + 2 * kv_width + 3 * width * intermediate + 2 * width
    )
    assert shape.parameters == shape.matrices * shape.rows * width + layers * layer + width


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from("ab")), unique_by=lambda t: t[0]))
def test_columns_hold_every_token(rows: list[tuple[int, bool, str]]) -> None:
    tokens = [
        Token(id=i, text=f"t{i}", count=i * 7, stays=stays, category=name, script="Latin", reason=name * 2)
        for i, stays, name in sorted(rows)
    ]
    columns = compact(tokens)
    ids = columns["ids"] if columns["ids"] is not None else range(len(tokens))
    back = [
        Token(token_id, text, count, bool(stays), category, script, reason)
        for token_id, text, count, (stays, category, script, reason) in zip(
            ids,
            columns["texts"],
            columns["counts"],
            map(columns["kind_names"].__getitem__, columns["kinds"]),
            strict=True,
        )
    ]
    assert back == tokens
    assert len(set(columns["kind_names"])) == len(columns["kind_names"])


def test_facts_show_what_the_summary_has() -> None:
    summary = {
        "min_count": 1000,
        "ascii_count": 100.0,
        "sure_count": 20_000,
        "scripts": ["Common", "Latin"],
        "fingerprint": "f" * 64,
        "made": "2026-01-02",
    }
    assert facts(summary) == [
        ("Minimum count", "1,000"),
        ("Minimum count of ASCII", "100"),
        ("Kept for sure from", "20,000"),
        ("Scripts allowed", "Common, Latin"),
        ("Tokenizer fingerprint", "f" * 12 + "…"),
        ("Made", "2026-01-02"),
    ]
    ((name, value),) = facts({})
    assert name == "Made" and value.startswith(time.strftime("%Y-"))


# --- The file


class Page(HTMLParser):
    """The script elements of a page, each as (attributes, text), and the text of its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, Any], str]] = []
        self.tags: list[str] = []
        self.title = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.lasttag == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.lasttag == "title":
            self.title += data

    @property
    def data(self) -> Any:
        ((_, text),) = [script for script in self.scripts if script[0].get("type") == "application/json"]
        return json.loads(text)


def write(path: Path, decisions: Sequence[Decision], closed: set[int], **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "summary": {},
        "title": "model",
        "command": "python3 build_vocab.py",
        **changes,
    }
    write_html_report(path, decisions=decisions, closed=closed, **arguments)
    return path.read_text(encoding="utf-8")


def hostile() -> list[Decision]:
    return [
        decision(token_id, text, 50 - token_id, token_id % 2 == 0, reason=text, category=text)
        for token_id, text in enumerate(HOSTILE)
    ]


def test_the_page_holds_the_data(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "report.html", small(), SMALL_CLOSED, title="Qwen2.5", command="make it"))
    data = page.data
    assert page.title.startswith("Qwen2.5 ·") and data["command"] == "make it"
    assert (data["tokens"], data["kept"], data["by_closure"]) == (5, 3, 1)
    assert (data["counted"], data["kept_counted"], data["best_share"]) == (100, 90, 0.95)
    assert data["columns"]["texts"] == [" the", "th", "字", "việc", " ti<0xE1>"]
    assert data["columns"]["ids"] is None and data["columns"]["counts"] == [60, 5, 10, 25, 0]
    assert data["largest_removed"] == [[2, "字", 10, False, "others", "Han", "script Han"]]
    assert (data["family"], data["sizes"][0]["old_rows"], data["sizes"][0]["share"]) == ("Qwen2.5", 64, None)


def test_nothing_in_the_data_becomes_markup(tmp_path: Path) -> None:
    plain = Page(write(tmp_path / "plain.html", small(), SMALL_CLOSED))
    text = write(
        tmp_path / "hostile.html",
        hostile(),
        {0, 2, 4},
        title=HOSTILE[0],
        command=" ".join(HOSTILE),
        summary={"scripts": HOSTILE, "fingerprint": HOSTILE[0], "made": HOSTILE[1]},
    )
    page = Page(text)
    assert page.tags == plain.tags, "the data made elements of its own"
    assert page.data["columns"]["texts"] == HOSTILE
    assert page.data["title"] == HOSTILE[0] and page.title.startswith(HOSTILE[0])
    ((_, json_text),) = [s for s in page.scripts if s[0].get("type") == "application/json"]
    assert "<" not in json_text


@given(st.lists(st.text(max_size=8) | st.sampled_from(HOSTILE), max_size=5))
def test_json_for_script_is_json_without_brackets(strings: list[str]) -> None:
    text = json_for_script(strings)
    assert "<" not in text and json.loads(text) == strings


def test_arguments_that_are_not_utf8_do_not_break_the_page(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "report.html", small(), SMALL_CLOSED, title="m\udce9", command="ls \udcff"))
    assert page.data["command"] == "ls \udcff" and page.data["title"] == "m\udce9"


def test_no_tokens_at_all(tmp_path: Path) -> None:
    data = Page(write(tmp_path / "report.html", [], set())).data
    assert (data["tokens"], data["curve"], data["strip"], data["by_script"]) == (0, [], [], [])


def test_the_parts_load_nothing_and_write_no_markup() -> None:
    pages = (ROOT / "vocabkit" / "vocab").glob("report_page.*")
    parts = {path.suffix: path.read_text(encoding="utf-8") for path in pages}
    assert set(parts) == {".html", ".css", ".js"}
    for text in parts.values():
        assert "//" not in text.replace("// ", "") and "@import" not in text and "url(" not in text
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "</"):
        assert way not in parts[".js"], way


# --- In a browser


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
    decisions = decide(((i, data, i in added) for i, data in tokenizer.token_bytes.items()), counts)
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

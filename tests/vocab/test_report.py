"""vocabkit/vocab/report.py: its numbers by hand, and what may stand in the page."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting import HOSTILE, SMALL_CLOSED, Page, decision, hostile, small, write
from tiny import ROOT

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
)

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
    }
    *found, (name, value) = facts(summary)
    assert name == "Made" and value.startswith(time.strftime("%Y-"))
    assert found == [
        ("Minimum count", "1,000"),
        ("Minimum count of ASCII", "100"),
        ("Kept for sure from", "20,000"),
        ("Scripts allowed", "Common, Latin"),
        ("Tokenizer fingerprint", "f" * 12 + "…"),
    ]
    assert len(facts({})) == 1


# --- The file


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
        summary={"scripts": HOSTILE, "fingerprint": HOSTILE[0]},
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

"""verify_edit: clean on what trimm_vocab writes; each rung counts (their tests are beside this one)."""

import shutil
from pathlib import Path

import pytest
from corpora import PACK, as_jsonl, put
from verifying import break_eos, break_layer, break_merges, break_row

from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.verify import ladder
from vocabkit.verify.ladder import verify_edit


def findings(source: Path, out: Path, texts: Path | None = None) -> dict[str, list[str]]:
    """Run the ladder and return what each rung finds, as recorded; the return value must agree with it."""
    passed = verify_edit(source, out, texts=[texts] if texts else None)
    report = read_json(out / "verify_report.json")
    found = {check["name"]: check["findings"] for check in report["checks"] if check["findings"]}
    assert passed == report["passed"] == (not found)
    return found


@pytest.mark.parametrize("family, tied", [("qwen2", True), ("llama", False), ("gemma2", True), ("t5", False)])
def test_is_clean_after_trimming(checkpoint, trimmed, tmp_path, family, tied):
    shutil.copytree(trimmed(family, tied=tied), tmp_path / "out")
    assert findings(checkpoint(family, tied=tied), tmp_path / "out") == {}
    report = read_json(tmp_path / "out" / "verify_report.json")
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    assert numbers["positions"] > 50 and numbers["same_argmax"] == numbers["positions"]
    assert numbers["covered_bits_per_byte"] < numbers["covered_bits_per_byte_base"]  # competitors are gone
    assert 0 < numbers["removed_probability_mean"] < numbers["removed_probability_max"] < 1


@pytest.mark.parametrize(
    "damage, rungs",
    [
        (break_eos, ["1 files"]),
        (break_merges, ["2 tokenizer"]),
        (break_row, ["3 rows"]),
        (break_layer, ["4 logits", "5 cost"]),
    ],
)
def test_each_rung_finds_its_damage(pair, damage, rungs):
    source, out = pair
    damage(out)
    assert list(findings(source, out)) == rungs


def test_texts_without_a_covered_one_prove_nothing(pair, tmp_path):
    source, out = pair
    (tmp_path / "foreign.txt").write_text("天气\n" * 5, encoding="utf-8")
    found = findings(source, out, tmp_path / "foreign.txt")
    assert any("no text is covered" in finding for finding in sum(found.values(), []))
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="nothing to measure"):
        verify_edit(source, out, texts=[tmp_path / "empty.jsonl"])


def test_texts_are_all_that_a_corpus_may_be_and_are_looked_at_first(pair, tmp_path, monkeypatch):
    source, out = pair
    chat = [{"role": "user", "content": "Xin chào!"}, {"role": "assistant", "content": "Chào bạn."}]
    path = put(tmp_path, "chats.jsonl.zst", PACK[".zst"](as_jsonl([{"messages": chat}] * 3)))
    assert findings(source, out, path) == {}
    monkeypatch.setattr(ladder, "open_edited", None)
    bad = put(tmp_path, "bad.jsonl", b'{"text": "x"}\n{"body": "y"}\n')
    with pytest.raises(UserError, match='bad.jsonl:2: no "text"'):
        verify_edit(source, out, texts=[bad])

"""vocabkit/rows/make.py: what rows are distilled from, and what cannot be."""

import json
import re

import pytest
from distilling import CONTENTS, LINES, WORDS, make, write_texts
from tiny import ROOT

import model_edit
from vocabkit.checkpoint.folder import open_folder
from vocabkit.edit.extend import extend_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.rows import leak, names
from vocabkit.rows.make import Origin, make_rows


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return make(tmp_path_factory.mktemp("qwen2"), "qwen2", tied=True)


def test_distilling_needs_contexts(qwen2):
    with pytest.raises(UserError, match="distill learns from texts"):
        make_rows(Origin(open_folder(qwen2)), CONTENTS, init="distill")


def test_distilling_without_contexts_learns_from_the_bundled_sentences(qwen2, tmp_path, monkeypatch):
    words, _ = write_texts(tmp_path)
    bundled = tmp_path / "bundled.jsonl"
    rows = [{"word": word, "examples": LINES} for word in WORDS[:1]]
    bundled.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setattr(names, "BUNDLED_EXAMPLES", bundled)
    extend_vocab(qwen2, tmp_path / "out", words=words, init="distill")
    facts = read_json(tmp_path / "out" / "vocab_edit.json")["init"]
    assert facts["name"] == "distill" and facts["texts"][0]["name"] == "bundled.jsonl"
    bundled.write_text(json.dumps({"examples": ["Xin chào."]}), encoding="utf-8")
    with pytest.raises(UserError, match="bundled.jsonl: none of the 4 new tokens .* --init weighted"):
        extend_vocab(qwen2, tmp_path / "none", words=words, init="distill")
    assert not list(tmp_path.glob("none*"))


def test_bad_inputs_write_nothing(qwen2, tmp_path):
    words, texts = write_texts(tmp_path)
    (tmp_path / "other.txt").write_text("Xin chào, hôm nay\n", encoding="utf-8")
    argv = ["-t", "extend_vocab", "-m", str(qwen2), "-o", str(tmp_path / "out"), "--words", str(words)]
    argv += ["--init", "distill"]
    for more, message in (
        (["--contexts", str(tmp_path / "none.txt")], "none.txt is missing"),
        (["--contexts", str(texts), "--init", "mean"], "--init mean reads no texts"),
        (["--contexts", str(tmp_path / "other.txt")], "none of the 4 new tokens stands in"),
        (["--contexts", str(texts), "--contexts_per_word", "0"], "--contexts_per_word is 0"),
    ):
        with pytest.raises(UserError, match=message):
            model_edit.main([*argv, *more])
    assert not list(tmp_path.glob("out*"))
    assert model_edit.main([*argv, "--contexts", str(texts), "--contexts_per_word", "2"]) == 0
    assert read_json(tmp_path / "out" / "vocab_edit.json")["init"]["contexts"] == [2, 2, 2, 0]


def test_rows_of_any_init_can_be_measured_before_they_are_written(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    demo, words = ROOT / "data" / "demo", ROOT / "data" / "demo" / "words.txt"
    extend_vocab(demo, out, words=words, init="weighted", measure=True)
    said = capsys.readouterr().out
    assert re.search(r"^English +[\d,]+ places: new tokens take \d+\.\d\d%", said, re.MULTILINE)
    facts = read_json(out / "vocab_edit.json")["init"]
    assert facts["other_text"].keys() == {"English", "Vietnamese", "chat prompts"} and facts["lowered"] == {}
    monkeypatch.setattr(leak, "LIMITS", {"share": 0.0})
    monkeypatch.setattr(leak, "judged", lambda read: dict.fromkeys(read, leak.NOTHING))  # it only guesses
    with pytest.raises(UserError, match="take too much where they do not belong: English: the mean share"):
        extend_vocab(demo, tmp_path / "no", words=words, init="weighted", measure=True)
    assert not (tmp_path / "no").exists()

"""vocabkit/words/curve.py: what lists save on text they were not chosen on."""

from collections import Counter

import pytest

from vocabkit.corpus.files import find_sources
from vocabkit.corpus.lines import measured_lines
from vocabkit.errors import UserError
from vocabkit.text.languages import is_vietnamese_text
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.words.curve import measure_curve


def test_vietnamese_lines():
    assert is_vietnamese_text("A. Cán cân thương mại", share=0.5) and is_vietnamese_text(
        "- Không!", share=0.5
    )
    others = ("", "12 + 5", "The cat sat on the mat", "def f(x): return x", "một two")
    assert not any(is_vietnamese_text(line, share=0.5) for line in others)


def test_curve(tiny):
    folder = tiny("qwen").path
    lines = Counter({"Các học sinh đi chơi.": 2, "Bao học sinh?": 1})
    tokenizer = read_tokenizer_json(folder)
    impact = [" đi chơi", " học sinh"]
    curve = measure_curve(tokenizer, lines, chosen=[" học sinh"], impact=impact)
    sizes = [
        len(load_encoder(folder).encode(text, add_special_tokens=False).ids)
        for text in (" học sinh", *impact)
    ]
    assert curve.numbers == [1] and curve.syllables == [0] and "syllables" not in curve.table()
    assert curve.saved["chosen"] == [3 * (sizes[0] - 1)] and curve.saved["impact"] == [2 * (sizes[1] - 1)]
    assert "chosen" in curve.table() and curve.table().count("%") == 3


def test_nothing_to_measure_on_is_one_line(tmp_path):
    (tmp_path / "en.txt").write_text("All the world's a stage\n", encoding="utf-8")
    with pytest.raises(UserError, match="no Vietnamese line to measure on"):
        measured_lines(find_sources([str(tmp_path)]), take=lambda line: True)

"""The real envizh-lm (Qwen2.5's vocabulary, English, Vietnamese, Chinese), trimmed by the bundled list."""

import contextlib
import subprocess
import sys
import unicodedata

import pytest
import torch

from vocabkit.corpus.lines import read_texts
from vocabkit.edit.trim import trim_vocab
from vocabkit.files import read_json
from vocabkit.text.unicode import foreign_script
from vocabkit.verify.edited import open_edited
from vocabkit.verify.ladder import verify_edit
from vocabkit.verify.logits import check_model

pytestmark = [pytest.mark.assets, pytest.mark.slow]
STARTS = ["", "Hà Nội là", "The city", "中国", "Chào bạn,", "In 2024", "东西是", "😀 "]
SAMPLES = 80  # of each


@pytest.fixture(scope="module")
def folders(assets, tmp_path_factory):
    """The expanded model, and the one trimmed out of it."""
    place = tmp_path_factory.mktemp("envizh")
    expand = assets / "models" / "envizh-lm" / "expand.py"
    subprocess.run([sys.executable, str(expand), str(place / "base")], check=True, capture_output=True)
    trim_vocab(place / "base", place / "out")
    return place / "base", place / "out"


def test_the_bundled_list_was_used(folders):
    edit = read_json(folders[1] / "vocab_edit.json")
    assert edit["keep"]["how"] == "bundled" and edit["keep"]["source"] == "data/qwen__1000__20000"
    assert 85_000 <= edit["n_tokens"] <= 101_000


@pytest.mark.parametrize("language", ["en", "vi"])
def test_costs_what_the_renormalized_base_costs(folders, assets, language):
    base, out = folders
    texts = sorted((assets / "corpora" / language).iterdir())
    with contextlib.redirect_stdout(None):
        edited = open_edited(base, out)
        logits, cost = check_model(edited, read_texts(texts, lines_per_text=1), max_tokens=1000)
    assert logits.findings == cost.findings == []
    assert logits.numbers["max_abs_difference"] <= 1e-4
    assert logits.numbers["same_argmax"] == logits.numbers["positions"]
    numbers = cost.numbers
    renormalized = numbers["covered_bits_per_byte_base_renormalized"]
    assert abs(numbers["covered_bits_per_byte"] - renormalized) <= 1e-4
    assert numbers["covered_bits_per_byte"] < numbers["covered_bits_per_byte_base"]
    # All text, with what the list does not cover spelled by smaller pieces: at most 1 % worse than the base
    assert numbers["bits_per_byte"] <= 1.01 * numbers["bits_per_byte_base"]


def test_ladder_is_clean(folders, assets, tmp_path):
    lines = []
    for name in (
        "en/ud_en_ewt-ud.txt",
        "vi/ud_vi_vtb-ud.txt",
        "envi/tatoeba.tsv",
        "zh/ud_zh_gsdsimp-ud.txt",
        "udhr/vie.txt",
    ):
        lines += (assets / "corpora" / name).read_text(encoding="utf-8").splitlines()[:15]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    assert verify_edit(*folders, texts=[tmp_path / "texts.txt"])


def test_no_sample_holds_a_removed_script(folders):
    """At temperature 1.5 a model says nearly anything that it can say at all."""
    from vocabkit.models.load import load_model, load_tokenizer, silence

    silence()
    model, tokenizer = load_model(folders[1]), load_tokenizer(folders[1])
    edit = read_json(folders[1] / "vocab_edit.json")
    torch.manual_seed(0)
    seen: set[int] = set()
    for start in STARTS:
        prompt = tokenizer("<|endoftext|>" + start, return_tensors="pt").input_ids
        ids = model.generate(
            prompt,
            do_sample=True,
            temperature=1.5,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=10,
            num_return_sequences=SAMPLES,
            pad_token_id=tokenizer.pad_token_id,
        )[:, prompt.shape[1] :]
        seen.update(ids.unique().tolist())
        for text in tokenizer.batch_decode(ids):
            assert not {foreign_script(char) for char in text} - {None}, text
            assert not any(unicodedata.name(char, "").startswith(("CJK UNIFIED", "HANGUL")) for char in text)
    assert max(seen) < edit["n_tokens"]  # no padding row
    assert len(seen) > 5000  # the samples are as wild as the temperature says

"""The real envizh-lm (Qwen2.5's vocabulary, English, Vietnamese, Chinese), trimmed by the bundled list."""

import contextlib
import unicodedata
from pathlib import Path

import pytest
import torch

from vocabkit.corpus.lines import read_texts
from vocabkit.edit.trim import trim_vocab
from vocabkit.files import read_json
from vocabkit.text.unicode import foreign_script
from vocabkit.verify.edited import Edited, open_edited
from vocabkit.verify.ladder import verify_edit
from vocabkit.verify.logits import check_model

pytestmark = [pytest.mark.assets, pytest.mark.slow]
STARTS = ["", "Hà Nội là", "The city", "中国", "Chào bạn,", "In 2024", "东西是", "😀 "]
SAMPLES = 20  # of each


@pytest.fixture(scope="module")
def trimmed_envizh(envizh, tmp_path_factory) -> Path:
    """The model trimmed out of envizh; nobody may change it."""
    out = tmp_path_factory.mktemp("envizh") / "out"
    trim_vocab(envizh, out)
    return out


@pytest.fixture(scope="module")
def edited(envizh, trimmed_envizh) -> Edited:
    return open_edited(envizh, trimmed_envizh)


def test_the_bundled_list_was_used(trimmed_envizh):
    edit = read_json(trimmed_envizh / "vocab_edit.json")
    assert edit["keep"]["how"] == "bundled" and edit["keep"]["source"] == "data/qwen__1000__20000"
    assert edit["base_vocab_size"] == 151_936 and 85_000 <= edit["n_tokens"] <= 101_000
    assert read_json(trimmed_envizh / "verify_report.json")["passed"]


def test_covered_lines_get_the_same_tokens(edited, assets):
    lines = [
        line
        for name in ("vi/ud_vi_vtb-ud.txt", "en/ud_en_ewt-ud.txt")
        for line in (assets / "corpora" / name).read_text(encoding="utf-8").splitlines()[:1000]
    ]
    covered = 0
    encoders = edited.base_encoder, edited.encoder
    for old, new in zip(*(encoder.encode_batch_fast(lines) for encoder in encoders), strict=True):
        if edited.old_to_new.keys() >= set(old.ids):
            covered += 1
            assert new.ids == [edited.old_to_new[i] for i in old.ids]
    assert covered > 0.9 * len(lines)


@pytest.mark.parametrize("language", ["en", "vi"])
def test_costs_what_the_renormalized_base_costs(edited, assets, language):
    texts = sorted((assets / "corpora" / language).iterdir())
    with contextlib.redirect_stdout(None):
        logits, cost = check_model(edited, read_texts(texts, lines_per_text=1), max_tokens=600)
    assert logits.findings == cost.findings == []
    assert logits.numbers["max_abs_difference"] <= 1e-4
    assert logits.numbers["same_argmax"] == logits.numbers["positions"]
    numbers = cost.numbers
    renormalized = numbers["covered_bits_per_byte_base_renormalized"]
    assert abs(numbers["covered_bits_per_byte"] - renormalized) <= 1e-4
    assert numbers["covered_bits_per_byte"] < numbers["covered_bits_per_byte_base"]
    # All text, with what the list does not cover spelled by smaller pieces: at most 1 % worse than the base
    assert numbers["bits_per_byte"] <= 1.01 * numbers["bits_per_byte_base"]


def test_ladder_is_clean(envizh, trimmed_envizh, assets, tmp_path):
    lines = []
    for name in (
        "en/ud_en_ewt-ud.txt",
        "vi/ud_vi_vtb-ud.txt",
        "envi/tatoeba.tsv",
        "zh/ud_zh_gsdsimp-ud.txt",
        "udhr/vie.txt",
    ):
        lines += (assets / "corpora" / name).read_text(encoding="utf-8").splitlines()[:4]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    assert verify_edit(envizh, trimmed_envizh, texts=[tmp_path / "texts.txt"])


def test_no_sample_holds_a_removed_script(trimmed_envizh):
    """At temperature 1.5 a model says nearly anything that it can say at all."""
    from vocabkit.models.load import load_model, load_tokenizer, silence

    silence()
    model, tokenizer = load_model(trimmed_envizh), load_tokenizer(trimmed_envizh)
    edit = read_json(trimmed_envizh / "vocab_edit.json")
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
    assert len(seen) > 1250  # the samples are as wild as the temperature says

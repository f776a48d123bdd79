"""vocabkit/vocab/bans.py on real tokenizers: whatever must be written can be, and Chinese still cannot."""

import pytest

from vocabkit.text.writing import writing_forms
from vocabkit.vocab.lists import wanted_ids
from vocabkit.vocab.plan import FOREIGN, PADDING, derive_bans, make_plan, writing_of

NAMES = ["llama-2", "qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it"]


@pytest.fixture(scope="module")
def real_bans(real):
    """name → a real tokenizer's plan by its bundled list, or the rules."""

    def make(name):
        folder = real(name)
        ids, _ = wanted_ids(folder.tokenizer, [])
        return folder, folder.plan(ids)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_form_needs_a_banned_token(real_bans, name):
    """Encoded by the base: its encoding of these texts is the trimmed one's where all tokens are kept, and
    where one is not, the bytes that take its place are seen by the check of trimmed folders (test_writes.py).
    """
    folder, plan = real_bans(name)
    banned = {plan.new_to_old[new] for new in plan.suppressed[FOREIGN]}
    texts = list(writing_forms())[::3]
    encodings = folder.encoder.encode_batch_fast(texts, add_special_tokens=False)
    assert [text for text, e in zip(texts, encodings, strict=True) if banned & set(e.ids)] == []


@pytest.mark.parametrize("name", NAMES)
def test_common_chinese_korean_and_thai_stay_out(real_bans, name):
    _, plan = real_bans(name)
    spelled = {script: set(chars) for script, chars in plan.bans.spelled.items()}
    assert spelled["Han"].isdisjoint(map(chr, range(0x4E00, 0xA000)))
    assert spelled.get("Hangul", set()).isdisjoint(map(chr, range(0xAC00, 0xD7A4)))
    assert not spelled.keys() & {"Thai", "Hebrew", "Lao"}
    if name == "qwen2.5-instruct":
        counts = {script: len(chars) for script, chars in spelled.items()}
        assert counts == {
            "Braille": 256, "Coptic": 123, "Cyrillic": 32, "Ethiopic": 79, "Georgian": 40, "Glagolitic": 96,
            "Greek": 1, "Han": 329, "Tifinagh": 59,
        }  # fmt: skip
    (said,) = [line for line in writing_of(plan) if line.startswith("could still be spelled")]
    assert "only rare characters of" in said
    (said,) = [line for line in writing_of(plan) if line.startswith("cannot be written")]
    assert f"{len(plan.bans.unwritable):,} rare characters of the allowed scripts" in said


def test_bans_are_derived_from_the_tokenizer_as_it_is(tiny):
    """A trimmed tokenizer gets the same bans again, and none of a token that came later."""
    folder = tiny("qwen")
    plan = folder.plan(folder.tokenizer.tokens)
    assert derive_bans(folder.tokenizer, required_ids=folder.required).ids == [
        plan.new_to_old[new] for new in plan.suppressed[FOREIGN]
    ]
    free = make_plan(folder.tokenizer, [], allow_all_bytes=True)
    assert free.bans is None and writing_of(free) == [] and set(free.suppressed) <= {PADDING}

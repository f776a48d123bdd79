"""vocabkit/rows/leak.py: what is said of new tokens in other text is what a whole model does there."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vocabkit.checkpoint.folder import start_token
from vocabkit.checkpoint.numbers import rows_as_float32
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.models.load import load_model
from vocabkit.models.word_model import Rows, copy_rows, load_word_model
from vocabkit.rows import leak
from vocabkit.rows.elsewhere import (
    CHAT,
    ENGLISH,
    PROMPTS,
    VIETNAMESE,
    OtherText,
    find_other_texts,
    other_text,
)
from vocabkit.rows.leak import broken, cost, guard, judged, lower, measure, measure_all, read_places
from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

TEXTS = [OtherText([5, 6, 7, 8], [0, 1, 2, 3], 9), OtherText([9, 10, 11], [1, 2], 4)]
N = 424  # tokens of the tiny tokenizer


@pytest.fixture(params=[("qwen2", True), ("llama", False), ("gemma2", True)], ids=lambda case: case[0])
def setting(request, checkpoint):
    """A folder, rows of three new words, and the model that knows them; one with a cap on its logits."""
    family, tied = request.param
    folder = checkpoint(family, tied=tied)
    name = "model.embed_tokens.weight"
    rows = rows_as_float32(read_checkpoint(folder).tensors[name], range(20, 23))
    rows = Rows(rows, None if tied else rows[::-1].copy())
    return folder, rows, load_word_model(folder, rows, first_new=N)


def test_shares_bits_and_changes_are_those_of_a_whole_softmax(setting):
    folder, rows, model = setting
    found = measure(model, read_places(model, TEXTS))
    plain, start = load_model(folder), start_token(folder)
    head = torch.from_numpy(rows.input if rows.output is None else rows.output)
    shares, changed = [], []
    for text in TEXTS:
        ids = torch.tensor([[start, *text.ids]])
        output = plain(input_ids=ids, output_hidden_states=True)
        old = output.logits[0, :, :N].float()
        new = output.hidden_states[-1][0] @ head.T
        if cap := getattr(plain.config, "final_logit_softcapping", None):
            new = cap * torch.tanh(new / cap)
        both = torch.cat([old, new], 1).double().softmax(1)
        shares += [float(both[at, N:].sum()) for at in text.places]
        changed += [float(both[at, N:].max() > both[at, :N].max()) for at in text.places]
    assert found.places == 6
    assert found.share == pytest.approx(np.mean(shares), rel=1e-4)
    assert found.changed == np.mean(changed)
    assert found.bits_per_byte == pytest.approx(-sum(math.log2(1 - s) for s in shares) / 13, rel=1e-4)
    assert float(cost(model, read_places(model, TEXTS)).detach()) == pytest.approx(
        -np.mean([math.log(1 - s) for s in shares]), rel=1e-4
    )


def test_texts_may_begin_by_themselves(setting):
    _, _, model = setting
    whole = [OtherText([model.start, *text.ids], [at + 1 for at in text.places], 5, True) for text in TEXTS]
    torch.testing.assert_close(
        read_places(model, whole).hidden, read_places(model, TEXTS).hidden, atol=1e-5, rtol=1e-5
    )


def test_only_rows_that_take_too_much_are_lowered_and_no_more_than_needed(setting, monkeypatch):
    monkeypatch.setattr(leak, "LIMITS", {"share": 0.05})
    _, start, model = setting
    read = {ENGLISH: replace(read_places(model, TEXTS), guesses=False)}
    loud = [np.copy(start.input), None if start.output is None else np.copy(start.output)]
    end = loud[0] if loud[1] is None else loud[1]
    towards = read[ENGLISH].hidden.mean(0).numpy()
    end[1] += 40 * towards / np.linalg.norm(towards) ** 2  # a logit of some 40 more, everywhere
    rows, lowered = lower(model, Rows(*loud), start, read)
    assert lowered.keys() == {1} and lowered[1] in (0, 0.25, 0.5, 0.75)
    model.use(rows)
    allowed = {ENGLISH: leak.NOTHING}
    assert not broken(measure_all(model, read), allowed)
    for at in (0, 2):
        np.testing.assert_array_equal(rows.input[at], start.input[at])
    louder = start.input + np.float32(lowered[1] + 0.25) * (loud[0] - start.input)
    out = None if loud[1] is None else start.output + np.float32(lowered[1] + 0.25) * (loud[1] - start.output)
    model.use(Rows(louder, out))
    assert broken(measure_all(model, read), allowed), "a quarter more would have done too"


def test_a_guard_leaves_quiet_rows_and_says_what_start_itself_breaks(setting, monkeypatch):
    folder, start, model = setting
    before = copy_rows(model.model)
    monkeypatch.setattr(leak, "LIMITS", {"share": 1.0})
    held = guard(model, start, {ENGLISH: TEXTS}, norms=[(0.0, 9e9)] * 2)
    assert held.lowered == {} and held.broken == []
    np.testing.assert_array_equal(copy_rows(model.model).input, before.input)
    monkeypatch.setattr(leak, "LIMITS", {"share": 0.0})
    monkeypatch.setattr(leak, "judged", lambda read: dict.fromkeys(read, leak.NOTHING))
    held = guard(model, start, {ENGLISH: TEXTS}, norms=[(0.0, 9e9)] * 2)
    assert held.broken[0].startswith("English: the mean share of the probability that new tokens take is 0.")
    assert json.loads(json.dumps(held.as_json()))["other_text"][ENGLISH]["places"] == 6


def test_weights_by_chance_and_vietnamese_are_not_judged(setting):
    _, _, model = setting
    places = read_places(model, TEXTS)
    assert places.guesses and judged({ENGLISH: places}) == {}
    known = leak.Places(places.hidden, places.old_total, places.old_best, 9)
    assert judged({ENGLISH: known, VIETNAMESE: known}).keys() == {ENGLISH}


def test_other_texts_have_both_languages_and_no_new_word(checkpoint):
    folder = checkpoint("qwen2")
    tokenizer = read_tokenizer_json(folder)
    encoders = load_encoder(folder), extended(tokenizer, [" có thể"])
    found = find_other_texts(folder, *encoders, first_new=len(tokenizer.tokens))
    for part in (found.train, found.test):
        assert part.keys() == {ENGLISH, VIETNAMESE, CHAT} and all(part.values())
    assert len(found.test[CHAT]) == len(PROMPTS.read_text(encoding="utf-8").splitlines()) == 50
    texts = [{tuple(t.ids) for kind in part.values() for t in kind} for part in (found.train, found.test)]
    assert not texts[0] & texts[1], "what is learned is measured"
    ends = {encoders[0].decode([t.ids[at] for at in t.places]) for t in found.train[VIETNAMESE]}
    assert ends and not any(" có thể" in text for text in ends)


def test_a_word_that_stands_in_a_text_takes_no_part():
    text = "ab cd ef"

    def cut(ids, offsets):
        """A tokenizer of this text alone."""
        tokens = [text[first:end] for first, end in offsets]
        return SimpleNamespace(
            encode=lambda *_, **__: SimpleNamespace(ids=ids, offsets=offsets, tokens=tokens)
        )

    old = cut([1, 2, 3, 4], [(0, 2), (2, 4), (4, 5), (5, 8)])
    new = cut([1, 9, 4], [(0, 2), (2, 5), (5, 8)])
    assert other_text(text, old, new, first_new=9) == OtherText([1, 2, 3, 4], [0, 3], 5)

"""vocabkit/rows/measures.py: every measure on numbers worked by hand, then on real tiny models: exact rows;
every number again from transformers.
"""

import math
from dataclasses import dataclass
from typing import Any

import build
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES, open_folder
from transformers import AutoModelForCausalLM

from vocabkit.models.word_model import Rows, WordModel, load_word_model
from vocabkit.rows import measures
from vocabkit.rows.contexts import Context
from vocabkit.rows.elsewhere import OtherText
from vocabkit.rows.measures import (
    FILL_RIGHT,
    Gap,
    Line,
    answers,
    divergence,
    fill_candidates,
    first_share,
    gap_of,
    measure_inits,
    mid_rank,
    output_scores,
)

# By hand


def logs(*rows: list[float]) -> torch.Tensor:
    """Logits of these probabilities, moved by a constant that must not matter."""
    return torch.tensor(rows).log() + 7


def test_divergence_by_hand():
    """½ ln(½ / ¼) + ¼ ln(¼ / ½) + ¼ ln 1 = ¼ ln 2 at the first position; nothing moved at the second."""
    base = logs([0.5, 0.25, 0.25], [0.2, 0.3, 0.5])
    kl, same = divergence(answers(base), logs([0.25, 0.5, 0.25], [0.2, 0.3, 0.5]))
    assert kl.tolist() == pytest.approx([math.log(2) / 4, 0], abs=1e-6)
    assert same.tolist() == [False, True]


def test_divergence_is_directed_and_never_negative():
    one, other = torch.randn(2, 50, 9, generator=torch.Generator().manual_seed(0))
    there, back = divergence(answers(one), other)[0], divergence(answers(other), one)[0]
    expected = torch.nn.functional.kl_div(
        other.log_softmax(1), one.log_softmax(1), log_target=True, reduction="none"
    ).sum(1)
    torch.testing.assert_close(there, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(there, back)
    assert divergence(answers(one), one + 1e-4)[0].min() >= 0


def test_mid_rank():
    scores = torch.tensor([[0.0, 3.0, 1.0, 2.0]] * 4)
    assert mid_rank(scores, torch.arange(4)).tolist() == [4, 1, 3, 2]
    # two others are as large as the right one: it is second of three on average
    assert mid_rank(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.tensor([1])).tolist() == [2]


def test_rows_that_are_all_alike_get_the_rank_of_a_blind_guess():
    scores = torch.zeros(1, 200)
    assert mid_rank(scores, torch.tensor([17])).tolist() == [100.5]
    assert first_share(scores, torch.tensor([17])).tolist() == pytest.approx([1 / 200])


def test_first_share():
    scores = torch.tensor([[1.0, 2.0, 2.0], [1.0, 3.0, 2.0], [4.0, 3.0, 2.0]])
    assert first_share(scores, torch.tensor([1, 1, 1])).tolist() == [0.5, 1, 0]


def test_choice_by_hand():
    """Old tokens have weights 2 and 1, new ones 4 and 1; so the new word 0 has probability ½, word 1 ⅛."""
    old = torch.tensor([[2.0, 1.0]] * 2).log()
    new = torch.tensor([[4.0, 1.0]] * 2).log()
    spelled = torch.tensor([math.log(0.25), math.log(0.125)])
    found = output_scores(old, new, torch.tensor([0, 1]), spelled)
    assert found.calibration.tolist() == pytest.approx([math.log(2), 0], abs=1e-6)
    assert found.rank_new.tolist() == [1, 2]
    # word 1 has weight 1: below 4 and 2, beside the old token of weight 1
    assert found.rank_all.tolist() == [1, 3.5]


def test_a_row_that_takes_over_the_spellings_probability_is_calibrated():
    """A new row whose logit is the log of what its spelling had, taken from the first piece, changes no
    total.
    """
    before = torch.tensor(
        [[0.6, 0.4]]
    )  # the first piece of the word has 0.6, and goes on to it in half of them
    old = torch.tensor([[0.3, 0.4]]).log()
    found = output_scores(old, torch.tensor([[0.3]]).log(), torch.tensor([0]), (before[:, 0] * 0.5).log())
    assert found.calibration.item() == pytest.approx(0, abs=1e-6)


# On models

BASE = "base"
FAMILIES = [("qwen2", True), ("qwen2", False), ("llama", False), ("gemma2", True)]


@dataclass
class Setting:
    """A model that knows three new words, gaps in real sentences, two of them of the first word, random rows;
    and what transformers itself makes of a matrix with all rows.
    """

    model: WordModel
    plain: Any
    gaps: list[Gap]
    rows: Rows

    @torch.no_grad()
    def log_p(self, ids: list[int], *, words: bool) -> torch.Tensor:
        """(1 + ids, rows): log p of what comes after a start token and after each id."""
        columns = self.model.first_new + 3 * words
        logits = self.plain(torch.tensor([[self.model.start, *ids]])).logits
        return logits[0, :, :columns].float().log_softmax(1)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda case: f"{case[0]}-{'' if case[1] else 'un'}tied")
def setting(request, tmp_path_factory):
    family, tied = request.param
    changes = {"final_logit_softcapping": 3.0} if family == "gemma2" else {}
    folder = build.make_checkpoint(tmp_path_factory.mktemp("m") / "model", family, tied=tied, **changes)
    opened = open_folder(folder)
    gaps = []
    for word, sentence in zip([0, 1, 2, 0], SENTENCES[:4], strict=True):
        ids = opened.encode(sentence)
        end = 5 + word % 2
        gaps.append(Gap(word, tuple(ids[:3]), tuple(ids[3:end]), tuple(ids[end:12])))
    generator = torch.Generator().manual_seed(1)
    inner, outer = (torch.randn(3, build.D, generator=generator).numpy() * 0.3 for _ in range(2))
    rows = Rows(inner, inner if tied else outer)
    model = load(folder, inner, None if tied else outer)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain.resize_token_embeddings(model.first_new + 3, mean_resizing=False)
    with torch.no_grad():
        plain.get_input_embeddings().weight[-3:] = torch.from_numpy(rows.input)
        plain.get_output_embeddings().weight[-3:] = torch.from_numpy(rows.output)
    return Setting(model, plain, gaps, rows)


def load(folder, inner, outer=None) -> WordModel:
    n_old = max(open_folder(folder).tokenizer.tokens) + 1
    return load_word_model(folder, Rows(inner, outer), first_new=n_old)


def run(model, sets, gaps, **more):
    lines = more.pop("lines", [Line(7, [5, 6], [model.first_new])])
    other = {"English": [OtherText([5, 6, 7], [0, 1, 2], 9)]}
    return measure_inits(model, sets, base=BASE, gaps=gaps, lines=lines, other=other, **more)


def test_input_and_output_measures_equal_those_of_plain_transformers(setting):
    model, gaps = setting.model, setting.gaps
    found = run(model, {"some": setting.rows}, gaps)["some"]
    n = model.first_new
    expected: dict[str, dict[int, list[float]]] = {}
    for gap in gaps:
        begin, end = len(gap.left), len(gap.left) + len(gap.pieces)
        old = setting.log_p(gap.filled(gap.pieces), words=False)
        new, both = (setting.log_p(gap.filled([n + gap.word]), words=words) for words in (False, True))
        before, after, at_gap = old[end:], new[begin + 1 :], both[begin]
        assert len(before) == len(after) == len(gap.right) + 1
        spelled = sum(old[begin + i, piece].item() for i, piece in enumerate(gap.pieces))
        own = at_gap[n + gap.word]
        values = {
            "input_kl": (before.exp() * (before - after)).sum(1).mean().item(),
            "input_top1": (before.argmax(1) == after.argmax(1)).float().mean().item(),
            "output_log_ratio": own.item() - spelled,
            "output_log_ratio_abs": abs(own.item() - spelled),
            "rank_all": math.log(1 + (at_gap > own).sum().item()),
            "rank_new": math.log(1 + (at_gap[n:] > own).sum().item()),
        }
        for name, value in values.items():
            expected.setdefault(name, {}).setdefault(gap.word, []).append(value)
    for name, by_word in expected.items():
        means = [np.mean(values) for values in by_word.values()]
        assert found[name].value == pytest.approx(np.mean(means), abs=1e-4), name
        assert found[name].standard_error == pytest.approx(np.std(means, ddof=1) / math.sqrt(3), abs=1e-4)
        assert (found[name].clusters, found[name].observations) == (3, 4)


def test_bits_per_byte_equal_those_of_plain_transformers(setting):
    n = setting.model.first_new
    lines = [Line(10, [3, 4, 5], [n + 1, 5]), Line(4, [9], [9]), Line(9, [8, 7, 6, 5, 4], [n])]
    found = run(setting.model, {"some": setting.rows}, setting.gaps, lines=lines)
    totals = []
    for words in (False, True):
        nats = 0.0
        for line in lines:
            ids = line.new_ids if words else line.old_ids
            said = setting.log_p(ids, words=words)
            nats -= sum(said[at, target].item() for at, target in enumerate(ids))
        totals.append(nats / math.log(2) / 23)
    assert found[BASE]["bits_per_byte"].value == pytest.approx(totals[0], abs=1e-4)
    assert found["some"]["bits_per_byte"].value == pytest.approx(totals[1], abs=1e-4)
    assert found["some"]["bits_change"].value == pytest.approx(totals[1] - totals[0], abs=1e-4)
    assert found["some"]["bits_change"].clusters == 3


def test_filling_a_gap_equals_whole_sentences_by_plain_transformers(setting):
    found = run(setting.model, {"some": setting.rows}, setting.gaps)
    spelled = {gap.word: gap.pieces for gap in reversed(setting.gaps)}
    for name, words in ((BASE, False), ("some", True)):
        left, both = [], []
        for gap in setting.gaps[:3]:  # the first of each word
            scores = []
            for word in range(3):
                filling = [setting.model.first_new + word] if words else spelled[word]
                ids = [*gap.left, *filling, *gap.right[:FILL_RIGHT]]
                said = setting.log_p(ids, words=words)
                each = [said[at, ids[at]].item() for at in range(len(gap.left), len(ids))]
                scores.append((sum(each[: len(filling)]), sum(each)))
            left.append(max(range(3), key=lambda word: scores[word][0]) == gap.word)
            both.append(max(range(3), key=lambda word: scores[word][1]) == gap.word)
        assert found[name]["fill_left"].value == pytest.approx(np.mean(left))
        assert found[name]["fill_both"].value == pytest.approx(np.mean(both))


def test_exact_rows_change_nothing(checkpoint):
    """A word of one old token: with its input row all that follows is the same; and with an output row whose
    logit takes the token's probability the word is as likely as the token was.
    """
    folder = checkpoint("llama", tied=False)
    gap = Gap(0, (10, 20, 30), (40,), (50, 60, 70))
    nothing = np.zeros((1, build.D), np.float32)
    model = load(folder, nothing, nothing)
    with torch.no_grad():
        said = model.read([gap.left], [[3]], words=False)
        state, logits = said.hidden[0], said.logits[0]
        p = logits.softmax(0)[40]
        wanted = logits.logsumexp(0) + (p / (1 - p)).log()  # e^x / (Z + e^x) = p
        output = (wanted / state.dot(state) * state)[None].numpy()
        inner = load_file(folder / "model.safetensors")["model.embed_tokens.weight"][40:41].numpy()
    found = run(model, {"exact": Rows(inner, output), "wrong": Rows(-inner, -output)}, [gap])
    exact, wrong = found["exact"], found["wrong"]
    assert exact["input_kl"].value == pytest.approx(0, abs=1e-6) and exact["input_top1"].value == 1
    assert exact["output_log_ratio"].value == pytest.approx(0, abs=1e-4)
    assert wrong["input_kl"].value > 1e-3 and abs(wrong["output_log_ratio"].value) > 0.01
    assert found[BASE]["input_kl"].value == 0 and found[BASE]["input_top1"].value == 1
    assert exact["input_kl"].standard_error is None, "one word has no spread"


def test_rows_of_zeros_fill_by_chance(setting):
    nothing = np.zeros_like(setting.rows.input)
    found = run(setting.model, {"zeros": Rows(nothing, nothing)}, setting.gaps)["zeros"]
    assert found["fill_left"].value == pytest.approx(1 / 3)
    assert math.exp(found["rank_new"].value) == pytest.approx(2)


def test_other_sets_and_the_size_of_blocks_do_not_matter(setting, monkeypatch):
    rows = setting.rows
    other = Rows(rows.input[::-1].copy(), rows.output[::-1].copy())
    both = run(setting.model, {"other": other, "some": rows}, setting.gaps)
    monkeypatch.setattr(measures, "BLOCK", 1)
    alone = run(setting.model, {"some": rows}, setting.gaps)["some"]
    for name, estimate in alone.items():
        assert both["some"][name].value == pytest.approx(estimate.value, abs=1e-5), name


def test_a_gap_is_what_the_contexts_own_word_replaces():
    context = Context(7, "", (1, 2, 3, 4, 5), (1, 90, 4, 91), (0, 2, 3, 4), (1, 3), 1)
    gap = gap_of(context)
    assert gap == Gap(7, (1,), (2, 3), (4, 5)) and gap.filled([90]) == [1, 90, 4, 5]


def test_candidates_are_drawn_the_same_again(monkeypatch):
    firsts = {word: Gap(word, (word,), (1,), (2,)) for word in (2, 0, 1)}
    drawn = fill_candidates(firsts, seed=0)
    assert [gap.word for gap, _ in drawn] == [2, 0, 1]
    assert all(candidates[0] == gap.word and sorted(candidates) == [0, 1, 2] for gap, candidates in drawn)
    assert drawn == fill_candidates(firsts, seed=0)
    monkeypatch.setattr(measures, "FILL_CONTEXTS", 2)
    monkeypatch.setattr(measures, "FILL_CANDIDATES", 2)
    fewer = fill_candidates(firsts, seed=0)
    assert len(fewer) == 2 and all(len(candidates) == 2 for _, candidates in fewer)

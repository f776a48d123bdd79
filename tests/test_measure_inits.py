"""vocabkit/measure_inits.py on real tiny models: exact rows; every number again from transformers."""

import math

import build
import numpy as np
import pytest
import torch
from conftest import SENTENCES, open_folder

from vocabkit import measure_inits
from vocabkit.errors import UserError
from vocabkit.measure_inits import ExtendedModel, Rows, fill_candidates
from vocabkit.word_gaps import Gap, Line

BASE = "base"
FAMILIES = [("qwen2", True), ("qwen2", False), ("llama", False), ("gemma2", True)]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda case: f"{case[0]}-{'' if case[1] else 'un'}tied")
def setting(request, tmp_path_factory):
    """A model with room for three words, gaps in real sentences, two of the first word, and random rows."""
    family, tied = request.param
    changes = {"final_logit_softcapping": 3.0} if family == "gemma2" else {}
    folder = build.make_checkpoint(tmp_path_factory.mktemp("m") / "model", family, tied=tied, **changes)
    opened = open_folder(folder)
    model = ExtendedModel(folder, n_old=max(opened.tokenizer.tokens) + 1, words=3)
    gaps = []
    for word, sentence in zip([0, 1, 2, 0], SENTENCES[:4], strict=True):
        ids = opened.encode(sentence)
        gaps.append(Gap(word, [0, *ids[:3]], ids[3 : 5 + word % 2], ids[5 + word % 2 : 12]))
    embed = model.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(3, embed.shape[1], generator=generator).numpy() * 0.3 for _ in range(2)]
    return model, gaps, Rows(rows[0], rows[0] if tied else rows[1])


def run(model, sets, gaps, **more):
    lines = more.pop("lines", [Line(7, [0, 5, 6], [0, model.n_old])])
    return measure_inits.measure_inits(model, sets, base=BASE, gaps=gaps, lines=lines, **more)


@torch.no_grad()
def log_p(model, ids: list[int], rows: int) -> torch.Tensor:
    return model.model(torch.tensor([ids])).logits[0, :, :rows].float().log_softmax(1)


def test_input_and_output_measures_equal_those_of_plain_transformers(setting):
    model, gaps, rows = setting
    found = run(model, {"some": rows}, gaps)["some"]
    n = model.n_old
    expected: dict[str, dict[int, list[float]]] = {}
    for gap in gaps:
        old = log_p(model, gap.left + gap.pieces + gap.right, n)
        new_ids = [*gap.left, n + gap.word, *gap.right]
        new, both = log_p(model, new_ids, n), log_p(model, new_ids, n + 3)
        first, ends = len(gap.left) - 1, len(gap.left) + len(gap.pieces) - 1
        after, before = new[len(gap.left) :], old[ends:]
        assert len(after) == len(before) == len(gap.right) + 1
        spelled = sum(old[first + i, piece].item() for i, piece in enumerate(gap.pieces))
        at_gap = both[first]
        larger = (at_gap > at_gap[n + gap.word]).sum().item()
        values = {
            "input_kl": (before.exp() * (before - after)).sum(1).mean().item(),
            "input_top1": (before.argmax(1) == after.argmax(1)).float().mean().item(),
            "output_log_ratio": at_gap[n + gap.word].item() - spelled,
            "output_log_ratio_abs": abs(at_gap[n + gap.word].item() - spelled),
            "rank_all": math.log(1 + larger),
            "rank_new": math.log(1 + (at_gap[n:] > at_gap[n + gap.word]).sum().item()),
        }
        for name, value in values.items():
            expected.setdefault(name, {}).setdefault(gap.word, []).append(value)
    for name, by_word in expected.items():
        means = [np.mean(values) for values in by_word.values()]
        assert found[name].value == pytest.approx(np.mean(means), abs=1e-4), name
        assert found[name].standard_error == pytest.approx(np.std(means, ddof=1) / math.sqrt(3), abs=1e-4)
        assert (found[name].clusters, found[name].observations) == (3, 4)


def test_bits_per_byte_equal_those_of_plain_transformers(setting):
    model, gaps, rows = setting
    n = model.n_old
    lines = [
        Line(10, [0, 3, 4, 5], [0, n + 1, 5]),
        Line(4, [0, 9], [0, 9]),
        Line(9, [0, 8, 7, 6, 5, 4], [0, n]),
    ]
    found = run(model, {"some": rows}, gaps, lines=lines)
    totals = []
    for sequences, columns in (
        ([line.old_ids for line in lines], n),
        ([line.new_ids for line in lines], n + 3),
    ):
        nats = 0.0
        for ids in sequences:
            said = log_p(model, ids, columns)
            nats -= sum(said[at, target].item() for at, target in enumerate(ids[1:]))
        totals.append(nats / math.log(2) / 23)
    assert found[BASE]["bits_per_byte"].value == pytest.approx(totals[0], abs=1e-4)
    assert found["some"]["bits_per_byte"].value == pytest.approx(totals[1], abs=1e-4)
    assert found["some"]["bits_change"].value == pytest.approx(totals[1] - totals[0], abs=1e-4)
    assert found["some"]["bits_change"].clusters == 3


def test_filling_a_gap_equals_whole_sentences_by_plain_transformers(setting):
    model, gaps, rows = setting
    found = run(model, {"some": rows}, gaps)
    n = model.n_old
    spelled = {gap.word: gap.pieces for gap in reversed(gaps)}
    for name, new in ((BASE, False), ("some", True)):
        left, both = [], []
        for gap in gaps[:3]:  # the first of each word
            scores = []
            for word in range(3):
                filling = [n + word] if new else spelled[word]
                ids = [*gap.left, *filling, *gap.right[: measure_inits.FILL_RIGHT]]
                said = log_p(model, ids, n + 3 if new else n)
                each = [said[at - 1, ids[at]].item() for at in range(len(gap.left), len(ids))]
                scores.append((sum(each[: len(filling)]), sum(each)))
            left.append(max(range(3), key=lambda word: scores[word][0]) == gap.word)
            both.append(max(range(3), key=lambda word: scores[word][1]) == gap.word)
        assert found[name]["fill_left"].value == pytest.approx(np.mean(left))
        assert found[name]["fill_both"].value == pytest.approx(np.mean(both))


def test_exact_rows_change_nothing(tmp_path):
    """A word of one old token: with its input row all that follows is the same; and with an output row whose
    logit takes the token's probability the word is as likely as the token was.
    """
    folder = build.make_checkpoint(tmp_path / "model", "llama", tied=False)
    n = max(open_folder(folder).tokenizer.tokens) + 1
    model = ExtendedModel(folder, n_old=n, words=1)
    gap = Gap(0, [0, 10, 20, 30], [40], [50, 60, 70])
    with torch.no_grad():
        state = model.hidden(torch.tensor([gap.left]))[0, -1]
        logits = model.logits(state[None])[0, :n]
        p = logits.softmax(0)[40]
        wanted = logits.logsumexp(0) + (p / (1 - p)).log()  # e^x / (Z + e^x) = p
        output = (wanted / state.dot(state) * state)[None].numpy()
        inner = model.model.get_input_embeddings().weight[40:41].clone().numpy()
    found = run(model, {"exact": Rows(inner, output), "wrong": Rows(-inner, -output)}, [gap])
    exact, wrong = found["exact"], found["wrong"]
    assert exact["input_kl"].value == pytest.approx(0, abs=1e-6) and exact["input_top1"].value == 1
    assert exact["output_log_ratio"].value == pytest.approx(0, abs=1e-4)
    assert wrong["input_kl"].value > 1e-3 and abs(wrong["output_log_ratio"].value) > 0.01
    assert found[BASE]["input_kl"].value == 0 and found[BASE]["input_top1"].value == 1
    assert exact["input_kl"].standard_error is None, "one word has no spread"


def test_rows_of_zeros_fill_by_chance(setting):
    model, gaps, rows = setting
    zeros = Rows(np.zeros_like(rows.input), np.zeros_like(rows.output))
    found = run(model, {"zeros": zeros}, gaps)["zeros"]
    assert found["fill_left"].value == pytest.approx(1 / 3)
    assert math.exp(found["rank_new"].value) == pytest.approx(2)


def test_other_sets_and_the_size_of_blocks_do_not_matter(setting, monkeypatch):
    model, gaps, rows = setting
    other = Rows(rows.input[::-1].copy(), rows.output[::-1].copy())
    both = run(model, {"other": other, "some": rows}, gaps)
    monkeypatch.setattr(measure_inits, "BLOCK", 2 * model.n_old)
    monkeypatch.setattr(measure_inits, "BATCH", 1)
    alone = run(model, {"some": rows}, gaps)["some"]
    for name, estimate in alone.items():
        assert both["some"][name].value == pytest.approx(estimate.value, abs=1e-5), name


def test_a_bias_of_the_head_is_used(tmp_path):
    folder = build.make_checkpoint(tmp_path / "model", "llama", tied=False)
    model = ExtendedModel(folder, n_old=max(open_folder(folder).tokenizer.tokens) + 1, words=2)
    head = model.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(len(head.weight)), requires_grad=False)
    rows = [np.zeros((2, head.weight.shape[1]), np.float32)] * 2
    model.use(Rows(*rows, np.array([1.5, -2.0], np.float32)))
    state = model.hidden(torch.tensor([[3, 4]]))[0]
    assert model.logits(state)[:, -2:].tolist() == [[1.5, -2.0]] * 2


def test_candidates_are_drawn_the_same_again(monkeypatch):
    firsts = {word: Gap(word, [0, word], [1], [2]) for word in (2, 0, 1)}
    drawn = fill_candidates(firsts, seed=0)
    assert [gap.word for gap, _ in drawn] == [2, 0, 1]
    assert all(candidates[0] == gap.word and sorted(candidates) == [0, 1, 2] for gap, candidates in drawn)
    assert drawn == fill_candidates(firsts, seed=0)
    monkeypatch.setattr(measure_inits, "FILL_CONTEXTS", 2)
    monkeypatch.setattr(measure_inits, "FILL_CANDIDATES", 2)
    fewer = fill_candidates(firsts, seed=0)
    assert len(fewer) == 2 and all(len(candidates) == 2 for _, candidates in fewer)


def test_models_that_are_not_understood_are_refused(tmp_path, monkeypatch):
    t5 = build.make_checkpoint(tmp_path / "t5", "t5")
    with pytest.raises(UserError, match="is an encoder-decoder model; the measures are made for causal ones"):
        ExtendedModel(t5, n_old=100, words=1)
    monkeypatch.setitem(build.FAMILIES, "cohere", build.SMALL)
    folder = build.make_checkpoint(tmp_path / "cohere", "cohere", tied=True)
    with pytest.raises(UserError, match="cohere changes its logits in a way that is not known here"):
        ExtendedModel(folder, n_old=100, words=1)

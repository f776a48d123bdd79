"""benchmarks/samples_per_token.py: its functions on a tiny model, and the whole of it once."""

import contextlib
import importlib.util
import io
import json
import math

import build
import numpy as np
import pytest
import torch
from tiny import ROOT, SENTENCES, open_folder

from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.models.word_model import Rows, load_word_model
from vocabkit.rows.contexts import Context
from vocabkit.rows.lessons import Settings
from vocabkit.rows.measures import Gap, gap_of

spec = importlib.util.spec_from_file_location(
    "samples_per_token", ROOT / "benchmarks" / "samples_per_token.py"
)
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("llama", tied=False)


@pytest.fixture
def model(folder):
    n_old = max(open_folder(folder).tokenizer.tokens) + 1
    rows = np.random.default_rng(0).normal(0, 0.3, (2, build.D)).astype(np.float32)
    return load_word_model(folder, Rows(rows, rows[::-1].copy()), first_new=n_old)


@pytest.fixture(scope="module")
def gaps(folder):
    opened = open_folder(folder)
    ids = [tuple(opened.encode(sentence)) for sentence in SENTENCES[:4]]
    return [Gap(at % 2, some[:4], some[4:6], some[6:16]) for at, some in enumerate(ids)]


def context(word: int, old: tuple[int, ...], at: int, pieces: int, *, first_new: int = 100) -> Context:
    """A context in which some old ids from a position on are a new word, and the two at the end another."""
    new = (*old[:at], first_new + word, *old[at + pieces : -2], first_new + 77)
    aligned = (*range(at), *range(at + pieces - 1, len(old) - 2), len(old) - 1)
    return Context(word, "", old, new, aligned, (at, len(new) - 1), at)


def test_samples_are_the_first_of_each_word_renumbered():
    contexts = [context(word, (at, 1, 2, 3, 4, 5), 1, 2) for at, word in enumerate([5, 7, 5, 9, 5, 7])]
    chosen = bench.choose_samples(contexts, 2, words=[7, 5], first_new=100)
    assert [(one.word, one.old_ids[0]) for one in chosen] == [(1, 0), (0, 1), (1, 2), (0, 5)]
    assert bench.choose_samples(contexts, 0, words=[7, 5], first_new=100) == []


def test_other_new_words_of_a_sample_are_spelled():
    before = context(5, (9, 1, 2, 3, 4, 6, 8), 1, 2)
    assert before.new_ids == (9, 105, 3, 4, 177)
    after = bench.alone(before, 0, first_new=100)
    assert after.new_ids == (9, 100, 3, 4, 6, 8) and after.old_ids == before.old_ids
    assert after.aligned == (0, 2, 3, 4, 5, 6) and after.new_at == (1,) == (after.own_at,)
    assert gap_of(after) == Gap(0, (9,), (1, 2), (3, 4, 6, 8))


def test_fluency_of_exact_rows_is_one(folder):
    """Each word is one old token: with its rows at the input nothing after it changes; the output row that
    takes the token's probability (as in rows/test_measures.py) writes it at the base's cost.
    """
    n_old = max(open_folder(folder).tokenizer.tokens) + 1
    nothing = np.zeros((1, build.D), np.float32)
    model = load_word_model(folder, Rows(nothing, nothing), first_new=n_old)
    gap = Gap(0, (10, 20, 30), (40,), (50,))
    embed = model.model.get_input_embeddings().module.weight
    with torch.no_grad():
        said = model.read([gap.left], [[3]], words=False)
        state, logits = said.hidden[0], said.logits[0]
        p = logits.softmax(0)[40]
        wanted = logits.logsumexp(0) + (p / (1 - p)).log()
        model.use(Rows(embed[40:41].numpy(), (wanted / state.dot(state) * state)[None].numpy()))
    exact = bench.fluency(model, [gap])
    assert exact["write"].value == pytest.approx(1, abs=1e-3)
    with torch.no_grad():  # after the word: the same logits, and one more
        both = model.read([gap.filled([n_old])], [[4]]).logits.log_softmax(1)[0, 50]
        old = model.read([gap.filled([40])], [[4]], words=False).logits.log_softmax(1)[0, 50]
    assert exact["read"].value == pytest.approx((both / old).item(), abs=1e-4)
    assert exact["fluent"].value == (exact["read"].value <= 1 + bench.FLUENT)
    model.use(Rows(embed[40:41].numpy(), -100 * state[None].numpy()))
    never = bench.fluency(model, [gap])
    assert never["write"].value > 2 and never["fluent"].value == 0


def test_continuations(model, gaps):
    prompts = [gap.left for gap in gaps]
    greedy = bench.continue_text(model, prompts, words=False, seed=None)
    for prompt, ids in zip(prompts, greedy, strict=True):
        expected = list(prompt)
        for _ in range(bench.NEW_TOKENS):
            with torch.no_grad():
                logits = model.read([expected], [[len(expected)]], words=False).logits
            expected.append(int(logits.argmax()))
        assert ids == expected[len(prompt) :]
    one, same, other = (bench.continue_text(model, prompts, words=True, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_whether_a_word_comes():
    gap = Gap(1, (), (4, 5), ())
    assert bench.comes([9, 101, 3], gap, first_new=100) == (True, False)
    assert bench.comes([9, 4, 5], gap, first_new=100) == (False, True)
    assert bench.comes([4, 9, 5], gap, first_new=100) == (False, False)


ROW = {
    "words": 3, "schedule": "updates", "samples": 25, "steps": 7, "kl": [0.01234, 0.001],
    "fluent": [0.5, 0.1], "abs_log_ratio": [1.5, None], "write": [1.04, 0.1],
    "read": [1.01, 0.2], "greedy": [0.25, 0.0], "sampled": [0.5, 0.125], "enough": True,
}  # fmt: skip


def test_table_and_verdict():
    line = bench.line_of(ROW)
    assert "0.0123 ±0.0010" in line and "1.50 " in line and "25% (  0%)" in line and " 50%" in line
    assert bench.is_enough(ROW) and not bench.is_enough({**ROW, "fluent": [0.49, 0.1]})
    none = {**ROW, "samples": 5, "enough": False, "greedy": [0.0, 0.1]}
    said = bench.verdict([none, ROW], 3)
    assert said == "updates: half of the words fluent from 25 samples on, first written (greedy) with 25"
    assert "fluent from none of these on" in bench.verdict([none], 3)


@pytest.mark.slow
def test_the_whole_benchmark(folder, tmp_path):
    with contextlib.redirect_stdout(None):
        trim_vocab(folder, tmp_path / "model")
    lines = [
        f"Xin chào {at}, {word} trời đẹp, đi chơi nhé"
        for at in range(30)
        for word in ("hôm nay", "thanh điệu")
    ]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "words.txt").write_text("hôm nay\nthanh điệu\nTiếng Việt\n", encoding="utf-8")
    argv = ["--model", str(tmp_path / "model"), "--corpus", str(tmp_path / "texts.txt"), "--words"]
    argv += [str(tmp_path / "words.txt"), "--num_words", "3", "--samples", "0", "2", "5", "--fewest", "5"]
    argv += ["--updates", "20", "--passes", "1", "--plot", str(tmp_path / "out.png")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert bench.main(argv) == 0
    data = json.loads(printed.getvalue().splitlines()[-1])
    assert data["benchmark"] == "samples_per_token"
    found = [(row["words"], row["schedule"], row["samples"]) for row in data["rows"]]
    expected = [("updates", 0), ("updates", 2), ("passes", 2)]
    longer = [("updates", 0), ("updates", 2), ("updates", 5), ("passes", 2), ("passes", 5)]
    assert found == [(2, *each) for each in expected + longer]
    steps = {key: row["steps"] for key, row in zip(found, data["rows"], strict=True)}
    assert steps[2, "updates", 2] == steps[2, "updates", 5] == math.ceil(20 * 2 / Settings().batch)
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_errors(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--samples .* are too few; give three numbers or more"):
        bench.main(["--model", str(folder), "--samples", "0", "5"])
    monkeypatch.setattr(bench, "ASSETS", tmp_path)
    with pytest.raises(UserError, match="expand.py is missing; set VOCABKIT_ASSETS"):
        bench.main([])

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
from vocabkit.models.word_model import WordModel
from vocabkit.rows.measures import Gap, Rows

spec = importlib.util.spec_from_file_location(
    "samples_per_token", ROOT / "benchmarks" / "samples_per_token.py"
)
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build.make_checkpoint(tmp_path_factory.mktemp("bench") / "model", "llama", tied=False)


@pytest.fixture
def model(folder):
    n_old = max(open_folder(folder).tokenizer.tokens) + 1
    rows = np.random.default_rng(0).normal(0, 0.3, (2, build.D)).astype(np.float32)
    return WordModel(folder, first_new=n_old, input_rows=rows, output_rows=rows[::-1].copy())


@pytest.fixture(scope="module")
def gaps(folder):
    opened = open_folder(folder)
    ids = [tuple(opened.encode(sentence)) for sentence in SENTENCES[:4]]
    return [Gap(at % 2, some[:4], some[4:6], some[6:16]) for at, some in enumerate(ids)]


def test_samples_are_the_first_of_each_word_renumbered():
    gaps = [Gap(word, (at,), (1,), ()) for at, word in enumerate([5, 7, 5, 9, 5, 7])]
    chosen = bench.choose_samples(gaps, 2, words=[7, 5])
    assert [(gap.word, gap.left[0]) for gap in chosen] == [(1, 0), (0, 1), (1, 2), (0, 5)]
    assert bench.choose_samples(gaps, 0, words=[7, 5]) == []


def test_batches_give_each_word_and_each_of_its_contexts_the_same_turns():
    gaps = [Gap(0, (), (1,), ())] * 2 + [Gap(1, (), (1,), ())] * 8
    seen = [at for batch in bench.batches(gaps, 4, seed=0) for at in batch]
    counts = [seen.count(at) for at in range(10)]
    assert len(seen) == 4 * bench.BATCH and counts == [32, 32] + [8] * 8
    assert seen == [at for batch in bench.batches(gaps, 4, seed=0) for at in batch]
    assert seen != [at for batch in bench.batches(gaps, 4, seed=1) for at in batch]


@pytest.mark.parametrize("right", [0, 1, 3, 5, 40])
def test_places_of_states_begin_at_the_words_end_and_stay_inside(right):
    gap = Gap(0, (1, 2), (3, 4), tuple(range(right)))
    places = bench.state_places(gap, 2)
    assert places[0] == 4 and places == sorted(set(places)) and places[-1] <= 4 + right
    assert len(places) <= bench.STATES and places[-1] == 4 + right
    assert bench.state_places(gap, 1) == [place - 1 for place in places]


def test_lessons_are_what_the_frozen_model_says(model, gaps):
    after, before, total, spelled = bench.teach(model, gaps)[1]
    gap = gaps[1]
    with torch.no_grad():
        said = model.read([gap.filled(gap.pieces)], [[4, 5, *bench.state_places(gap, 2)]], words=False)
    log_p = said.logits.log_softmax(1)
    torch.testing.assert_close(before, said.hidden[0])
    torch.testing.assert_close(after, said.hidden[2:])
    torch.testing.assert_close(total, said.logits[0].logsumexp(0))
    torch.testing.assert_close(
        spelled, log_p[0, gap.pieces[0]] + log_p[1, gap.pieces[1]], rtol=1e-4, atol=1e-4
    )


def test_distilling_brings_the_rows_nearer_and_moves_nothing_else(model, gaps):
    from vocabkit.rows.measures import measure_contexts

    def now():
        rows = Rows(*(tensor.detach().numpy().copy() for tensor in model.rows))
        found = measure_contexts(model, {"now": rows}, gaps, base="base")["now"]
        return found["input_kl"].value, found["output_log_ratio_abs"].value

    frozen = {name: p.clone() for name, p in model.model.named_parameters() if "rows" not in name}
    before = now()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "RATE", 0.02)
        bench.distil(model, gaps, steps=60, seed=0, norms=(0.1, 9.0))
    after = now()
    assert after[0] < 0.9 * before[0] and after[1] < 0.5 * before[1]
    assert all((p == frozen[name]).all() for name, p in model.model.named_parameters() if name in frozen)
    bench.distil(model, gaps, steps=1, seed=0, norms=(0.5, 0.6))
    for rows in model.rows:
        assert ((rows.norm(dim=1) > 0.49) & (rows.norm(dim=1) < 0.61)).all()


def test_fluency_of_exact_rows_is_one(folder):
    """Each word is one old token: with its rows at the input nothing after it changes; the output row that
    takes the token's probability (as in rows/test_measured_inits.py) writes it at the base's cost.
    """
    n_old = max(open_folder(folder).tokenizer.tokens) + 1
    nothing = np.zeros((1, build.D), np.float32)
    model = WordModel(folder, first_new=n_old, input_rows=nothing, output_rows=nothing)
    gap = Gap(0, (10, 20, 30), (40,), (50,))
    embed = model.model.get_input_embeddings().module.weight
    with torch.no_grad():
        said = model.read([gap.left], [[3]], words=False)
        state, logits = said.hidden[0], said.logits[0]
        p = logits.softmax(0)[40]
        wanted = logits.logsumexp(0) + (p / (1 - p)).log()
        model.use(embed[40:41].numpy(), (wanted / state.dot(state) * state)[None].numpy())
    exact = bench.fluency(model, [gap])
    assert exact["write"].value == pytest.approx(1, abs=1e-3)
    with torch.no_grad():  # after the word: the same logits, and one more
        both = model.read([gap.filled([n_old])], [[4]]).logits.log_softmax(1)[0, 50]
        old = model.read([gap.filled([40])], [[4]], words=False).logits.log_softmax(1)[0, 50]
    assert exact["read"].value == pytest.approx((both / old).item(), abs=1e-4)
    assert exact["fluent"].value == (exact["read"].value <= 1 + bench.FLUENT)
    model.use(embed[40:41].numpy(), -100 * state[None].numpy())
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
    assert steps[2, "updates", 2] == steps[2, "updates", 5] == math.ceil(20 * 2 / bench.BATCH)
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_errors(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--samples .* are too few; give three numbers or more"):
        bench.main(["--model", str(folder), "--samples", "0", "5"])
    monkeypatch.setattr(bench, "ASSETS", tmp_path)
    with pytest.raises(UserError, match="expand.py is missing; set VOCABKIT_ASSETS"):
        bench.main([])

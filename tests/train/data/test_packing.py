"""vocabkit/train/data/packing.py: no token is lost, documents do not see each other, and what would undo
that.
"""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from vocabkit.errors import UserError
from vocabkit.train.data import packing
from vocabkit.train.data.packing import Collator, fill_rate, pack
from vocabkit.train.data.samples import IGNORED
from vocabkit.train.options import PACKING


def documents(*lists: list[int], learned_from: int = 1) -> datasets.Dataset:
    """A dataset as train_data makes it; the first learned_from labels of each document are ignored."""
    labels = [[IGNORED] * learned_from + ids[learned_from:] for ids in lists]
    sizes = [3 * sum(label != IGNORED for label in row) for row in labels]
    return datasets.Dataset.from_dict({"input_ids": list(lists), "labels": labels, "num_bytes": sizes})


def packed(dataset, how, max_length, **more):
    notes: list[str] = []
    rows = pack(dataset, how=how, max_length=max_length, notes=notes.append, **more)
    assert notes[-1].startswith(f"packing {how}: ")
    return rows, notes


def pieces_of(rows) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of each document or piece of one, in the order of the rows."""
    found = []
    for row in rows:
        edges = np.cumsum([0, *row["seq_lengths"]])
        assert edges[-1] == len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"])
        for start, end in zip(edges, edges[1:], strict=False):
            assert row["position_ids"][start:end] == list(range(end - start))
            found.append((row["input_ids"][start:end], row["labels"][start:end]))
    return found


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=25)


@pytest.mark.parametrize("how", [*PACKING[:-1], pytest.param(PACKING[-1], marks=pytest.mark.slow)])
@given(lengths=LENGTHS, max_length=st.integers(2, 20), seed=st.integers(0, 3))
def test_every_label_is_learned_exactly_once_from_the_token_before_it(how, lengths, max_length, seed):
    starts = np.cumsum([0, *lengths])  # every token has an id of its own
    lists = [list(range(a, b)) for a, b in zip(starts, starts[1:], strict=False)]
    dataset = documents(*lists)
    if sum(lengths) == len(lengths):
        with pytest.raises(UserError, match="no row has a token to learn from"):
            packed(dataset, how, max_length)
        return
    rows, _ = packed(dataset, how, max_length, seed=seed)
    learned = []
    for ids, labels in pieces_of(rows):
        assert labels[0] == IGNORED
        assert ids == list(range(ids[0], ids[0] + len(ids))), "a piece is a piece of one document"
        learned += [label for label in labels if label != IGNORED]
    assert sorted(learned) == sorted(token for ids in lists for token in ids[1:])
    assert sum(rows["num_bytes"]) == sum(dataset["num_bytes"])
    assert all(len(ids) <= max_length for ids in rows["input_ids"])
    if how in ("none", "best_fit"):
        whole = {tuple(ids) for ids, _ in pieces_of(rows)}
        assert whole >= {tuple(ids) for ids in lists if 2 <= len(ids) <= max_length}, "cut without need"
    again, _ = packed(dataset, how, max_length, seed=seed)
    assert again[:] == rows[:], "the seed decides"


def test_best_fit_by_hand():
    rows, notes = packed(documents([1] * 4, [2] * 5, [3] * 2, [4] * 3), "best_fit", 7)
    assert sorted(sorted(set(ids)) for ids in rows["input_ids"]) == [[1, 4], [2, 3]]
    assert notes == [
        "packing best_fit: 4 documents in 2 rows of 7 tokens, 100.0% full, 0.00 cuts per document"
    ]
    assert fill_rate(rows, 7) == 1


def test_concat_by_hand():
    rows, notes = packed(documents([1, 2, 3], [4, 5, 6, 7], [8, 9]), "concat", 5)
    found = {tuple(row["input_ids"]): row for row in rows}
    assert set(found) == {(1, 2, 3, 4, 5), (5, 6, 7, 8, 9)}, (
        "5 is read again, so that 6 has something before it"
    )
    assert found[5, 6, 7, 8, 9]["labels"] == [IGNORED, 6, 7, IGNORED, 9]
    assert found[5, 6, 7, 8, 9]["position_ids"] == [0, 1, 2, 0, 1]
    assert found[5, 6, 7, 8, 9]["num_bytes"] == 9 and found[1, 2, 3, 4, 5]["num_bytes"] == 9
    assert "0.33 cuts per document" in notes[0]


def test_similar_documents_come_into_one_row_each_once():
    random = np.random.default_rng(0)
    topics = [list(range(30 * topic, 30 * topic + 30)) for topic in range(12)]
    lists = [[at + 1000, *random.choice(topics[at % 12], 9).tolist()] for at in range(120)]
    share = {}
    for how in ("similar", "concat"):
        rows, _ = packed(documents(*lists), how, 50)
        firsts = [ids[0] for ids, _ in pieces_of(rows) if ids[0] >= 1000]
        assert sorted(firsts) == [at + 1000 for at in range(120)]
        in_rows = [[ids[0] % 1000 % 12 for ids, _ in pieces_of([row]) if ids[0] >= 1000] for row in rows]
        pairs = [a == b for row in in_rows for a, b in zip(row, row[1:], strict=False)]
        share[how] = sum(pairs) / len(pairs)
    assert share["similar"] > 0.8 and share["concat"] == 0


@pytest.mark.parametrize("how", PACKING)
def test_many_documents_are_packed_block_by_block(how, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_TOKENS", 300)
    lists = [list(range(10 * at, 10 * at + 10)) for at in range(2500)]
    rows, notes = packed(documents(*lists).select(range(2499, -1, -1)), how, 16)
    learned = sorted(label for _, labels in pieces_of(rows) for label in labels if label != IGNORED)
    assert learned == sorted(token for ids in lists for token in ids[1:])
    assert notes[0].startswith(f"packing {how}: 2,500 documents in {len(rows):,} rows")


def test_rows_without_anything_to_learn_are_left_out():
    rows, notes = packed(documents([1, 2, 3], list(range(10, 40)), learned_from=2), "none", 3)
    assert rows["input_ids"][:1] == [[1, 2, 3]] and sum(rows["num_bytes"]) == 3 + 28 * 3
    far = documents(list(range(10, 20)), learned_from=9)
    rows, notes = packed(far, "none", 3)
    assert rows["input_ids"][:] == [[18, 19]] and "4 of 5 rows hold no token to learn" in notes[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_length": 1}, "--model_max_length 1: expected at least 2"),
        ({"dataset": documents([1, 2], learned_from=2)}, "no row has a token to learn from"),
    ],
)
def test_bad_arguments(changes, reason):
    arguments = {"dataset": documents([1, 2, 3]), "how": "none", "max_length": 8, **changes}
    with pytest.raises(UserError, match=reason):
        pack(arguments.pop("dataset"), **arguments)


# Exactness: a packed row is as good as its documents alone


def model_of(folder, attention: str = "sdpa"):
    return AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    ).eval()


def nats(model, batch, **more) -> torch.Tensor:
    inputs = {name: batch[name] for name in batch if name != "labels"}
    logits = model(**inputs, **{"use_cache": False, **more}).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum", ignore_index=IGNORED
    )


def some_documents(count: int = 9) -> datasets.Dataset:
    random = np.random.default_rng(1)
    lists = [random.integers(5, 200, length).tolist() for length in random.integers(2, 30, count)]
    return documents(*lists)


@pytest.mark.parametrize(
    ("family", "attention"),
    [("qwen2", "sdpa"), ("qwen2", "eager"), ("llama", "sdpa"), ("gemma2", "eager")],  # Gemma-2 has no sdpa
)
def test_packed_loss_and_gradient_are_the_sums_of_the_single_ones(checkpoint, family, attention):
    model, data = model_of(checkpoint(family), attention), some_documents()
    alone = sum(
        nats(model, {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}) for row in data
    )
    alone.backward()
    gradient = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    collate = Collator(0)
    for how in PACKING:
        rows, _ = packed(data, how, 32)
        if how in ("concat", "similar"):  # cut documents begin anew: compare with the pieces, one by one
            expected = sum(
                nats(model, {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])})
                for ids, labels in pieces_of(rows)
                if len(ids) > 1
            )
        else:
            expected = alone
        model.zero_grad()
        total = nats(model, collate(list(rows)))  # all rows in one batch: most are padded
        total.backward()
        with torch.inference_mode():
            flat = nats(model, Collator(0, flatten=True)(list(rows)))
        assert flat.item() == pytest.approx(expected.item(), rel=1e-5), how
        assert total.item() == pytest.approx(expected.item(), rel=1e-5), how
        if expected is alone:
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(parameter.grad, gradient[name], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("family", "attention"), [("qwen2", "sdpa"), ("llama", "eager"), ("gemma2", "eager")]
)
def test_what_silently_lets_documents_see_each_other(checkpoint, family, attention):
    """The three traps: were one of them harmless, this would say so, and the rule could go."""
    model = model_of(checkpoint(family), attention)
    rows, _ = packed(some_documents(), "best_fit", 64)
    batch = Collator(0)([rows[0]])
    right = float(nats(model, batch).detach())
    ones = {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}
    without = {name: batch[name] for name in ("input_ids", "labels")}
    for wrong in (nats(model, ones), nats(model, batch, use_cache=True), nats(model, without)):
        assert abs(float(wrong.detach()) - right) > 1e-2


def test_cross_document_is_plain_causal_attention(checkpoint):
    model = model_of(checkpoint("qwen2"))
    rows, _ = packed(some_documents(), "similar", 64)
    batch = Collator(0, cross_document=True)(list(rows))
    assert (batch["position_ids"] == torch.arange(batch["input_ids"].shape[1])).all()
    plain = sum(
        nats(model, {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}) for row in rows
    )
    assert float(nats(model, batch).detach()) == pytest.approx(float(plain.detach()), rel=1e-5)


def test_a_batch_has_no_attention_mask():
    rows, _ = packed(documents([1, 2, 3], [4, 5]), "none", 8)
    batch = Collator(9)(list(rows))
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[1, 2, 3], [4, 5, 9]],
        "labels": [[IGNORED, 2, 3], [IGNORED, 5, IGNORED]],
        "position_ids": [[0, 1, 2], [0, 1, 0]],
    }


def test_a_flat_batch_has_no_padding():
    rows, _ = packed(documents([1, 2, 3], [4, 5], [6, 7, 8, 9]), "concat", 5, seed=1)
    for across in (False, True):
        batch = Collator(0, across, flatten=True)(sorted(rows, key=lambda row: len(row["input_ids"])))
        assert batch["input_ids"].tolist() == [[6, 7, 8, 9, 1, 2, 3, 4, 5]]
        starts = {at for at, position in enumerate(batch["position_ids"][0].tolist()) if position == 0}
        found = set(batch["cu_seq_lens_q"].tolist())
        assert found == starts | {9} and batch["cu_seq_lens_k"] is batch["cu_seq_lens_q"]
        assert batch["max_length_q"] == batch["max_length_k"] == (5 if across else 4)

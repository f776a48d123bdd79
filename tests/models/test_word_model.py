"""vocabkit/models/word_model.py: it says what the folders say, with and without the new rows."""

from dataclasses import replace

import build
import numpy as np
import pytest
import torch
from distilling import contexts_of, extended, make, matrices, new_tokens
from training import extend
from transformers import AutoModelForCausalLM

from vocabkit.checkpoint.numbers import rows_as_float32
from vocabkit.checkpoint.record import new_rows
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.checkpoint.vocab_tensors import find_vocab_tensors
from vocabkit.errors import UserError
from vocabkit.models.load import load_model
from vocabkit.models.split_rows import split_rows
from vocabkit.models.word_model import Rows, WordModel, load_word_model, rows_of_tensors
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

# family, tied: with a cap on the logits and scaled embeddings, a head with a bias, learned positions
FAMILIES = [("qwen2", True), ("llama", False), ("gemma2", True), ("phi", False), ("gpt2", True)]


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return make(tmp_path_factory.mktemp("qwen2"), "qwen2", tied=True)


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_the_model_says_what_the_two_folders_say(tmp_path, family, tied):
    source = make(tmp_path, family, tied=tied)
    out = extended(source, tmp_path / "out", init="random")
    tensors = find_vocab_tensors(read_checkpoint(out))
    first = new_tokens(out)[0]
    model = load_word_model(source, rows_of_tensors(tensors, matrices(out)), first_new=first)
    contexts = contexts_of(source, out.parent / "texts.txt")[:3]
    contexts[1] = replace(contexts[1], old_ids=contexts[1].old_ids[:5], new_ids=contexts[1].new_ids[:4])
    places = [[0, 3], [4], [2, 4, 3]]
    for folder, kind in ((source, "old_ids"), (out, "new_ids")):
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        sequences = [getattr(context, kind) for context in contexts]
        with torch.no_grad():
            states = model.read(sequences, places, words=kind == "new_ids")
            again = model.logits(states.hidden, words=kind == "new_ids")
            logits = [reference(torch.tensor([[model.start, *ids]])).logits[0] for ids in sequences]
        wanted = torch.cat([one[at] for one, at in zip(logits, places, strict=True)])
        torch.testing.assert_close(states.logits, wanted[:, : states.logits.shape[1]], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again, states.logits, rtol=1e-5, atol=1e-5)
        assert states.logits.shape[1] == first + (4 if kind == "new_ids" else 0)


def test_a_copied_row_is_read_and_written_as_the_row_it_copies(qwen2, tmp_path):
    rows = rows_as_float32(read_checkpoint(qwen2).tensors["model.embed_tokens.weight"], [40, 41])
    tokens = len(read_tokenizer_json(qwen2).tokens)
    model = load_word_model(qwen2, Rows(rows), first_new=tokens)
    with torch.no_grad():
        old = model.read([[7, 40, 9, 41, 5]], [[2, 3, 5]], words=False)
        new = model.read([[7, tokens, 9, tokens + 1, 5]], [[2, 3, 5]])
    assert torch.equal(old.hidden, new.hidden)
    assert torch.equal(old.logits, new.logits[:, :tokens])
    torch.testing.assert_close(new.logits[:, tokens:], old.logits[:, 40:42])


def test_only_the_rows_have_gradients(qwen2):
    model = load_word_model(qwen2, Rows(np.ones((2, build.D), np.float32)), first_new=424)
    model.read([[5, 425, 7]], [[3]]).logits.sum().backward()
    having = [p for p in model.model.parameters() if p.grad is not None]
    assert len(having) == 1 and having[0] is model.rows[0]
    assert model.tied and len(model.rows) == 1


def test_encoder_decoder_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="encoder-decoder"):
        load_word_model(make(tmp_path, "t5"), Rows(np.ones((1, build.D), np.float32)), first_new=9)


def test_a_bias_of_the_head_can_be_exchanged(checkpoint):
    folder = checkpoint("gpt_neox", tied=False)
    nothing = np.zeros((2, build.D), np.float32)
    n_old = max(read_tokenizer_json(folder).tokens) + 1
    model = load_word_model(folder, Rows(nothing, nothing, np.zeros(2, "f4")), first_new=n_old)
    head = model.model.get_output_embeddings().module
    head.bias = torch.nn.Parameter(torch.zeros(len(head.weight)), requires_grad=False)
    model.use(Rows(nothing, nothing, np.array([1.5, -2.0], np.float32)))
    with torch.no_grad():
        assert model.read([[3, 4]], [[1, 2]]).logits[:, -2:].tolist() == [[1.5, -2.0]] * 2


def test_a_model_whose_own_rows_are_split_is_read_alike(tmp_path):
    """Gemma-2: a scaled embedding and a cap on the logits."""
    source = extend(tmp_path, "gemma2", tied=True)
    rows, model = new_rows(source), load_model(source)
    table = model.get_input_embeddings().weight[rows.first : rows.stop].numpy(force=True).copy()
    reference = load_word_model(source, Rows(table), first_new=rows.first)
    split_rows(model, first=rows.first, stop=rows.stop)
    reader = WordModel(model, start=reference.start)
    sequences, places = [[5, rows.first, 9, 12], [7, rows.first + 2]], [[0, 2, 4], [1, 2]]
    with torch.no_grad():
        mine, theirs = reader.read(sequences, places), reference.read(sequences, places)
        assert mine.logits.shape == theirs.logits.shape == (5, rows.stop)
        assert torch.allclose(mine.logits, theirs.logits, atol=1e-5)
        old = [[5, 6, 9], [7]], [[1, 3], [0]]
        mine, theirs = reader.read(*old, words=False), reference.read(*old, words=False)
        assert mine.logits.shape == (3, rows.first) and torch.allclose(mine.logits, theirs.logits, atol=1e-5)

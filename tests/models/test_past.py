"""vocabkit/models/word_model.py: what was read before is gone on from, with the same states."""

import build
import numpy as np
import pytest
import torch

from vocabkit.checkpoint.numbers import rows_as_float32
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.models.word_model import Rows, load_word_model

# Scaled embeddings and windows of attention, a head with a bias, learned positions
FAMILIES = [("qwen2", True), ("llama", False), ("gemma2", True), ("phi", False), ("gpt2", True)]


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_reading_goes_on_from_what_was_read(family, tied, tmp_path):
    more = {"n_positions": 320} if family == "gpt2" else {}
    folder = build.make_checkpoint(tmp_path / family, family, tied=tied, **more)
    width = read_checkpoint(folder).tensors
    name = "transformer.wte.weight" if family == "gpt2" else "model.embed_tokens.weight"
    rows = rows_as_float32(width[name], range(20, 23))
    model = load_word_model(folder, Rows(rows, None if tied else rows), first_new=300)
    before = [[5, 6, 7, 8, 9], [], [11, 12]]
    rest = [[31, 300, 32, 33], [40, 301], [50, 302, 51]]
    places = [[1, 2, 4], [1, 2], [3]]
    whole = model.read(
        [first + then for first, then in zip(before, rest, strict=True)],
        [[len(first) + place for place in some] for first, some in zip(before, places, strict=True)],
        start=False,
    )
    past = model.remember(before)
    for _ in range(2):  # a past is not used up
        after = model.read(rest, places, past=past)
        torch.testing.assert_close(after.hidden, whole.hidden, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after.logits, whole.logits, atol=1e-4, rtol=1e-4)
    assert past.size > 0 and np.isfinite(after.logits.detach().numpy()).all()
    after.logits.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.rows)

"""vocabkit/verify/logits.py: pieces of text, and bits per byte reckoned once more."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from vocabkit.edit.extend import extend_vocab
from vocabkit.verify.edited import open_edited
from vocabkit.verify.logits import MAX_LENGTH, check_model, cut_pieces, sample


def test_the_cost_of_new_words_is_that_of_the_edited_model(checkpoint, tmp_path):
    """Bits per byte over every token that may be chosen, new ones included, padding not."""
    source, out = checkpoint(tied=False), tmp_path / "out"
    (tmp_path / "words.txt").write_text("hôm nay\nthanh điệu\n", encoding="utf-8")
    extend_vocab(source, out, words=tmp_path / "words.txt")
    edited = open_edited(source, out)
    text = "Xin chào, hôm nay trời đẹp."
    _, cost = check_model(edited, [text])
    (piece,) = cut_pieces(edited, [text])
    assert edited.record.new_ids[0] in piece.new_ids and not piece.covered
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([piece.new_ids[:-1]])).logits[0, :, : edited.record.n_tokens].double()
    chosen = logits.log_softmax(1)[range(len(logits)), piece.new_ids[1:]]
    wanted = -float(chosen.sum()) / np.log(2) / len(text.encode())
    assert cost.numbers["bits_per_byte"] == pytest.approx(wanted, rel=1e-5)


def test_pieces_are_cut_and_spread(checkpoint, trimmed):
    edited = open_edited(checkpoint(tied=False), trimmed(tied=False))
    text = "Xin chào các bạn, hôm nay trời đẹp quá. " * 60
    pieces = cut_pieces(edited, [text])
    assert len(pieces) > 1 and sum(piece.size for piece in pieces) == len(text.encode())
    assert all(max(len(p.old_ids), len(p.new_ids)) <= MAX_LENGTH for p in pieces)
    many = [f"{at:04}" for at in range(1000)]
    assert sample(many, 10) == [f"{at:04}" for at in range(0, 1000, 100)]
    assert sample(many, 10_000) == many

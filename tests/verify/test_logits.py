"""vocabkit/verify/logits.py: pieces of text, a layer that is broken, bits per byte reckoned once more."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from verifying import break_layer

from vocabkit.checkpoint.folder import start_token
from vocabkit.verify.edited import open_edited
from vocabkit.verify.logits import MAX_LENGTH, check_model, cut_pieces, sample


@pytest.mark.parametrize("kind", ["pair", "extended"])
def test_finds_a_broken_layer(request, kind):
    source, out = request.getfixturevalue(kind)
    texts = ["Xin chào các bạn!", "The weather."]
    assert [check.findings for check in check_model(open_edited(source, out), texts)] == [[]] * (
        3 if open_edited(source, out).added else 2
    )
    break_layer(out)
    found = [finding for check in check_model(open_edited(source, out), texts) for finding in check.findings]
    assert any("max |Δ logit|" in finding for finding in found), found


def test_the_cost_of_new_words_is_that_of_the_edited_model(made_extended):
    """Bits per byte over every token that may be chosen, new ones included, padding not."""
    source, out = made_extended
    edited = open_edited(source, out)
    text = "Xin chào, hôm nay trời đẹp."
    _, cost, *_ = check_model(edited, [text])
    (piece,) = cut_pieces(edited, [text], start=start_token(source))
    assert edited.record.new_ids[0] in piece.new_ids and not piece.covered
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([piece.new_ids[:-1]])).logits[0, :, : edited.record.n_tokens].double()
    chosen = logits.log_softmax(1)[range(len(logits)), piece.new_ids[1:]]
    wanted = -float(chosen.sum()) / np.log(2) / len(text.encode())
    assert cost.numbers["bits_per_byte"] == pytest.approx(wanted, rel=1e-5)


def test_text_with_new_tokens_only_has_a_cost_but_no_logits(made_extended):
    logits, cost, _ = check_model(open_edited(*made_extended), ["Xin chào, hôm nay"])
    assert len(logits.findings) == 1 and "no text is covered" in logits.findings[0] and not cost.findings
    assert cost.numbers["bits_per_byte"] > 0 and cost.numbers["covered_bits_per_byte"] is None
    assert cost.numbers["tokens_per_char"] < cost.numbers["tokens_per_char_base"] < 1


def test_pieces_are_cut_and_spread(checkpoint, trimmed):
    edited = open_edited(checkpoint(tied=False), trimmed(tied=False))
    text = "Xin chào các bạn, hôm nay trời đẹp quá. " * 60
    pieces = cut_pieces(edited, [text], start=start_token(edited.base))
    assert len(pieces) > 1 and sum(piece.size for piece in pieces) == len(text.encode())
    assert all(max(len(p.old_ids), len(p.new_ids)) <= MAX_LENGTH for p in pieces)
    many = [f"{at:04}" for at in range(1000)]
    assert sample(many, 10) == [f"{at:04}" for at in range(0, 1000, 100)]
    assert sample(many, 10_000) == many

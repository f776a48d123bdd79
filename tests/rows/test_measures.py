"""vocabkit/rows/measures.py: every measure on numbers worked by hand."""

import math

import pytest
import torch

from vocabkit.rows.measures import answers, choice, divergence, first_share, mid_rank


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
    found = choice(old, new, torch.tensor([0, 1]), spelled)
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
    found = choice(old, torch.tensor([[0.3]]).log(), torch.tensor([0]), (before[:, 0] * 0.5).log())
    assert found.calibration.item() == pytest.approx(0, abs=1e-6)

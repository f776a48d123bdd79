"""How well a new row stands in for the word's old tokens: from logits to numbers. Tensors in, tensors out;
reads and writes nothing.

input       The word stands in the context. KL(base ∥ edited) of the next token's distribution at the
            positions after it, over the old tokens alone: both are renormalized over these, so what the new
            rows take away is no matter of the input row. Agreement: the same old token is the likeliest.
output      The word comes next. The base has spelled it as old tokens with Σ log p; the edited model, which
            sees the same hidden state, gives it log p over old and new rows together. Their difference is 0
            where the new token is as likely as its spelling was, negative where it is too rarely chosen.
fill        Which of the new words stands in the gap: ranks of the right one among others. Equal scores share
            their ranks, so that rows that are all alike get the rank of a blind guess and not the first.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Answers:
    """What the base says at T positions, over V old tokens, kept for comparing several sets of rows.

    probabilities: (T, V); entropy: (T,) in nats; best: (T,) the likeliest old token.
    """

    probabilities: torch.Tensor
    entropy: torch.Tensor
    best: torch.Tensor


def answers(logits: torch.Tensor) -> Answers:
    """Return the base's answers; logits: (T, V) float32 over the old tokens."""
    log_p = logits.log_softmax(1)
    probabilities = log_p.exp()
    return Answers(probabilities, -torch.linalg.vecdot(probabilities, log_p), logits.argmax(1))


def divergence(base: Answers, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return KL(base ∥ edited) in nats, (T,), and whether both have the same likeliest old token, (T,) bool.

    logits: (T, V) float32, the edited model's over the same old tokens.

    >>> kl, same = divergence(answers(torch.tensor([[0.0, 0.0]])), torch.tensor([[0.0, 1.0]]))
    >>> round(kl.item(), 4), same.item()  # ln(e^0 + e^1) − ln 2 − 1/2
    (0.1201, False)
    """
    log_q = logits.log_softmax(1)
    kl = -base.entropy - torch.linalg.vecdot(base.probabilities, log_q)
    return kl.clamp(min=0), logits.argmax(1) == base.best


def mid_rank(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return (T,) float32: 1 + how many scores are larger than the right one's + half of the others equal to
    it.

    scores: (T, K); right: (T,) int64, the column of the right one.

    >>> mid_rank(torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]]), torch.tensor([2, 0])).tolist()
    [2.0, 2.0]
    """
    own = scores.gather(1, right[:, None])
    return 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def first_share(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return (T,) float32: 1 where the right score is the largest, 1 / n where n share that place, else 0.

    >>> first_share(torch.tensor([[3.0, 1.0], [5.0, 5.0], [1.0, 2.0]]), torch.tensor([0, 0, 0])).tolist()
    [1.0, 0.5, 0.0]
    """
    own = scores.gather(1, right[:, None])
    return torch.where((scores > own).any(1), 0.0, 1 / (scores == own).sum(1))


@dataclass(frozen=True)
class Choice:
    """What T positions where a new word comes next say of its output row, (T,) each.

    calibration: log p(new word) − Σ log p(its old tokens), nats; rank_new, rank_all: among the new rows and
    among old and new ones.
    """

    calibration: torch.Tensor
    rank_new: torch.Tensor
    rank_all: torch.Tensor


def choice(old: torch.Tensor, new: torch.Tensor, right: torch.Tensor, spelled: torch.Tensor) -> Choice:
    """Compare the new rows with the old tokens at the positions where a new word comes next.

    old: (T, V) and new: (T, W) logits; right: (T,) the column in new of the word that comes; spelled: (T,)
    the base's Σ log p of its old tokens there.

    >>> found = choice(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([1]),
    ...                torch.tensor([-2.0]))
    >>> [round(value.item(), 4) for value in (found.calibration, found.rank_new, found.rank_all)]
    [0.3735, 1.5, 2.5]
    """
    own = new.gather(1, right[:, None])[:, 0]
    total = torch.logaddexp(old.logsumexp(1), new.logsumexp(1))
    among_new = mid_rank(new, right)
    larger, equal = (old > own[:, None]).sum(1), (old == own[:, None]).sum(1)
    return Choice(own - total - spelled, among_new, among_new + larger + equal / 2)

"""How well new rows stand in for the old tokens of their words: the measures, and what sets of rows get.

Runs one frozen model, given with its new rows; reads and writes no file. All sets are measured on the same
contexts, so that differences between them are not differences of text.

input       The word stands in the context. KL(base ∥ edited) of the next token's distribution at the
            positions after it, over the old tokens alone: both are renormalized over these, so what the new
            rows take away is no matter of the input row. Agreement: the same old token is the likeliest.
output      The word comes next. The base has spelled it as old tokens with Σ log p; the edited model, which
            sees the same hidden state, gives it log p over old and new rows together. Their difference is 0
            where the new token is as likely as its spelling was, negative where it is too rarely chosen.
fill        Which of the new words stands in the gap: ranks of the right one among others. Equal scores share
            their ranks, so that rows that are all alike get the rank of a blind guess and not the first.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from vocabkit.models.word_model import Rows, WordModel
from vocabkit.rows.contexts import Context
from vocabkit.rows.elsewhere import OtherText
from vocabkit.rows.estimates import Estimate, mean_by_cluster, ratio_by_cluster
from vocabkit.rows.leak import BATCH, BLOCK, measure_all, read_places

AFTER = 16  # positions from the word on whose answers are compared: later ones hardly see it
FILL_CONTEXTS = 60  # gaps, each of another word
FILL_RIGHT = 4  # tokens after a gap that have a say: each costs a row of logits for every candidate
FILL_CANDIDATES = 50


@dataclass(frozen=True)
class Gap:
    """A place where a word stands in a text: old ids before it, its own, and those after it."""

    word: int
    left: tuple[int, ...]
    pieces: tuple[int, ...]
    right: tuple[int, ...]

    def filled(self, ids: Iterable[int]) -> list[int]:
        """Return the text with these ids in the gap."""
        return [*self.left, *ids, *self.right]


def gap_of(context: Context) -> Gap:
    """Return the place of a context's own word; other new words around it stay in old tokens.

    So the state before the word is the base's, and what follows differs by one row alone.
    """
    begin, end = context.old_span(context.own_at)
    ids = context.old_ids
    return Gap(context.word, ids[:begin], ids[begin:end], ids[end:])


@dataclass(frozen=True)
class Line:
    """A line of text: its bytes, its ids as old tokens and with new ones, without start tokens."""

    size: int
    old_ids: Sequence[int]
    new_ids: Sequence[int]


@torch.inference_mode()
def measure_inits(
    model: WordModel,
    row_sets: Mapping[str, Rows],
    *,
    base: str,
    gaps: Sequence[Gap],
    lines: Sequence[Line],
    other: Mapping[str, Sequence[OtherText]],
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """Return init → measure → estimate for every set of rows, and for the model without new words under the
    name of base.

    Contexts of one word are one observation, the mean of them; of bits_per_byte each line is one. other: kind
    → texts in which no new word belongs; what new tokens take there has no standard error.
    """
    found: dict[str, dict[str, Estimate]] = {base: {}, **{name: {} for name in row_sets}}
    for part in (
        measure_contexts(model, row_sets, gaps, base=base),
        _fill(model, row_sets, gaps, base=base, seed=seed),
    ):
        for name, measures in part.items():
            found[name] |= measures
    sizes = [line.size for line in lines]
    before = _line_bits(model, lines, words=False)
    found[base]["bits_per_byte"] = ratio_by_cluster(before, sizes)
    for name, rows in row_sets.items():
        model.use(rows)
        after = _line_bits(model, lines, words=True)
        found[name]["bits_per_byte"] = ratio_by_cluster(after, sizes)
        change = [now - then for now, then in zip(after, before, strict=True)]
        found[name]["bits_change"] = ratio_by_cluster(change, sizes)
    read = {kind: read_places(model, texts) for kind, texts in other.items()}
    for name in found:
        if name != base:
            model.use(row_sets[name])
        for kind, leak in measure_all(model, read).items():
            for measure in ("share", "share_p99", "bits_per_byte") if read[kind].size else ("changed",):
                value = 0.0 if name == base else getattr(leak, measure)
                key = f"{kind.lower().replace(' ', '_')}_{measure}"
                found[name][key] = Estimate(value, None, leak.places, leak.places)
    return found


def _by_block(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


@torch.inference_mode()
def measure_contexts(
    model: WordModel, row_sets: Mapping[str, Rows], gaps: Sequence[Gap], *, base: str
) -> dict[str, dict[str, Estimate]]:
    """Return init → the measures of input and output, and those of the base beside itself."""
    values: dict[str, dict[str, list[float]]] = {name: {} for name in row_sets}
    words, n_old = [gap.word for gap in gaps], model.first_new
    bar = tqdm(total=len(gaps) * len(row_sets), desc="contexts", leave=False, disable=None)
    for batch in _by_block(gaps, max(1, min(BATCH, BLOCK // n_old // AFTER))):
        places = [_places(gap, len(gap.pieces)) for gap in batch]  # at the gap, then from the word's end on
        logits = model.read([gap.filled(gap.pieces) for gap in batch], places, words=False).logits.float()
        is_gap = _first_of_each(places, logits.device)
        old, reference = logits[is_gap], answers(logits[~is_gap])
        spelled = torch.stack(_spelled(model, batch))
        right = torch.tensor([gap.word for gap in batch], device=logits.device)
        places = [_places(gap, 1) for gap in batch]
        counts = [len(several) - 1 for several in places]
        for name, rows in row_sets.items():
            model.use(rows)
            logits = model.read([gap.filled([n_old + gap.word]) for gap in batch], places).logits.float()
            kl, same = divergence(reference, logits[~is_gap][:, :n_old])
            chosen = output_scores(old, logits[is_gap][:, n_old:], right, spelled)
            for measure, tensor in {
                "input_kl": _means(kl, counts),
                "input_top1": _means(same.float(), counts),
                "output_log_ratio": chosen.calibration,
                "output_log_ratio_abs": chosen.calibration.abs(),
                "rank_new": chosen.rank_new.log(),
                "rank_all": chosen.rank_all.log(),
            }.items():
                values[name].setdefault(measure, []).extend(tensor.tolist())
            bar.update(len(batch))
    bar.close()
    found = {
        name: {measure: mean_by_cluster(numbers, words) for measure, numbers in measures.items()}
        for name, measures in values.items()
    }
    unchanged = {"input_kl": 0.0, "input_top1": 1.0, "output_log_ratio": 0.0, "output_log_ratio_abs": 0.0}
    itself = {
        measure: Estimate(value, None, len(set(words)), len(words)) for measure, value in unchanged.items()
    }
    return {base: itself, **found}


def _places(gap: Gap, length: int) -> list[int]:
    """Return how many ids are read when the word is next, and from its last id on, which is the length-th."""
    end = len(gap.left) + length
    return [len(gap.left), *range(end, end + min(AFTER, len(gap.right) + 1))]


def _first_of_each(places: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return (N,) bool: which of all places is the first of its sequence."""
    return torch.tensor([at == 0 for several in places for at in range(len(several))], device=device)


def _means(values: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    return torch.stack([part.mean() for part in values.split(list(counts))])


def _spelled(model: WordModel, gaps: Sequence[Gap]) -> list[torch.Tensor]:
    """Return of each gap the base's Σ log p of the word's old tokens."""
    sequences = [[*gap.left, *gap.pieces] for gap in gaps]
    log_p = log_probabilities(model, sequences, [len(gap.pieces) for gap in gaps], words=False)
    return [part.sum() for part in log_p]


def log_probabilities(
    model: WordModel, sequences: Sequence[Sequence[int]], counts: Sequence[int], *, words: bool
) -> list[torch.Tensor]:
    """Return of each sequence the log p of its last ids, as many as counts says, each after all before it.

    words: over old and new rows, or over the old ones alone.
    """
    found = []
    rows = model.first_new + len(model.rows[0])
    pairs = list(zip(sequences, counts, strict=True))
    for some in _by_block(pairs, max(1, min(BATCH, BLOCK // rows // max(counts, default=1)))):
        inputs = [sequence[:-1] for sequence, _ in some]
        places = [range(len(sequence) - count, len(sequence)) for sequence, count in some]
        logits = model.read(inputs, places, words=words).logits.float()
        targets = [token for sequence, count in some for token in sequence[len(sequence) - count :]]
        own = logits.gather(1, torch.tensor(targets, device=logits.device)[:, None])[:, 0]
        found += (own - logits.logsumexp(1)).split([count for _, count in some])
    return found


def fill_candidates(firsts: Mapping[int, Gap], *, seed: int) -> list[tuple[Gap, list[int]]]:
    """Return gaps, FILL_CONTEXTS at most and evenly spread, each with its candidates: the right word first,
    then others by chance, the same for the same seed. firsts: word → its gap.
    """
    gaps = list(firsts.values())
    step = max(1.0, len(gaps) / FILL_CONTEXTS)
    drawn = []
    for gap in (gaps[int(at * step)] for at in range(int(len(gaps) / step))):
        others = sorted(firsts.keys() - {gap.word})
        generator = random.Random(seed * 1_000_003 + gap.word)
        drawn.append((gap, [gap.word, *generator.sample(others, min(len(others), FILL_CANDIDATES - 1))]))
    return drawn


def _fill(
    model: WordModel, row_sets: Mapping[str, Rows], gaps: Sequence[Gap], *, base: str, seed: int
) -> dict[str, dict[str, Estimate]]:
    """The share of gaps into which the right word fits best, by what stands before and by all of it."""
    firsts: dict[int, Gap] = {}
    for gap in gaps:
        firsts.setdefault(gap.word, gap)
    drawn = fill_candidates(firsts, seed=seed)
    found: dict[str, dict[str, Estimate]] = {}
    bar = tqdm(total=len(drawn) * (len(row_sets) + 1), desc="gaps", leave=False, disable=None)
    for name in (base, *row_sets):
        if name != base:
            model.use(row_sets[name])
        shares: dict[str, list[float]] = {"fill_left": [], "fill_both": []}
        for gap, candidates in drawn:
            fillings = [
                firsts[word].pieces if name == base else (model.first_new + word,) for word in candidates
            ]
            scores = _gap_scores(model, gap, fillings, words=name != base)
            first = torch.zeros(1, dtype=torch.int64, device=scores[0].device)
            for measure, each in zip(shares, scores, strict=True):
                shares[measure].append(first_share(each[None], first).item())
            bar.update(1)
        of = [gap.word for gap, _ in drawn]
        found[name] = {measure: mean_by_cluster(values, of) for measure, values in shares.items()}
    bar.close()
    return found


def _gap_scores(
    model: WordModel, gap: Gap, fillings: Sequence[Sequence[int]], *, words: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each filling log p(filling | left) and log p(filling and what follows | left), (K,) each."""
    right = gap.right[:FILL_RIGHT]
    sequences = [[*gap.left, *filling, *right] for filling in fillings]
    counts = [len(filling) + len(right) for filling in fillings]
    log_p = log_probabilities(model, sequences, counts, words=words)
    left = [each[: len(filling)].sum() for each, filling in zip(log_p, fillings, strict=True)]
    return torch.stack(left), torch.stack([each.sum() for each in log_p])


def _line_bits(model: WordModel, lines: Sequence[Line], *, words: bool) -> list[float]:
    """Return the bits of each line, as old tokens or with the new ones."""
    sequences = [list(line.new_ids if words else line.old_ids) for line in lines]
    bits = []
    for ids in sequences:  # one at a time: a line alone fills a block
        (log_p,) = log_probabilities(model, [ids], [len(ids)], words=words)
        bits.append(-log_p.double().sum().item() / math.log(2))
    return bits


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
class OutputScores:
    """What T positions where a new word comes next say of its output row, (T,) each.

    calibration: log p(new word) − Σ log p(its old tokens), nats; rank_new, rank_all: among the new rows and
    among old and new ones.
    """

    calibration: torch.Tensor
    rank_new: torch.Tensor
    rank_all: torch.Tensor


def output_scores(
    old: torch.Tensor, new: torch.Tensor, right: torch.Tensor, spelled: torch.Tensor
) -> OutputScores:
    """Compare the new rows with the old tokens at the positions where a new word comes next.

    old: (T, V) and new: (T, W) logits; right: (T,) the column in new of the word that comes; spelled: (T,)
    the base's Σ log p of its old tokens there.

    >>> found = output_scores(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([1]),
    ...                torch.tensor([-2.0]))
    >>> [round(value.item(), 4) for value in (found.calibration, found.rank_new, found.rank_all)]
    [0.3735, 1.5, 2.5]
    """
    own = new.gather(1, right[:, None])[:, 0]
    total = torch.logaddexp(old.logsumexp(1), new.logsumexp(1))
    among_new = mid_rank(new, right)
    larger, equal = (old > own[:, None]).sum(1), (old == own[:, None]).sum(1)
    return OutputScores(own - total - spelled, among_new, among_new + larger + equal / 2)

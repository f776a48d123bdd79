"""The measures of word_measures.py for several sets of new rows, on contexts and lines of text.

Runs one frozen model, given with its new rows; reads and writes no file. All sets are measured on the same
contexts, so that differences between them are not differences of text.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from vocabkit.errors import UserError
from vocabkit.estimates import Estimate, mean_by_cluster, ratio_by_cluster
from vocabkit.model import load_model
from vocabkit.word_gaps import Gap, Line
from vocabkit.word_measures import answers, choice, divergence, first_share

AFTER = 16  # positions from the word on whose answers are compared: later ones hardly see it
FILL_CONTEXTS = 100  # gaps, each of another word
FILL_RIGHT = 6  # tokens after a gap that have a say: each costs a forward pass for every candidate
FILL_CANDIDATES = 50
BLOCK = 12 << 20  # numbers in one (positions, rows) matrix of logits: larger ones leave the caches
BATCH = 32  # sequences read at once


class Rows(NamedTuple):
    """New rows: input and output (words, D), bias (words,) where the head has one, float32."""

    input: np.ndarray
    output: np.ndarray
    bias: np.ndarray | None = None


class ExtendedModel:
    """A frozen causal model with room for new rows after its n_old tokens; ids from n_old on are these."""

    def __init__(self, folder: Path, *, n_old: int, words: int, dtype: str | None = None) -> None:
        """Load the model; UserError if its logits are not what its head makes of the last hidden state."""
        self.model = load_model(folder, dtype=dtype)
        self.n_old = n_old
        if self.model.config.is_encoder_decoder:
            raise UserError(f"{folder} is an encoder-decoder model; the measures are made for causal ones")
        self.model.requires_grad_(False)
        self.model.resize_token_embeddings(n_old + words, mean_resizing=False)
        self._softcap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        ids = torch.arange(min(n_old, 8))[None].to(self.model.device)
        with torch.inference_mode():
            own = self.model(input_ids=ids, use_cache=False).logits[0].float()
            made = self.logits(self.hidden(ids)[0])
        if not torch.allclose(own, made, rtol=1e-2, atol=1e-2):
            kind = self.model.config.model_type
            raise UserError(
                f"{folder}: {kind} changes its logits in a way that is not known here; unsupported"
            )

    def use(self, rows: Rows) -> None:
        """Take another set of new rows."""
        with torch.no_grad():
            head = self.model.get_output_embeddings()
            self.model.get_input_embeddings().weight[self.n_old :] = torch.from_numpy(rows.input)
            head.weight[self.n_old :] = torch.from_numpy(rows.output)
            if rows.bias is not None:
                head.bias[self.n_old :] = torch.from_numpy(rows.bias)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D), what the head reads, of (B, T) ids, each row padded at its end."""
        ids = ids.to(self.model.device)
        return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (N, n_old + words) float32 of (N, D)."""
        logits = self.model.get_output_embeddings()(hidden).float()
        if self._softcap:
            logits = (logits / self._softcap).tanh() * self._softcap
        return logits


@torch.inference_mode()
def measure_inits(
    model: ExtendedModel,
    row_sets: Mapping[str, Rows],
    *,
    base: str,
    gaps: Sequence[Gap],
    lines: Sequence[Line],
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """Return init → measure → estimate for every set of rows, and for the model without new words under the
    name of base.

    Contexts of one word are one observation, the means of its contexts; of bits_per_byte each line is one.
    """
    found: dict[str, dict[str, Estimate]] = {base: {}, **{name: {} for name in row_sets}}
    for part in (
        _contexts(model, row_sets, gaps, base=base),
        _fill(model, row_sets, gaps, base=base, seed=seed),
    ):
        for name, measures in part.items():
            found[name] |= measures
    sizes = [line.size for line in lines]
    before = _line_bits(model, lines, new=False)
    found[base]["bits_per_byte"] = ratio_by_cluster(before, sizes)
    for name, rows in row_sets.items():
        model.use(rows)
        after = _line_bits(model, lines, new=True)
        found[name]["bits_per_byte"] = ratio_by_cluster(after, sizes)
        change = [now - then for now, then in zip(after, before, strict=True)]
        found[name]["bits_change"] = ratio_by_cluster(change, sizes)
    return found


def _batch(model: ExtendedModel, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return (B, T, D) hidden states; what stands after the end of a shorter sequence cannot change it."""
    ids = [torch.tensor(list(sequence)) for sequence in sequences]
    return model.hidden(pad_sequence(ids, batch_first=True))


def _gather(hidden: torch.Tensor, places: Sequence[range]) -> torch.Tensor:
    """Return (N, D): of each sequence the states at its places, one after the other."""
    return torch.cat([states[place.start : place.stop] for states, place in zip(hidden, places, strict=True)])


def _by_block(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def _contexts(
    model: ExtendedModel, row_sets: Mapping[str, Rows], gaps: Sequence[Gap], *, base: str
) -> dict[str, dict[str, Estimate]]:
    """The measures of input and output."""
    values: dict[str, dict[str, list[float]]] = {name: {} for name in row_sets}
    words, n_old = [gap.word for gap in gaps], model.n_old
    size = max(1, min(BATCH, BLOCK // n_old // AFTER))
    bar = tqdm(total=len(gaps) * len(row_sets), desc="contexts", leave=False, disable=None)
    for batch in _by_block(gaps, size):
        counts = [min(AFTER, len(gap.right) + 1) for gap in batch]
        hidden = _batch(model, [gap.left + gap.pieces + gap.right for gap in batch])
        before = [len(gap.left) - 1 for gap in batch]
        ends = [at + len(gap.pieces) for at, gap in zip(before, batch, strict=True)]
        reference = answers(model.logits(_gather(hidden, _ranges(ends, counts)))[:, :n_old])
        lengths = [len(gap.pieces) for gap in batch]
        spelling = model.logits(_gather(hidden, _ranges(before, lengths)))[:, :n_old]
        device = hidden.device
        pieces = torch.tensor([piece for gap in batch for piece in gap.pieces], device=device)
        log_p = spelling.log_softmax(1).gather(1, pieces[:, None])[:, 0]
        spelled = torch.stack([part.sum() for part in log_p.split(lengths)])
        firsts = torch.tensor([sum(lengths[:i]) for i in range(len(lengths))], device=device)
        old, at_gap = spelling[firsts], _gather(hidden, _ranges(before, [1] * len(batch)))
        right = torch.tensor([gap.word for gap in batch], device=device)
        for name, rows in row_sets.items():
            model.use(rows)
            edited = _batch(model, [[*gap.left, n_old + gap.word, *gap.right] for gap in batch])
            starts = [at + 1 for at in before]
            kl, same = divergence(
                reference, model.logits(_gather(edited, _ranges(starts, counts)))[:, :n_old]
            )
            chosen = choice(old, model.logits(at_gap)[:, n_old:], right, spelled)
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
    zeros = {"input_kl": 0.0, "input_top1": 1.0, "output_log_ratio": 0.0, "output_log_ratio_abs": 0.0}
    itself = {measure: Estimate(value, None, len(set(words)), len(words)) for measure, value in zeros.items()}
    return {base: itself, **found}


def _ranges(starts: Sequence[int], counts: Sequence[int]) -> list[range]:
    return [range(start, start + count) for start, count in zip(starts, counts, strict=True)]


def _means(values: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    return torch.stack([part.mean() for part in values.split(list(counts))])


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
    model: ExtendedModel, row_sets: Mapping[str, Rows], gaps: Sequence[Gap], *, base: str, seed: int
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
            fillings = [firsts[word].pieces if name == base else [model.n_old + word] for word in candidates]
            left, both = _gap_scores(model, gap, fillings, new=name != base)
            first = torch.zeros(1, dtype=torch.int64, device=left.device)
            for measure, scores in zip(shares, (left, both), strict=True):
                shares[measure].append(first_share(scores[None], first).item())
            bar.update(1)
        words = [gap.word for gap, _ in drawn]
        found[name] = {measure: mean_by_cluster(values, words) for measure, values in shares.items()}
    bar.close()
    return found


def _gap_scores(
    model: ExtendedModel, gap: Gap, fillings: Sequence[Sequence[int]], *, new: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each filling log p(filling | left) and log p(filling and what follows | left), (K,) each."""
    right = gap.right[:FILL_RIGHT]
    sequences = [[*gap.left, *filling, *right] for filling in fillings]
    left, both = [], []
    for some in _by_block(list(zip(sequences, fillings, strict=True)), BATCH):
        hidden = _batch(model, [sequence[:-1] for sequence, _ in some])
        counts = [len(filling) + len(right) for _, filling in some]
        before = len(gap.left) - 1
        states = _gather(hidden, _ranges([before] * len(some), counts))
        targets = [token for sequence, _ in some for token in sequence[before + 1 :]]
        log_p = _log_p(model, states, targets, new=new).split(counts)
        left += [p[: len(filling)].sum() for p, (_, filling) in zip(log_p, some, strict=True)]
        both += [p.sum() for p in log_p]
    return torch.stack(left), torch.stack(both)


def _log_p(model: ExtendedModel, states: torch.Tensor, targets: Sequence[int], *, new: bool) -> torch.Tensor:
    """Return (N,) log p of these ids after these states, over the old rows or over old and new ones."""
    found = []
    size = max(1, BLOCK // model.n_old)
    wanted = torch.tensor(list(targets), device=states.device)[:, None]
    for some, ids in zip(states.split(size), wanted.split(size), strict=True):
        logits = model.logits(some)[:, : None if new else model.n_old]
        found.append(logits.gather(1, ids)[:, 0] - logits.logsumexp(1))
    return torch.cat(found)


def _line_bits(model: ExtendedModel, lines: Sequence[Line], *, new: bool) -> list[float]:
    """Return the bits of each line, with old tokens alone or with the new ones."""
    bits = [0.0] * len(lines)
    sequences = [line.new_ids if new else line.old_ids for line in lines]
    order = sorted(range(len(lines)), key=lambda at: len(sequences[at]))  # little padding in a batch
    for some in _by_block(order, BATCH):
        hidden = _batch(model, [sequences[at][:-1] for at in some])
        counts = [len(sequences[at]) - 1 for at in some]
        targets = [token for at in some for token in sequences[at][1:]]
        log_p = _log_p(model, _gather(hidden, _ranges([0] * len(some), counts)), targets, new=new)
        for at, part in zip(some, log_p.split(counts), strict=True):
            bits[at] = -part.double().sum().item() / math.log(2)
    return bits

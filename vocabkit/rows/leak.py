"""What new tokens take where they do not belong: their share of the probability in text without them.

Reads and writes no file. In such a text a model with new rows has the very states of the model without them,
for all its inputs are old tokens. What differs is the last step alone: the new tokens stand in the softmax
too. Where they take a share s, each old token keeps 1 − s of its probability, so that

    −log2(1 − s)    bits is what the place costs more, whatever comes next
    the answer      changes only where a new token is likelier than every old one

and both follow from the state, log Σ exp of the old logits and the largest of them. These are read once; any
rows can be asked afterwards without reading again. Norms inside the old range are no guard: rows that had it
took 20 % of the probability of English text.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from vocabkit.models.split_rows import clamp_norms_
from vocabkit.models.word_model import Rows, WordModel, copy_rows
from vocabkit.rows.elsewhere import VIETNAMESE, OtherText

BLOCK = 12 << 20  # numbers in one (places, rows) matrix of logits: larger ones leave the caches
BATCH = 32  # texts read at once
SHOWN = 8  # rows that were lowered; the others are counted

LIMITS = {"share": 0.01, "bits_per_byte": 0.005, "changed": 0.02}  # the most that each may be
MEANINGS = {
    "share": "the mean share of the probability that new tokens take",
    "bits_per_byte": "what the text costs more, in bits per byte,",
    "changed": "the share of places whose likeliest token is a new one",
}


@dataclass(frozen=True)
class Places:
    """N places of one kind of text as the model without new rows has read them.

    hidden: (N, H), on the CPU; old_total, old_best: (N,) float32, log Σ exp of the old tokens' logits and
    the largest; size: bytes of the text that these places predict; guesses: whether the model finds that text
    less likely than one that gives every token the same.
    """

    hidden: torch.Tensor
    old_total: torch.Tensor
    old_best: torch.Tensor
    size: int = 0
    guesses: bool = False

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True)
class Leak:
    """What new tokens take at n places: mean and 99th percentile of their share of the probability, bits per
    byte that the text costs more, share of places whose likeliest token is a new one.
    """

    places: int
    share: float
    share_p99: float
    bits_per_byte: float
    changed: float

    def as_json(self) -> dict[str, float]:
        """Return what our JSON files hold of it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


NOTHING = Leak(0, 0.0, 0.0, 0.0, 0.0)


@torch.no_grad()  # not inference_mode(): gradients go through what is computed from these
def read_places(model: WordModel, texts: Iterable[OtherText]) -> Places:
    """Read texts, those of like length together."""
    texts = sorted(texts, key=lambda text: (text.whole, len(text.ids)))
    hidden, total, best, nats, told = [], [], [], 0.0, 0
    bar = tqdm(total=len(texts), desc="other text", leave=False, disable=None)
    for batch in _batches(texts, most=max(1, BLOCK // model.first_new)):
        states = model.read(
            [text.ids for text in batch],
            [text.places for text in batch],
            words=False,
            start=not batch[0].whole,
        )
        logits = states.logits.float()
        hidden.append(states.hidden.cpu())
        total.append(logits.logsumexp(1).cpu())
        best.append(logits.amax(1).cpu())
        comes = [(text.ids[at] if at < len(text.ids) else -1) for text in batch for at in text.places]
        known = torch.tensor([token >= 0 for token in comes], device=logits.device)
        ids = torch.tensor(comes, device=logits.device)[known]
        nats += float((logits[known].logsumexp(1) - logits[known].gather(1, ids[:, None])[:, 0]).sum())
        told += len(ids)
        bar.update(len(batch))
    bar.close()
    size = sum(text.size for text in texts)
    guesses = nats > told * math.log(model.first_new)
    return Places(torch.cat(hidden), torch.cat(total), torch.cat(best), size, guesses)


def _batches(texts: Sequence[OtherText], *, most: int) -> Iterator[Sequence[OtherText]]:
    """Neighbours with about so many places together, all with a start token or all without."""
    batch: list[OtherText] = []
    places = 0
    for text in texts:
        if batch and (
            places + len(text.places) > most or text.whole != batch[0].whole or len(batch) == BATCH
        ):
            yield batch
            batch, places = [], 0
        batch.append(text)
        places += len(text.places)
    if batch:
        yield batch


def new_total(logits: torch.Tensor, places: Places) -> torch.Tensor:
    """Return (N,) log odds of the new tokens together against the old; logits: (N, W) of the new."""
    return logits.float().logsumexp(1) - places.old_total.to(logits.device)


def cost(model: WordModel, places: Places) -> torch.Tensor:
    """Return the mean of −ln(1 − s), nats a place, with gradients to the new rows: ln(1 + odds)."""
    return F.softplus(new_total(model.new_logits(places.hidden), places)).mean()


@torch.inference_mode()
def measure(model: WordModel, places: Places) -> Leak:
    """Return what the model's new tokens take at places."""
    logits = model.new_logits(places.hidden)
    return leak_of(new_total(logits, places).cpu(), logits.float().amax(1).cpu(), places)


def leak_of(odds: torch.Tensor, new_best: torch.Tensor, places: Places) -> Leak:
    """Return what (N,) log odds of the new tokens and their largest logits come to at N places.

    >>> places = Places(torch.zeros(4, 1), torch.zeros(4), torch.tensor([-1.0, 1, 1, 1]), 8)
    >>> leak_of(torch.zeros(4), torch.zeros(4), places)  # one half everywhere: 1 bit a place
    Leak(places=4, share=0.5, share_p99=0.5, bits_per_byte=0.5, changed=0.25)
    """
    odds = odds.double()
    share = odds.sigmoid()
    bits = F.softplus(odds).sum().item() / math.log(2) / places.size if places.size else 0.0
    changed = (new_best > places.old_best).double().mean().item()
    return Leak(len(odds), share.mean().item(), share.quantile(0.99).item(), bits, changed)


def judged(read: Mapping[str, Places]) -> dict[str, Leak]:
    """Return kind → what may be taken in any case, of the kinds that LIMITS are for.

    Not Vietnamese: a new word may come there, and the model without it gives it a probability too. Nor a
    model that only guesses, as with weights by chance.
    """
    if any(places.guesses for places in read.values()):
        return {}
    return {kind: NOTHING for kind in read if kind != VIETNAMESE}


def broken(leaks: Mapping[str, Leak], allowed: Mapping[str, Leak]) -> list[str]:
    """Return a sentence for each limit that a kind of text breaks by more than it is allowed in any case.

    Kinds that allowed does not name are not judged.
    """
    return [
        f"{kind}: {MEANINGS[name]} is {getattr(leaks[kind], name):.4f}, expected at most {limit:.4f}"
        for kind, least in allowed.items()
        for name in LIMITS
        if getattr(leaks[kind], name) > (limit := max(LIMITS[name], getattr(least, name)))
    ]


def measure_all(model: WordModel, read: Mapping[str, Places]) -> dict[str, Leak]:
    """Return what the model's new tokens take in each kind of text."""
    return {kind: measure(model, places) for kind, places in read.items()}


@dataclass(frozen=True)
class Guarded:
    """What guard() found and did. lowered: number of a row → the share of its way from start that is left.

    broken: a sentence for each limit that is broken still.
    """

    leaks: dict[str, Leak]
    lowered: dict[int, float]
    broken: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return what vocab_edit.json holds of it."""
        return {
            "other_text": {kind: leak.as_json() for kind, leak in self.leaks.items()},
            "lowered": {str(number): share for number, share in self.lowered.items()},
        }

    def show(self, contents: Sequence[str]) -> None:
        """Print what was found; contents: the texts of the new tokens."""
        for kind, leak in self.leaks.items():
            print(
                f"{kind:13} {leak.places:>9,} places: new tokens take {leak.share:.2%} (99th percentile "
                f"{leak.share_p99:.2%}), {leak.bits_per_byte:+.4f} bits per byte, first at {leak.changed:.1%}"
            )
        if self.lowered:
            names = [f"{contents[at]!r} to {share:.0%}" for at, share in list(self.lowered.items())[:SHOWN]]
            more = f", {len(self.lowered) - SHOWN:,} more" if len(self.lowered) > SHOWN else ""
            print(f"lowered   {len(self.lowered):>13,} rows of what they learned: {', '.join(names)}{more}")


def guard(
    model: WordModel,
    start: Rows,
    texts: Mapping[str, Sequence[OtherText]],
    *,
    norms: Sequence[tuple[float, float]],
) -> Guarded:
    """Lower the model's new rows towards start, in place, until they take no more in texts than LIMITS.

    norms: the least and the most of the old rows of each end, within which what was lowered stays.
    """
    read = {kind: read_places(model, some) for kind, some in texts.items()}
    rows, lowered = lower(model, copy_rows(model.model), start, read)
    model.use(rows)
    if lowered:  # halfway between two rows, one may be shorter than any
        for parameter, bounds in zip(model.rows, norms, strict=False):
            clamp_norms_(parameter.data, *bounds)
    leaks = measure_all(model, read)
    return Guarded(leaks, lowered, broken(leaks, judged(read)))


STEPS = 4  # in which a row goes the whole way back to where it began


@torch.inference_mode()
def lower(
    model: WordModel, rows: Rows, start: Rows, read: Mapping[str, Places]
) -> tuple[Rows, dict[int, float]]:
    """Return rows of which as few as are needed went back towards start until no limit is broken beyond what
    start takes itself, and which: number → the share of its own way that is left.

    The row that takes most beyond what its start takes goes first, a quarter of its way at a time.
    """
    if any(places.guesses for places in read.values()):
        return rows, {}
    model.use(start)
    allowed = measure_all(model, read)
    model.use(rows)
    if not broken(measure_all(model, read), allowed):
        return rows, {}
    odds: list[dict[str, torch.Tensor]] = []  # of each way: kind → (N, W), each new token's against all old
    logits: list[dict[str, torch.Tensor]] = []
    for step in range(STEPS + 1):
        model.use(_between(start, rows, step / STEPS))
        logits.append({kind: model.new_logits(places.hidden).float().cpu() for kind, places in read.items()})
        odds.append({k: (of - read[k].old_total[:, None]).double().exp() for k, of in logits[-1].items()})
    at = [STEPS] * len(rows.input)
    now, best = ({kind: part.clone() for kind, part in of[STEPS].items()} for of in (odds, logits))
    total = {kind: of.sum(1) for kind, of in now.items()}
    excess = torch.stack([_shares(now[k] - odds[0][k], total[k]) for k in read]).sum(0)
    while excess.max() > 0 and broken(
        {k: leak_of(total[k].log(), best[k].amax(1), read[k]) for k in read}, allowed
    ):
        worst = int(excess.argmax())
        at[worst] -= 1
        left = 0.0
        for kind in read:
            now[kind][:, worst] = odds[at[worst]][kind][:, worst]
            best[kind][:, worst] = logits[at[worst]][kind][:, worst]
            total[kind] = now[kind].sum(1)  # not by the difference: small sums would drown in it
            left += float(_shares(now[kind][:, worst] - odds[0][kind][:, worst], total[kind]))
        excess[worst] = left if at[worst] else 0.0
    kept = torch.tensor(at) / STEPS
    lowered = {number: float(share) for number, share in enumerate(kept) if share < 1}
    return _between(start, rows, kept[:, None].numpy()), lowered


def _shares(odds: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Mean share of the probability of (N, W) or (N,) odds; total: (N,) odds of all new tokens together."""
    return (odds.T / (1 + total)).mean(-1)


def _between(start: Rows, rows: Rows, share: "float | np.ndarray") -> Rows:
    """Rows that are so far on the way from start: 0 is start, 1 the rows themselves."""

    def between(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return old + np.asarray(share, np.float32) * (new - old)

    made = between(start.input, rows.input)
    if start.output is None or rows.output is None:
        return Rows(made, None, rows.bias)
    return Rows(made, between(start.output, rows.output), rows.bias)

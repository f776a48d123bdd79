"""What a frozen model teaches about new rows: its states after the old tokens, and the losses against them.

Runs the model, keeps its states in memory up to a limit; reads and writes no file.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from vocabkit.models.word_model import Past, WordModel
from vocabkit.rows.contexts import Context
from vocabkit.rows.leak import Places, cost

CACHE_BYTES = 1 << 30  # of the teacher's states

REST = 12  # tokens after the word that are read: later ones hardly see how it was read

NEVER = 0.999  # the most that the mass of new words counts: log(1 − 1) is no number


@dataclass(frozen=True)
class Settings:
    """How rows are distilled; the defaults were chosen on lines kept for training.

    step: learning rate of Adam, in units of the old rows' standard deviation, falling to nought along half a
    cosine. epochs: None: as many as give each row UPDATES, within EPOCHS. places: of a context at which the
    KL is taken, half of them right behind the word. other: weight of what new tokens take in other text.
    """

    epochs: int | None = None
    batch: int = 16
    places: int = 6
    step: float = 0.3
    output: float = 0.05
    mass: float = 0.3
    other: float = 1.0


@dataclass
class _Lesson:
    """A batch of contexts, and where teacher and student are asked.

    before: the ids in front of the word but for the last, which both read alike, so once; old_ids, new_ids:
    what follows. Places are numbers of ids of these.
    """

    before: list[Sequence[int]] = field(default_factory=list)
    old_ids: list[Sequence[int]] = field(default_factory=list)
    new_ids: list[Sequence[int]] = field(default_factory=list)
    old_places: list[list[int]] = field(default_factory=list)
    new_places: list[list[int]] = field(default_factory=list)
    # Indices into the states, one place after the other, and what belongs to each of them
    old_after: list[int] = field(default_factory=list)
    new_after: list[int] = field(default_factory=list)
    goes_on_old: list[bool] = field(default_factory=list)  # for each of new_after
    old_pieces: list[int] = field(default_factory=list)
    piece_ids: list[int] = field(default_factory=list)
    piece_of: list[int] = field(default_factory=list)  # index into new_words
    new_words: list[int] = field(default_factory=list)
    word_ids: list[int] = field(default_factory=list)

    def add(self, context: Context, *, start: int, places: int) -> None:
        """Add a context: states behind its word, and those in front of every new word from it on.

        start: the id that a text begins with.
        """
        n_old, n_new = sum(map(len, self.old_places)), sum(map(len, self.new_places))
        own, begin = context.own_at, context.old_span(context.own_at)[0]
        stop = min(len(context.new_ids), own + 1 + REST)
        aligned = [at for at in range(own, stop) if context.aligned[at] is not None]
        after = _spread(aligned, places)
        # One id stands before the word in both readings; places count from it.
        new_places = [at - own + 2 for at in after]
        old_places = [at - begin + 2 for at in map(context.aligned.__getitem__, after) if at is not None]
        self.old_after += range(n_old, n_old + len(after))
        self.new_after += range(n_new, n_new + len(after))
        is_new = set(context.new_at)
        self.goes_on_old += [at + 1 < len(context.new_ids) and at + 1 not in is_new for at in after]
        for at in context.new_at:
            if (
                not own <= at < stop
                or context.aligned[at] is None
                or (at and context.aligned[at - 1] is None)
            ):
                continue  # cut differently by the old tokenizer: there is nothing to compare with
            first, end = context.old_span(at)
            self.old_pieces += range(n_old + len(old_places), n_old + len(old_places) + end - first)
            self.piece_ids += context.old_ids[first:end]
            self.piece_of += [len(self.new_words)] * (end - first)
            self.new_words.append(n_new + len(new_places))
            self.word_ids.append(context.new_ids[at])
            old_places += range(first - begin + 1, end - begin + 1)
            new_places.append(at - own + 1)
        old_ids = [start, *context.old_ids]
        self.before.append(old_ids[:begin])
        self.old_ids.append(old_ids[begin : begin + max(old_places)])
        self.new_ids.append([old_ids[begin], *context.new_ids[own:stop]])
        self.old_places.append(old_places)
        self.new_places.append(new_places)


@dataclass(frozen=True)
class _Taught:
    """What the teacher says in a lesson: states (N, H), log probabilities of words (n,), and what it had read
    before them.
    """

    hidden: torch.Tensor
    words: torch.Tensor
    past: Past


def _spread(places: list[int], count: int) -> list[int]:
    """Return at most so many places: the first ones up to half of them, and others evenly from the rest.

    >>> _spread(list(range(12)), 4)
    [0, 1, 4, 9]
    """
    if len(places) <= count:
        return places
    near, rest = places[: count // 2], places[count // 2 :]
    wanted = count - len(near)
    return near + [rest[int((at + 0.5) * len(rest) / wanted)] for at in range(wanted)]


class Teacher:
    """The lessons that contexts make, and their losses; one model is teacher and student.

    other: places of text in which no new word belongs; every lesson has all of them, for they cost next to
    nothing.
    """

    def __init__(
        self, model: WordModel, contexts: Sequence[Context], other: Sequence[Places], *, settings: Settings
    ) -> None:
        self.model, self.settings, self.cache_left = model, settings, CACHE_BYTES
        self.other = other
        by_length = sorted(contexts, key=lambda context: context.own_at)  # little padding before the words
        self.lessons: list[_Lesson] = []
        for first in range(0, len(contexts), settings.batch):
            self.lessons.append(_Lesson())
            for context in by_length[first : first + settings.batch]:
                self.lessons[-1].add(context, start=model.start, places=settings.places)
        self.taught: dict[int, _Taught] = {}

    def order(self, seed: int, epoch: int) -> list[int]:
        """Return the numbers of the lessons in the order of an epoch."""
        order = list(range(len(self.lessons)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        return order

    @torch.no_grad()
    def teach(self, at: int) -> _Taught:
        """Return what the teacher says in a lesson; it reads each but once, as long as memory is left."""
        if at in self.taught:
            return self.taught[at]
        lesson, model = self.lessons[at], self.model
        past = model.remember(lesson.before)
        states = model.read(lesson.old_ids, lesson.old_places, words=False, past=past)
        pieces = states.logits[lesson.old_pieces].float().log_softmax(1)
        ids = torch.tensor(lesson.piece_ids, device=pieces.device, dtype=torch.long)
        chosen = pieces.gather(1, ids[:, None])[:, 0].cpu()
        piece_of = torch.tensor(lesson.piece_of, dtype=torch.long)
        words = torch.zeros(len(lesson.new_words)).index_add_(0, piece_of, chosen)
        taught = _Taught(states.hidden[lesson.old_after].cpu(), words, past.to("cpu"))
        size = taught.hidden.numel() * taught.hidden.element_size() + past.size
        if size <= self.cache_left:
            self.cache_left -= size
            self.taught[at] = taught
        return taught

    def losses(self, at: int) -> dict[str, torch.Tensor]:
        """Return the terms of a lesson's loss."""
        lesson, taught, model = self.lessons[at], self.teach(at), self.model
        past = taught.past.to(model.model.device)
        states = model.read(lesson.new_ids, lesson.new_places, past=past)
        device = states.logits.device
        with torch.no_grad():
            teacher = model.logits(taught.hidden.to(device), words=False).float().log_softmax(1)
        after = states.logits[lesson.new_after].float()
        student = after[:, : model.first_new].log_softmax(1)
        kl = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        total = after.logsumexp(1)
        mass = (after[:, model.first_new :].logsumexp(1) - total).exp().clamp(max=NEVER)
        goes_on_old = torch.tensor(lesson.goes_on_old, device=device)
        before = states.logits[lesson.new_words].float()
        ids = torch.tensor(lesson.word_ids, device=device, dtype=torch.long)
        chosen = before.gather(1, ids[:, None])[:, 0] - before.logsumexp(1)
        gap = F.huber_loss(chosen, taught.words.to(device), reduction="sum") / max(1, len(lesson.word_ids))
        other = torch.stack([cost(model, places) for places in self.other]).mean()
        return {"input": kl, "output": gap, "mass": -((-mass).log1p() * goes_on_old).mean(), "other": other}

    def mean_losses(self, sample: int | None = None) -> dict[str, float]:
        """Return the mean of each term over all batches, or over about so many of them, of all lengths."""
        every = max(1, len(self.lessons) // sample) if sample else 1
        with torch.no_grad():
            found = [self.losses(at) for at in range(0, len(self.lessons), every)]
        return {name: float(torch.stack([one[name] for one in found]).mean()) for name in found[0]}

    def loss(self, at: int) -> torch.Tensor:
        """Return the weighted sum of the terms of a lesson's loss."""
        terms, weights = self.losses(at), self.settings
        return (
            terms["input"]
            + weights.output * terms["output"]
            + weights.mass * terms["mass"]
            + weights.other * terms["other"]
        )

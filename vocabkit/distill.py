"""Rows of new words that make a model go on as if it had read the old tokens: Token Distillation.

The objective of arXiv 2505.20133, fitted to what is measured here. The model is frozen and is both teacher
(reading a snippet as the old tokens) and student (reading it with the new ones); gradients and optimizer
state exist for the new rows alone. Three terms, per batch of contexts:

    input    mean KL(teacher ∥ student) of the next old token, at places from the end of the word on: the
             row is read as the old tokens were. (MSE of hidden states, the paper's, ends a little higher.)
    output   Huber loss of log p(word) − Σ log p(its old tokens), where a word begins: the row is chosen as
             often as the old tokens were.
    mass     −log(1 − p(any new word)) where the text goes on with an old token: without it the rows of tied
             models grow until they win everywhere.

After each step the norms are brought into the range of the old rows' norms. A row whose word is in no context
of a batch still learns from it where it should not be chosen.

Cost: the teacher reads each context once (the states are kept in memory, up to a bound, and read again beyond
it), the student reads it forth and back in each epoch: contexts per word × (1 + 2 × epochs) forwards a word,
175 for 25 contexts and 3 epochs.

Reads a model's folder; writes its state beside the result now and then, from which the same call goes on with
the same numbers. Removing that is the caller's, once the rows are saved.
"""

import hashlib
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from vocabkit.contexts import Context
from vocabkit.errors import UserError
from vocabkit.train_rows import clamp_norms
from vocabkit.word_model import WordModel

STATE_FORMAT = ("vocabkit-distill", "1")
SAVE_EVERY = 60.0  # seconds
CACHE_BYTES = 1 << 30  # of the teacher's states
UPDATES = 60  # of a row that epochs are chosen for, where they are not given
EPOCHS = (3, 10)  # at least, at most
SAMPLE = 16  # batches whose losses are reported before and after
NEVER = 0.999  # the most that the mass of new words counts: log(1 − 1) is no number


@dataclass(frozen=True)
class Settings:
    """How rows are distilled; the defaults were chosen on lines kept for training.

    step: learning rate of Adam, in units of the old rows' standard deviation, falling to nought along half a
    cosine. epochs: None: as many as give each row UPDATES, within EPOCHS. places: of a context at which the
    KL is taken, half of them right behind the word.
    """

    epochs: int | None = None
    batch: int = 16
    places: int = 6
    step: float = 0.3
    output: float = 0.05
    mass: float = 0.3


@dataclass(frozen=True)
class Start:
    """What the rows are before: (W, D) float32 each; output None where one row is both, bias (W,) or None.

    limits: smallest and largest norm of the old rows of the input, and of the output. spread: their standard
    deviation over all entries, the same two.
    """

    input: np.ndarray
    output: np.ndarray | None
    bias: np.ndarray | None
    limits: Sequence[tuple[float, float]]
    spread: Sequence[float]


@dataclass(frozen=True)
class Distilled:
    """Rows as in Start, and what is to be told of how they came to be."""

    input: np.ndarray
    output: np.ndarray | None
    facts: dict[str, Any]


@dataclass
class _Lesson:
    """A batch of contexts, and where teacher and student are asked."""

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

    def add(self, context: Context, *, places: int) -> None:
        """Add a context: states behind its word, and those in front of every new word in it."""
        n_old, n_new = sum(map(len, self.old_places)), sum(map(len, self.new_places))
        after = _spread(
            [at for at in range(context.own_at, len(context.new_ids)) if context.aligned[at] is not None],
            places,
        )
        new_places = [at + 1 for at in after]
        old_places = [at + 1 for at in map(context.aligned.__getitem__, after) if at is not None]
        self.old_after += range(n_old, n_old + len(after))
        self.new_after += range(n_new, n_new + len(after))
        is_new = set(context.new_at)
        self.goes_on_old += [at + 1 < len(context.new_ids) and at + 1 not in is_new for at in after]
        for at in context.new_at:
            if context.aligned[at] is None or (at and context.aligned[at - 1] is None):
                continue  # cut differently by the old tokenizer: there is nothing to compare with
            first, end = context.old_span(at)
            self.old_pieces += range(n_old + len(old_places), n_old + len(old_places) + end - first)
            self.piece_ids += context.old_ids[first:end]
            self.piece_of += [len(self.new_words)] * (end - first)
            self.new_words.append(n_new + len(new_places))
            self.word_ids.append(context.new_ids[at])
            old_places += range(first, end)
            new_places.append(at)
        self.old_ids.append(context.old_ids)
        self.new_ids.append(context.new_ids)
        self.old_places.append(old_places)
        self.new_places.append(new_places)


def _epochs(contexts: Sequence[Context], batches: int) -> int:
    """Return how often contexts are to be read: the more of a word there are, the less often."""
    per_word = len(contexts) / len({context.word for context in contexts})
    return max(EPOCHS[0], min(EPOCHS[1], math.ceil(UPDATES / min(per_word, batches))))


@dataclass(frozen=True)
class _Taught:
    """What the teacher says in a lesson: states (N, H) and log probabilities of words (n,)."""

    hidden: torch.Tensor
    words: torch.Tensor


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


def distill(
    folder: Path,
    contexts: Sequence[Context],
    start: Start,
    *,
    first_new: int,
    state_file: Path,
    seed: int = 0,
    settings: Settings | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> Distilled:
    """Return rows after distilling, those of words without a context as they began.

    first_new: the id of the first new word; ids of contexts below it are rows of the folder's matrices.
    state_file: the state of an unfinished call with the same arguments is gone on with; UserError if it is
    another call's. On a CPU the same arguments give the same bits, interrupted or not, if torch has as many
    threads.
    """
    settings = settings or Settings()
    if not contexts:
        return Distilled(start.input, start.output, {"steps": 0})
    run = _fingerprint(folder, contexts, start, settings=settings, seed=seed)
    saved = _load_state(state_file, run)
    model = WordModel(
        folder,
        first_new=first_new,
        input_rows=start.input,
        output_rows=start.output,
        bias=start.bias,
        dtype=dtype,
        device=device,
    )
    trainer = Trainer(model, contexts, start, settings=settings, seed=seed)
    before = trainer.teacher.mean_losses(SAMPLE) if saved is None else saved[1]["before"]
    if saved is not None:
        trainer.resume(*saved)
    trainer.train(state_file, run, before)
    facts = {
        "steps": trainer.done,
        "settings": asdict(replace(settings, epochs=trainer.epochs)),
        "loss_before": before,
        "loss_after": trainer.teacher.mean_losses(SAMPLE),
    }
    made = [rows.detach().cpu().numpy() for rows in model.rows]
    seen = {token - first_new for context in contexts for token in context.new_ids if token >= first_new}
    unseen = sorted(set(range(len(start.input))) - seen)
    for rows, began in zip(made, (start.input, start.output), strict=False):
        assert began is not None
        rows[unseen] = began[unseen]
    return Distilled(made[0], None if model.tied else made[1], facts)


class Teacher:
    """The lessons that contexts make, and their losses; one model is teacher and student."""

    def __init__(self, model: WordModel, contexts: Sequence[Context], *, settings: Settings) -> None:
        self.model, self.settings, self.cache_left = model, settings, CACHE_BYTES
        by_length = sorted(contexts, key=lambda context: len(context.new_ids))
        self.lessons: list[_Lesson] = []
        for first in range(0, len(contexts), settings.batch):
            self.lessons.append(_Lesson())
            for context in by_length[first : first + settings.batch]:
                self.lessons[-1].add(context, places=settings.places)
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
        lesson = self.lessons[at]
        states = self.model.read(lesson.old_ids, lesson.old_places, words=False)
        pieces = states.logits[lesson.old_pieces].float().log_softmax(1)
        ids = torch.tensor(lesson.piece_ids, device=pieces.device, dtype=torch.long)
        chosen = pieces.gather(1, ids[:, None])[:, 0].cpu()
        piece_of = torch.tensor(lesson.piece_of, dtype=torch.long)
        words = torch.zeros(len(lesson.new_words)).index_add_(0, piece_of, chosen)
        taught = _Taught(states.hidden[lesson.old_after].cpu(), words)
        size = taught.hidden.numel() * taught.hidden.element_size()
        if size <= self.cache_left:
            self.cache_left -= size
            self.taught[at] = taught
        return taught

    def losses(self, at: int) -> dict[str, torch.Tensor]:
        """Return the terms of a lesson's loss."""
        lesson, taught, model = self.lessons[at], self.teach(at), self.model
        states = model.read(lesson.new_ids, lesson.new_places)
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
        return {"input": kl, "output": gap, "mass": -((-mass).log1p() * goes_on_old).mean()}

    def mean_losses(self, sample: int | None = None) -> dict[str, float]:
        """Return the mean of each term over all batches, or over about so many of them, of all lengths."""
        every = max(1, len(self.lessons) // sample) if sample else 1
        with torch.no_grad():
            found = [self.losses(at) for at in range(0, len(self.lessons), every)]
        return {name: float(torch.stack([one[name] for one in found]).mean()) for name in found[0]}

    def loss(self, at: int) -> torch.Tensor:
        """Return the weighted sum of the terms of a lesson's loss."""
        terms = self.losses(at)
        return terms["input"] + self.settings.output * terms["output"] + self.settings.mass * terms["mass"]


class Trainer:
    """Adam on the rows of a model, one lesson after the other in an order that the seed decides."""

    def __init__(
        self, model: WordModel, contexts: Sequence[Context], start: Start, *, settings: Settings, seed: int
    ) -> None:
        self.model, self.seed = model, seed
        self.teacher = Teacher(model, contexts, settings=settings)
        self.limits = list(start.limits)[: len(model.rows)]
        self.done = 0
        self.epochs = settings.epochs or _epochs(contexts, len(self.teacher.lessons))
        self.steps = len(self.teacher.lessons) * self.epochs
        groups = [
            {"params": [rows], "lr": settings.step * spread}
            for rows, spread in zip(model.rows, start.spread, strict=False)
        ]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, at: int) -> float:
        """Learn from one lesson; return its loss."""
        loss = self.teacher.loss(at)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for rows, limits in zip(self.model.rows, self.limits, strict=True):
            clamp_norms(rows, *limits)
        self.done += 1
        return float(loss.detach())

    def train(self, state_file: Path, run: str, before: dict[str, float]) -> None:
        """Take the steps that are left, with a bar, saving the state now and then."""
        bar = tqdm(total=self.steps, initial=self.done, desc="distilling", leave=False, disable=None)
        saved = time.monotonic()
        with bar:
            while self.done < self.steps:
                epoch, number = divmod(self.done, len(self.teacher.lessons))
                loss = self.step(self.teacher.order(self.seed, epoch)[number])
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if time.monotonic() - saved >= SAVE_EVERY:
                    self.save(state_file, run, before)
                    saved = time.monotonic()

    def save(self, path: Path, run: str, before: dict[str, float]) -> None:
        """Write the state, whole or not at all."""
        tensors: dict[str, torch.Tensor] = {}
        for at, rows in enumerate(self.model.rows):
            state = self.optimizer.state[rows]
            tensors |= {f"{at}.rows": rows.detach(), f"{at}.mean": state["exp_avg"]}
            tensors |= {f"{at}.square": state["exp_avg_sq"]}
        told = {"steps": self.done, "before": before}
        metadata = dict(zip(("format", "version"), STATE_FORMAT, strict=True))
        metadata |= {"run": run, "told": json.dumps(told)}
        part = path.with_name(path.name + ".part")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=metadata)
        part.replace(path)

    @torch.no_grad()
    def resume(self, tensors: dict[str, torch.Tensor], told: dict[str, Any]) -> None:
        """Take a state that save() wrote."""
        self.done = told["steps"]
        for at, rows in enumerate(self.model.rows):
            rows.copy_(tensors[f"{at}.rows"])
            self.optimizer.state[rows] = {
                "step": torch.tensor(float(self.done)),
                "exp_avg": tensors[f"{at}.mean"].to(rows.device),
                "exp_avg_sq": tensors[f"{at}.square"].to(rows.device),
            }


def _fingerprint(
    folder: Path, contexts: Sequence[Context], start: Start, *, settings: Settings, seed: int
) -> str:
    """Return the sha256 of all that decides the result; of the weights, their files' sizes and times."""
    digest = hashlib.sha256(json.dumps([seed, asdict(settings)]).encode())
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json")):
        stat = path.stat()
        digest.update(json.dumps([path.name, stat.st_size, stat.st_mtime_ns]).encode())
    for rows in (start.input, start.output, start.bias):
        digest.update(b"-" if rows is None else np.ascontiguousarray(rows).tobytes())
    for context in contexts:
        digest.update(json.dumps([context.word, context.old_ids, context.new_ids]).encode())
    return digest.hexdigest()


def _load_state(path: Path, run: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return the state that a file holds, None if there is no file; UserError if it is another call's."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}); remove it to start anew: rm {path}") from None
    if (metadata.get("format"), metadata.get("version")) != STATE_FORMAT or metadata.get("run") != run:
        raise UserError(
            f"{path} is the state of another run (model, words, contexts, seed or settings differ: "
            f"{str(metadata.get('run'))[:12]}, now {run[:12]}); remove it to start anew: rm {path}"
        )
    return tensors, json.loads(metadata["told"])

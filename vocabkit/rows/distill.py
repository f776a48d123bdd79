"""Rows of new words that make a model go on as if it had read the old tokens: Token Distillation.

The objective of arXiv 2505.20133, fitted to what is measured here. The model is frozen and is both teacher
(reading a snippet as the old tokens) and student (reading it with the new ones); gradients and optimizer
state exist for the new rows alone. Four terms, per batch of contexts:

    input    mean KL(teacher ∥ student) of the next old token, at places from the end of the word on: the
             row is read as the old tokens were. (MSE of hidden states, the paper's, ends a little higher.)
    output   Huber loss of log p(word) − Σ log p(its old tokens), where a word begins: the row is chosen as
             often as the old tokens were.
    mass     −log(1 − p(any new word)) where such a text goes on with an old token.
    other    the same in ordinary text of both languages, at every place where no new word stands
             (rows/elsewhere.py): without it the rows of tied models come to win everywhere, in English too.

After each step the norms are brought into the range of the old rows' norms. A row whose word is in no context
of a batch still learns from it where it should not be chosen.

Cost: the teacher reads each context once (its states and what it remembers are kept in memory, up to a bound,
and read again beyond it); the student goes on from what the teacher had read before the word and reads some
13 tokens forth and back in each epoch. For 25 contexts of 45 tokens and 3 epochs that is
25 × (45 + 3 × 2 × 13) = 3,075 tokens a word. Other text costs next to nothing after it was read once.

Reads a model's folder; writes its state in OUT.part now and then, from which the same call goes on with
the same numbers. Removing that is the caller's, once the rows are saved.
"""

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from vocabkit.checkpoint.numbers import RowStats
from vocabkit.errors import UserError, reading
from vocabkit.files import parse_json
from vocabkit.models.split_rows import clamp_norms_
from vocabkit.models.word_model import Rows, WordModel, copy_rows, load_word_model
from vocabkit.outputs import new_file
from vocabkit.rows.contexts import Context
from vocabkit.rows.elsewhere import OtherTexts
from vocabkit.rows.leak import Guarded, Places, guard, read_places
from vocabkit.rows.lessons import Settings, Teacher
from vocabkit.shapes import check_shape

STATE_FORMAT = ("vocabkit-distill", "1")
SAVE_EVERY = 60.0  # seconds

UPDATES = 60  # of a row that epochs are chosen for, where they are not given
EPOCHS = (3, 10)  # at least, at most
SAMPLE = 16  # batches whose losses are reported before and after


def distill(
    folder: Path,
    contexts: Sequence[Context],
    other: OtherTexts,
    start: Rows,
    *,
    stats: Sequence[RowStats],
    first_new: int,
    state_file: Path,
    seed: int = 0,
    settings: Settings | None = None,
    dtype: str | None = None,
) -> tuple[Rows, dict[str, Any], Guarded]:
    """Return rows after distilling, those of words without a context as they began, and what is to be told of
    how they came to be. Rows that take too much in other text go back towards start, as Guarded tells.

    stats: of the old rows of the input, and of the output. first_new: the id of the first new word; ids of
    contexts below it are rows of the folder's matrices. state_file: the state of an unfinished call with the
    same arguments is gone on with; UserError if it is another call's. On a CPU the same arguments give the
    same bits, interrupted or not, if torch has as many threads.
    """
    settings = settings or Settings()
    run = _fingerprint(folder, contexts, other, start, settings=settings, seed=seed)
    saved = _load_state(state_file, run)
    model = load_word_model(folder, start, first_new=first_new, dtype=dtype)
    places = [read_places(model, texts) for texts in other.train.values()]
    trainer = Trainer(model, contexts, places, stats=stats, settings=settings, seed=seed)
    before = trainer.teacher.mean_losses(SAMPLE) if saved is None else saved[1]["before"]
    if saved is not None:
        trainer.resume(*saved)
    trainer.train(save=lambda: trainer.save(state_file, run, before))
    facts: dict[str, Any] = {
        "steps": trainer.done,
        "settings": asdict(replace(settings, epochs=trainer.epochs)),
        "loss_before": before,
        "loss_after": trainer.teacher.mean_losses(SAMPLE),
    }
    seen = {token - first_new for context in contexts for token in context.new_ids if token >= first_new}
    unseen = sorted(set(range(len(start.input))) - seen)
    with torch.no_grad():
        for rows, began in zip(model.rows, (start.input, start.output), strict=False):
            assert began is not None
            rows[unseen] = torch.from_numpy(began[unseen]).to(rows.device)
    losses = f"{_total(before, settings):.4f} → {_total(facts['loss_after'], settings):.4f}"
    print(f"distilled {trainer.done:>13,} steps of {len(trainer.teacher.lessons):,} batches; loss {losses}")
    guarded = guard(
        model, start, other.test, norms=[(one.smallest, one.largest) for one in (stats[0], stats[-1])]
    )
    return copy_rows(model.model)._replace(bias=start.bias), facts, guarded


class Trainer:
    """Adam on the rows of a model, one lesson after the other in an order that the seed decides.

    stats: of the old rows of each end: their deviation is the unit of a step, their norms bound the new ones.
    steps: None: as many as settings.epochs make.
    """

    def __init__(
        self,
        model: WordModel,
        contexts: Sequence[Context],
        other: Sequence[Places],
        *,
        stats: Sequence[RowStats],
        settings: Settings,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self.model, self.seed, self.stats = model, seed, stats
        self.teacher = Teacher(model, contexts, other, settings=settings)
        self.done = 0
        self.epochs = settings.epochs or _epochs(contexts, len(self.teacher.lessons))
        self.steps = len(self.teacher.lessons) * self.epochs if steps is None else steps
        self.rates = [settings.step * float(np.sqrt(np.mean(one.std**2))) for one in stats]
        groups = [{"params": [rows], "lr": rate} for rows, rate in zip(model.rows, self.rates, strict=False)]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98))

    def step(self, at: int) -> float:
        """Learn from one lesson; return its loss."""
        loss = self.teacher.loss(at)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=False):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for rows, stats in zip(self.model.rows, self.stats, strict=False):
            clamp_norms_(rows, stats.smallest, stats.largest)
        self.done += 1
        return float(loss.detach())

    def train(self, *, save: Callable[[], None] = lambda: None) -> None:
        """Take the steps that are left, with a bar or lines of a log, saving the state now and then."""
        bar = tqdm(total=self.steps, initial=self.done, desc="distilling", leave=False, disable=None)
        saved = time.monotonic()
        with bar:
            while self.done < self.steps:
                epoch, number = divmod(self.done, len(self.teacher.lessons))
                loss = self.step(self.teacher.order(self.seed, epoch)[number])
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if time.monotonic() - saved >= SAVE_EVERY:
                    if bar.disable:  # no terminal: a line now and then, for a log
                        print(f"distilling {self.done:>12,} of {self.steps:,} steps; loss {loss:.4f}")
                    save()
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
        with new_file(path, replace=True) as part:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=metadata
            )

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


def _epochs(contexts: Sequence[Context], batches: int) -> int:
    """Return how often contexts are to be read: the more of a word there are, the less often."""
    per_word = len(contexts) / len({context.word for context in contexts})
    return max(EPOCHS[0], min(EPOCHS[1], math.ceil(UPDATES / min(per_word, batches))))


def _total(losses: dict[str, float], settings: Settings) -> float:
    return sum(getattr(settings, name, 1.0) * value for name, value in losses.items())


def _fingerprint(
    folder: Path,
    contexts: Sequence[Context],
    other: OtherTexts,
    start: Rows,
    *,
    settings: Settings,
    seed: int,
) -> str:
    """Return the sha256 of all that decides the result; of the weights, their files' sizes and times."""
    digest = hashlib.sha256(json.dumps([seed, asdict(settings)]).encode())
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json")):
        stat = path.stat()
        digest.update(json.dumps([path.name, stat.st_size, stat.st_mtime_ns]).encode())
    for rows in start:
        digest.update(b"-" if rows is None else np.ascontiguousarray(rows).tobytes())
    for context in contexts:
        digest.update(json.dumps([context.word, context.old_ids, context.new_ids]).encode())
    for text in itertools.chain.from_iterable(other.train.values()):
        digest.update(json.dumps([text.ids, text.places]).encode())
    return digest.hexdigest()


class _Told(TypedDict):
    steps: int
    before: dict[str, float]


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
    again = f"remove it to start anew: rm {path}"
    with reading(path, again=again):
        told = parse_json(metadata["told"])
        check_shape(told, _Told, path, again=again)
    return tensors, told

"""transformers' Trainer with what a change of vocabulary needs, and nothing of its loop rewritten.

Writes checkpoints that hold what is trained and no more, evaluates in bits per byte, can step the optimizer
inside the backward pass, keeps the norms of new rows, and stops at a loss that is no number or at Ctrl-C with
a checkpoint behind it.
"""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from vocabkit.checkpoint.shards import read_header
from vocabkit.errors import UserError
from vocabkit.models.split_rows import reshard
from vocabkit.train.parts import Parts

TRAINED_FILE = "trained.safetensors"


class StageTrainer(transformers.Trainer):
    """Trainer of one stage. eval_bytes: UTF-8 bytes of the held-out texts; tokens_seen: of this process."""

    def __init__(
        self,
        *,
        parts: Parts,
        in_backward: bool,
        eval_bytes: int,
        has_lessons: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.parts, self.in_backward, self.eval_bytes = parts, in_backward, eval_bytes
        self.model_accepts_loss_kwargs = True  # fuse_loss() divides by num_items_in_batch
        self.tokens_seen = 0
        self.interrupted = False
        self.has_lessons = has_lessons  # lessons.teach()
        self.before_first_step: Callable[[], object] = lambda: None
        self._part_of_step = 0
        self.add_callback(_EachStep(self))

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        """The loss of a batch; where there are lessons, forward() is told which is this one's."""
        if self.has_lessons and model.training:
            every, processes = self.args.gradient_accumulation_steps, self.args.world_size
            number = (self.state.global_step * every + self._part_of_step) * processes
            self._part_of_step = (self._part_of_step + 1) % every
            # The Trainer multiplies the loss by the processes, over which DDP and FSDP take the mean.
            shares = every * (processes if self.args.average_tokens_across_devices else 1)
            inputs = {**inputs, "lesson": (number + self.args.process_index, 1 / shares)}
        return super().compute_loss(model, inputs, *args, **options)

    def create_optimizer(self, *args: Any, **options: Any) -> Any:
        """Return the optimizer that --optim names, stepping in the backward pass if asked."""
        optimizer = super().create_optimizer(*args, **options)
        return step_in_backward(optimizer) if self.in_backward else optimizer

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """What --optim and --optim_args name, block_size as the number that torchao needs."""
        kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
        if "block_size" in options:
            options["block_size"] = int(options["block_size"])
        return kind, options

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Weight decay would pull new rows towards zero: they have none."""
        rows = {id(row) for row in self.parts.rows.values()}
        named = dict(model.named_parameters())
        return [name for name in super().get_decay_parameter_names(model) if id(named.get(name)) not in rows]

    def training_step(self, model: Any, inputs: Any, *args: Any, **options: Any) -> torch.Tensor:
        """One step; UserError where the loss is no number: the checkpoints before it are as they were."""
        self.tokens_seen += inputs["input_ids"].numel()
        loss = super().training_step(model, inputs, *args, **options)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {float(loss)} at step {self.state.global_step + 1}: lower --learning_rate "
                f"(now {self.args.learning_rate:g}), give it more --warmup_steps, or look at the data; the "
                f"checkpoints in {self.args.output_dir} are as they were"
            )
        return loss

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Held-out texts keep rows of their own where training flattens: sums are gathered row by row."""
        collator: Any = self.data_collator
        self.data_collator = collator.in_rows()
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return bits per byte and the mean loss per token of the held-out texts, and log them.

        Sums of nats, not means of batches: the Trainer's own eval_loss weighs short batches like long ones.
        """
        begun = time.perf_counter()
        sums = torch.zeros(2, dtype=torch.float64)
        model: Any = self.model
        was_training = model.training
        model.eval()
        for batch in self.get_eval_dataloader(eval_dataset):
            with torch.no_grad(), self.compute_loss_context_manager():
                rows = model(**self._prepare_inputs(batch), per_row=True).logits
            sums += self.accelerator.gather_for_metrics(rows).double().sum(0).cpu()
        model.train(was_training)
        reshard(model)
        metrics = {
            f"{metric_key_prefix}_bits_per_byte": float(sums[0]) / math.log(2) / self.eval_bytes,
            f"{metric_key_prefix}_loss": float(sums[0] / sums[1]),
            f"{metric_key_prefix}_runtime": time.perf_counter() - begun,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def gather_counts(self, peak: int) -> tuple[int, int]:
        """Return the tokens that all processes have seen, and the highest of their peaks."""
        counts = torch.tensor([[self.tokens_seen, peak]], device=self.args.device)
        counts = self.accelerator.gather(counts)
        return int(counts[:, 0].sum()), int(counts[:, 1].max())

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # trainer_state.json, which makes a checkpoint whole, is next

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.is_fsdp_enabled:  # the Trainer's own checkpoints of it hold the model beside this
            return
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach().cpu().contiguous() for name, p in self.parts.trained().items()}
        save_file(trained, Path(output_dir) / TRAINED_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / TRAINED_FILE
        read_header(path)  # a damaged file is said as such
        stored = load_file(path)
        trained = self.parts.trained()
        if stored.keys() != trained.keys():
            odd = sorted(stored.keys() ^ trained.keys())[0]
            raise UserError(f"{path} does not hold what this run trains ({odd}); start it anew")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(stored[name])


class AllStepsTaken(Exception):
    """The checkpoint that a run goes on from is its last; raised when it is loaded: the Trainer's loop looks
    at the number of steps after each one only, and would take one more.
    """


class _EachStep(transformers.TrainerCallback):
    """After each step: norms of new rows back into their range, and an end where Ctrl-C was pressed.

    All processes end after the same step, whichever was told first: the others would wait for it for hours.
    """

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.trainer.before_first_step()  # here the model is wrapped, and a checkpoint read
        if state.global_step >= state.max_steps:
            self.trainer.is_in_train = False
            raise AllStepsTaken
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.trainer.parts.clamp()
        if self.trainer.interrupted:
            self.trainer.accelerator.set_trigger()
        if self.trainer.accelerator.check_trigger():
            self.trainer.interrupted = True
            control.should_save = control.should_training_stop = True
        return control


def step_in_backward(optimizer: Any) -> Any:
    """Make an optimizer step each parameter as soon as its gradient is complete, and free that; return it.

    Every other gradient is None then, so that the whole optimizer's step moves this parameter alone.
    """
    step = optimizer.step

    def hook(parameter: torch.Tensor) -> None:
        step()
        parameter.grad = None

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.register_post_accumulate_grad_hook(hook)
    optimizer.step = lambda closure=None: None
    return optimizer


def last_checkpoint(part: Path) -> Path | None:
    """Return the newest complete checkpoint of a run: trainer_state.json, whole, is the last file of one."""

    def is_complete(checkpoint: Path) -> bool:
        try:
            return isinstance(json.loads((checkpoint / "trainer_state.json").read_bytes()), dict)
        except (OSError, ValueError):
            return False

    found = filter(is_complete, part.glob("checkpoint-*"))
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


@contextlib.contextmanager
def stop_on_interrupt(trainer: StageTrainer) -> Iterator[None]:
    """Let the first Ctrl-C end the run after the step it is in, with a checkpoint; the second ends it now."""

    def stop(number: int, frame: Any) -> None:
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.interrupted = True
        print("\nstopping after this step; Ctrl-C again stops now, without a checkpoint")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""Run a training stage: load, choose what moves, train with transformers' Trainer, write an ordinary folder.

Reads a checkpoint folder and data (train/data/tokenize.py, train/data/packing.py); writes OUT through
OUT.part, in which the Trainer keeps its checkpoints (what is trained and the optimizer, nothing that is
frozen) and run.json, by which the same command is known again after a kill, until OUT is there. The loop, the
schedule and the logs are the Trainer's.
"""

import contextlib
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from vocabkit.checkpoint.hub import local_folder
from vocabkit.checkpoint.quantized import quantization
from vocabkit.checkpoint.record import NewRows, new_rows
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.errors import UserError
from vocabkit.files import keep_private, read_json_object, read_versioned, sha256_file, write_json
from vocabkit.models.load import load_model, load_tokenizer, silence
from vocabkit.models.start import text_start
from vocabkit.models.word_model import Rows, WordModel, copy_rows
from vocabkit.outputs import MARK, NEW, Part, as_published, check_new, part_of, publication
from vocabkit.rows.elsewhere import find_other_texts
from vocabkit.rows.leak import guard
from vocabkit.train.data.packing import Collator, pack
from vocabkit.train.data.tokenize import document_ends, hold_out, load_dataset, print_sample, split_weight
from vocabkit.train.flags import check_attention, is_flash, keep_rows_apart, training_arguments
from vocabkit.train.lessons import StageLessons, old_and_new_encoder, teach
from vocabkit.train.loss import fuse_loss
from vocabkit.train.memory import check_fits, print_chunk, print_expectation
from vocabkit.train.options import StageOptions
from vocabkit.train.output import append_stage, check_frozen, give_values, write_trained
from vocabkit.train.parts import Parts, choose_parts
from vocabkit.train.processes import check_same, from_first, in_turn
from vocabkit.train.trainer import AllStepsTaken, StageTrainer, last_checkpoint, stop_on_interrupt

RUN_FILE, RUN_FORMAT = "run.json", ("vocabkit-run", 1)
NO_LOGS = ("checkpoint-*", "tokenized", NEW)  # folders in OUT.part; others hold what --report_to writes


def finetune(options: StageOptions, *, made_by: str) -> None:
    """Train one stage into options.output_dir; made_by: the command, for the record.

    Raises UserError for what the user can mend. OUT.part keeps the checkpoints of a run that did not end.
    """
    model_folder = local_folder(options.model_name_or_path)
    _check_source(model_folder)
    check_new(options.output_dir)
    part = part_of(options.output_dir)
    settings = training_arguments(options, part=part)
    keep_rows_apart(settings, model_folder)
    silence()
    transformers.set_seed(settings.seed)
    rows = new_rows(model_folder)
    if options.train_rows == "new" and rows is None:
        raise UserError(
            f"{model_folder} has no new rows to train: extend it first (model_edit.py -t extend_vocab), or "
            "give --train_rows all or none"
        )
    if options.attn_implementation is not None:
        device = settings.device.type
        check_attention(options.attn_implementation, device=device, dtype=options.dtype_on(device))
    expected = print_expectation(model_folder, options, settings)
    if not options.ignore_memory:
        check_fits(expected, options, settings)
    chunk = print_chunk(expected, settings.device)
    how: dict[str, Any] = {"rows": rows, "part": part, "chunk": chunk, "made_by": made_by}
    if settings.process_index != 0:
        _run(model_folder, options, settings, **how)
        return
    with _output(options.output_dir) as output:
        run = _run(model_folder, options, settings, **how, new=output.places[0])
    print_table(run)
    print(f"{options.output_dir}: written; try: python3 model_chat.py {options.output_dir}")


def _run(
    model_folder: Path,
    options: StageOptions,
    settings: transformers.TrainingArguments,
    *,
    rows: NewRows | None,
    part: Path,
    chunk: int,
    made_by: str,
    new: Path | None = None,
) -> dict[str, Any]:
    """Train with what part holds, write the trained folder to new in the first process, return its table."""
    tokenizer = load_tokenizer(model_folder)
    model = load_model(
        model_folder,
        dtype=options.dtype_on(settings.device.type),
        device="cpu" if settings.fsdp else str(settings.device),  # FSDP takes its part from there
        attention=options.attn_implementation,
    ).train()
    start = text_start(model, model_folder, named=document_ends(tokenizer)[0])
    train_set, eval_set, facts = _data(
        options, settings, tokenizer, start=start, cache=options.cache_dir or part / "tokenized"
    )
    check_same(facts["data"], of="data")
    resume = from_first(lambda: _open_run(part, model_folder, options, settings, facts))

    n_tokens = rows.stop if rows else token_count(tokenizer, model)
    parts = choose_parts(model, model_folder, options, new_rows=rows, n_tokens=n_tokens, seed=settings.seed)
    print(parts.describe())
    fuse_loss(model, n_tokens=n_tokens, chunk=chunk)
    if options.has_lessons:
        assert rows is not None
        lessons = StageLessons(
            model, model_folder, rows, [split_weight(path)[0] for path in options.data_path],
            start=start, seed=settings.seed, sharded=bool(settings.fsdp),
        )  # fmt: skip
        teach(model, lessons, texts_too=options.objective == "both")
    begin = copy_rows(model) if parts.rows_alone and not settings.fsdp else None
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    trainer = StageTrainer(
        model=model, args=settings, parts=parts, in_backward=options.optim_in_backward,
        has_lessons=options.has_lessons,
        train_dataset=train_set, eval_dataset=eval_set, eval_bytes=facts["eval_bytes"],
        data_collator=Collator(
            pad, options.cross_document, flatten=is_flash(options.attn_implementation or "")
        ),
    )  # fmt: skip
    run = _train(trainer, part, resume, guard=lambda: _guard(model_folder, parts, rows, begin, start=start))
    if new is None:
        if parts.sharded:
            _give(model_folder, parts, merge=not options.no_merge_lora)
        return run
    stage = {
        "made_by": made_by,
        "base_model": as_published(model_folder),
        "base_weights_sha256": facts["model"],
        "train_rows": options.train_rows,
        "finetune_layers": options.finetune_layers,
        "lora_rank": options.lora_rank,
        "objective": options.objective,
        "data": [as_published(path) for path in options.data_path],
        "trained_parameters": parts.count(),
        **run,
    }
    _write(model_folder, new, parts, stage, merge=not options.no_merge_lora, n_tokens=n_tokens)
    for path in part.iterdir():
        if path.is_dir() and not any(path.match(name) for name in NO_LOGS):
            shutil.copytree(path, new / path.name)
    return run


@contextlib.contextmanager
def _output(out: Path) -> Iterator[Part]:
    """Keep other runs out of OUT.part; remove it when the body fails before its first checkpoint.

    Then there is nothing to go on from.
    """
    with publication([out], resume=True) as part:
        try:
            yield part
        except BaseException:
            part.resume = part.was_left or last_checkpoint(part.folder) is not None
            raise


def _check_source(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = read_json_object(folder / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(
            f"{folder} is an adapter of {base}, no model; merge it first (peft: merge_and_unload) or train "
            "with --lora_rank here, which merges by itself"
        )
    if read_json_object(folder / "config.json").get("is_encoder_decoder"):
        raise UserError(f"{folder} is an encoder-decoder model; only causal ones can be trained here")
    if method := quantization(read_checkpoint(folder)):
        raise UserError(
            f"{folder} is quantized ({method}), and quantized weights cannot be trained; train the model in "
            "BF16 or F32 that it was made from, and quantize the result"
        )


def token_count(tokenizer: Any, model: Any) -> int:
    """Number of ids that tokens have: rows behind the highest are padding, and cannot be an answer."""
    return min(max(tokenizer.get_vocab().values()) + 1, model.get_input_embeddings().weight.shape[0])


def _data(
    options: StageOptions,
    settings: transformers.TrainingArguments,
    tokenizer: Any,
    *,
    start: int,
    cache: Path,
) -> tuple[Any, Any, dict[str, Any]]:
    """Return the packed training and evaluation sets, and facts: eval_bytes, and the SHA-256 of the data."""
    shared: dict[str, Any] = dict(
        max_length=options.model_max_length,
        start=start,
        cache_dir=cache,
        seed=settings.seed,
        text_field=options.text_field,
    )
    with in_turn():
        texts = load_dataset(options.data_path, tokenizer, stage_mix=options.shares(), **shared)
        held_out = None
        if options.eval_path:
            held_out = load_dataset(options.eval_path, tokenizer, **shared)
        elif options.eval_share and len(texts) > 1:
            texts, held_out = hold_out(texts, options.eval_share, seed=settings.seed)
        length = options.model_max_length
        packed = pack(texts, how=options.packing, max_length=length, seed=settings.seed)
        if settings.process_index == 0:
            print_sample(texts, tokenizer)
        # Held-out texts are never packed: what is reported does not depend on how training rows were made.
        alone = held_out and pack(held_out, how="none", max_length=length)
    digest = hashlib.sha256()
    for ids in texts.with_format("numpy")["input_ids"]:
        digest.update(ids.tobytes())
    facts = {
        "eval_bytes": sum(alone["num_bytes"]) if alone else 0,
        "data": digest.hexdigest(),
    }
    return packed, alone or None, facts


def _open_run(
    part: Path,
    model: Path,
    options: StageOptions,
    settings: transformers.TrainingArguments,
    facts: dict[str, Any],
) -> Path | None:
    """Begin a run in OUT.part, or find the last checkpoint in the one this run has left; UserError for
    another's.
    """
    files = read_checkpoint(model).files
    facts["model"] = hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()
    flags = {**options.recorded(), "processes": settings.world_size}
    ours = {"format": RUN_FORMAT[0], "version": RUN_FORMAT[1], "flags": flags}
    ours |= {"model_sha256": facts["model"], "data_sha256": facts["data"]}
    path = part / RUN_FILE
    if not path.is_file():
        if any(inside.name not in (MARK, NEW, "tokenized") for inside in part.iterdir()):
            raise UserError(
                f"{part} is not of a training run; choose another --output_dir, or remove it: rm -r {part}"
            )
        write_json(path, ours)
        return None
    last = last_checkpoint(part)
    if last is None:  # killed before there was anything to go on from
        write_json(path, ours)
        return None
    theirs = read_versioned(path, format=RUN_FORMAT[0], version=RUN_FORMAT[1])
    for key in ("model_sha256", "data_sha256", "flags"):
        if theirs.get(key) != ours[key]:
            raise UserError(
                f"{part} holds another run, its {key} differs; give its flags again to go on with it, choose "
                f"another --output_dir, or remove it: rm -r {part}"
            )
    return last


def _train(
    trainer: StageTrainer, part: Path, resume: Path | None, *, guard: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Train to the end; return what the final table shows. guard: called on the trained rows."""
    run = from_first(lambda: read_json_object(part / RUN_FILE))
    if resume:
        print(f"going on from {resume}")
    begun = time.perf_counter()

    def measure_before() -> None:
        nonlocal begun
        if "bits_per_byte_before" not in run and trainer.eval_dataset is not None:
            run["bits_per_byte_before"] = trainer.evaluate(metric_key_prefix="before")["before_bits_per_byte"]
            if trainer.args.process_index == 0:
                write_json(part / RUN_FILE, run)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # what loading and this evaluation took is not asked
        begun = time.perf_counter()

    trainer.before_first_step = measure_before
    with stop_on_interrupt(trainer), contextlib.suppress(AllStepsTaken):
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    seconds = time.perf_counter() - begun
    tokens, peak = trainer.gather_counts(_peak_memory())
    if trainer.interrupted:
        if trainer.args.process_index != 0:
            sys.exit(1)  # the launcher lets all of them end by themselves: the first one says why
        raise UserError(
            f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}; the same "
            f"command goes on from there"
        )
    guarded = guard()
    trainer.parts.round_to_stored()
    after = None
    if trainer.eval_dataset is not None:
        after = trainer.evaluate(metric_key_prefix="after")["after_bits_per_byte"]
    return {
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
        "peak_memory_bytes": peak,
        "bits_per_byte_before": run.get("bits_per_byte_before"),
        "bits_per_byte_after": after,
        **guarded,
    }


def _guard(
    folder: Path, parts: Parts, rows: NewRows | None, begin: Rows | None, *, start: int
) -> dict[str, Any]:
    """Lower new rows that take too much where they do not belong towards begin; return what was found.

    start: the id that texts begin with. begin: None for a stage in which more moves than new rows, or in
    which FSDP has cut them up.
    """
    if rows is None or begin is None:
        return {}
    contents, *encoders = old_and_new_encoder(folder, rows)
    reader = WordModel(parts.model, start=start, masked=True)
    texts = find_other_texts(folder, *encoders, first_new=rows.first).test
    guarded = guard(reader, begin, texts, norms=[*parts.ranges.values()])
    guarded.show(contents)
    for finding in guarded.broken:
        print(f"note: new tokens take too much where they do not belong: {finding}")
    return guarded.as_json()


def _peak_memory() -> int:
    """Most bytes of this process: of tensors on its GPU since the last reset, else all that it ever held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _write(
    source: Path, new: Path, parts: Parts, stage: dict[str, Any], *, merge: bool, n_tokens: int
) -> None:
    """Write the ordinary folder, check it against its source, and record the stage in it."""
    new.mkdir()
    changes = parts.changes(merge=merge)
    write_trained(source, new, changes)
    if not merge and parts.lora is not None:
        parts.write_adapter(new / "adapter", base=source)
    stage["rows"] = check_frozen(source, new, changes, n_tokens)
    append_stage(source, new, stage, name=as_published(new.name))
    keep_private(source, new)


def _give(source: Path, parts: Parts, *, merge: bool) -> None:
    """Give the process that is in _write() this one's part of all that is asked for there."""
    give_values(source, parts.changes(merge=merge))
    if not merge and parts.lora is not None:
        parts.write_adapter(None, base=source)


def print_table(run: dict[str, Any]) -> None:
    """Print what the run took and what it changed."""
    before, after = run["bits_per_byte_before"], run["bits_per_byte_after"]
    print()
    print(f"steps           {run['steps']:>10,}")
    print(f"time            {run['seconds']:>10,.1f} s")
    print(f"tokens/s        {run['tokens_per_second']:>10,.0f}")
    print(f"peak memory     {run['peak_memory_bytes'] / 2**30:>10.2f} GiB")
    if before is not None and after is not None:
        print(f"bits per byte   {before:>10.4f} → {after:.4f} ({(after / before - 1) * 100:+.1f} %)")

"""Trim a checkpoint's vocabulary: choose what stays, plan, write OUT.part, verify it, rename it to OUT.

Reads a Hugging Face folder and kept lists; writes a new folder with the same files, vocab_edit.json (where
every token came from), verify_report.json and a model card. The source is never changed.
"""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vocabkit import keep, text, verify
from vocabkit.card import write_card
from vocabkit.checkpoint import Checkpoint, copy_unchanged, write_with_rows
from vocabkit.errors import UserError
from vocabkit.files import (
    new_directory,
    progress_bar,
    read_json_object,
    read_texts,
    sha256_file,
    write_json,
)
from vocabkit.plan import Plan, make_plan
from vocabkit.report import print_checks, write_report
from vocabkit.tokenizer_files import read_spm_models, required_ids, write_files
from vocabkit.tokenizer_json import TokenizerJson, read_tokenizer_json
from vocabkit.torch_bin import BIN_INDEX, BinCheckpoint, open_weights, with_bytes
from vocabkit.vocab_tensors import VocabTensors, find_vocab_tensors

DATA = Path(__file__).resolve().parent.parent / "data"
SELF_TEST_TEXTS = DATA / "verify_texts.txt"


@dataclass(frozen=True)
class Source:
    """A checkpoint folder, read and checked, before anything is decided.

    checkpoint: a BinCheckpoint, without rows to read, where the folder has .bin files only.
    """

    folder: Path
    tokenizer: TokenizerJson
    spm_models: dict[str, Any]
    checkpoint: Checkpoint
    tensors: VocabTensors
    required: set[int]

    def with_checkpoint(self, checkpoint: Checkpoint) -> "Source":
        """Return the same with the same tensors in other files."""
        embed, head = (
            [checkpoint.tensors[tensor.name] for tensor in tensors]
            for tensors in (self.tensors.embed, self.tensors.head)
        )
        tensors = replace(self.tensors, embed=embed, head=head)
        return replace(self, checkpoint=checkpoint, tensors=tensors)


def open_source(folder: Path) -> Source:
    """Read all that trimming needs of a folder, but no weights; UserError for what does not fit together."""
    tokenizer = read_tokenizer_json(folder)
    config = read_json_object(folder / "config.json")
    checkpoint = open_weights(folder)
    tensors = find_vocab_tensors(checkpoint, config)
    highest = max(tokenizer.tokens)
    if highest >= tensors.rows:
        raise UserError(
            f"{tokenizer.path} has a token with id {highest:,}, the matrices of {folder} have "
            f"{tensors.rows:,} rows; the two belong to different models: download both again"
        )
    spm_models = read_spm_models(folder)
    required = required_ids(folder, tokenizer, spm_models)
    return Source(folder, tokenizer, spm_models, checkpoint, tensors, required)


def choose(tokenizer: TokenizerJson, keep_paths: Sequence[Path]) -> tuple[set[int], dict[str, Any]]:
    """Return the ids to keep and where they come from: given lists, the bundled list that fits, or the text
    rules.
    """
    fingerprint = keep.fingerprint(tokenizer.vocab, tokenizer.merges)
    paths, how = list(keep_paths), "given"
    if not paths:
        bundled = keep.find_bundled(fingerprint, DATA)
        paths, how = ([bundled], "bundled") if bundled else ([], "rules")
    if paths:
        kept = keep.read_keep(paths, token_bytes=tokenizer.token_bytes, expected_fingerprint=fingerprint)
        names = [f"data/{path.name}" if how == "bundled" else str(path) for path in paths]
        return set(kept.ids), {"how": how, "source": ", ".join(names), "sha256": kept.sha256}
    added = set(tokenizer.added.values())
    rows = ((token_id, data, token_id in added) for token_id, data in tokenizer.token_bytes.items())
    ids = {decision.id for decision in keep.choose_tokens(rows, None) if decision.keep}
    scripts = ", ".join(sorted(text.DEFAULT_SCRIPTS))
    source = f"the text rules alone (no list fits this tokenizer): scripts {scripts} and emoji"
    return ids, {"how": how, "source": source, "sha256": None}


def trim_vocab(
    model: Path,
    out: Path,
    *,
    keep_paths: Sequence[Path] = (),
    pad_multiple: int = 64,
    allow_all_bytes: bool = False,
    hardlink: bool = False,
    dry_run: bool = False,
    made_by: str = "vocabkit",
) -> bool:
    """Trim MODEL into OUT; return whether every check of what was written holds (OUT is written only then).

    Raises UserError for whatever the user can mend; OUT then does not exist, and the source is as it was.
    """
    with _without_gc():
        source = open_source(model)
        if dry_run:
            _decide(source, keep_paths, pad_multiple=pad_multiple, allow_all_bytes=allow_all_bytes)
            return True
        with new_directory(out) as part, with_bytes(source.checkpoint, part) as checkpoint:
            ready = source.with_checkpoint(checkpoint)
            # The kernel copies weights while Python decides, writes and checks everything else.
            with _Weights(ready, part, hardlink=hardlink) as weights:
                plan, origin = _decide(
                    ready, keep_paths, pad_multiple=pad_multiple, allow_all_bytes=allow_all_bytes
                )
                weights.write(plan)
                left_out = write_files(
                    source.folder,
                    part,
                    tokenizer=source.tokenizer,
                    plan=plan,
                    spm_models=source.spm_models,
                    rows=source.tensors.rows,
                )
                edit = _provenance(source, plan, origin, made_by=made_by)
                write_json(part / verify.EDIT_FILE, edit, indent=None)
                write_card(part, edit, name=out.name)
                edited = verify.open_edited(model, part, base_tokenizer=source.tokenizer)
                edited = replace(edited, opened_base=checkpoint)
                texts = read_texts([SELF_TEST_TEXTS])
                tokenizer_check = verify.check_tokenizer(edited, texts, name="the bundled texts")
            checks = [verify.check_files(edited), tokenizer_check, verify.check_rows(edited)]
            print_checks(checks)
            if any(check.findings for check in checks):
                raise UserError(
                    f"{out} was not written: the checks above found differences; please report them"
                )
            write_report(part, checks, base=model, model=out)
    if isinstance(source.checkpoint, BinCheckpoint):
        left_out = [n for n in left_out if n not in {BIN_INDEX, *(f.name for f in source.checkpoint.files)}]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print(f"{out}: written and verified; try: python3 model_chat.py {out}")
    return True


def _decide(
    source: Source, keep_paths: Sequence[Path], *, pad_multiple: int, allow_all_bytes: bool
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan and where its list comes from, and print both."""
    ids, origin = choose(source.tokenizer, keep_paths)
    plan = make_plan(
        source.tokenizer,
        ids,
        required_ids=source.required,
        spm_models=source.spm_models.values(),
        pad_multiple=pad_multiple,
        allow_all_bytes=allow_all_bytes,
    )
    with tqdm.external_write_mode():  # not into the line of a progress bar
        print_plan(source, plan, origin)
    return plan, origin


def _provenance(source: Source, plan: Plan, origin: dict[str, Any], *, made_by: str) -> dict[str, Any]:
    """What vocab_edit.json holds."""
    return {
        "format": verify.EDIT_FORMAT[0],
        "version": verify.EDIT_FORMAT[1],
        "task": "trimm_vocab",
        "base_model": str(source.folder),
        "base_tokenizer_sha256": sha256_file(source.tokenizer.path),
        "base_vocab_size": source.tensors.rows,
        "base_n_tokens": len(source.tokenizer.tokens),
        "n_tokens": plan.n_tokens,
        "vocab_size": plan.vocab_size,
        "pad_rows": plan.pad_rows,
        "new_to_old": plan.new_to_old,
        "keep": {
            **origin,
            "requested": plan.requested,
            "always_kept": plan.always_kept,
            "added_by_closure": plan.added_by_closure,
        },
        "suppressed": plan.suppressed,
        "made_by": made_by,
    }


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Keep the cycle collector off: a million small objects live until the end, and looking through them
    again and again took a quarter of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Weights:
    """The weights on their way into OUT.part, in threads, while the body of `with` runs.

    Files without vocabulary rows are copied from the start, the others after write(plan). At the end of the
    body all are complete. What either side raises, Ctrl-C included, ends both.
    """

    def __init__(self, source: Source, part: Path, *, hardlink: bool) -> None:
        self._source, self._part = source, part
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        total = sum(file.stat().st_size for file in source.checkpoint.files)
        self._bar = progress_bar(total, "weights")
        self._work = [self._submit(copy_unchanged, source.checkpoint, part, hardlink=hardlink)]

    def _submit(self, function: Callable[..., None], *args: Any, **options: Any) -> Future[None]:
        return self._pool.submit(
            function, *args, vocabulary=self._source.tensors.names, progress=self._progress, **options
        )

    def _progress(self, bytes_written: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._bar.update(bytes_written)

    def write(self, plan: Plan) -> None:
        """Write the files with vocabulary rows next."""
        self._work.append(
            self._submit(
                write_with_rows,
                self._source.checkpoint,
                self._part,
                plan.new_to_old,
                vocab_size=plan.vocab_size,
            )  # fmt: skip
        )

    def __enter__(self) -> "_Weights":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for work in self._work:
                    work.result()
        finally:
            self._stop.set()
            self._pool.shutdown()
            self._bar.close()


def print_plan(source: Source, plan: Plan, origin: dict[str, Any]) -> None:
    """Print what would be kept, and what it saves."""
    tokens = len(source.tokenizer.tokens)
    row_bytes = sum(tensor.row_bytes for tensor in (*source.tensors.embed, *source.tensors.head))
    before = source.checkpoint.size
    after = before - (source.tensors.rows - plan.vocab_size) * row_bytes
    tied = "tied" if source.tensors.tied else "untied"
    print(f"{source.folder}: {source.tokenizer.family}, {tied} embeddings")
    print(f"kept list: {origin['how']}: {origin['source']}")
    print(f"tokens    {tokens:>13,} → {plan.n_tokens:>13,}  ({plan.n_tokens / tokens:.1%} kept)")
    print(f"          {plan.requested:>13,} asked for")
    print(
        f"          {plan.always_kept:>13,} always kept: bytes, special and added tokens, ids that files name"
    )
    print(
        f"          {plan.added_by_closure:>13,} added by closure: the parts that the others are merged from"
    )
    print(f"rows      {source.tensors.rows:>13,} → {plan.vocab_size:>13,}")
    print(f"bytes     {before:>13,} → {after:>13,}  ({(before - after) / before:.1%} saved)")
    for reason, ids in plan.suppressed.items():
        print(f"not generated: {len(ids)} ids, {reason}")
    if plan.written_scripts:
        listed = ", ".join(f"{script} ({count})" for script, count in sorted(plan.written_scripts.items()))
        print(f"the list keeps tokens of {listed}: the model can still write these scripts")

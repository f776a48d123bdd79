"""What every edit of a vocabulary shares: open a folder, write OUT.part, verify it, rename it to OUT.

Reads a Hugging Face folder; writes a new folder with the same files, vocab_edit.json (where every token came
from), verify_report.json and a model card. The source is never changed. What is edited is decided by the
callers: edit/trim.py and edit/extend.py.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.checkpoint.folder import Source
from vocabkit.checkpoint.record import EDIT_FILE, EDIT_FORMAT
from vocabkit.checkpoint.shards import copy_unchanged, write_with_rows
from vocabkit.checkpoint.torch_bin import BIN_INDEX, BinCheckpoint, with_bytes
from vocabkit.corpus.lines import read_texts
from vocabkit.edit.card import write_card
from vocabkit.edit.files import write_files
from vocabkit.errors import UserError
from vocabkit.files import SELF_TEST_TEXTS, progress_bar, read_json_object, sha256_file, write_json
from vocabkit.outputs import new_directory
from vocabkit.verify.check import print_checks, write_report
from vocabkit.verify.edited import open_edited
from vocabkit.verify.files import check_files
from vocabkit.verify.rows import check_rows
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.vocab.plan import Plan


@dataclass(frozen=True)
class Decision:
    """What an edit makes of a source, decided before a vocabulary row is written.

    edit: what vocab_edit.json will hold. new_rows: tensor → (tokens added, bytes of a row) uint8, the rows
    after the old ones; none where nothing is added.
    """

    plan: Plan
    edit: dict[str, Any]
    new_rows: Mapping[str, np.ndarray] = field(default_factory=dict)


def provenance(
    source: Source, plan: Plan, *, task: str, made_by: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what vocab_edit.json holds; own: the fields of this task alone.

    previous: the vocab_edit.json of the source, if it is itself an edited folder.
    """
    previous = read_json_object(source.folder / EDIT_FILE, missing_ok=True)
    return {
        "format": EDIT_FORMAT[0],
        "version": EDIT_FORMAT[1],
        "task": task,
        "base_model": str(source.folder),
        "base_tokenizer_sha256": sha256_file(source.tokenizer.path),
        "base_vocab_size": source.tensors.rows,
        "base_n_tokens": len(source.tokenizer.tokens),
        "n_tokens": plan.n_tokens,
        "vocab_size": plan.vocab_size,
        "pad_rows": plan.pad_rows,
        "new_to_old": [*plan.new_to_old, *[None] * (plan.n_tokens - len(plan.new_to_old))],
        **own,
        "suppressed": plan.suppressed,
        "made_by": made_by,
        **({"previous": previous} if previous.get("format") == EDIT_FORMAT[0] else {}),
    }


def default_out(model: str, *, task: str) -> Path:
    """Return the folder beside MODEL that a task writes when -o is not given; an earlier trimming's name
    goes.

    A hub id has no folder of its own to stand beside: the result goes into the current one.

    >>> default_out("nobody/Qwen2.5-0.5B", task="trimm_vocab")
    PosixPath('Qwen2.5-0.5B__trimm_vocab')
    >>> default_out("nobody/Qwen2.5-0.5B__trimm_vocab", task="extend_vocab")
    PosixPath('Qwen2.5-0.5B__extend_vocab')
    """
    beside = Path(model) if Path(model).exists() else Path(Path(model).name)
    name = beside.resolve().name if beside.exists() else beside.name
    if task == "extend_vocab":
        name = name.removesuffix("__trimm_vocab")
    return beside.with_name(f"{name}__{task}")


def write_edit(
    source: Source, out: Path, decide: Callable[[Source], Decision], *, hardlink: bool = False
) -> None:
    """Write OUT as decide() says, check it, and only then give it its name.

    decide is called once, with the source and rows that can be read, while the kernel copies what no
    decision can change. Raises UserError for what the user can mend; OUT then does not exist.
    """
    with new_directory(out) as part, with_bytes(source.checkpoint, part) as checkpoint:
        ready = source.with_checkpoint(checkpoint)
        # The kernel copies weights while Python decides, writes and checks everything else.
        with _Weights(ready, part, hardlink=hardlink) as weights:
            decision = decide(ready)
            weights.write(decision)
            left_out = write_files(
                source.folder,
                part,
                tokenizer=source.tokenizer,
                plan=decision.plan,
                spm_models=source.spm_models,
                rows=source.tensors.rows,
            )
            write_json(part / EDIT_FILE, decision.edit, indent=None)
            write_card(part, decision.edit, name=out.name)
            edited = open_edited(source.folder, part, base_tokenizer=source.tokenizer)
            edited = replace(edited, opened_base=checkpoint)
            texts = read_texts([SELF_TEST_TEXTS])
            tokenizer_check = check_tokenizer(edited, texts, name="the bundled texts")
        checks = [check_files(edited), tokenizer_check, check_rows(edited)]
        print_checks(checks)
        if any(check.findings for check in checks):
            raise UserError(f"{out} was not written: the checks above found differences; please report them")
        write_report(part, checks, base=source.folder, model=out)
    if isinstance(source.checkpoint, BinCheckpoint):
        left_out = [n for n in left_out if n not in {BIN_INDEX, *(f.name for f in source.checkpoint.files)}]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print(f"{out}: written and verified; try: python3 model_chat.py {out}")


class _Weights:
    """The weights on their way into OUT.part, in threads, while the body of `with` runs.

    Files without vocabulary rows are copied from the start, the others after write(decision). At the end of
    the body all are complete. What either side raises, Ctrl-C included, ends both.
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

    def write(self, decision: Decision) -> None:
        """Write the files with vocabulary rows next."""
        self._work.append(
            self._submit(
                write_with_rows,
                self._source.checkpoint,
                self._part,
                decision.plan.new_to_old,
                vocab_size=decision.plan.vocab_size,
                new_rows=decision.new_rows,
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

"""What every edit of a vocabulary shares: write OUT.part, verify it, rename it to OUT.

Reads a Hugging Face folder; writes a new folder with the same files, vocab_edit.json (where every token came
from), verify_report.json and a model card. The source is never changed. What is edited is decided by the
callers: edit/trim.py and edit/extend.py.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.checkpoint.folder import Folder
from vocabkit.checkpoint.record import EditRecord
from vocabkit.checkpoint.shards import copy_unchanged, write_with_rows
from vocabkit.checkpoint.torch_bin import BIN_INDEX, BinCheckpoint
from vocabkit.corpus.lines import read_texts
from vocabkit.edit.card import write_card
from vocabkit.edit.files import write_files
from vocabkit.errors import UserError
from vocabkit.files import SELF_TEST_TEXTS, keep_private, progress_bar, sha256_file
from vocabkit.outputs import as_published, new_directory
from vocabkit.verify.check import Check, print_checks, write_report
from vocabkit.verify.edited import Edited, open_edited
from vocabkit.verify.files import check_files
from vocabkit.verify.rows import check_rows
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.vocab.plan import Plan, suppressed_ids


@contextlib.contextmanager
def writing(source: Folder, out: Path, *, hardlink: bool = False, resume: bool = False) -> Iterator["Edit"]:
    """Give an Edit, on which the body calls finish(); check then what was written, and name it OUT.

    While the body decides, the kernel copies what no decision can change. What either side raises, Ctrl-C
    included, ends both. Raises UserError for what the user can mend; OUT then does not exist.
    resume: see outputs.publication().

        with writing(source, out) as edit:
            plan = ...
            edit.finish(plan, record_of(source, plan, ...))
    """
    with new_directory(out, resume=resume) as part, source.readable(part) as ready:
        with _Weights(ready, part, hardlink=hardlink) as weights:
            edit = Edit(ready, part, weights, name=out.name)
            yield edit
        checks = edit.check()
        print_checks(checks)
        if any(check.findings for check in checks):
            raise UserError(
                f"{out} was not written: the checks above found differences from {source.path}; "
                "please report them"
            )
        write_report(part, checks, base=source.path, model=out)
        keep_private(source.path, part)
    left_out = edit.left_out
    if isinstance(source.checkpoint, BinCheckpoint):
        left_out = [n for n in left_out if n not in {BIN_INDEX, *(f.name for f in source.checkpoint.files)}]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print(f"{out}: written and verified; try: python3 model_chat.py {out}")


class Edit:
    """A new folder while it is written. source: what it is made from, its rows as safetensors.

    left_out: names of the source's files that have no place in it. folder: where it is until it has its name.
    """

    def __init__(self, source: Folder, part: Path, weights: "_Weights", *, name: str) -> None:
        self.source = source
        self.left_out: list[str] = []
        self.folder, self._weights, self._name = part, weights, name
        self._written: tuple[Edited, Check] | None = None

    def finish(
        self, plan: Plan, record: EditRecord, new_rows: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Write the rest as planned; the tokenizer is checked while the kernel writes weights.

        new_rows: tensor → (tokens added, bytes of a row) uint8, the rows after the old ones.
        """
        source = self.source
        self._weights.write(plan, new_rows or {})
        self.left_out = write_files(
            source.path,
            self.folder,
            tokenizer=source.tokenizer,
            plan=plan,
            spm_models=source.spm_models,
            rows=source.tensors.rows,
            derived=set(suppressed_ids(source.record.suppressed)) if source.record else (),
        )
        record.write(self.folder)
        write_card(self.folder, record, name=as_published(self._name))
        edited = open_edited(source.path, self.folder, base_tokenizer=source.tokenizer)
        edited = replace(edited, opened_base=source.checkpoint)
        texts = read_texts([SELF_TEST_TEXTS])
        self._written = edited, check_tokenizer(edited, texts, name="the bundled texts")

    def check(self) -> list[Check]:
        """Return checks 1 to 3 of what was written, the weights too."""
        if self._written is None:
            raise RuntimeError(f"{self.folder}: the body of writing() ended without finish()")
        edited, tokenizer_check = self._written
        return [check_files(edited), tokenizer_check, check_rows(edited)]


class _Weights:
    """The weights on their way into OUT.part, in threads, while the body of `with` runs.

    Files without vocabulary rows are copied from the start, the others after write(). At the end of
    the body all are complete. What either side raises, Ctrl-C included, ends both.
    """

    def __init__(self, source: Folder, part: Path, *, hardlink: bool) -> None:
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

    def write(self, plan: Plan, new_rows: Mapping[str, np.ndarray]) -> None:
        """Write the files with vocabulary rows next."""
        work = self._submit(
            write_with_rows,
            self._source.checkpoint,
            self._part,
            plan.new_to_old,
            vocab_size=plan.vocab_size,
            new_rows=new_rows,
        )
        self._work.append(work)

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


def record_of(source: Folder, plan: Plan, *, task: str, made_by: str, **own: Any) -> EditRecord:
    """Return the record of an edit; own: the fields of this task alone."""
    return EditRecord(
        task=task,
        base_model=as_published(source.path),
        base_tokenizer_sha256=sha256_file(source.tokenizer.path),
        base_vocab_size=source.tensors.rows,
        base_n_tokens=len(source.tokenizer.tokens),
        n_tokens=plan.n_tokens,
        vocab_size=plan.vocab_size,
        pad_rows=plan.pad_rows,
        new_to_old=[*plan.new_to_old, *[None] * (plan.n_tokens - len(plan.new_to_old))],
        suppressed=plan.suppressed,
        made_by=made_by,
        previous=source.record,
        **own,
    )

"""Count a whole corpus with all cores, and go on where a killed run stopped.

Reads the sources of corpus/files.py; writes a progress file every gigabyte or so. Threads read and
decompress, one a source (decompressors release the interpreter's lock); each worker process
(corpus/workers.py) parses blocks and counts what is in their texts with a counter of its own. From time to
time all workers hand over what they have counted, and the sum is saved with the position that every source
had reached: what was counted after it is counted again after a crash, nothing twice and nothing never.
"""

import contextlib
import json
import os
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from vocabkit.corpus.files import Source, identity, read_blocks
from vocabkit.corpus.records import Block
from vocabkit.corpus.workers import SHOWN, Counted, MakeCounter, Workers
from vocabkit.errors import UserError, one_line
from vocabkit.files import read_versioned, sha256_file, write_json
from vocabkit.outputs import new_file

PROGRESS_FORMAT = ("count-progress", 1)
SAVE_EVERY = 1 << 30  # bytes of text between two savings; before each, the workers wait for the slowest

ENOUGH = 10_000  # records before the share of bad ones means something


class _State(TypedDict):
    vector: list[int] | dict[str, int]
    positions: list[int | None]
    documents: int
    records: int
    characters: int
    bad: int
    bad_examples: list[str]
    notes: list[str]


class _Saved(TypedDict):
    run: dict[str, Any]
    progress: _State


@dataclass
class Progress:
    """What has been counted so far, and up to where. vector: (highest id + 1,) int64, or a Counter[str]; None
    before anything is.
    """

    vector: Any
    positions: list[int | None]  # of each source: where to start from, None when it is done
    documents: int = 0
    records: int = 0
    characters: int = 0
    bad: int = 0
    bad_examples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, taken: Any) -> None:
        """Add what a counter has taken."""
        if self.vector is None:
            self.vector = taken
        elif isinstance(taken, Counter):
            self.vector.update(taken)
        else:
            self.vector += taken

    def is_complete(self) -> bool:
        """Say whether every source is done."""
        return all(position is None for position in self.positions)


def processes(workers: int | None) -> int:
    """Return how many worker processes are meant: None is one for each core."""
    return max(1, workers or os.cpu_count() or 1)


def count(
    sources: Sequence[Source],
    make_counter: MakeCounter,
    *,
    model: Path,
    what: Mapping[str, Any],
    progress_file: Path,
    training_only: bool | None = None,
    text_field: str | None = None,
    workers: int | None = None,
    max_bad: float = 0.001,
    save_every: int = SAVE_EVERY,
) -> Progress:
    """Count a corpus with a counter that each worker makes; add up what they take.

    progress_file: written while counting, read if it exists and continues this very run (of the tokenizer of
    this model, these sources, and of what is counted), left in place at the end (the caller removes it once
    the result is saved). training_only: without the lines that are held out; None: nobody asks.
    save_every: bytes of text. Raises UserError for unreadable sources, for a progress file of another run,
    and once more than max_bad of the records are bad.
    """
    run = {**describe_run(model, sources, text_field), **what}
    if training_only is not None:
        run["training_only"] = training_only
    earlier = load_progress(progress_file, run)
    if earlier:
        print(f"going on from {progress_file}: {earlier.documents:,} documents counted", file=sys.stderr)
        if earlier.is_complete():
            return earlier
    progress = earlier or Progress(None, [0] * len(sources))
    known = [source.size for source in sources]
    bar = tqdm(
        total=sum(size or 0 for size in known) if all(known) else None, unit="B", unit_scale=True,
        desc="counting", file=sys.stderr, disable=None, smoothing=0.1,
    )  # fmt: skip

    def note(text: str) -> None:
        progress.notes.append(text)
        bar.write(one_line(f"note: {text}"), file=sys.stderr)

    def take(counted: Counted) -> None:
        progress.documents += counted.documents
        progress.records += counted.records
        progress.characters += counted.characters
        progress.bad += counted.bad_count
        for example in counted.bad[: SHOWN - len(progress.bad_examples)]:
            progress.bad_examples.append(example)
            bar.write(one_line(f"bad record: {example}"), file=sys.stderr)
        check_bad(progress, max_bad=max_bad, enough=ENOUGH)

    def settle() -> None:
        """Wait until every block that was handed out is counted, and collect the counts."""
        for counted in pool.finish():
            take(counted)
        for taken in pool.take():
            progress.add(taken)

    workers = processes(workers)
    with (
        Workers(workers, make_counter, text_field=text_field, training_only=bool(training_only)) as pool,
        bar,
    ):
        bar.update(sum(s.size or 0 for s, at in zip(sources, progress.positions, strict=True) if at is None))
        since = 0
        read = [0] * len(sources)
        for at, block in _blocks(sources, progress, text_field=text_field, readers=workers, note=note):
            for counted in pool.make_room():
                take(counted)
            if block is None:
                progress.positions[at] = None
                bar.update((sources[at].size or 0) - read[at])
                continue
            pool.submit(block)
            progress.positions[at] = block.end
            bar.update(block.bytes_read - read[at] if sources[at].size else _size(block))
            read[at] = block.bytes_read
            since += _size(block)
            if since >= save_every:
                settle()
                save_progress(progress_file, run, progress)
                since = 0
        settle()
        check_bad(progress, max_bad=max_bad)
        save_progress(progress_file, run, progress)
    return progress


def describe_run(model: Path, sources: Sequence[Source], text_field: str | None) -> dict[str, Any]:
    """Return what must be the same for counts to be added up: the tokenizer, the field, the sources."""
    return {
        "tokenizer_sha256": sha256_file(model / "tokenizer.json"),
        "text_field": text_field,
        "sources": [identity(source) for source in sources],
    }


def _size(block: Block) -> int:
    """Bytes of a block, roughly for rows."""
    return len(block.data) if isinstance(block.data, bytes) else sum(len(str(row)) for row in block.data)


def check_bad(progress: Progress, *, max_bad: float, enough: int = 1) -> None:
    """Raise UserError if more than max_bad of the records are bad; below enough records none is judged."""
    if progress.records >= enough and progress.bad > max_bad * progress.records:
        raise UserError(
            f"{progress.bad_examples[0]}; {progress.bad:,} of {progress.records:,} records are bad "
            f"({progress.bad / progress.records:.2%}), more than --max_bad {max_bad:.2%}: "
            "mend them, or run again with a larger --max_bad"
        )


def _blocks(
    sources: Sequence[Source],
    progress: Progress,
    *,
    text_field: str | None,
    readers: int,
    note: Callable[[str], None],
) -> Iterator[tuple[int, Block | None]]:
    """Yield (index of the source, block), and (index, None) at its end, from several sources at a time.

    Blocks of one source come in order. What a reader raises is raised here.
    """
    ready: queue.Queue[tuple[int, Block | None | BaseException]] = queue.Queue(maxsize=2 * readers)
    stop = threading.Event()
    waiting = iter([(at, position) for at, position in enumerate(progress.positions) if position is not None])
    remaining = sum(position is not None for position in progress.positions)
    lock = threading.Lock()

    def put(item: tuple[int, Block | None | BaseException]) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def read() -> None:
        while True:
            with lock:
                at, position = next(waiting, (-1, 0))
            if at < 0:
                return
            try:
                for block in read_blocks(sources[at], start=position, text_field=text_field, notes=note):
                    if not put((at, block)):
                        return
                if not put((at, None)):
                    return
            except BaseException as error:  # handed over, raised by the consumer
                put((at, error))
                return

    threads = [threading.Thread(target=read, daemon=True) for _ in range(min(readers, remaining))]
    for thread in threads:
        thread.start()
    try:
        while remaining:
            at, item = ready.get()
            if isinstance(item, BaseException):
                raise item
            remaining -= item is None
            yield at, item
    finally:
        stop.set()


def save_progress(path: Path, run: Mapping[str, Any], progress: Progress) -> None:
    """Write the progress file, whole or not at all."""
    name, version = PROGRESS_FORMAT
    counts = progress.vector if isinstance(progress.vector, Counter) else progress.vector.tolist()
    state = vars(progress) | {"vector": counts}
    with new_file(path, replace=True) as part:
        write_json(part, {"format": name, "version": version, "run": run, "progress": state}, indent=None)


def load_progress(path: Path, run: Mapping[str, Any]) -> Progress | None:
    """Return the progress of an earlier run of the same command, None if there was none."""
    if not path.exists():
        return None
    saved = read_versioned(path, format=PROGRESS_FORMAT[0], version=PROGRESS_FORMAT[1], shape=_Saved)
    if saved["run"] != run:
        before, now = saved["run"], run
        key = next(key for key in now if before.get(key) != now[key])
        raise UserError(
            f"{path} is the progress of another run ({key} differs: {_short(before.get(key))}, now "
            f"{_short(now[key])}); remove it to start anew: rm {path}"
        )
    state = saved["progress"]
    counts = state["vector"]
    vector = Counter(counts) if isinstance(counts, dict) else np.array(counts, np.int64)
    return Progress(**(state | {"vector": vector}))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else text[:77] + "…"

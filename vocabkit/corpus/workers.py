"""Processes that parse the blocks of a corpus and count what is in their texts, each with its own counter.

Reads and writes nothing: corpus/counting.py hands them blocks and asks for what they have counted.
"""

import contextlib
import ctypes
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

from vocabkit.corpus.lines import training_lines
from vocabkit.corpus.records import Block, parse_block
from vocabkit.errors import UserError

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 8 << 20  # mallopt(3); bytes, more than a block of records takes
QUEUED = 2  # blocks waiting for each worker: one being parsed, one ready
SHOWN = 5  # bad records that are spelled out


class CorpusCounter(ABC):
    """What counts in a worker: add() texts; take() what was counted and begin anew."""

    @abstractmethod
    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""

    @abstractmethod
    def take(self) -> Any:
        """Return what was counted so far; the counter starts from zero again."""


MakeCounter = Callable[[], CorpusCounter]


@dataclass(frozen=True)
class Counted:
    """What a worker says of one block."""

    documents: int
    records: int
    characters: int
    bad: list[str]
    bad_count: int


class Workers:
    """The processes, each behind an executor of its own, so that each can be asked for its counts."""

    def __init__(
        self, count: int, make_counter: MakeCounter, *, text_field: str | None, training_only: bool = False
    ) -> None:
        _return_large_blocks()
        # Not forked: reading threads may hold locks at that moment.
        self._pools = [
            ProcessPoolExecutor(
                1,
                mp_context=get_context("spawn"),
                initializer=_start_worker,
                initargs=(text_field, training_only),
            )
            for _ in range(count)
        ]
        self._waiting: dict[Future[Counted], int] = {}
        self._load = [0] * count
        # Here and not in the initializer, which could not say what is wrong.
        for future in [pool.submit(_make_counter, make_counter) for pool in self._pools]:
            _result(future)

    def submit(self, block: Block) -> None:
        """Give a block to the worker that has least to do."""
        at = self._load.index(min(self._load))
        self._waiting[self._pools[at].submit(_count_block, block)] = at
        self._load[at] += 1

    def make_room(self) -> list[Counted]:
        """Wait until a worker can take another block; return what has been counted meanwhile."""
        results = self._collect()
        while min(self._load) >= QUEUED:
            wait(self._waiting, return_when=FIRST_COMPLETED)
            results += self._collect()
        return results

    def _collect(self) -> list[Counted]:
        results = []
        for future in [future for future in self._waiting if future.done()]:
            self._load[self._waiting.pop(future)] -= 1
            results.append(_result(future))
        return results

    def finish(self) -> list[Counted]:
        """Wait for all blocks handed out; return what was counted."""
        wait(self._waiting)
        return self._collect()

    def take(self) -> Iterator[Any]:
        """Yield what each worker's counter has counted; it starts from zero again."""
        for future in [pool.submit(_hand_over) for pool in self._pools]:
            yield _result(future)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise UserError(
            "a counting process was ended from outside, perhaps for want of memory; run the same command "
            "again, with fewer --workers: it goes on from the last saved position"
        ) from None


_counter: CorpusCounter  # of this worker process

_field: str | None

_training_only: bool


def _start_worker(text_field: str | None, training_only: bool) -> None:
    global _field, _training_only
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _return_large_blocks()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core already
    _field, _training_only = text_field, training_only


def _end_with_parent() -> None:
    """End this process when its parent has ended, however that was: killed, it tells nobody."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _return_large_blocks() -> None:
    """Have glibc give back at once what a long line took; it keeps freed blocks of up to 32 MiB otherwise."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def _make_counter(make_counter: MakeCounter) -> None:
    global _counter
    _counter = make_counter()


def _count_block(block: Block) -> Counted:
    texts, records, bad = parse_block(block, text_field=_field)
    _counter.add([training_lines(text) for text in texts] if _training_only else texts)
    return Counted(len(texts), records, sum(map(len, texts)), bad[:SHOWN], len(bad))


def _hand_over() -> Any:
    return _counter.take()

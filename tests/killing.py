"""Runs that end at a named call of the file system, as a kill would end them, and what the next run does.

A run is a fork of this process, which knows all modules already. Linux alone: /proc says what a handle is of.
"""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vocabkit.errors import UserError, one_line

KILLED, PATIENCE = 9, 300  # exit status; seconds until a run that hangs is ended

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
CALLS = ("open", "mkdir", "ftruncate", "replace", "rename", "link", "unlink", "rmdir")
if THOROUGH:
    CALLS += ("fsync", "chmod")  # between two of them no name changes

Run = Callable[[Path], object]  # writes into a folder


class Ended(NamedTuple):
    """How a run ended: right before a call, with an error of one line, or well (both empty)."""

    call: str
    said: str


def in_a_fork(run: Run, place: Path, *, kill_at: int | None = None, calls: Sequence[str] = CALLS) -> Ended:
    """Run in a fork, which ends right before number kill_at of its calls that change something in place.

    The same call in the same folder counts once, but for the renaming, unless the tests are to be thorough.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with open(reader, "rb") as pipe:
            told = pipe.read().decode()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 1, KILLED), f"{told}: exit status {status}"
        return Ended(told if status == KILLED else "", told if status == 1 else "")
    try:
        for handle in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
        # Threads of libraries do not live on in a fork: who waits for them waits for ever.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        sys.modules["llama_cpp"] = None  # type: ignore[assignment]  # as if it were not installed
        torch.set_num_threads(1)
        signal.alarm(PATIENCE)
        if kill_at is not None:
            _end_at(kill_at, place, writer, calls)
        run(place)
    except UserError as error:
        os.write(writer, one_line(error).encode())
        os._exit(1)
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(2)
    os._exit(0)


def _end_at(number: int, place: Path, pipe: int, calls: Sequence[str]) -> None:
    left, seen, write = [number], set[object](), os.write

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            path = _path(args[0], options.get("dir_fd"))
            if path.is_relative_to(place) and (name != "open" or args[1] & os.O_CREAT):
                label = f"{name} {path.relative_to(place)}"
                kind = label if THOROUGH or name == "replace" else (name, path.parent)
                if THOROUGH or kind not in seen:
                    seen.add(kind)
                    if not left[0]:
                        write(pipe, label.encode())
                        os._exit(KILLED)
                    left[0] -= 1
            return real(*args, **options)

        return call

    for name in calls:
        setattr(os, name, watched(name, getattr(os, name)))


def _path(place: Any, folder: int | None) -> Path:
    if isinstance(place, int):
        return Path(os.readlink(f"/proc/self/fd/{place}"))
    return Path(os.readlink(f"/proc/self/fd/{folder}") if folder is not None else os.getcwd(), place)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_all_kills(
    run: Run, tmp_path: Path, *, found: Callable[[Path], Any] = files_of, calls: Sequence[str] = CALLS
) -> list[str]:
    """End a run before each of its calls in turn; the same run again must leave what an undisturbed one does,
    and nothing else. Return the calls.
    """
    (whole := tmp_path / "whole").mkdir()
    assert in_a_fork(run, whole) == ("", "")
    wanted, seen = found(whole), list[str]()
    for number in itertools.count():
        (place := tmp_path / str(number)).mkdir()
        ended = in_a_fork(run, place, kill_at=number, calls=calls)
        if not ended.call:
            assert found(place) == wanted
            return seen
        seen.append(ended.call)
        said = in_a_fork(run, place).said
        assert not said or " already exists" in said, (ended.call, said)  # OUT had its name already
        assert found(place) == wanted, (ended.call, said)
        assert sorted(place.iterdir()) == sorted(place / path.name for path in whole.iterdir()), ended.call
        shutil.rmtree(place)
    raise AssertionError

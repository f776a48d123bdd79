"""Outputs appear whole or not at all: OUT.part is written, checked, and only then renamed to OUT.

Writes folders and files, one run at a time in each (a lock on OUT.part says who).
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from vocabkit.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: copies are plain, and two runs on one OUT are not kept apart
    fcntl = None  # type: ignore[assignment]


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Give the folder OUT.part to write into; at the end make it durable and rename it to OUT.

    OUT therefore never exists half-written. On any exception, Ctrl-C included, OUT.part is removed; after a
    SIGKILL the next call removes it and says so. Raises UserError if OUT exists, its parent does not, or
    another process is writing OUT.part now.
    """
    check_new(out)
    part = out.with_name(out.name + ".part")
    with _turn_in(out.parent):
        if part.exists():
            lock = _lock_directory(part)
            print(f"removing {part}, left by a run that was interrupted", file=sys.stderr)
            shutil.rmtree(part)
            os.close(lock)
        try:
            part.mkdir()
        except FileExistsError:
            raise _busy(part) from None
        lock = _lock_directory(part)
    try:
        check_new(out)  # another run may have finished since the first look
        yield part
        for path in part.rglob("*"):
            fsync_path(path)
        fsync_path(part)
        part.rename(out)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if (
            isinstance(error, OSError) and error.filename is None
        ):  # a full disk is met by writes to open files
            error.filename = str(part)
        raise
    finally:
        os.close(lock)
    fsync_path(out.parent)


@contextlib.contextmanager
def resumable_directory(part: Path) -> Iterator[None]:
    """Make a folder to write into, or take the one that an earlier run left; lock it while the body runs.

    Raises UserError if another process has it. Nothing is removed or renamed: that is the caller's.
    """
    with _turn_in(part.parent):
        part.mkdir(exist_ok=True)
        lock = _lock_directory(part)
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def new_file(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give the path OUT.part to write to; at the end make it durable and rename it to OUT.

    As new_directory() for a file: OUT never exists half-written, what a killed run left is overwritten.
    replace: an OUT that is there already is one of ours, and gives way.
    """
    if not replace:
        check_new(out)
    part = out.with_name(out.name + ".part")
    with part.open("ab") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(part) from None
        try:
            lock.truncate(0)
            yield part
            fsync_path(part)
            if not replace:
                check_new(out)
            part.replace(out)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    fsync_path(out.parent)


def check_new(out: Path) -> None:
    """Raise UserError if OUT exists, or if there is no folder to make it in."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} already exists; choose another folder with -o, or remove it: rm -r {out}")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder; make it first: mkdir -p {out.parent}")


def _busy(path: Path) -> UserError:
    return UserError(f"{path} is being written by another run; wait for it, or choose another folder")


@contextlib.contextmanager
def _turn_in(folder: Path) -> Iterator[None]:
    """Let one run at a time make a folder in this one: what is not locked yet looks like left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock_directory(path: Path) -> int:
    """Open and lock a folder, so that two runs never write the same one; UserError if another does.

    The kernel drops the lock with its process: a killed run leaves none behind.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise _busy(path) from None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(path)):  # removed and made anew since it was opened
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        raise _busy(path) from None
    return handle

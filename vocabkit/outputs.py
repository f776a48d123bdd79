"""Outputs appear whole or not at all: they are written in OUT.part, checked, and only then named OUT.

OUT.part is a folder. A file in it says that it is ours, and the lock on that file which run has it. What will
be OUT lies in OUT.part/new under its own name; so does what is published with it, the Modelfile of a GGUF or
the other parts of a split one. What a run can go on from after a kill lies in OUT.part until OUT is there. A
kill may come at any moment: the same command then goes on or begins again.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vocabkit.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: copies are plain, and two runs on one OUT are not kept apart
    fcntl = None  # type: ignore[assignment]

MARK, NEW = ".vocabkit", "new"
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    if fcntl is None and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_directory(out: Path, *, resume: bool = False) -> Iterator[Path]:
    """Give a folder to write into; at the end make it durable and rename it to OUT. As publication()."""
    with publication([out], resume=resume) as part:
        part.places[0].mkdir()
        yield part.places[0]


@contextlib.contextmanager
def new_file(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a path to write to; at the end make the file durable and rename it to OUT. As publication()."""
    with publication([out], replace=replace) as part:
        yield part.places[0]


@contextlib.contextmanager
def publication(outs: Sequence[Path], *, replace: bool = False, resume: bool = False) -> Iterator["Part"]:
    """Give the folder OUT.part with a place for each of outs; at the end all get their names, OUT last.

    outs: OUT, and what appears with it in the same folder. None of them ever exists half-written. On any
    exception, Ctrl-C included, OUT.part is removed; after a SIGKILL the next call removes it and says so.
    replace: an OUT that is there already is one of ours, and gives way. resume: what else the body puts into
    OUT.part stays there until OUT exists, whatever happens.

    Raises UserError if OUT exists, its parent does not, another process is writing it now, or something else
    has the name OUT.part.
    """
    if not replace:
        check_new(outs[0])
    with Part(outs, resume=resume) as part:
        part.begin()
        try:
            if not replace:
                for out in outs:  # another run may have finished since the first look
                    check_new(out)
            yield part
            part.publish(replace=replace)
        except BaseException as error:
            part.give_up()
            full = os.strerror(errno.ENOSPC)
            if isinstance(error, OSError) and error.filename is None:  # writes to open files name none
                error.filename = str(part.folder)
            elif not isinstance(error, OSError | UserError) and full in str(error):  # of a library
                raise OSError(errno.ENOSPC, full, str(part.folder)) from error
            raise


class Part:
    """OUT.part, which no other run touches until the end of `with`. places: where to write each of outs.
    resume: whether what else is in it stays when the run ends without OUT.

    Names are given one after another. So that those of a killed run can be taken back, the file MARK says
    before the first which inodes will get them.
    """

    def __init__(self, outs: Sequence[Path], *, resume: bool = False) -> None:
        self.outs, self.resume = outs, resume
        self.folder = part_of(outs[0])
        self.places = [self.folder / NEW / out.name for out in outs]
        with _turn_in(self.folder.parent):
            try:
                self.folder.mkdir(mode=0o700)  # rights are narrowed before the renaming, not from the start
                self.was_left = False
            except FileExistsError:
                self.was_left = True
            self._lock: int | None = _lock(self.folder)

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def begin(self) -> None:
        """Remove what an earlier run left and this one cannot use."""
        if self.was_left and not self.resume:
            if other := [path.name for path in self.folder.iterdir() if path.name not in (MARK, NEW)]:
                raise UserError(
                    f"{self.folder} holds {other[0]}, from which another command can go on; finish that one, "
                    f"choose another name with -o, or remove it: rm -r {self.folder}"
                )
            print(f"removing {self.folder}, left by a run that was interrupted", file=sys.stderr)
        self._take_back()
        (self.folder / NEW).mkdir()

    def drop(self) -> None:
        """Let the run end without an OUT, and without anything to go on from."""
        self.outs = self.places = []

    def publish(self, *, replace: bool) -> None:
        """Make what was written durable, give it its names, and remove the folder."""
        new = self.folder / NEW
        for path in [*new.rglob("*"), new]:
            fsync_path(path)
        with _turn_in(self.folder.parent):
            if not replace:
                for out in self.outs:
                    check_new(out)
            pairs = [*zip(self.places, self.outs, strict=True)][::-1]
            self._note({out.name: os.lstat(place).st_ino for place, out in pairs})
            for place, out in pairs:
                os.replace(place, out)
            fsync_path(self.folder.parent)
            self._remove()

    def give_up(self) -> None:
        """Remove what was written; with resume, what a run can go on from stays."""
        with _turn_in(self.folder.parent):
            if self._lock is None:  # published
                return
            with contextlib.suppress(OSError):
                self._take_back()
                if not (self.resume and any(path.name != MARK for path in self.folder.iterdir())):
                    self._remove()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_back(self) -> None:
        """Remove OUT.part/new, and names that were given without OUT's."""
        given = _noted(self.folder)
        if _inode(self.outs[0]) != given.get(self.outs[0].name, -1):
            for name, inode in given.items():
                if _inode(path := self.folder.parent / name) == inode:
                    path.unlink()
        if given:
            self._note({})
        if (self.folder / NEW).exists():
            shutil.rmtree(self.folder / NEW)

    def _note(self, names: dict[str, int]) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.lseek(self._lock, 0, os.SEEK_SET)
        os.write(self._lock, json.dumps(names).encode() if names else b"")
        os.fsync(self._lock)

    def _remove(self) -> None:
        for path in self.folder.iterdir():
            if path.name != MARK:  # the last: without it the rest would be somebody else's
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self._release()  # NFS and Windows keep the name of an open file
        (self.folder / MARK).unlink()
        self.folder.rmdir()


def part_of(out: Path) -> Path:
    """Return OUT.part."""
    return out.with_name(out.name + ".part")


def as_published(path: str | Path) -> str:
    """Return a path as a file may name it that goes to others: without the folders of this machine.

    Of the hub's cache that is the hub id. What is not UTF-8 in a name is written as bytes are.

    >>> as_published("/data/an/base"), as_published("../base"), as_published("caf\\udce9")
    ('base', '../base', 'caf\\\\xe9')
    """
    cached = re.search(r"models--([^/]+)/snapshots/\w+$", Path(path).as_posix())
    name = (
        cached[1].replace("--", "/", 1) if cached else Path(path).name if Path(path).is_absolute() else path
    )
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def command_line(script: str, argv: Sequence[str]) -> str:
    """Return a command as the record of an edit names it; paths in it as as_published() has them."""
    parts = (arg.rpartition("=") for arg in argv)
    return " ".join([script, *(head + equals + as_published(tail) for head, equals, tail in parts)])


def check_new(out: Path) -> None:
    """Raise UserError if OUT exists, or if there is no folder to make it in."""
    if out.exists() or out.is_symlink():
        if _noted(part_of(out)).get(out.name, -1) == _inode(out):  # killed right after the renaming
            with contextlib.suppress(UserError), Part([out]) as part:
                part.give_up()
        with contextlib.suppress(OSError):
            part_of(out).rmdir()  # an empty one
        raise UserError(f"{out} already exists; choose another folder with -o, or remove it: rm -r {out}")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder; make it first: mkdir -p {out.parent}")


def _busy(path: Path) -> UserError:
    return UserError(f"{path} is being written by another run; wait for it, or choose another folder")


def _inode(path: Path) -> int | None:
    return os.lstat(path).st_ino if os.path.lexists(path) else None


def _noted(folder: Path) -> dict[str, int]:
    """Return the names that were about to be given, with their inodes; {} where there were none."""
    try:
        handle = os.open(folder / MARK, os.O_RDONLY | NO_LINK | getattr(os, "O_NONBLOCK", 0))
        with open(handle, encoding="utf-8") as file:
            names = json.load(file)
    except (OSError, ValueError):  # no mark; an empty one; one that was not yet whole
        return {}
    return names if isinstance(names, dict) and all(Path(name).name == name for name in names) else {}


@contextlib.contextmanager
def _turn_in(folder: Path) -> Iterator[None]:
    """Let one run at a time make, name or remove something in this folder, with what belongs to it."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # NFS locks no folders; the lock on MARK holds there
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    """Open and lock the file that makes a folder ours; UserError if it is not, or if another run has it.

    An empty folder is taken: a run may have been killed before it made the file. The kernel drops the lock
    with its process: a killed run leaves none behind.
    """
    mark = folder / MARK
    try:
        found = os.lstat(mark).st_mode if os.path.lexists(mark) else None
        ours = stat.S_ISREG(found) if found is not None else not any(folder.iterdir())
        if folder.is_symlink() or not ours:
            raise NotADirectoryError
        handle = os.open(mark, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
    except FileNotFoundError:  # just removed
        raise _busy(folder) from None
    except NotADirectoryError:
        raise UserError(
            f"{folder} is in the way: no run of this program left it; move it away, or choose another name "
            "with -o"
        ) from None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.lstat(mark)):  # removed and made anew since
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        raise _busy(folder) from None
    return handle

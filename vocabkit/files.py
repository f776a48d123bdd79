"""Files: JSON, lines of JSON and of text with clear errors, checksums, fast copies.

Reads what it is given; writes only below the paths it is given. Standard library only.
"""

import bz2
import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import math
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from vocabkit.errors import UserError, reading
from vocabkit.outputs import new_file
from vocabkit.shapes import check_file, check_shape

try:
    import fcntl
except ImportError:  # Windows: copies are plain, and two runs on one OUT are not kept apart
    fcntl = None  # type: ignore[assignment]

COPY_BLOCK = 64 << 20  # bytes moved per system call: large enough that Python costs nothing
FICLONE = 0x40049409  # ioctl_ficlone(2): share the blocks of a file on btrfs and xfs
Progress = Callable[[int], object]  # told how many bytes were written since the last call
OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


def parse_json(text: str, **options: Any) -> Any:
    """Return what a JSON text holds; ValueError or RecursionError if it is none, or cannot be written again.

    That is half a character (a lone surrogate), and 1e999, which would come out as Infinity. options: of
    json.loads.
    """
    value = json.loads(text, parse_float=_finite, **options)
    if _HALF.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # it may have its other half


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is beyond the largest number")
    return value


def read_text(path: Path, *, again: str = "download the file again") -> str:
    """Return what a text file holds; UserError if it is no UTF-8."""
    with reading(path, again=again):
        return regular(path).read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, behind its byte order mark; UserError if it is missing or no JSON."""
    with reading(path):
        try:
            return parse_json(regular(path).read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise UserError(f"{path} is missing; give a folder that holds a complete checkpoint") from None


def read_json_object(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """Return the object that a JSON file holds; UserError as read_json, or if it holds something else.

    What is read of a checkpoint's settings has the type that it needs. missing_ok: {} where there is no such
    file.
    """
    if missing_ok and not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, expected an object; download the file again")
    check_file(value, path)
    return value


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write value as UTF-8 JSON, characters as themselves."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")


def read_versioned(path: Path, *, format: str, version: int, shape: Any = Any) -> dict[str, Any]:
    """Return one of our own JSON files after checking its "format", "version" and shape (shapes.py);
    UserError otherwise.
    """
    value = read_json_object(path)
    found = (value.get("format"), value.get("version"))
    if found != (format, version):
        raise UserError(
            f"{path} has format {found[0]!r} version {found[1]!r}, expected {format!r} version {version!r}; "
            "make it again with this release"
        )
    check_shape(value, shape, path, again="make it again with this release")
    return value


KINDS = {stat.S_IFIFO: "FIFO", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}


def regular(path: Path) -> Path:
    """Return a path; UserError where a FIFO, a device or a socket is: one is waited for, or never ends."""
    with contextlib.suppress(OSError):  # whoever opens it says why
        if kind := KINDS.get(stat.S_IFMT(os.stat(path).st_mode)):
            raise UserError(f"{path} is a {kind}, expected a file; put one in its place, or remove it")
    return path


def inside(path: Path) -> Path:
    """Return the path of a file to copy; UserError for a link that leads out of the file's folder.

    What it names, perhaps a private file, would be published under its name. The links of the hub's cache
    lead to the blobs beside its snapshots.
    """
    if path.is_symlink():
        folder, target = path.parent.resolve(), path.resolve()
        blobs = [folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else []
        if not any(target.is_relative_to(place) for place in (folder, *blobs)):
            raise UserError(
                f"{path} is a link out of its folder, to {target}; put a copy in its place if the result may "
                "hold it, or remove it"
            )
    return regular(path)


def keep_private(source: Path, target: Path) -> None:
    """Take from a new file, or a folder and its files, what others may not do with the source of each."""
    mode = stat.S_IMODE(os.stat(source).st_mode) | stat.S_IRWXU
    os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) & mode)
    if target.is_dir():
        for path in target.iterdir():
            if (source / path.name).exists():
                keep_private(source / path.name, path)


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with regular(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def copy_range(
    source: IO[bytes],
    target: IO[bytes],
    *,
    offset: int,
    count: int,
    progress: Progress = lambda bytes_written: None,
) -> None:
    """Append count bytes at offset of one open file to another, inside the kernel where it can.

    Both files must be unbuffered. Raises UserError where the source ends early, and what progress raises.
    """
    end = offset + count
    in_kernel = hasattr(os, "copy_file_range")
    while offset < end:
        block = min(COPY_BLOCK, end - offset)
        if in_kernel:
            try:
                copied = os.copy_file_range(source.fileno(), target.fileno(), block, offset)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                in_kernel = False  # different file systems, or one without the call
                continue
        else:
            source.seek(offset)
            copied = target.write(source.read(block))
        if copied == 0:
            raise UserError(f"{source.name} ends {end - offset} bytes early; download the file again")
        offset += copied
        progress(copied)


def copy_file(
    source: Path,
    target: Path,
    *,
    hardlink: bool = False,
    progress: Progress = lambda bytes_written: None,
) -> None:
    """Copy a file the cheapest way that works: hard link if asked, shared blocks, in-kernel copy."""
    if hardlink:
        try:
            os.link(source.resolve(), target)
            progress(os.stat(target).st_size)
            return
        except OSError as error:
            raise UserError(
                f"{source} cannot be hard-linked to {target} ({error.strerror}); run again without --hardlink"
            ) from None
    with regular(source).open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        try:
            if fcntl is None:
                raise OSError
            fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
            progress(size)
        except OSError:
            copy_range(reader, writer, offset=0, count=size, progress=progress)
        os.fsync(writer.fileno())


def progress_bar(total: int, what: str) -> Any:
    """Return a bar on stderr that counts bytes up to total and leaves nothing behind: a tqdm."""
    from tqdm import tqdm

    return tqdm(
        total=total, unit="B", unit_scale=True, desc=what, file=sys.stderr, leave=False,
        disable=None,  # where stderr is no terminal: a log, or a program that reads our one line
    )  # fmt: skip


def open_text(path: Path) -> IO[str]:
    """Open a plain, .gz, .xz or .bz2 text file for reading as UTF-8, behind its byte order mark."""
    opener: Any = OPENERS.get(path.suffix, open)
    try:
        return opener(regular(path), "rt", encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; give an existing text file") from None


# Windows editors begin files with a byte order mark; files put together have it inside. A tab stays: it
# parts the columns of a dictionary, the last of which may be missing.
AROUND_A_LINE = "\ufeff \u00a0\r\n\f\v"


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("FILE:LINE", line) of a list, a file that people write by hand; UserError if it is no text.

    Every such file is read here. The end of a line may be that of any system; spaces and a byte order mark
    around a line go; an empty line and one whose first character is # say nothing.
    """
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                line = line.strip(AROUND_A_LINE)
                if line.strip() and not line.startswith("#"):
                    yield f"{path}:{number}", line
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text near line {number + 1}; convert it with iconv") from None
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path}: broken archive near line {number + 1}: {error}; download it again"
        ) from None


def read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ("FILE:LINE", value) of each line of JSON; UserError for a line that is none, as text_lines()."""
    for where, line in text_lines(path):
        with reading(where, again="mend or remove the line"):
            value = parse_json(line)
        yield where, value


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write each row as a line of JSON, into a new file; compressed if its name ends in .xz."""
    write_new_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), preset=9)


def write_new_text(path: Path, text: str, *, preset: int | None = None) -> None:
    """Write a new file, whole or not at all; compressed with this preset of lzma if its name ends in .xz."""
    data = text.encode("utf-8")
    with new_file(path) as part:
        part.write_bytes(lzma.compress(data, preset=preset) if path.suffix == ".xz" else data)


DATA = Path(__file__).resolve().parent.parent / "data"
SELF_TEST_TEXTS = DATA / "verify_texts.txt"

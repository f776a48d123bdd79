"""The one exception a user may see, the two guards that make it of others, and what must be installed.

One guard stands around the reading of a file, the other around a whole script. Reads requirements.txt; writes
nothing but one line on stderr.
"""

import contextlib
import errno
import io
import json
import lzma
import os
import re
import struct
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
DEBUG = "VOCABKIT_DEBUG"  # environment variable: show the traceback too
LONGEST = 1000  # characters of an error: a damaged file may be one line of megabytes, and is quoted

# What the bytes of a damaged file lead to in whatever reads them. ValueError: also what is no UTF-8, no JSON.
DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError, lzma.LZMAError, struct.error, zlib.error,
)  # fmt: skip


class UserError(Exception):
    """Something the user can fix: the message is one line with the file, both values and the next command."""


def one_line(text: object) -> str:
    """Return text on one line, so that an error message never breaks a log.

    Characters that steer a terminal, which a file or a server may hold, are spelled out.

    >>> one_line("bad\\n  thing\\x1b[2J")
    'bad thing\\\\x1b[2J'
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def check_installed(needs: Iterable[str]) -> None:
    """Raise UserError for an installed package that is older than a line "NAME>=VERSION" asks for.

    What is not installed is not judged: few tasks need every package.
    """
    installed = _installed()
    for need in filter(None, (re.match(r"([\w-]+)>=([\d.]+)", line) for line in needs)):
        name, oldest = need.groups()
        version = installed.get(name.replace("-", "_"), oldest)
        if _numbers(version) < _numbers(oldest):
            raise UserError(
                f"{name} {version} is installed, {oldest} or newer is needed: pip install -U {name}"
            )


def _installed() -> dict[str, str]:
    """Return package → version by the names of folders: importlib.metadata takes as long as all of --help."""
    found: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        here: dict[str, str] = {}  # an upgrade may have left the folder of an older one
        for name in os.listdir(folder):
            if match := re.match(r"([\w.]+)-([\w.+]+).*\.(?:dist|egg)-info$", name):
                package, version = match[1].lower(), match[2]
                here[package] = max(here.get(package, version), version, key=_numbers)
        found = here | found
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust gave up: what it raises then is no Exception, and has no name."""
    return type(error).__name__ == "PanicException"


def described(error: BaseException, name: object) -> str:
    """Return what is wrong with a file, or with a place in one, that reading it ended in this error."""
    match error:
        case UnicodeDecodeError():
            return f"{name} is not UTF-8 text (byte {error.start})"
        case UnicodeEncodeError():
            return f"{name} holds half a character (a lone surrogate): no UTF-8 text can"
        case json.JSONDecodeError():
            line = f":{error.lineno}" if isinstance(name, os.PathLike) else ""
            return f"{name}{line} is not JSON: {error.msg}"
        case RecursionError():
            return f"{name} is nested too deeply"
        case MemoryError():
            return f"{name} needs more memory than there is"
        case EOFError() | lzma.LZMAError() | zlib.error() | OSError():
            return f"{name} is a broken archive ({error})"
        case _:
            return f"{name} is damaged ({type(error).__name__}: {error})"


@contextlib.contextmanager
def reading(name: object, *, again: str = "download the file again") -> Iterator[None]:
    """Make a UserError of whatever a damaged file leads to: its name, the kind of fault, the place.

    name: the file (a Path), or "FILE:LINE". again: what the user should do. What else the system says of a
    file passes, and so does a UserError, which knows more.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or name} is missing; {again}") from None
    except BaseException as error:
        broken = isinstance(error, OSError) and error.errno is None  # gzip and bz2 raise it of an archive
        if not (broken or isinstance(error, DAMAGE) or is_panic(error)):
            raise
        raise UserError(f"{described(error, name)}; {again}") from error


def run_cli(main: Callable[[], int]) -> NoReturn:
    """Run a script's main() and exit with its status.

    Whatever is raised becomes one line on stderr and status 1; what no user can have caused is called a
    fault of the toolkit. VOCABKIT_DEBUG=1 shows the traceback before. A reader that closed our stdout
    (`| head`) ends the program quietly, as every Unix filter does. Packages older
    than requirements.txt says come first.
    """
    try:
        _open_standard_streams()
        if not {"-h", "--help"} & {*sys.argv}:  # which needs none of them
            check_installed(REQUIREMENTS.read_text(encoding="utf-8").splitlines())
        status = main()
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if re.search(rf"^{re.escape(name)}>=", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
            status = _complain(f"{name} is not installed: pip install -r {REQUIREMENTS}")
        else:
            status = _complain(_said(error))
    except KeyboardInterrupt:
        status = _complain("interrupted; nothing was changed, run the same command again")
    except BrokenPipeError:
        # Python would complain once more while flushing stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        if os.environ.get(DEBUG):
            traceback.print_exc()
        status = _complain(_said(error))
    sys.exit(status)


def _open_standard_streams() -> None:
    """Make standard output one that takes every line: also where it is closed, or Windows' cp1252."""
    handle = 0
    while handle <= 2:  # of a closed one, the first file that we write would get the number
        handle = os.open(os.devnull, os.O_RDWR)
    os.close(handle)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _said(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        hint = "; free some space, then run the same command again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename or 'input/output'}: {error.strerror or error}{hint}"
    if isinstance(error, MemoryError):
        return "there is not enough memory; close other programs, or take a smaller input or a larger machine"
    places = traceback.extract_tb(error.__traceback__)
    place = next((place for place in reversed(places) if "vocabkit" in place.filename), places[-1])
    return (
        f"{type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}: {str(error)[:300]}; "
        "this is a fault of the toolkit, or of a file that it does not check; please report it with the "
        f"traceback that {DEBUG}=1 shows"
    )


def _complain(message: str) -> int:
    line = one_line(message)
    if len(line) > LONGEST:  # the file is named at its beginning, what to do at its end
        line = f"{line[: LONGEST * 2 // 3]} … {line[-LONGEST // 3 :]}"
    print(f"error: {line}", file=sys.stderr)
    return 1

"""The one exception a user may see, what turns it into one line on stderr, what must be installed.

Reads requirements.txt; writes nothing but that line.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


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


def run_cli(main: Callable[[], int]) -> NoReturn:
    """Run a script's main() and exit with its status.

    UserError, a full disk, other operating-system errors and Ctrl-C become one line on stderr and status 1;
    a reader that closed our stdout (`| head`) ends the program quietly, as every Unix filter does. Any other
    exception is a bug of ours and keeps its traceback. Packages older than requirements.txt says come first.
    """
    try:
        _open_standard_streams()
        if not {"-h", "--help"} & {*sys.argv}:  # which needs none of them
            check_installed(REQUIREMENTS.read_text(encoding="utf-8").splitlines())
        status = main()
        sys.stdout.flush()
    except UserError as error:
        status = _complain(one_line(error))
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not re.search(rf"^{re.escape(name)}>=", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
            raise
        status = _complain(f"{name} is not installed: pip install -r {REQUIREMENTS}")
    except KeyboardInterrupt:
        status = _complain("interrupted; nothing was changed, run the same command again")
    except BrokenPipeError:
        # Python would complain once more while flushing stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        hint = "; free some space, then run the same command again" if error.errno == errno.ENOSPC else ""
        status = _complain(f"{error.filename or 'input/output'}: {error.strerror or error}{hint}")
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


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1

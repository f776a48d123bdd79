"""The one exception a user may see, and the wrapper that turns it into one line on stderr.

Reads nothing, writes nothing but that line.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn


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


def run_cli(main: Callable[[], int]) -> NoReturn:
    """Run a script's main() and exit with its status.

    UserError, a full disk, other operating-system errors and Ctrl-C become one line on stderr and status 1;
    a reader that closed our stdout (`| head`) ends the program quietly, as every Unix filter does. Any other
    exception is a bug of ours and keeps its traceback.
    """
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        status = _complain(one_line(error))
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


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1

"""vocabkit/errors.py: what a script's user sees, and what its exit status says."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from vocabkit.errors import UserError, one_line, run_cli

ROOT = Path(__file__).resolve().parent.parent


def run(main, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        run_cli(main)
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def fail(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize("status", [0, 1, 3])
def test_status_of_main_is_the_exit_status(status, capsys):
    assert run(lambda: status, capsys) == (status, "", "")


def test_user_error_is_one_line_whatever_is_in_it(capsys):
    status, out, err = run(fail(UserError("model/x.json is\n  broken;\tdownload it\r\nagain")), capsys)
    assert (status, out, err) == (1, "", "error: model/x.json is broken; download it again\n")


def test_ctrl_c_is_one_line(capsys):
    status, _, err = run(fail(KeyboardInterrupt()), capsys)
    assert status == 1 and err.startswith("error: interrupted") and err.count("\n") == 1


def test_full_disk_says_what_to_do(capsys):
    status, _, err = run(fail(OSError(errno.ENOSPC, "No space left on device", "out/x")), capsys)
    assert status == 1
    assert err == (
        "error: out/x: No space left on device; free some space, then run the same command again\n"
    )


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "a/b"), OSError("strange")])
def test_errors_of_the_system_are_one_line(error, capsys):
    status, _, err = run(fail(error), capsys)
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1
    assert (error.filename or "strange") in err


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(fail(ZeroDivisionError()))


def test_a_closed_pipe_ends_the_program_quietly():
    """As `python3 model_edit.py … | head -1` does."""
    code = (
        "from vocabkit.errors import run_cli\n"
        "def main():\n    for i in range(100_000): print('line', i)\n    return 0\nrun_cli(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 1


def test_one_line_takes_any_object():
    assert one_line(ValueError("a\n b")) == "a b"

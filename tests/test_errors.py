"""vocabkit/errors.py: what a script's user sees, and what its exit status says."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from vocabkit.errors import REQUIREMENTS, UserError, check_installed, one_line, run_cli

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


def test_packages_that_are_too_old_are_named(monkeypatch, capsys):
    needs = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    check_installed(needs)
    check_installed(["numpy>=1.9", "torch>=2.4", "nobody-has-this>=7"])  # 2.13.0+cpu is above 2.4
    with pytest.raises(
        UserError, match=r"^numpy [\d.]+ is installed, 99\.1 or newer is needed: pip install -U"
    ):
        check_installed(["# numpy", "", "numpy>=99.1  # rows"])
    monkeypatch.setattr(
        "importlib.metadata.version", lambda name: {"transformers": "4.44.0"}.get(name, "9999")
    )
    assert run(lambda: 0, capsys)[0] == 1


def test_packages_that_are_missing_are_named(capsys):
    status, _, err = run(fail(ModuleNotFoundError("No module named 'torch'", name="torch.nn")), capsys)
    assert (status, err) == (1, f"error: torch is not installed: pip install -r {REQUIREMENTS}\n")
    with pytest.raises(ModuleNotFoundError):  # a bug of ours
        run(fail(ModuleNotFoundError("No module named 'vocabkit.no'", name="vocabkit.no")), capsys)


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

"""vocabkit/verify/check.py: findings counted, and what is printed and written of them."""

from vocabkit.files import read_json
from vocabkit.verify.check import REPORT, SHOWN, Check, print_checks, write_report


def test_many_findings_of_a_kind_are_counted():
    check = Check("3 rows")
    check.find("row differs", map(str, range(SHOWN)))
    assert check.findings == [f"row differs: {n}" for n in range(SHOWN)]
    check.find("token moved", map(str, range(SHOWN + 15)))
    assert check.findings[SHOWN:] == [*(f"token moved: {n}" for n in range(SHOWN)), "token moved: 15 more"]


def test_the_table_and_the_report_say_the_same(tmp_path, capsys):
    checks = [Check("1 files", "9 files", {"n_tokens": 1234}), Check("3 rows", findings=["row differs: 7"])]
    print_checks(checks)
    printed = capsys.readouterr().out
    assert "ok     1 files      9 files\n" in printed and "n_tokens 1,234" in printed
    assert "FAILED 3 rows" in printed and "! row differs: 7" in printed
    write_report(tmp_path, checks, base=tmp_path / "base", model=tmp_path)
    report = read_json(tmp_path / REPORT)
    assert report["passed"] is False
    assert [(c["name"], c["numbers"], c["findings"]) for c in report["checks"]] == [
        ("1 files", {"n_tokens": 1234}, []),
        ("3 rows", {}, ["row differs: 7"]),
    ]
    write_report(tmp_path, checks[:1], base=tmp_path / "base", model=tmp_path)
    assert read_json(tmp_path / REPORT)["passed"] is True

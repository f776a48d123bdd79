"""build_vocab.py from texts to lists that trimm_vocab takes; counts files."""

import json
import lzma
import os
from pathlib import Path

import build
import pytest
from tiny import SENTENCES

import build_vocab
import model_edit
from vocabkit.counts.datatrove import count_shard, merge_shards
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json

OPTIONS = ["--min_count", "2", "--sure_count", "50", "--workers", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return build.make_checkpoint(tmp_path_factory.mktemp("build") / "model")


@pytest.fixture
def corpus(tmp_path) -> str:
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES[:6]) * 9, encoding="utf-8")
    return str(tmp_path / "corpus.txt")


def lists_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("tokens_*.jsonl"))}


def kept_rows(folder: Path) -> list[list]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("tokens_kept__*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]


def test_from_texts_to_a_trimmed_model_that_lost_nothing(model, corpus, tmp_path, capsys):
    lists = tmp_path / "lists"
    assert build_vocab.main(["-m", str(model), corpus, "-o", str(lists), *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert f"{lists}: " in printed and "report.html" in printed and "-t trimm_vocab --keep" in printed
    summary = read_json(lists / "summary.json")
    assert summary["documents"] == 1 and summary["corpus"] == [corpus] and summary["bad_records"] == 0
    assert summary["counted_tokens"] == sum(row[2] for row in kept_rows(lists)) + sum(
        json.loads(line)[2]
        for path in lists.glob("tokens_removed__*.jsonl")
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    )
    assert (lists / "report.html").stat().st_size > 10_000
    assert not list(tmp_path.glob("*.part")), "nothing is left behind"
    out = tmp_path / "out"
    assert model_edit.main(["-m", str(model), "-t", "trimm_vocab", "--keep", str(lists), "-o", str(out)]) == 0
    assert read_json(out / "vocab_edit.json")["n_tokens"] == summary["tokens_with_closure"]
    check = ["-b", str(model), "-m", str(out), "-t", "verify_edit", "--texts", corpus]
    assert model_edit.main(check) == 0


def test_lines_may_be_moved_between_the_files(model, corpus, tmp_path):
    lists, out = tmp_path / "lists", tmp_path / "out"
    build_vocab.main(["-m", str(model), corpus, "-o", str(lists), *OPTIONS])
    removed = next(path for path in sorted(lists.glob("tokens_removed__*.jsonl")) if path.stat().st_size)
    line, *others = removed.read_text(encoding="utf-8").split("\n")
    removed.write_text("\n".join(others), encoding="utf-8")
    with (lists / "tokens_kept__others.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    model_edit.main(["-m", str(model), "-t", "trimm_vocab", "--keep", str(lists), "-o", str(out)])
    assert json.loads(line)[1] in read_json(out / "vocab_edit.json")["new_to_old"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".json", ".json.xz"])
def test_counts_made_first_give_the_same_lists(model, corpus, tmp_path, ending):
    direct, counts, later = tmp_path / "direct", tmp_path / f"counts{ending}", tmp_path / "later"
    build_vocab.main(["-m", str(model), corpus, "-o", str(direct), *OPTIONS])
    build_vocab.main(["-m", str(model), corpus, "--count_only", "-o", str(counts), "--workers", "1"])
    build_vocab.main(["-m", str(model), "--counts", str(counts), "-o", str(later), *OPTIONS[:4]])
    assert lists_of(later) == lists_of(direct)
    assert read_json(later / "summary.json")["documents"] == 1, "the origin is passed on"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "gemma2", "t5"])
def test_target_size_is_what_trimming_leaves(corpus, tmp_path, family):
    model = build.make_checkpoint(tmp_path / "model", family)
    lists, small, out = tmp_path / "lists", tmp_path / "small", tmp_path / "out"
    build_vocab.main(["-m", str(model), corpus, "-o", str(lists), *OPTIONS])
    size = read_json(lists / "summary.json")["tokens_with_closure"] - 3
    target = ["--target_size", str(size)]
    build_vocab.main(["-m", str(model), corpus, "-o", str(small), *OPTIONS, *target])
    summary = read_json(small / "summary.json")
    assert summary["target_size"] == summary["tokens_with_closure"] == size
    assert summary["removed_because"]["beyond the target size"] >= 1
    model_edit.main(["-m", str(model), "-t", "trimm_vocab", "--keep", str(small), "-o", str(out)])
    edit = read_json(out / "vocab_edit.json")
    assert edit["n_tokens"] == size
    assert edit["keep"]["added_by_closure"] == 0, "the lists say it all"


def test_other_scripts_can_be_allowed(model, tmp_path):
    (tmp_path / "zh.txt").write_text(SENTENCES[6] * 100, encoding="utf-8")
    for name, scripts in (("latin", []), ("han", ["--scripts", "Latin", "Common", "Inherited", "Han"])):
        build_vocab.main(
            ["-m", str(model), str(tmp_path / "zh.txt"), "-o", str(tmp_path / name), *OPTIONS, *scripts]
        )
    texts = {name: {row[0] for row in kept_rows(tmp_path / name)} for name in ("latin", "han")}
    assert "天气" in texts["han"] - texts["latin"]


def test_plain_counts_are_taken_too(model, tmp_path):
    """{"id": count}, as other tools write it; there is no origin to check then."""
    write_json(tmp_path / "counts.json", {"300": 70})
    build_vocab.main(["-m", str(model), "--counts", str(tmp_path / "counts.json"), "-o", str(tmp_path / "l")])
    assert read_json(tmp_path / "l" / "summary.json")["counted_tokens"] == 70


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "token-counts", "version": 2}', "version 2, expected 'token-counts' version 1"),
        (
            '{"format": "token-counts", "version": 1, "tokenizer_sha256": "abc", "counts": {}}',
            "tokenizer abc…, the model given has .*--counts_of, or count again",
        ),
        ('{"a": 1}', "counts.json is damaged .*'a'"),
        ("[1, 2]", r"counts.json: it is \[1, 2\], expected an object"),
        ("{", "counts.json:1 is not JSON"),
    ],
)
def test_counts_that_do_not_fit(model, tmp_path, content, message):
    (tmp_path / "counts.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        build_vocab.main(
            ["-m", str(model), "--counts", str(tmp_path / "counts.json"), "-o", str(tmp_path / "l")]
        )
    (tmp_path / "counts.json.xz").write_bytes(lzma.compress(content.encode())[:-8])
    with pytest.raises(UserError, match="is a broken archive"):
        build_vocab.main(
            ["-m", str(model), "--counts", str(tmp_path / "counts.json.xz"), "-o", str(tmp_path / "l")]
        )
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a CORPUS or --counts"),
        (["x.txt", "--counts", "c.json"], "either a CORPUS or --counts"),
        (["x.txt", "--count_only"], "-o counts.json.xz"),
        (["x.txt", "--workers", "0"], "--workers is 0"),
        (["x.txt", "--min_count", "-1"], "--min_count is -1"),
        (["x.txt", "--target_size", "0"], "--target_size is 0"),
        (["x.txt", "--max_bad", "1.5"], "--max_bad is 1.5"),
        (["x.txt", "-o", "there"], "there already exists"),
        (["missing.txt"], "missing.txt is missing"),
        (["corpus.txt", "--target_size", "999999"], "--target_size is 999,999, the rules keep"),
        (["corpus.txt", "--scripts", "Klingon"], "'Klingon' is no Unicode script"),
    ],
)
def test_what_cannot_be_done_is_said(model, corpus, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=message):
        build_vocab.main(["-m", str(model), *arguments])
    assert not [path for path in (tmp_path / "data").glob("*") if not (path / "progress.json").is_file()]


def test_the_default_folder_is_named_after_the_tokenizer_and_the_thresholds(
    model, corpus, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    build_vocab.main(["-m", str(model), corpus, *OPTIONS])
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["model__2__50"]


@pytest.mark.slow
def test_datatrove_counts_the_same_and_runs_a_failed_task_again(model, tmp_path):
    pytest.importorskip("datatrove", reason="pip install datatrove")
    folder = tmp_path / "corpus"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.txt").write_text(SENTENCES[n] * (n + 1), encoding="utf-8")
    (folder / "9.csv").write_text("title,body\none,two\n", encoding="utf-8")
    command = ["-m", str(model), str(folder), "--count_only", "--workers", "2"]
    trove = [*command, "-o", str(tmp_path / "trove.json"), "--engine", "datatrove"]
    with pytest.raises(UserError, match=r"a task failed: .*9.csv.*the same command runs what is missing"):
        build_vocab.main(trove)
    assert not (tmp_path / "trove.json").exists()
    tasks = tmp_path / "trove.json.part" / "tasks"
    assert {path.name for path in tasks.glob("*.json")} <= {"00000.json", "00001.json", "00002.json"}
    (folder / "9.csv").write_text("text,body\none,two\n", encoding="utf-8")
    (folder / "0.txt").write_text("something else", encoding="utf-8")
    assert build_vocab.main([*trove, "--max_bad", "0"]) == 0
    assert not tasks.exists()
    build_vocab.main([*command, "-o", str(tmp_path / "local.json")])
    both = [read_json(tmp_path / f"{name}.json") for name in ("trove", "local")]
    assert both[0]["counts"] == both[1]["counts"] and both[0]["documents"] == both[1]["documents"] == 4


def test_a_complete_task_is_not_counted_again_unless_its_text_changed(model, tmp_path):
    (tmp_path / "a.txt").write_text(SENTENCES[0], encoding="utf-8")
    options = {"rank": 0, "text_field": None}
    count_shard(model, [str(tmp_path / "a.txt")], tmp_path, **options)
    os.utime(tmp_path / "00000.json", ns=(5, 5))
    count_shard(model, [str(tmp_path / "a.txt")], tmp_path, **options)
    assert (tmp_path / "00000.json").stat().st_mtime_ns == 5
    (tmp_path / "a.txt").write_text(SENTENCES[1], encoding="utf-8")
    count_shard(model, [str(tmp_path / "a.txt")], tmp_path, **options)
    assert (tmp_path / "00000.json").stat().st_mtime_ns != 5
    with pytest.raises(UserError, match="b.txt is not counted yet; run the same command again"):
        (tmp_path / "b.txt").write_text("b", encoding="utf-8")
        corpus = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
        merge_shards(model, corpus, tmp_path, text_field=None, max_bad=0)

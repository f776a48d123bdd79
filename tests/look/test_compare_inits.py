"""vocabkit/look/compare_inits.py and look/inits_report.py: table, JSON, picture, every error."""

import contextlib
import io
import json
import math

import build
import pytest
from corpora import PACK, as_jsonl, put

import model_edit
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, sha256_file
from vocabkit.look import compare_inits
from vocabkit.look.compare_inits import _rows
from vocabkit.look.inits_report import BASE, MEASURES, as_json, best_inits, in_words, table
from vocabkit.rows.estimates import Estimate
from vocabkit.rows.names import INITS
from vocabkit.vocab import word_list

WORDS = ["hôm nay", "Tiếng Việt", "thanh điệu"]
LINES = [
    f"Xin chào, {word} trời đẹp quá, {number} người đi chơi nhé!" for number in range(40) for word in WORDS
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Base, trimmed model, texts, words, dictionary."""
    place = tmp_path_factory.mktemp("compare")
    base = build.make_checkpoint(place / "base", "qwen2", tied=False, dtype="bfloat16")
    with contextlib.redirect_stdout(None):
        trim_vocab(base, place / "base__trimm_vocab")
    (place / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    (place / "words.txt").write_text("\n".join([*WORDS, "việc nhỏ"]), encoding="utf-8")
    (place / "dictionary.tsv").write_text("today\thôm nay\ntones\tthanh điệu\n", encoding="utf-8")
    return place


def run(folders, *more: str, base: str = "base", texts: str = "texts.txt", words: str = "words.txt") -> str:
    """Call the command line, return what it prints."""
    argv = ["-b", str(folders / base), "-m", str(folders / "base__trimm_vocab"), "-t", "compare_inits"]
    argv += ["--texts", str(folders / texts), "--words", str(folders / words), *more]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert model_edit.main(argv) == 0
    return printed.getvalue()


# The whole task


@pytest.mark.slow
def test_table_json_and_picture(folders, tmp_path):
    files = ["-o", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    printed = run(folders, "--dictionary", str(folders / "dictionary.tsv"), *files)
    assert "3 of 4 words" in printed and "bfloat16" not in printed and "untied embeddings" in printed
    data = read_json(tmp_path / "out.json")
    assert (data["format"], data["version"]) == ("compare-inits", 1)
    assert data["words"]["measured"] == WORDS
    assert data["words"]["sha256"] == sha256_file(folders / "words.txt")
    assert list(data["texts"].values()) == [sha256_file(folders / "texts.txt")]
    weights = sha256_file(folders / "base__trimm_vocab" / "model.safetensors")
    assert data["model"]["sha256"]["model.safetensors"] == weights
    named = {*data["results"], *data["left_out"]}
    assert named == {BASE, *INITS} and {"zeros", "mean", "english", "distill"} <= set(data["results"])
    for init, found in data["results"].items():
        expected = set(MEASURES) | {"bits_per_byte"}
        without = {"rank_new", "rank_all", "bits_change"} if init == BASE else set()
        assert set(found) == expected - without
        assert found["input_kl"]["clusters"] == 3 and found["input_kl"]["observations"] > 3
    assert data["results"]["zeros"]["rank_new"]["value"] == pytest.approx(math.log(2))
    assert (tmp_path / "out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.png"]
    lines = printed.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(f"{BASE} "))
    assert [line.split()[0] for line in lines[first : first + len(data["results"])]] == list(data["results"])


def test_the_same_again(folders, tmp_path):
    results = []
    for name in ("one.json", "two.json"):
        run(folders, "--inits", "random", "weighted", "--num_words", "2", "-o", str(tmp_path / name))
        results.append(read_json(tmp_path / name)["results"])
    assert results[0] == results[1] and list(results[0]) == [BASE, "random", "weighted"]


def test_texts_may_be_chats_in_an_archive(folders, tmp_path):
    chats = [[{"role": "user", "content": "Chào"}, {"role": "assistant", "content": line}] for line in LINES]
    packed = PACK[".zst"](as_jsonl([{"messages": chat} for chat in chats]))
    path = put(tmp_path, "chats.jsonl.zst", packed)
    run(folders, "--inits", "weighted", "-o", str(tmp_path / "out.json"), texts=str(path))
    data = read_json(tmp_path / "out.json")
    assert data["texts"] == {str(path): sha256_file(path)} and data["words"]["measured"] == WORDS
    assert 0 < data["results"][BASE]["bits_per_byte"]["value"]


def test_what_cannot_be_read_is_said_before_any_work(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_inits, "open_folder", None)
    path = put(tmp_path, "a.jsonl", as_jsonl([{"messages": [{"role": "user", "content": "x"}]}, {"a": 1}]))
    with pytest.raises(UserError, match=r"a.jsonl:2: no \"text\", .* among its fields: \"a\""):
        run(folders, texts=str(path))


def test_what_cannot_be_made_is_left_out_with_its_reason(folders, monkeypatch):
    monkeypatch.setattr(compare_inits, "INITS", ("mean", "english"))
    monkeypatch.setattr(word_list, "DICTIONARY", folders / "none.jsonl")
    printed = run(folders)
    assert "left out: english: --init english needs equivalents: give --dictionary FILE" in printed
    assert "english " not in printed.split("left out:")[0]
    with pytest.raises(UserError, match="needs equivalents: give --dictionary FILE"):
        run(folders, "--inits", "english")


def test_rows_are_those_that_extending_writes(folders, tmp_path):
    """bfloat16, norms clamped, input and output apart."""
    from vocabkit.checkpoint.folder import open_folder
    from vocabkit.checkpoint.numbers import rows_as_float32
    from vocabkit.checkpoint.shards import read_checkpoint
    from vocabkit.edit.extend import extend_vocab

    base, model = folders / "base", folders / "base__trimm_vocab"
    sources = (open_folder(base), open_folder(model))
    made, left_out = _rows(sources, WORDS, ["first_last"], texts=[], known=None, seed=0, all_of_them=True)
    with contextlib.redirect_stdout(None):
        extend_vocab(model, tmp_path / "out", base=base, words=folders / "words.txt", num_words=3,
                     init="first_last")  # fmt: skip
    tensors = read_checkpoint(tmp_path / "out").tensors
    n = max(sources[1].tokenizer.tokens) + 1
    rows = made["first_last"]
    assert rows.keys() == {"model.embed_tokens.weight", "lm_head.weight"} and left_out == {}
    for name, values in rows.items():
        assert (values == rows_as_float32(tensors[name], [n, n + 1, n + 2])).all()
    assert (rows["model.embed_tokens.weight"] != rows["lm_head.weight"]).any()


# Errors


def test_without_base_or_texts(folders):
    model = ["-m", str(folders / "base__trimm_vocab"), "-t", "compare_inits"]
    with pytest.raises(UserError, match="compare_inits compares two folders: give the other one with -b"):
        model_edit.main([*model, "--texts", str(folders / "texts.txt")])
    with pytest.raises(UserError, match="compare_inits measures on text: give Vietnamese files .* --texts"):
        model_edit.main([*model, "-b", str(folders / "base")])


def test_words_that_no_text_holds(folders, tmp_path):
    (tmp_path / "other.txt").write_text("nothing to see here\n" * 9, encoding="utf-8")
    with pytest.raises(UserError, match=r"other.txt: none of the 4 words of .*words.txt stands in the part"):
        run(folders, texts=str(tmp_path / "other.txt"))


def test_files_that_are_missing_or_there_already(folders, tmp_path):
    with pytest.raises(UserError, match="none.txt is missing"):
        run(folders, words="none.txt")
    with pytest.raises(UserError, match="nothing.txt"):
        run(folders, texts="nothing.txt")
    (tmp_path / "there.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="there.json already exists; choose another file with -o"):
        run(folders, "-o", str(tmp_path / "there.json"))
    with pytest.raises(UserError, match="away is not a folder; make it first"):
        run(folders, "-o", str(tmp_path / "away" / "there.json"))
    with pytest.raises(UserError, match="there.jpg is no PNG"):
        run(folders, "--plot", str(tmp_path / "there.jpg"))


def test_numbers_that_make_no_sense(folders):
    with pytest.raises(UserError, match="--contexts_per_word is 0, expected 1 or more"):
        run(folders, "--contexts_per_word", "0")
    with pytest.raises(UserError, match="--num_words is 99, .*words.txt has 4 words"):
        run(folders, "--num_words", "99")
    with pytest.raises(UserError, match="--num_words is -3, expected 1 or more"):
        run(folders, "--num_words", "-3")


def test_a_dictionary_that_knows_no_word(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_inits, "INITS", ("mean", "english"))
    (tmp_path / "other.tsv").write_text("cat\tcon mèo\n", encoding="utf-8")
    printed = run(folders, "--dictionary", str(tmp_path / "other.tsv"))
    assert "left out: english: " in printed and "other.tsv knows none of the words" in printed


def test_a_dictionary_is_read_before_any_work(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_inits, "open_folder", None)
    (tmp_path / "other.tsv").write_text("cat\tcon mèo\n", encoding="utf-8")
    for file, message in (("other.tsv", "knows none of the words"), ("none.tsv", "none.tsv is missing")):
        with pytest.raises(UserError, match=message):
            run(folders, "--inits", "english", "--dictionary", str(tmp_path / file))


def test_a_base_of_another_model(folders, checkpoint):
    other = checkpoint(tied=False)
    with pytest.raises(UserError, match="-b must be the checkpoint that the model was trimmed out of"):
        run(folders, base=str(other))


# Table


def estimates(**values: float) -> dict[str, Estimate]:
    return {name: Estimate(value, 0.125, 4, 9) for name, value in values.items()}


RESULTS = {
    BASE: estimates(input_kl=0.0, output_log_ratio=0.0, output_log_ratio_abs=0.0, bits_per_byte=1.5),
    "mean": estimates(input_kl=0.5, output_log_ratio=-2.0, output_log_ratio_abs=2.5, rank_new=math.log(8),
                      bits_change=0.25),
    "zeros": estimates(input_kl=0.25, output_log_ratio=3.0, output_log_ratio_abs=3.0, rank_new=math.log(4),
                       bits_change=0.125),
}  # fmt: skip


def test_table():
    assert table(RESULTS).splitlines() == [
        "             input KL       Δ log p    |Δ log p|   rank/new      Δ bits/byte",
        "base   0.0000 ±0.1250    0.00 ±0.12   0.00 ±0.12          –                –",
        "mean   0.5000 ±0.1250   -2.00 ±0.12*  2.50 ±0.12*  8.0 ±1.0   0.2500 ±0.1250",
        "zeros  0.2500 ±0.1250*   3.00 ±0.12   3.00 ±0.12   4.0 ±0.5*  0.1250 ±0.1250*",
    ]


def test_best():
    assert best_inits(RESULTS, "output_log_ratio") == {"mean"}, "nearest to 0"
    assert best_inits({"a": estimates(input_kl=0.1), "b": estimates(input_kl=0.10001)}, "input_kl") == {
        "a",
        "b",
    }
    assert best_inits({BASE: RESULTS[BASE]}, "input_kl") == set()


def test_in_words():
    said = in_words(RESULTS)
    assert "1.5000 bits per byte" in said and "over 4 words" in said
    assert "read most like before with zeros; new words are most nearly as likely" in said
    assert "with mean; held-out text costs least with zeros." in said
    assert json.dumps(as_json(RESULTS, left_out={}, settings={}))


@pytest.mark.parametrize(("family", "tied"), [("gemma2", True), ("llama", True)])
def test_other_families_and_models_that_were_not_trimmed(folders, checkpoint, tmp_path, family, tied):
    model = checkpoint(family, tied=tied)
    argv = ["-b", str(model), "-m", str(model), "-t", "compare_inits", "--inits", "zeros", "first_last"]
    argv += ["--texts", str(folders / "texts.txt"), "--words", str(folders / "words.txt")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert model_edit.main([*argv, "-o", str(tmp_path / "out.json")]) == 0
    results = read_json(tmp_path / "out.json")["results"]
    assert "tied embeddings" in printed.getvalue() and "untied" not in printed.getvalue()
    assert 0 < results["first_last"]["input_kl"]["value"] < results["zeros"]["input_kl"]["value"]

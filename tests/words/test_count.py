"""vocabkit/words/count.py: compound words counted as they stand, rows, resumed runs."""

import json
import lzma
from collections import Counter
from pathlib import Path

import pytest
from tiny import ROOT
from tokenizers import Tokenizer

import build_vi_words
from vocabkit.corpus import counting
from vocabkit.corpus.counting import save_progress
from vocabkit.corpus.files import find_sources
from vocabkit.errors import UserError
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.words.count import WordCounter, count_words, is_compound, word_rows
from vocabkit.words.segment import Segmenter

TEXT = (
    "Thời gian trôi nhanh. Thời gian là vàng bạc, học sinh cần học tập!\n"
    '"Học sinh" (học sinh) đi học; công nghệ thông tin phát triển. Tất cả các học sinh.\n'
)


def counted(text: str, **options) -> Counter[str]:
    counter = WordCounter(**options)
    counter.add([text])
    return counter.take()


def test_forms_are_counted_as_they_stand():
    assert counted(TEXT) == {
        "\nThời gian": 1, " Thời gian": 1, " vàng bạc": 1, " học sinh": 2, " học tập": 1, '"Học sinh': 1,
        "(học sinh": 1, " công nghệ": 1, " thông tin": 1, " phát triển": 1, " Tất cả": 1,
    }  # fmt: skip


def test_text_between_the_syllables_is_one_space():
    assert counted("Các học  sinh, các học\tsinh, các học-sinh và học\nsinh.") == {}
    assert counted("\tthời gian,  thời gian") == {"\tthời gian": 1, " thời gian": 1}


def test_equal_sentences_are_segmented_once(monkeypatch):
    seen: list[str] = []
    segment = Segmenter.segment
    monkeypatch.setattr(
        Segmenter, "segment", lambda self, texts: (seen.extend(texts), segment(self, texts))[1]
    )
    counter = WordCounter()
    seen.clear()  # what the segmenter compares itself with
    counter.add(["Học sinh đi học.\nHọc sinh đi học."] * 5)
    assert counter.take() == {"\nHọc sinh": 10} and len(seen) == 1


def test_phrases_are_words_in_a_row():
    found = counted("Bao gồm tất cả các học sinh.", phrases=True)
    assert found[" +tất cả các"] == found[" +các học sinh"] == found[" tất cả"] == 1
    assert " +tất cả các học sinh" not in found and not any(form.endswith("tất") for form in found)


def test_a_full_counter_gives_the_same_counts():
    assert counted(TEXT, max_entries=0) == counted(TEXT)
    counter = WordCounter(phrases=True, max_forms=1)
    counter.add([TEXT * 3])
    assert counter.take()[" học sinh"] == 6


@pytest.mark.parametrize(
    ("word", "good"),
    [("công an", True), ("tham gia", True), ("Việt Nam", True), ("VIỆT NAM", True), ("từ từ", True),
     ("internet banking", False), ("to go", False), ("việc", False), ("học 2", False), ("Cả A", False),
     ("vIệt nam", False), ("nhà-máy in", False)],
)  # fmt: skip
def test_what_a_compound_is(word, good):
    assert is_compound(word.split(" ")) == good


def test_rows(assets):
    folder = assets / "tokenizers" / "qwen2.5-instruct"
    forms = {" thời gian": 7, "\nthời gian": 9, " Tại sao": 7, " có thể": 20, " hiếm hoi": 1}
    rows = word_rows(forms, read_tokenizer_json(folder), load_encoder(folder), min_freq=2)
    names = ("word", "impact", "qwen_tokens", "freq", "qwen_tokens_count")
    expected = [
        ("có▁thể", 20, [" có", " thể"], 20, 2),
        ("Tại▁sao", 14, [" Tại", " sa", "o"], 7, 3),
        ("thời▁gian", 14, [" thời", " g", "ian"], 7, 3),
    ]
    assert rows == [dict(zip(names, row, strict=True)) for row in expected]
    reference = assets / "reference_lists" / "vi_words_impact.jsonl.xz"
    with lzma.open(reference, "rt", encoding="utf-8") as lines:
        assert list(json.loads(next(lines))) == list(rows[0]), "the form of the list to match"


def test_words_of_one_token_are_left_out(tiny):

    folder = tiny("qwen").path
    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder.add_tokens([" học sinh"])
    rows = word_rows({" học sinh": 5, " đi chơi": 5}, read_tokenizer_json(folder), encoder, min_freq=1)
    assert [row["word"] for row in rows] == ["đi▁chơi"]


@pytest.mark.parametrize("kind", ["llama3", "gemma", "t5"])
def test_rows_of_every_family(tiny, kind):
    folder = tiny(kind)
    (row,) = word_rows({" hôm nay": 3}, read_tokenizer_json(folder.path), folder.encoder, min_freq=1)
    expected = " hôm nay" if kind != "llama3" else " h<0xC3><0xB4>m nay"  # it has no token for ô
    assert "".join(row["qwen_tokens"]) == expected and row["word"] == "hôm▁nay"
    assert row["impact"] == 3 * (row["qwen_tokens_count"] - 1)


def write_corpus(folder: Path) -> list[str]:
    folder.mkdir()
    for name in "abc":
        lines = [f"{name} {n}: {line}" for n in range(150) for line in TEXT.splitlines()]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return [str(folder)]


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_to_the_same_counts(tiny, tmp_path, monkeypatch):
    """Stopped after its second saving; every file has several blocks."""
    monkeypatch.setattr("vocabkit.corpus.files.DOCUMENT_BYTES", 4000)
    folder, corpus, path = tiny("qwen").path, write_corpus(tmp_path / "corpus"), tmp_path / "p.json"
    whole = counted("\n".join(file.read_text(encoding="utf-8") for file in sorted(Path(corpus[0]).iterdir())))
    save, times = save_progress, []

    def stop(*args: object) -> None:
        save(*args)
        times.append(1)
        if len(times) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(counting, "save_progress", stop)
    options = {"progress_file": path, "workers": 1, "save_every": 12_000}
    with pytest.raises(KeyboardInterrupt):
        count_words(folder, find_sources(corpus), **options)
    before = sum(json.loads(path.read_text(encoding="utf-8"))["progress"]["vector"].values())
    assert 0 < before < sum(whole.values())
    monkeypatch.setattr(counting, "save_progress", save)
    assert count_words(folder, find_sources(corpus), **options).vector == whole
    with pytest.raises(UserError, match="another run .phrases differs"):
        count_words(folder, find_sources(corpus), phrases=True, **options)


@pytest.mark.slow
def test_the_command_writes_the_list(tiny, tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    out = tmp_path / "impact.jsonl.xz"
    argv = ["-m", str(tiny("qwen").path), *corpus, "-o", str(out), "--workers", "1"]
    assert build_vi_words.main(argv) == 0
    with lzma.open(out, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert {row["word"]: row["freq"] for row in rows}["học▁sinh"] == 900
    assert rows == sorted(rows, key=lambda row: (-row["impact"], row["word"]))
    assert "impact.jsonl.xz: " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "impact.jsonl.xz"]
    with pytest.raises(UserError, match="already exists"):
        build_vi_words.main(argv)


def test_bundled_data_are_found_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bundled = ROOT / "data" / "vi_words_similarity.jsonl"
    assert build_vi_words.main(["--check_similarity", str(bundled), "--num_words", "5"]) == 1, "too many rows"
    assert "5 of 5 words have a row" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"{ROOT}/data/vi_words_chosen.jsonl already exists"):
        build_vi_words.main(["-m", str(tmp_path), "a.txt", "--choose", "5"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_corpus_without_vietnamese_is_one_line(tiny, tmp_path):
    (tmp_path / "en.txt").write_text("The man can go to town.\n" * 50, encoding="utf-8")
    argv = ["-m", str(tiny("qwen").path), str(tmp_path / "en.txt"), "-o", str(tmp_path / "o.jsonl")]
    with pytest.raises(UserError, match="en.txt: no Vietnamese compound word comes 5 times"):
        build_vi_words.main([*argv, "--workers", "1"])
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--choose", "0"], "--choose is 0"),
        (["--min_freq", "0"], "--min_freq is 0"),
        (["--phrases"], "for choosing words"),
        (["--syllables", "8"], "for choosing words; say how many: --choose 1024"),
        (["--syllables", "auto"], "for choosing words"),
        (["--choose", "5", "--syllables", "-1"], "--syllables is -1, expected 0 or more, or auto"),
        (["--plot", "x.png"], "for choosing words"),
        (["-", "--choose", "5"], "standard input can be read once"),
        (["--choose", "5", "--held_out", "a.txt"], "a.txt is in CORPUS and in --held_out"),
    ],
)
def test_wrong_options_are_one_line(argv, message):
    with pytest.raises(UserError, match=message):
        build_vi_words.main(["-m", "model", "a.txt", *argv])

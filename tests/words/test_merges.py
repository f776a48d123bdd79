"""vocabkit/words/merges.py: what continuing the merges saves, worked by hand."""

import pickle

import pytest
from choosing import hand_made, splits_of
from hypothesis import given
from hypothesis import strategies as st

from vocabkit.corpus.files import find_sources
from vocabkit.corpus.lines import HELD_OUT, held_out
from vocabkit.files import read_json, write_json
from vocabkit.tokenizer.encoder import QWEN2, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.words.merges import SplitCounter, Splits, count_splits, merged, pairs, split_pattern


@pytest.mark.parametrize("before", ["—", "(", "“", "½"])
def test_what_stands_before_a_syllable_is_no_part_of_it(tiny, before):
    """Whole words such as "—the" are cut as one by Qwen's expression."""
    tokenizer, encoder = tiny("qwen").tokenizer, tiny("qwen").encoder
    splits = Splits({f"{before}gian": 5, f"{before}the": 3}, tokenizer, encoder, QWEN2)
    while best := splits.best():
        made, _ = splits.merge(best[1])
        assert splits.bytes[made.token].isalpha()
    assert splits.best() is None


def test_a_tokenizer_of_another_kind_splits_by_its_own_pre_tokenizer(tiny_copy):
    folder = tiny_copy("qwen")
    data = read_json(folder / "tokenizer.json")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, byte_level]}  # as SmolLM2
    write_json(folder / "tokenizer.json", data)
    pattern = split_pattern(read_tokenizer_json(folder), load_encoder(folder))
    counter = SplitCounter(pickle.loads(pickle.dumps(pattern)))  # workers get a copy
    counter.add(["nói—the gian12 (gian) ở"])
    assert sorted(counter.take()) == sorted(["nói", "the", " gian", "gian", " ở"])


def test_merges_follow_each_other_and_count_in_every_language():
    splits = splits_of(" thuyết" * 4 + " thuyền" * 3 + " thuyx" * 2, " th", "uy", "ết", "ền")
    taken = []
    while best := splits.best():
        made, changed = splits.merge(best[1])
        assert sum(splits.counts[number] * fewer for number, fewer in changed.items()) == best[0]
        taken.append((splits.bytes[made.token].decode(), best[0]))
    assert taken == [(" thuy", 9), (" thuyết", 4), (" thuyền", 3)]
    assert made.replaces == [splits._encoder.token_to_id(t) for t in ("Ġth", "uy", "á»ģn")]


def test_what_is_no_part_of_a_syllable_is_no_candidate():
    assert splits_of(" strx" * 9 + "(gian" * 2, " s", "tr", "(g", "ian").best() is None
    assert splits_of("(gian" * 2, "g", "ian").best()[0] == 2, '"g" and "ian" after the bracket'
    splits = splits_of(" gian" * 2, " g", "ian")
    splits.merge(splits.best()[1])
    assert splits.best() is None
    assert splits_of(" g ian", " g", "ian").best() is None, "no merge across words"


def test_a_token_that_no_merge_makes_is_not_made_again():
    """Llama-3 has tokens like " việc" that stand whole in the vocabulary only."""
    tokenizer, encoder = hand_made(" g", "ian")
    tokenizer.vocab["Ġgian"] = 9999
    assert Splits({" gian": 5}, tokenizer, encoder, QWEN2).best() is None


def test_full_counters_forget_what_came_once():
    counter = SplitCounter(QWEN2, max_words=2)
    counter.add(["gian gian 12 , hàng"])
    counter.add(["một hai hai", "hai"])
    assert counter.take() == {" hai": 2} and counter.take() == {}


@given(st.lists(st.sampled_from("aab"), max_size=12))
def test_places_of_pairs(tokens):
    for pair, places in pairs(tokens).items():
        assert len(tokens) - len(merged(tokens, pair, "x")) == places


def test_held_out_lines_are_not_counted(tiny, tmp_path):
    lines = [f"Dòng {n}" for n in range(200)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    apart = sum(held_out(line, one_in=HELD_OUT) for line in lines)
    assert 5 < apart < 40
    options = {"progress_file": tmp_path / "p.json", "workers": 1, "training_only": True}
    progress = count_splits(tiny("qwen").path, find_sources([tmp_path / "a.txt"]), QWEN2, **options)
    assert progress.vector["Dòng"] == 200 - apart
    assert progress.characters == len("\n".join(lines)), "of all that was read"

"""The extended tokenizer is the one that extend_vocab writes, however it is come by."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer

from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, dump_tokenizer_json, read_tokenizer_json
from vocabkit.vocab.plan import NewToken

KINDS = ("qwen", "llama3", "gemma")

WORDS = [" hôm nay", " thanh điệu", " hợp sức"]

TEXT = "Hôm nay thanh điệu hợp sức, và hôm nay  trời đẹp; thanh điệu\nhợp sức 今天 thời gian."


def new_merges(tokenizer: TokenizerJson) -> list[tuple[str, str]]:
    """Two merges, the second of what the first makes."""
    names = [token for token in tokenizer.vocab if len(token) > 1 and token not in tokenizer.added]
    left, right = next((a, b) for a in names for b in names if a + b not in tokenizer.vocab)
    return [(left, right), (left + right, names[0])]


def content_of(encoder: Tokenizer) -> dict:
    return json.loads(encoder.to_str())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merged", [False, True], ids=["words", "words and merges"])
def test_it_is_what_the_written_file_gives(tiny, kind, merged, tmp_path):
    tokenizer = tiny(kind).tokenizer
    merges = new_merges(tokenizer) if merged else []
    entries = [NewToken(word, normalized=tokenizer.has_nfc).entry() for word in WORDS]
    data = tokenizer.trimmed(list(tokenizer.tokens), entries, merges)
    (tmp_path / "tokenizer.json").write_text(dump_tokenizer_json(data), encoding="utf-8")
    written, made = load_encoder(tmp_path), extended(tokenizer, WORDS, merges)
    assert content_of(made) == content_of(written)
    assert made.encode(TEXT).ids == written.encode(TEXT).ids
    ids = [made.token_to_id(token) for token in [*("".join(merge) for merge in merges), *WORDS]]
    first = len(tokenizer.tokens)
    assert ids == list(range(first, first + len(ids)))
    # and without the words, as it was before they came
    before = read_tokenizer_json(tmp_path).before(first + len(merges))
    assert content_of(extended(before)) == content_of(extended(tokenizer, merges=merges))
    assert content_of(extended(before, WORDS)) == content_of(written)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_adding_words_to_the_folder_s_tokenizer_gives(tiny, kind):
    tokenizer = tiny(kind).tokenizer
    added = load_encoder(tiny(kind).path)
    added.add_tokens([AddedToken(word, normalized=tokenizer.has_nfc, special=False) for word in WORDS])
    assert content_of(added) == content_of(extended(tokenizer, WORDS))
    assert added.encode(TEXT).ids == extended(tokenizer, WORDS).encode(TEXT).ids


@pytest.mark.parametrize("kind", [*KINDS, "t5"])
def test_without_anything_new_it_is_the_folder_s_own(tiny, kind):
    assert content_of(extended(tiny(kind).tokenizer)) == content_of(load_encoder(tiny(kind).path))


def test_truncation_and_padding_are_left_out(tiny_copy):
    folder = tiny_copy("qwen")
    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder.enable_truncation(2)
    encoder.enable_padding(length=40)
    encoder.save(str(folder / "tokenizer.json"))
    for made in (load_encoder(folder), extended(read_tokenizer_json(folder), WORDS)):
        assert 2 < len(made.encode(TEXT).ids) and "<|endoftext|>" not in made.encode("Xin").tokens


def test_holes_between_old_ids_are_closed(tiny_copy):
    folder = tiny_copy("llama3")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    vocab |= {entry["content"]: entry["id"] for entry in data["added_tokens"]}  # else the library moves them
    del vocab["xyz"]
    path.write_text(json.dumps(data), encoding="utf-8")
    tokenizer = read_tokenizer_json(folder)
    first = len(tokenizer.tokens)
    assert max(tokenizer.tokens) == first, "there is no hole"
    encoder = extended(tokenizer, WORDS)
    assert [encoder.token_to_id(word) for word in WORDS] == [first, first + 1, first + 2]

"""A folder's tokenizer as the fields of a GGUF: special tokens, new words, what is never generated."""

from vocabkit.files import read_json
from vocabkit.gguf.model import open_gguf
from vocabkit.gguf.vocab import CONTROL, SUPPRESS, UNUSED, USER_DEFINED


def test_special_tokens_are_control_and_padding_rows_are_left_out(exported):
    place, _ = exported
    model = open_gguf(place / "trimmed.gguf")
    config = read_json(place / "trimmed" / "config.json")
    assert len(model.types) <= config["vocab_size"]
    assert UNUSED not in model.types
    for entry in read_json(place / "trimmed" / "tokenizer.json")["added_tokens"]:
        if entry["special"]:
            assert model.types[entry["id"]] in (CONTROL, 2)  # 2: Gemma's <unk>


def test_what_generate_suppresses_llama_cpp_is_told(exported):
    place, _ = exported
    listed = read_json(place / "trimmed" / "generation_config.json").get("suppress_tokens") or []
    model = open_gguf(place / "trimmed.gguf")
    expected = [token_id for token_id in listed if token_id < len(model.types)]
    assert (model.value(SUPPRESS) or []) == expected


def test_new_words_are_user_defined(exported):
    place, _ = exported
    model = open_gguf(place / "extended.gguf")
    types = {token: model.types[token_id] for token_id, token in model.tokenizer.tokens.items()}
    assert types[" xin chào"] == types[" cảm ơn"] == USER_DEFINED

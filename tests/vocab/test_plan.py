"""vocabkit/vocab/plan.py: what stays, in which order, and that no sequence of tokens spells a removed
script.
"""

import random
import unicodedata

import pytest
import regex
from tiny import ROOT, SENTENCES, TINY_KINDS, Trimmed, trim_files, trimmed_encoder

from vocabkit.tokenizer.tokenizer_json import TokenizerJson
from vocabkit.vocab.lists import read_keep
from vocabkit.vocab.plan import FOREIGN, PADDING, Plan, close_ids, suppressed_ids

EMOJI = "1️⃣ 2️⃣ #️⃣ 😀 😂 ❤️ 👍🏽 🇻🇳 👨‍👩‍👧 🏳️‍🌈 🙏 🎉 🔥 ☀️ ⚠️ ✅ ❌ 💡 🚀 🥳 ♥ ⭐ 🐉 🍜 🧋 🫶".split()
# Written out here once more, apart from vocabkit/text/languages.py: all characters that must not be written
EVERY = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
FOREIGN_CHARS = frozenset(
    regex.findall(
        r"[^\p{Latin}\p{Common}\p{Inherited}\p{Unknown}\p{Extended_Pictographic}\p{Emoji_Presentation}"
        r"[\U0001F000-\U0001FAFF&&\p{So}]]",
        EVERY,
        regex.V1,
    )
)
# All beginnings of characters, by writing the characters (64 in a row differ in the last byte only)
BEGINNINGS = frozenset(
    data[:size] for char in EVERY[::64] for data in [char.encode()] for size in range(1, len(data))
)


@pytest.fixture(scope="module")
def bundled(real, tmp_path_factory) -> Trimmed:
    """Qwen2.5 trimmed by the list in data/."""
    base = real("qwen2.5-instruct")
    kept, _ = read_keep([ROOT / "data" / "qwen__1000__20000"], token_bytes=base.tokenizer.token_bytes)
    return trim_files(base, tmp_path_factory.mktemp("bundled") / "qwen", base.plan(kept))


def new_bytes(tokenizer: TokenizerJson, plan: Plan) -> list[bytes]:
    """The bytes of each new token."""
    return [tokenizer.token_bytes[old] for old in plan.new_to_old]


# What stays


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_what_always_stays(tiny, kind):
    folder = tiny(kind)
    plan = folder.plan([])
    kept = set(plan.new_to_old)
    assert kept >= folder.tokenizer.byte_ids() | set(folder.tokenizer.added.values()) | folder.required
    assert plan.requested == 0 and plan.always_kept + plan.added_by_closure == plan.n_tokens


def test_a_space_stays_one(tiny):
    """Gemma's decoder makes a space of ▁ before it joins bytes: spelled by bytes, it would stay ▁."""
    folder = tiny("gemma")
    plan = folder.plan(set())
    assert folder.tokenizer.vocab["▁"] in plan.new_to_old
    encoder = trimmed_encoder(folder, plan.new_to_old)
    assert encoder.decode(encoder.encode("  a", add_special_tokens=False).ids).count("▁") == 0


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_order_and_counts(tiny, kind):
    folder = tiny(kind)
    wanted = set(random.Random(kind).sample(sorted(folder.tokenizer.tokens), 60))
    plan = folder.plan(wanted)
    assert plan.new_to_old == sorted(set(plan.new_to_old)) and set(plan.new_to_old) >= wanted
    assert plan.requested == 60
    assert plan.requested + plan.always_kept + plan.added_by_closure == plan.n_tokens == len(plan.new_to_old)
    assert plan.old_to_new == {old: new for new, old in enumerate(plan.new_to_old)}
    again = folder.plan(plan.new_to_old)
    assert again.new_to_old == plan.new_to_old
    assert again.added_by_closure == 0
    assert close_ids(folder.tokenizer, plan.new_to_old, folder.spm_models.values()) == set(plan.new_to_old)


@pytest.mark.parametrize("multiple", [1, 7, 64, 1000])
def test_rows_are_a_multiple_and_padding_follows_the_tokens(tiny, multiple):
    plan = tiny("qwen").plan([300, 301], pad_multiple=multiple)
    assert plan.vocab_size % multiple == 0
    assert 0 <= plan.vocab_size - plan.n_tokens < multiple
    padding = list(range(plan.n_tokens, plan.vocab_size))
    assert plan.suppressed.get(PADDING, []) == padding
    assert plan.pad_rows == ([padding[0], padding[-1]] if padding else None)


def test_suppressed_ids_are_sorted_and_single():
    assert suppressed_ids({"one": [5, 3], "two": [3, 9]}) == [3, 5, 9]
    assert suppressed_ids({}) == []


# Nothing foreign can be spelled


def leading_continuation(data: bytes) -> int:
    return next((at for at, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))


def foreign_character(tokens: list[bytes]) -> str | None:
    """Return a foreign character that some sequence of these tokens spells, or None."""
    return min(foreign_characters(tokens), default=None)


def foreign_characters(tokens: list[bytes]) -> set[str]:
    """Return the foreign characters that some sequence of these tokens spells: all are searched.

    A state is the unfinished character that the text so far ends with. From each state that can be reached,
    each token either finishes it, goes on with it, or breaks it (the decoder then shows U+FFFD).
    """
    # Only the continuation bytes at a token's start meet the state; all tokens with the same ones act alike.
    found: set[str] = set()
    heads: set[bytes] = set()
    fresh: set[bytes] = {b""}
    for data in tokens:
        head = data[: leading_continuation(data)]
        heads.add(head)
        found |= FOREIGN_CHARS.intersection(data[len(head) :].decode("utf-8", errors="ignore"))
        fresh.add(unfinished(data[len(head) :]))
    seen: set[bytes] = set()
    while fresh:
        seen |= fresh
        after: set[bytes] = set()
        for state in fresh:
            for head in heads:
                found |= FOREIGN_CHARS.intersection((state + head).decode("utf-8", errors="ignore"))
                after.add(unfinished(state + head))
        fresh = after - seen
    return found


def named(plan: Plan) -> set[str]:
    """The characters of which the plan says that they can still be spelled."""
    assert plan.bans
    return {char for chars in plan.bans.spelled.values() for char in chars}


def unfinished(data: bytes) -> bytes:
    """The beginning of a character that data ends with."""
    return next((data[-size:] for size in (3, 2, 1) if data[-size:] in BEGINNINGS), b"")


def allowed(tokenizer: TokenizerJson, plan: Plan) -> list[bytes]:
    stopped = set(suppressed_ids(plan.suppressed))
    return [data for new, data in enumerate(new_bytes(tokenizer, plan)) if new not in stopped]


def test_the_search_finds_what_it_should():
    """The check can fail: whole, in two parts, in three, in the middle of other text, in another's tail."""
    han = "中".encode()
    assert FOREIGN_CHARS.isdisjoint("ệ€😀a1") and FOREIGN_CHARS >= set("中яعπ한かไ")
    for tokens in (
        [han],
        [han[:1], han[1:]],
        [han[:2], han[2:]],
        [han[:1], han[1:2], han[2:]],
        [b"ab" + han[:1], han[1:] + b"x"],
        [b"\xbb" + han[:2], b"\xad\xe1"],
    ):
        assert foreign_character(tokens) in FOREIGN_CHARS
    assert foreign_character([b"ab" + han[:1], han[1:] + b"x"]) == "中"
    assert foreign_character([han[1:], han[2:], b"a", "ệ😀".encode(), b"\xf0\x9f", b"\x98\x80"]) is None
    assert [unfinished(data) for data in (b"a\xe1\xbb", b"\xf0\x9f\x98", b"\xbb", b"\xe1a", b"\xc0")] == [
        b"\xe1\xbb", b"\xf0\x9f\x98", b"", b"", b"",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen", "llama3", "gemma"])
def test_no_sequence_of_tiny_tokens_spells_a_foreign_character(tiny, kind):
    folder = tiny(kind)
    used = {i for text in SENTENCES[:6] for i in folder.encode(text)}
    plan = folder.plan(used)
    assert foreign_characters(allowed(folder.tokenizer, plan)) == named(plan)
    assert named(plan).isdisjoint("天中яعไ한ご"[:5])
    assert foreign_character(allowed(folder.tokenizer, folder.plan(used, allow_all_bytes=True)))


@pytest.mark.assets
def test_no_sequence_of_real_tokens_spells_a_foreign_character(bundled):
    tokenizer, plan = bundled.base.tokenizer, bundled.plan
    assert plan.written_scripts == {}
    assert foreign_characters(allowed(tokenizer, plan)) == named(plan)
    # The keycap of 1️⃣ is spelled E2 83 A3, and some emoji begin with space + E2: what else begins with E2
    assert {char.encode()[0] for char in named(plan)} == {0xE2}
    assert foreign_character(new_bytes(tokenizer, plan))  # without suppression there is one
    # Each group of suppressed tokens is needed: with any one lead byte allowed, a character can be spelled
    lead = tokenizer.vocab["ä"]  # the byte E4, with which most Chinese characters begin
    assert plan.old_to_new[lead] in plan.suppressed[FOREIGN]
    assert "中" in foreign_characters([*allowed(tokenizer, plan), b"\xe4"]) - named(plan)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["llama-3.2-instruct", "gemma-2-it", "SYNTHETIC-mt5-like-32k"])
def test_no_sequence_of_other_real_tokens_either(real_trimmed, name):
    """The home texts name some foreign words: the tokens of those scripts are taken out of the list first."""
    base = real_trimmed(name).base
    ids = [
        old
        for old in real_trimmed(name).plan.new_to_old
        if FOREIGN_CHARS.isdisjoint(base.tokenizer.token_bytes[old].decode("utf-8", errors="ignore"))
    ]
    plan = base.plan(ids)
    assert plan.written_scripts == {}
    assert foreign_characters(allowed(base.tokenizer, plan)) == (named(plan) if plan.bans else set())
    assert named(plan).isdisjoint("中国한글ไทยяعд")


@pytest.mark.assets
def test_random_sequences_decode_to_no_foreign_character(bundled):
    """The same by trial, through the library's own decoder; pieces of characters come first."""
    plan, encoder = bundled.plan, bundled.out.encoder
    stopped = set(suppressed_ids(plan.suppressed))
    pieces, whole = [], []
    for new, data in enumerate(new_bytes(bundled.base.tokenizer, plan)):
        if new not in stopped:
            broken = "\ufffd" in data.decode("utf-8", errors="replace")
            (pieces if broken else whole).append(new)
    choose = random.Random(3)
    sequences = [
        [choose.choice(pieces if choose.random() < 0.9 else whole) for _ in range(60)] for _ in range(2000)
    ]
    texts = encoder.decode_batch(sequences, skip_special_tokens=False)
    assert named(plan) >= FOREIGN_CHARS.intersection("".join(texts))
    pieces += list(stopped - set(plan.suppressed[PADDING]))  # and without suppression there are many
    texts = encoder.decode_batch([choose.choices(pieces, k=60) for _ in range(500)])
    assert FOREIGN_CHARS.intersection("".join(texts)) - named(plan)


# What can still be written


@pytest.mark.assets
def test_home_texts_remain_writable(bundled, assets):
    """English, Vietnamese and emoji need no suppressed id, unless a line holds a foreign character or one of
    the rare allowed ones that share a foreign prefix and have no token of their own.
    """
    lines = [
        unicodedata.normalize("NFC", line)
        for folder in ("en", "vi")
        for path in sorted((assets / "corpora" / folder).iterdir())
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    lines = [line for line in dict.fromkeys(lines) if FOREIGN_CHARS.isdisjoint(line)] + EMOJI
    lost = unwritable(bundled, lines)
    characters = {c for c in set("".join(lost)) if unwritable(bundled, [c, f" {c}"])}
    assert not [line for line in lost if not characters & set(line)]
    assert len(lost) < 0.005 * len(lines)
    assert not {char for char in characters if char.isascii()}
    assert not characters & set(vietnamese_letters())


def unwritable(trimmed: Trimmed, texts: list[str]) -> list[str]:
    """The texts whose encoding needs a suppressed id."""
    stopped = set(suppressed_ids(trimmed.plan.suppressed))
    encodings = trimmed.out.encoder.encode_batch_fast(texts, add_special_tokens=False)
    return [text for text, e in zip(texts, encodings, strict=True) if not stopped.isdisjoint(e.ids)]


def vietnamese_letters() -> str:
    letters = {
        unicodedata.normalize("NFC", letter + tone)
        for letter in "aăâeêioôơuưyđ"
        for tone in ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
    }
    single = "".join(sorted(letter for letter in letters if len(letter) == 1))
    return single + single.upper()


@pytest.mark.assets
def test_letters_signs_and_emoji_remain_writable(bundled):
    ascii_text = [chr(code) for code in range(128)]
    latin_1 = [chr(code) for code in range(0xA0, 0x180)]  # Western and Central European letters, © ½ ±
    signs = list("–—‘’“”…•†€™°×÷√≤≥≠→←↑↓₫§±µ")
    emoji = regex.findall(r"\p{Emoji_Presentation}", EVERY)
    for name, texts in (
        ("ASCII", ascii_text), ("Vietnamese", list(vietnamese_letters())), ("Latin", latin_1),
        ("signs", signs), ("emoji", emoji + EMOJI),
        ("in a word", [f"a{char}b {char}" for char in vietnamese_letters()]),
    ):  # fmt: skip
        assert unwritable(bundled, texts) == [], name


@pytest.mark.assets
def test_how_many_allowed_characters_become_unwritable(bundled):
    """The price named in docs/trimming.md, none of it in the lists above."""
    home = regex.findall(r"[\p{Latin}\p{Common}\p{Inherited}--[\p{Co}\p{Cn}]]", EVERY, regex.V1)
    lost = unwritable(bundled, home)
    print(f"{len(lost):,} of {len(home):,} allowed characters become unwritable")
    assert len(lost) / len(home) < 0.35
    composed = {char for char in bundled.plan.bans.unwritable if unicodedata.normalize("NFC", char) == char}
    assert composed == {char for char in lost if unicodedata.normalize("NFC", char) == char}


# Scripts that somebody keeps


def test_a_script_that_the_list_keeps_can_be_written(tiny):
    folder = tiny("qwen")
    plain = folder.plan(folder.encode(SENTENCES[0]))
    chinese = [i for i in folder.encode(SENTENCES[6]) if "天气".encode() in folder.tokenizer.token_bytes[i]]
    plan = folder.plan([*folder.encode(SENTENCES[0]), *chinese])
    assert plain.written_scripts == {} and plan.written_scripts == {"Han": len(chinese)} != {"Han": 0}
    lead = folder.tokenizer.vocab["ä"]
    assert plain.old_to_new[lead] in plain.suppressed[FOREIGN]
    assert plan.old_to_new[lead] not in plan.suppressed[FOREIGN]
    written = {char for data in allowed(folder.tokenizer, plan) for char in foreign_characters([data])}
    assert written and all(unicodedata.name(char).startswith("CJK") for char in written)
    cyrillic = folder.tokenizer.vocab["Ð"]  # the byte D0: other scripts stay out
    assert plan.old_to_new[cyrillic] in plan.suppressed[FOREIGN]


def test_scripts_given_as_allowed_can_be_written(tiny):
    folder = tiny("qwen")
    scripts = frozenset({"Latin", "Common", "Inherited", "Cyrillic"})
    plan = folder.plan([], scripts=scripts)
    assert plan.old_to_new[folder.tokenizer.vocab["Ð"]] not in plan.suppressed[FOREIGN]
    assert plan.old_to_new[folder.tokenizer.vocab["ä"]] in plan.suppressed[FOREIGN]
    assert plan.written_scripts == {}


def test_all_bytes_can_be_allowed(tiny):
    plan = tiny("qwen").plan([], allow_all_bytes=True)
    assert set(plan.suppressed) == {PADDING}


def test_unigram_without_bytes_has_nothing_to_suppress(tiny):
    t5 = tiny("t5")
    assert FOREIGN not in t5.plan(t5.encode(SENTENCES[0])).suppressed

"""The model card of an edited folder, in English and Vietnamese."""

from pathlib import Path

from vocabkit.checkpoint.card import write_model_card
from vocabkit.checkpoint.record import EditRecord

CARD = """{head}

`{base}` with the vocabulary of English and Vietnamese: **{n_tokens:,} of {base_n_tokens:,} tokens**
({share:.1%}), {vocab_size:,} of {base_vocab_size:,} rows. No weight was changed: the rows of the kept tokens
are the base's, byte for byte, and text whose tokens are all kept is tokenized and answered as before.
`verify_report.json` holds the checks that were made, `vocab_edit.json` the old id of every token.

{open}

- Kept list: {source}.
- {pad_text}
- {guard_text}
- Any text can still be read: what has no token is spelled with smaller pieces.
- The terms of the base model hold for this one too.

## Tiếng Việt

`{base}` với bộ từ vựng tiếng Anh và tiếng Việt: **giữ {n_tokens:,} trên {base_n_tokens:,} token**
({share:.1%}), {vocab_size:,} trên {base_vocab_size:,} hàng. Không trọng số nào bị đổi: hàng của mỗi token
được giữ giống hệt bản gốc từng byte, và văn bản chỉ gồm các token được giữ thì được tách và được trả lời
y như trước. `verify_report.json` ghi các phép kiểm tra đã chạy, `vocab_edit.json` ghi id cũ của từng token.

Mở như mọi checkpoint khác, với đoạn mã ở trên.

- Danh sách giữ: {source}.
- {pad_text_vi}
- {guard_text_vi}
- Vẫn đọc được mọi văn bản: chữ nào không có token riêng thì được ghép từ các mảnh nhỏ hơn.
- Điều khoản sử dụng của mô hình gốc vẫn có hiệu lực với mô hình này.
"""

EXTENDED = """{head}

`{base}` with **{new} as tokens of their own**, such as {examples}: {n_tokens:,} tokens,
{vocab_size:,} rows. No weight of the base was changed: its rows are the same, byte for byte, and text without
one of them is tokenized as before. `verify_report.json` holds the checks that were made, `vocab_edit.json`
the new tokens and what their rows were made from.

{open}

- {made}
- Every text still decodes to itself.
- {pad_text}
- The terms of the base model hold for this one too.

## Tiếng Việt

`{base}` với **{new_vi}, mỗi đơn vị là một token**, chẳng hạn {examples}: {n_tokens:,} token,
{vocab_size:,} hàng. Không trọng số nào của bản gốc bị đổi: các hàng cũ giống hệt từng byte, và văn bản không
chứa đơn vị mới nào thì được tách như trước. `verify_report.json` ghi các phép kiểm tra đã chạy,
`vocab_edit.json` ghi các token mới và nguồn của từng hàng mới.

Mở như mọi checkpoint khác, với đoạn mã ở trên.

- {made_vi}
- Mọi văn bản vẫn giải mã ra đúng chính nó.
- {pad_text_vi}
- Điều khoản sử dụng của mô hình gốc vẫn có hiệu lực với mô hình này.
"""

GUARD = (
    "`generate()` does not write removed scripts: the {} tokens that could begin one of their characters "
    "byte by byte, and that no Vietnamese, English or emoji needs, are in `suppress_tokens` of "
    "`generation_config.json`. Runtimes that do not read this list (vLLM, for one) need it as a logit bias."
)
GUARD_VI = (
    "`generate()` không viết chữ của hệ chữ đã bỏ: {} token có thể mở đầu một ký tự như vậy theo từng byte, "
    "mà tiếng Việt, tiếng Anh và emoji không cần tới, nằm trong `suppress_tokens` của "
    "`generation_config.json`. Với trình chạy không đọc danh sách này (như vLLM), hãy đưa nó vào logit bias."
)
NO_GUARD = "Single bytes are not suppressed: a character of a removed script could still be spelled by bytes."
NO_GUARD_VI = "Các byte đơn không bị chặn: ký tự của hệ chữ đã bỏ vẫn có thể được ghép theo từng byte."

MADE = """\
The new rows were made by the formula `{init}` from rows of the base, and not trained: train them before you
  judge the model's Vietnamese."""

MADE_VI = """\
Các hàng mới được tính theo công thức `{init}` từ các hàng của bản gốc, chưa qua huấn luyện: hãy huấn luyện
  chúng rồi mới đánh giá tiếng Việt của mô hình."""

DISTILLED = """\
The new rows were distilled: all else frozen, they were moved until the model went on from a word as it does
  from its old tokens. Nothing else was trained."""

DISTILLED_VI = """\
Các hàng mới được chưng cất: mọi thứ khác giữ nguyên, chúng được chỉnh tới khi mô hình đọc tiếp sau một từ
  như sau các token cũ của nó. Ngoài ra không gì được huấn luyện."""


def write_card(folder: Path, record: EditRecord, *, name: str) -> None:
    """Write FOLDER/README.md, the card of an edit."""
    pad = record.pad_rows
    guarded = sum(len(ids) for reason, ids in record.suppressed.items() if reason != "padding rows")
    about = dict(
        base=record.base_model,
        n_tokens=record.n_tokens,
        vocab_size=record.vocab_size,
        pad_text=f"Rows {pad[0]} to {pad[1]} are padding, all zero, and in `suppress_tokens` of "
        "`generation_config.json`: a token that you add later gets one of them, and can be generated once "
        "you take its id out of that list."
        if pad
        else "No padding rows.",
        pad_text_vi=(
            f"Các hàng {pad[0]} đến {pad[1]} là phần đệm, toàn số 0, và nằm trong `suppress_tokens` của "
            "`generation_config.json`: token bạn thêm sau này sẽ nhận một trong các hàng đó, và chỉ được "
            "sinh ra khi bạn bỏ id của nó khỏi danh sách ấy."
            if pad
            else "Không có hàng đệm."
        ),
    )
    if record.init:
        made, made_vi = (DISTILLED, DISTILLED_VI) if record.init["name"] == "distill" else (MADE, MADE_VI)
        words, syllables = record.words or [], [row["syllable"].strip() for row in record.syllables or []]
        new = [f"{len(words):,} Vietnamese words"] * bool(words)
        new += [f"{len(syllables):,} Vietnamese syllables"] * bool(syllables)
        new_vi = [f"{len(words):,} từ tiếng Việt"] * bool(words)
        new_vi += [f"{len(syllables):,} âm tiết tiếng Việt"] * bool(syllables)
        write_model_card(
            folder,
            EXTENDED,
            name=name,
            base_model=record.base_model,
            tags="vocabulary-extension, vocabkit",
            **about,
            new=" and ".join(new),
            new_vi=" và ".join(new_vi),
            examples=", ".join(f"“{word.replace('▁', ' ')}”" for word in [*words, *syllables][:3]),
            made=made.format(init=record.init["name"]),
            made_vi=made_vi.format(init=record.init["name"]),
        )
    else:
        write_model_card(
            folder,
            CARD,
            name=name,
            base_model=record.base_model,
            tags="vocabulary-trimming, vocabkit",
            **about,
            base_n_tokens=record.base_n_tokens,
            share=record.n_tokens / record.base_n_tokens,
            base_vocab_size=record.base_vocab_size,
            source=(record.keep or {})["source"],
            guard_text=GUARD.format(guarded) if guarded else NO_GUARD,
            guard_text_vi=GUARD_VI.format(guarded) if guarded else NO_GUARD_VI,
        )

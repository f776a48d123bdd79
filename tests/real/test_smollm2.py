"""SmolLM2-135M-Instruct on README's whole way, command by command: 24,000 tokens stay, 64 come.

Each command is a test of its own, so that pytest's list of durations says where the time goes.
"""

import itertools
import re
import shutil
from pathlib import Path

import chain
import pytest
from tiny import ROOT

from vocabkit.chat.backends import Backend, Sampling
from vocabkit.chat.llama_backend import LlamaBackend
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.checkpoint.record import EditRecord
from vocabkit.files import read_json, read_jsonl, text_lines
from vocabkit.gguf.model import NEW_TO_OLD, open_gguf
from vocabkit.rows.leak import LIMITS
from vocabkit.text.languages import english_words
from vocabkit.text.unicode import DEFAULT_SCRIPTS, runs_of
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.verify.edited import Edited, open_edited

pytestmark = pytest.mark.real

NAME = "SmolLM2-135M-Instruct"
SIZE = 24_000
GREEDY = Sampling(temperature=0, max_new_tokens=12)
SIGNS = "€™≤≥→●•–—“”…₫°×"
EMOJI = ("😀", "👍", "❤️", "🎉", "🇻🇳", "👩‍💻", "1️⃣", "🥳")
# What README's commands lack here: a list of its own, and 64 words and syllables for 1,024.
# What README's commands lack here: a list of its own, and 64 words and syllables for 1,024.
LISTED = (
    f"python3 build_vocab.py -m ../{NAME} corpus en.txt words.txt chats.txt --min_count 1 "
    f"--target_size {SIZE} -o list"
)
VERIFIED = f"python3 model_edit.py -b ../{NAME} -m ../{NAME}__trimm_vocab -t verify_edit --texts en.txt"
CHANGES = {
    chain.MODEL: NAME,
    "-t trimm_vocab": "-t trimm_vocab --keep list",
    "--choose 1024 --syllables auto": "--choose 48 --syllables 16",
    f"{NAME}__extend_vocab__3_final.gguf": f"{NAME}__extend_vocab__3_final.gguf --greedy --max_new_tokens 40",
}
QUESTIONS = [line for _, line in text_lines(ROOT / "data" / "chat_prompts.txt")][:5]
SYSTEM = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\nuser\nassistant\n"


def way() -> dict[str, str]:
    """Short name → command, in order."""
    made = chain.commands()
    for old, new in CHANGES.items():
        changed = [command.replace(old, new) for command in made]
        assert changed != made, f"README.md has no {old!r} any more"
        made = changed
    names = "trim words extend stage_1 stage_2 stage_3 export chat".split()
    trim, *others = zip(names, made, strict=True)
    return dict([("list", LISTED), trim, ("verify", VERIFIED), *others])


class Way:
    """The commands, each run once: when it, or one after it, is asked for. folder: where the models are."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder = folder
        self.work = work
        self.said: dict[str, str | None] = {}  # None: it failed

    def reach(self, name: str) -> str:
        """Return what the command of this name printed, after all before it were run."""
        for at, command in way().items():
            if at not in self.said:
                self.said[at] = None
                self.said[at] = chain.run(command, self.work, said=f"{QUESTIONS[0]}\n")
            if (found := self.said[at]) is None:
                pytest.fail(f"{at} failed before")
            if at == name:
                return found
        raise KeyError(name)

    def model(self, name: str = "") -> Path:
        return self.folder / f"{NAME}{name}"

    def trimmed(self) -> Edited:
        self.reach("trim")
        return open_edited(self.model(), self.model("__trimm_vocab"))


@pytest.fixture(scope="module")
def walk(smollm2_folder, tmp_path_factory) -> Way:
    folder = tmp_path_factory.mktemp("smollm2")
    shutil.copytree(smollm2_folder, folder / NAME)
    work = chain.make_work(folder)
    english = [row["text"] for _, row in read_jsonl(work / "en.jsonl")]
    (work / "en.txt").write_text("\n".join(english[:40]), encoding="utf-8")
    words = sorted(english_words())
    lines = [" ".join(words[at : at + 20]) for at in range(0, len(words), 20)]
    (work / "words.txt").write_text("\n".join(lines), encoding="utf-8")
    # What every conversation begins with must be frequent, or the list loses parts of it.
    (work / "chats.txt").write_text("\n".join([SYSTEM, *QUESTIONS] * 50), encoding="utf-8")
    return Way(folder, work)


@pytest.mark.parametrize("name", way())
def test_command(walk, name):
    assert walk.reach(name)


def same_answers(base: Backend, trimmed: Backend, old_to_new: dict[int, int]) -> int:
    """Ask both the same questions; return of how many tokens the answers had to be the same, and were.

    That is up to where the base takes a token that the list lacks.
    """
    same = 0
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        old, new = base.encode(messages), trimmed.encode(messages)
        assert new == [old_to_new[token_id] for token_id in old]
        before, after = (list(model.generate(ids, GREEDY)) for model, ids in ((base, old), (trimmed, new)))
        covered = [old_to_new[at] for at in itertools.takewhile(old_to_new.__contains__, before)]
        assert after[: len(covered)] == covered, question
        same += len(covered)
    return same


def test_answers_are_the_same(walk):
    edited = walk.trimmed()
    backends = [TransformersBackend.open(str(path)) for path in (edited.base, edited.out)]
    assert same_answers(*backends, edited.old_to_new) >= 20


def test_every_sign_can_be_written_and_what_cannot_is_counted(walk):
    said, edited = walk.reach("trim"), walk.trimmed()
    banned = set(read_json(edited.out / "generation_config.json")["suppress_tokens"])

    def lost(texts: list[str]) -> list[str]:
        encodings = edited.encoder.encode_batch_fast(texts, add_special_tokens=False)
        return [text for text, e in zip(texts, encodings, strict=True) if not banned.isdisjoint(e.ids)]

    signs = [before + sign for sign in (*SIGNS, *EMOJI) for before in ("", " ", "a")]
    assert banned and lost(signs) == []
    starts, ends = runs_of(DEFAULT_SCRIPTS, foreign=False)
    home = [chr(c) for start, end in zip(starts, ends, strict=True) for c in range(start, end) if c > 127]
    count, shown = re.search(
        r"^cannot be written: ([\d,]+) rare characters of the allowed scripts, such as (.+)$",
        said,
        re.MULTILINE,
    ).groups()
    missing = lost(home)
    assert len(missing) == int(count.replace(",", "")) and set(shown.split()) <= set(missing)


def test_trimming_costs_what_it_promises(walk):
    walk.reach("verify")
    report = read_json(walk.model("__trimm_vocab") / "verify_report.json")
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    assert report["passed"] and len(report["checks"]) == 6
    assert numbers["max_abs_difference"] == 0 and numbers["same_argmax"] == numbers["positions"] > 100
    assert abs(numbers["covered_bits_per_byte"] - numbers["covered_bits_per_byte_base_renormalized"]) <= 1e-4
    assert numbers["covered_bits_per_byte"] <= numbers["covered_bits_per_byte_base"]


def test_new_tokens_shorten_vietnamese_and_leave_english_alone(walk):
    walk.reach("stage_1")
    before, after = (load_encoder(walk.model(name)) for name in ("__trimm_vocab", "__extend_vocab"))
    text = (walk.work / "corpus" / "vi.txt").read_text(encoding="utf-8")
    assert len(after.encode(text).ids) < 0.9 * len(before.encode(text).ids)
    record = EditRecord.read(walk.model("__extend_vocab__1_embeddings_massage"))
    assert len(record.words) == 48 and len(record.syllables) == 16
    (stage,) = record.training
    assert stage["bits_per_byte_after"] < stage["bits_per_byte_before"]
    for kind in ("English", "chat prompts"):
        assert all(stage["other_text"][kind][name] <= limit for name, limit in LIMITS.items()), kind


def test_the_exported_file_reads_and_answers_as_its_folder(walk):
    said = walk.reach("chat")
    final = walk.model("__extend_vocab__3_final")
    folder, file = TransformersBackend.open(str(final)), LlamaBackend(f"{final}.gguf")
    messages = [{"role": "user", "content": "Thời gian ở Việt Nam là mấy giờ? 🙂"}]
    ids = folder.encode(messages)
    assert file.encode(messages) == ids and max(ids) >= SIZE
    answer = re.search(r"^Bot: (.+)$", said, re.MULTILINE)[1]
    messages[0]["content"] = QUESTIONS[0]
    assert (
        answer.split()[:3]
        == folder.decode(list(folder.generate(folder.encode(messages), GREEDY))).split()[:3]
    )


def test_the_file_itself_is_trimmed_by_the_same_list(walk, smollm2_gguf):
    walk.reach("list")
    out = walk.folder / "trimmed.gguf"
    said = chain.run(
        f"python3 model_edit.py -m {smollm2_gguf} -t trimm_vocab --keep list -o {out}", walk.work
    )
    assert "written and verified" in said
    new_to_old = open_gguf(out).value(NEW_TO_OLD)
    old_to_new = {old: new for new, old in enumerate(new_to_old)}
    base, trimmed = LlamaBackend(str(smollm2_gguf)), LlamaBackend(str(out))
    assert same_answers(base, trimmed, old_to_new) >= 20

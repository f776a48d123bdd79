"""vocabkit/look/view.py on real tiny checkpoints: norms, changed rows, neighbours, the picture, every
error.
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from tiny import ASSETS, edit_record
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vocabkit.checkpoint.folder import open_folder
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.errors import UserError
from vocabkit.look import view
from vocabkit.look.picture import _drawable, _label, project
from vocabkit.look.plots import new_figure
from vocabkit.look.view import (
    NEIGHBOURS,
    SHOWN,
    changed_rows,
    find_tokens,
    neighbours,
    row_norms,
    view_embeddings,
)

TEXTS = [
    "Thời gian trôi nhanh quá, người Việt Nam!",
    "The time of the day, the way of the world. 时间",
    "Hôm nay trời đẹp",
] * 4
N_TOKENS, ROWS, D = 320, 384, 32
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def make_checkpoint(folder: Path, *, tied: bool) -> Path:
    """Write a two-layer Qwen2 of 320 tokens, " Việt" among them, and 384 rows; padding rows are zero."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS - 1, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken(" Việt", normalized=True)])
    assert tokenizer.get_vocab_size() == N_TOKENS
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=ROWS, hidden_size=D, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))

    def clear(tensors):
        for name in (EMBED, HEAD)[: 1 if tied else 2]:
            tensors[name][N_TOKENS:] = 0

    return changed(folder, clear)


def changed(folder: Path, change) -> Path:
    """Apply a function to the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module", params=["tied", "untied"])
def source(request, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp(request.param) / "model", tied=request.param == "tied")


@pytest.fixture(scope="module")
def tied_source(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "model", tied=True)


@pytest.fixture
def copy_of(tmp_path):
    """Return a function that copies a folder."""
    return lambda folder, name="copy": Path(shutil.copytree(folder, tmp_path / name))


def show(model: Path, *, base=None, tokens=(), plot=None) -> None:
    view_embeddings(model, base=base, tokens=list(tokens), plot=plot)


def write_edit(folder: Path, base: Path, new_to_old: list[int | None]) -> None:
    edit_record(base, new_to_old).write(folder)


def add_token(folder: Path, token: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(token)])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_overview(source, capsys):
    show(source)
    output = capsys.readouterr().out
    tied = source.parent.name.startswith("tied")
    assert "384 = 320 tokens + 64 padding (in 320 to 383; all zero)" in output
    assert f"{EMBED}: BF16, D = 32" in output
    assert ("tied: these rows are the output's too" in output) == tied
    assert (f"{HEAD}: BF16" in output) != tied


def test_norms_are_those_of_torch(source, monkeypatch):
    tensors = load_file(source / "model.safetensors")
    opened = open_folder(source)
    monkeypatch.setattr(view, "BLOCK", 4 * D * 7)  # 7 rows a block: the last block is not full
    for name, tensor in opened.matrices.items():
        expected = tensors[EMBED if name == "input" else HEAD].float().norm(dim=1).numpy()
        np.testing.assert_allclose(row_norms(tensor), expected, rtol=1e-5)


def test_printed_statistics_and_extremes(copy_of, tied_source, capsys):
    def change(tensors):
        tensors[EMBED][7] *= 100
        tensors[EMBED][9] *= 0.001
        tensors[EMBED][330] = 1
        tensors[EMBED][5, 3] = float("nan")

    folder = changed(copy_of(tied_source), change)
    show(folder)
    output = capsys.readouterr().out
    opened = open_folder(folder)
    assert f"input shortest: {opened.text(9)} 9 (" in output
    assert f"input longest: {opened.text(7)} 7 (" in output
    assert "1 not zero in input" in output
    assert f"input: 1 rows hold NaN or inf: {opened.text(5)} 5" in output
    row = next(line for line in output.splitlines() if line.startswith("input tokens"))
    norms = load_file(folder / "model.safetensors")[EMBED][:N_TOKENS].float().norm(dim=1)
    norms = norms[torch.isfinite(norms)].numpy()
    expected = [*np.percentile(norms, (0, 1, 50)), norms.mean(), *np.percentile(norms, (99, 100))]
    np.testing.assert_allclose([float(value) for value in row.split()[3:]], expected, rtol=2e-3)


def test_neighbours_are_the_largest_cosines(source, monkeypatch):
    opened = open_folder(source)
    given = find_tokens(opened, [" Việt", "t", "t"])
    assert given == [319, opened.tokenizer.vocab["t"]]
    expected = {}
    for name in opened.matrices:
        rows = load_file(source / "model.safetensors")[EMBED if name == "input" else HEAD][:N_TOKENS]
        unit = torch.nn.functional.normalize(rows.float(), dim=1)
        cosines = unit[given] @ unit.T
        cosines[range(len(given)), given] = -2
        expected[name] = torch.topk(cosines, NEIGHBOURS)
    monkeypatch.setattr(view, "BLOCK", 4 * D * 7)
    for name, tensor in opened.matrices.items():
        found = neighbours(opened, name, row_norms(tensor), given)
        assert [[row for row, _ in one] for one in found] == expected[name].indices.tolist()
        np.testing.assert_allclose(
            [[cosine for _, cosine in one] for one in found], expected[name].values, atol=1e-5
        )


def test_zero_and_broken_rows_have_no_neighbours_and_are_none(copy_of, tied_source, capsys):
    def change(tensors):
        tensors[EMBED][319] = 0
        tensors[EMBED][84, 0] = float("inf")

    folder = changed(copy_of(tied_source), change)
    show(folder, tokens=[" Việt", open_folder(folder).text(84)[1:-1], "t"])
    output = capsys.readouterr().out
    assert output.count("a row without a direction") == 2
    _, _, near = output.rpartition("nearest to")
    assert near.count("\n   ") == NEIGHBOURS
    assert " 319  " not in near and "    84  " not in near


def test_text_in_any_unicode_form_is_looked_up(tied_source, capsys):
    show(tied_source, tokens=[" Vie\u0323\u0302t"])
    assert "nearest to ' Việt' 319" in capsys.readouterr().out


def test_text_of_two_tokens_is_shown_cut_and_skipped(tied_source, capsys):
    show(tied_source, tokens=["xyz", "t"])
    output = capsys.readouterr().out
    assert "'xyz' is not one token: it is cut into 'x' (" in output
    assert output.count("nearest to") == 1


def test_no_text_is_a_token(tied_source):
    with pytest.raises(UserError, match="'xyz' is not one token: it is cut into 'x'.*give --tokens a text"):
        show(tied_source, tokens=["xyz"])


def test_letter_goes_before_the_byte_token(tmp_path):
    """SentencePiece files have A and <0x41>: the text A means the letter."""
    vocab = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)} | {"A": 257}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    folder = make_checkpoint(tmp_path / "spm", tied=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert find_tokens(open_folder(folder), ["A"]) == [257]


def test_same_folder_has_no_changed_row(source, capsys):
    show(source, base=source)
    output = capsys.readouterr().out
    assert "input     0 of 384 rows differ\n" in output
    assert ("output    0 of 384 rows differ\n" in output) == source.parent.name.startswith("untied")


def test_changed_rows_the_most_changed_first(copy_of, source, capsys):
    def change(tensors):
        tensors[EMBED][11] *= 2
        tensors[EMBED][20] *= -4
        tensors[EMBED][350, 1] = 1

    folder = changed(copy_of(source), change)
    show(folder, base=source)
    output = capsys.readouterr().out
    opened = open_folder(source)
    assert "input     3 of 384 rows differ, most first:" in output
    lines = [line.strip() for line in output.partition("most first:\n")[2].splitlines()[:3]]
    assert [line.split(" ", 6)[-1].strip() for line in lines] != []
    assert lines[0].startswith("by inf") and lines[0].endswith("350 padding")
    assert lines[1].startswith("by 500.0% cosine -1.0000") and lines[1].endswith(f"20 {opened.text(20)}")
    assert lines[2].startswith("by 100.0% cosine 1.0000") and lines[2].endswith(f"11 {opened.text(11)}")


def test_many_changed_rows_are_counted(copy_of, tied_source, capsys):
    show(changed(copy_of(tied_source), lambda tensors: tensors[EMBED].mul_(3)), base=tied_source)
    output = capsys.readouterr().out
    assert f"{N_TOKENS} of 384 rows differ" in output
    assert output.count("cosine") == SHOWN


def test_output_of_an_untied_model_is_compared_with_the_rows_of_its_tied_base(copy_of, tied_source, capsys):
    folder = copy_of(tied_source)

    def untie(tensors):
        tensors[HEAD] = tensors[EMBED].clone()
        tensors[HEAD][3] += 1

    changed(folder, untie)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}), encoding="utf-8")
    show(folder, base=tied_source)
    output = capsys.readouterr().out
    assert "input     0 of 384" in output and "output    1 of 384" in output


def test_float32_copy_has_equal_values(copy_of, tied_source):
    folder = copy_of(tied_source)
    tensors = {n: t.float().numpy() for n, t in load_file(folder / "model.safetensors").items()}
    save_numpy(tensors, folder / "model.safetensors")
    sides = [read_checkpoint(one).tensors[EMBED] for one in (folder, tied_source)]
    assert [tensor.dtype for tensor in sides] == ["F32", "BF16"]
    assert not list(changed_rows(*sides, [(row, row) for row in range(ROWS)]))


def test_new_tokens_of_a_plain_folder(copy_of, tied_source, capsys):
    folder = copy_of(tied_source)
    add_token(folder, " thời gian")
    show(folder, base=tied_source)
    output = capsys.readouterr().out
    assert "383 rows have a row there, 1 are new" in output
    assert "new       ' thời gian' 320" in output


def test_edited_folder_is_paired_by_its_map(copy_of, tied_source, capsys, tmp_path):
    """Rows in another order, one new: only the new and the really changed row are reported."""
    folder = copy_of(tied_source)
    new_to_old = [*range(N_TOKENS), None]
    new_to_old[30], new_to_old[31] = 31, 30
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    names = {token_id: token for token, token_id in data["model"]["vocab"].items()}
    data["model"]["vocab"] |= {names[30]: 31, names[31]: 30}
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    add_token(folder, " thời gian")
    write_edit(folder, tied_source, new_to_old)

    def change(tensors):
        tensors[EMBED][[30, 31]] = tensors[EMBED][[31, 30]].clone()
        tensors[EMBED][40] += 1
        tensors[EMBED][320] = 0.5

    changed(folder, change)
    show(folder, base=tied_source, plot=tmp_path / "new.png")
    output = capsys.readouterr().out
    assert "320 rows have a row there, 1 are new" in output
    assert "input     1 of 320 rows differ" in output and " 40 " in output.partition("most first:")[2]
    assert "new       ' thời gian' 320" in output
    assert "input new tokens         1" in output
    assert "(in 321 to 383; all zero)" in output


def test_finetuned_edited_folder_beside_the_edited_one(copy_of, tied_source, capsys):
    """vocab_edit.json names an older base: the two folders are plain ones with one vocabulary."""
    edited = copy_of(tied_source, "edited")
    add_token(edited, " thời gian")
    write_edit(edited, tied_source, [*range(N_TOKENS), None])
    tuned = copy_of(edited, "tuned")
    changed(tuned, lambda tensors: tensors[EMBED][320].fill_(1))
    show(tuned, base=edited)
    assert "1 of 384 rows differ" in capsys.readouterr().out


def test_another_vocabulary_is_refused(copy_of, tied_source):
    folder = copy_of(tied_source)
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace(" Việt", " Viết")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"row 319 is ' Viết' in .*, ' Việt' in .*-t compare_vocab"):
        show(folder, base=tied_source)


def test_another_size_is_refused(copy_of, tied_source):
    folder = copy_of(tied_source)

    def narrow(tensors):
        tensors[EMBED] = tensors[EMBED][:, :16].clone()

    with pytest.raises(UserError, match="rows of 16 values, .* of 32: models of two sizes"):
        show(changed(folder, narrow), base=tied_source)


def test_token_beyond_the_rows_is_refused(copy_of, tied_source):
    folder = copy_of(tied_source)
    for at in range(ROWS - N_TOKENS + 1):
        add_token(folder, f"<new {at}>")
    with pytest.raises(UserError, match="has id 384, but the model has 384 rows"):
        show(folder)


def test_map_of_another_folder_is_refused(copy_of, tied_source):
    folder = copy_of(tied_source)
    write_edit(folder, tied_source, [0, 1])
    with pytest.raises(UserError, match="maps 2 tokens, .* has 320; the two belong to different folders"):
        show(folder)


def check_png(path: Path) -> None:
    pixels = matplotlib.image.imread(path)[..., :3]
    assert pixels.shape == (975, 1950, 3)
    halves = pixels[:, :1170], pixels[:, 1250:]
    for half in halves:
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 50  # axes, text, points or bars in colours
        assert 0.002 < np.mean(half.min(axis=2) < 0.9) < 0.7


@pytest.mark.slow
def test_picture(source, tmp_path, capsys, recwarn):
    """A sample of an untied model, given tokens of a tied one."""
    tokens = (" Việt", "t", " 时间") if source.parent.name.startswith("tied") else ()
    show(source, tokens=tokens, plot=tmp_path / "rows.png")
    assert f"{tmp_path / 'rows.png'}: written" in capsys.readouterr().out
    check_png(tmp_path / "rows.png")
    assert not [str(warning.message) for warning in recwarn if "lyph" in str(warning.message)]


def test_label_the_font_cannot_draw_is_the_id(tied_source):
    opened = open_folder(tied_source)
    (row,) = find_tokens(opened, [" 时间"])
    assert _drawable(opened, row) == f"id {row}"
    assert _drawable(opened, 319) == "' Việt'"


def test_labels_without_room_are_counted(tied_source, tmp_path):
    """All points in one spot leave no room for most labels."""
    opened = open_folder(tied_source)
    figure = new_figure(tmp_path / "rows.png")
    axes = figure.subplots()
    rows = list(range(40))
    axes.scatter([0] * 40, [0] * 40)
    _label(axes, opened, [("all", "k", rows)], {row: np.zeros(2) for row in rows})
    counted = [text.get_text() for text in axes.texts if text.get_text().startswith("not labelled, no room:")]
    shown = len(axes.texts) - 1
    assert counted == [f"not labelled, no room: {40 - shown}"] and 0 < shown < 40


def test_projection_of_points_on_a_line():
    rows = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32) * [[5], [1], [3]]
    points, shares = project(rows)
    assert points.shape == (3, 2)
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.linalg.norm(points[0] - points[1]), np.linalg.norm(unit[0] - unit[1]), rtol=1e-5
    )
    assert not project(rows[:1])[0].any()  # one row alone


def test_projection_puts_rows_that_are_not_finite_at_the_centre_of_directions():
    rows = np.array([[1, 0], [-1, 0], [np.inf, 1], [np.nan, np.nan]], np.float32)
    assert np.isfinite(project(rows)[0]).all()


def test_nothing_to_draw(copy_of, tied_source, tmp_path):
    folder = changed(copy_of(tied_source), lambda tensors: tensors[EMBED].zero_())
    with pytest.raises(UserError, match="no row of input has a direction"):
        show(folder, plot=tmp_path / "rows.png")
    assert not (tmp_path / "rows.png").exists()


def test_existing_picture_is_kept(tied_source, tmp_path):
    (tmp_path / "rows.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"rows.png already exists; choose another file"):
        show(tied_source, plot=tmp_path / "rows.png")
    assert (tmp_path / "rows.png").read_bytes() == b"mine"


def test_picture_of_another_kind_or_in_no_folder(tied_source, tmp_path):
    with pytest.raises(UserError, match="is no PNG"):
        show(tied_source, plot=tmp_path / "rows.pdf")
    with pytest.raises(UserError, match="is not a folder; make it first: mkdir -p"):
        show(tied_source, plot=tmp_path / "nowhere" / "rows.png")


def test_matplotlib_is_missing(tied_source, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="python3 -m pip install matplotlib"):
        show(tied_source, plot=tmp_path / "rows.png")
    show(tied_source)  # not needed for anything else


@pytest.mark.assets
@pytest.mark.skipif(
    not (ASSETS / "models" / "stories260K").is_dir(), reason=f"needs the real models in {ASSETS / 'models'}"
)
def test_real_model(capsys):
    """stories260K, trained on English stories: he and she are near each other."""
    show(ASSETS / "models" / "stories260K", tokens=[" he"])
    output = capsys.readouterr().out
    assert "512 = 512 tokens + 0 padding\n" in output
    assert "' she'" in output.partition("nearest to ' he'")[2]

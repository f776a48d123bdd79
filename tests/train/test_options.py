"""StageOptions: a field for each flag, what flags alone tell to be wrong, what run.json keeps of them."""

import dataclasses

import pytest

import finetune_qwen
from vocabkit.errors import UserError
from vocabkit.train.options import StageOptions

GIVEN = ["--model_name_or_path", "M", "--data_path", "a.jsonl", "b.jsonl:2", "--output_dir", "O"]


def options(*flags: str) -> StageOptions:
    return finetune_qwen.read_options([*GIVEN, *flags])


def test_there_is_a_field_for_each_flag_in_their_order():
    flags = vars(finetune_qwen.build_parser().parse_args(GIVEN))
    assert [field.name for field in dataclasses.fields(StageOptions)] == [*flags, "others"]


def test_layers():
    assert (
        options("--finetune_layers", "0 2").layers(4)
        == options("--finetune_layers", "2,0").layers(4)
        == {0, 2}
    )
    assert options().layers(4) == set() and options("--finetune_layers", "all").layers(3) == {0, 1, 2}
    for given, message in (
        ("0 7", "'0 7': 7 is no layer of this model, which has 0 to 1"),
        ("", "'': nothing is"),
    ):
        with pytest.raises(UserError, match=message):
            options("--finetune_layers", given).layers(2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eval_share", "1"], "--eval_share is 1.0, expected 0 to less than 1"),
        (["--stage_mix", "vietnamese=0.5", "vi"], "--stage_mix vi: expected NAME=SHARE"),
        (["--objective", "distill", "--train_rows", "all"], "--objective distill .* needs --train_rows new"),
        (["--objective", "both", "--finetune_layers", "0"], "--objective both .* needs --train_rows new"),
        (["--lora_rank", "2"], "--lora_rank 2 with --finetune_layers none: give a rank of 1 or more"),
        (["--lora_rank", "0", "--finetune_layers", "all"], "--lora_rank 0 with --finetune_layers all"),
    ],
)  # fmt: skip
def test_what_no_model_can_do(flags, message):
    with pytest.raises(UserError, match=message) as caught:
        options(*flags)
    assert "\n" not in str(caught.value)


def test_number_types():
    assert options().dtype_on("cuda") == "bfloat16" and options().dtype_on("cpu") == "float32"
    assert options("--dtype", "float32").dtype_on("cuda") == "float32"


def test_what_a_run_is_known_by():
    recorded = options("--ignore_memory", "--stage_mix", "english=2", "--max_steps", "3").recorded()
    assert recorded.pop("others") == ["--max_steps", "3"]
    assert recorded["data_path"] == "['a.jsonl', 'b.jsonl:2']" and recorded["stage_mix"] == "['english=2']"
    assert recorded["lora_rank"] == "None" and recorded["eval_share"] == "0.02"
    assert recorded.keys() == vars(finetune_qwen.build_parser().parse_args(GIVEN)).keys() - {"ignore_memory"}

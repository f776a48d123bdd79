"""Flags of a training stage: what is refused and why, and what --optim, --fsdp and rows alone become."""

import json
import types

import pytest
import torch
from training import FAST, RUN, finetune, killed_run, refuse, tensors  # noqa: F401
from transformers.training_args import OptimizerNames

import finetune_qwen
from vocabkit.errors import UserError
from vocabkit.train import flags as train_flags
from vocabkit.train.flags import REFUSED, keep_rows_apart, training_arguments
from vocabkit.train.memory import checkpointing_flag


def settings_of(tmp_path, *flags):
    given = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o", *flags]
    return training_arguments(finetune_qwen.read_options(given), part=tmp_path / "o.part")


@pytest.mark.parametrize("name", [option.value for option in OptimizerNames])
def test_optimizers_that_do_not_go_on_are_refused(tmp_path, name):
    refused = name.startswith(("galore", "apollo", "adalomo", "grokadamw")) or name.endswith("layerwise")
    if not refused:
        assert not any(name.startswith(start) for start in REFUSED)
        return
    with pytest.raises(UserError, match=f"^--optim {name}: .*; give --optim ad") as caught:
        settings_of(tmp_path, "--optim", name)
    assert ("keeps its state outside" in str(caught.value)) == (
        name.endswith("layerwise") or name == "adalomo"
    )


def test_rows_do_not_share_a_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(train_flags, "check_settings", lambda *args, **of: None)  # torchao may be missing
    config = tmp_path / "config.json"
    for width, given, expected in (
        (896, "bf16_stochastic_round=True", "bf16_stochastic_round=True,block_size=128"),
        (3584, None, "block_size=256"),
        (896, "block_size=64", "block_size=64"),
    ):
        config.write_text(json.dumps({"hidden_size": width}), encoding="utf-8")
        settings = settings_of(
            tmp_path, "--optim", "adamw_torch_8bit", *(["--optim_args", given] if given else [])
        )
        keep_rows_apart(settings, tmp_path)
        assert settings.optim_args == expected
    settings = settings_of(tmp_path, "--optim", "adafactor")
    keep_rows_apart(settings, tmp_path)
    assert settings.optim_args is None


@pytest.mark.parametrize(
    ("cuda", "flags", "optim"),
    [
        (True, ["--train_rows", "new"], "adamw_torch"),  # a few rows in float32: nothing to save, no torchao
        (True, ["--train_rows", "new", "--finetune_layers", "0"], "adamw_torch_8bit"),
        (True, ["--train_rows", "all"], "adamw_torch_8bit"),
        (True, ["--train_rows", "all", "--dtype", "float32"], "adamw_torch"),
        (False, ["--train_rows", "all"], "adamw_torch"),
    ],
)
def test_the_optimizer_fits_what_moves(tmp_path, monkeypatch, cuda, flags, optim):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(train_flags, "TORCHAO", ())  # installed or not is not asked
    settings = settings_of(tmp_path, *flags, "--use_cpu", "true")
    assert settings.optim == optim and settings.learning_rate == (1e-3 if flags[1:] == ["new"] else 1e-5)
    assert (settings.optim_args is not None) == (optim == "adamw_torch_8bit")


def test_recomputing_activations_goes_by_the_name_that_transformers_has(tmp_path):
    assert checkpointing_flag(settings_of(tmp_path)) == "activation_checkpointing"
    older = types.SimpleNamespace(gradient_checkpointing=True)
    assert checkpointing_flag(older) == "gradient_checkpointing"


def test_fsdp_parses(tmp_path, monkeypatch):
    config = {"activation_checkpointing": True, "transformer_layer_cls_to_wrap": ["Qwen2DecoderLayer"]}
    (tmp_path / "fsdp.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(train_flags, "check_settings", lambda *args, **options: None)
    for given in (json.dumps(config), str(tmp_path / "fsdp.json")):
        settings = settings_of(tmp_path, "--fsdp", "--fsdp_config", given, "--bf16", "true")
        assert settings.fsdp is True and settings.fsdp_plugin_args["fsdp_version"] == 2
        assert settings.fsdp_plugin_args["activation_checkpointing"] is True
        assert settings.fsdp_plugin_args["transformer_cls_names_to_wrap"] == "Qwen2DecoderLayer"
    assert settings_of(tmp_path, "--fsdp", "--max_steps", "3").fsdp_plugin_args["fsdp_version"] == 2


def test_what_fsdp_cannot_do(tmp_path):
    for flags, message in (
        (["--fsdp"], "--fsdp needs a GPU for each of several processes"),
        (["--fsdp", "--fsdp_config", '{"version": 1}'], "version 1 has no parameters of their own"),
        (
            ["--fsdp", "--fsdp_config", '{"cpu_ram_efficient_loading": true}'],
            "only one process has the rows",
        ),
        (["--fsdp", "true"], "Unknown `fsdp` option: true"),
        (["--fsdp", "--optim_in_backward"], "it needs no --fsdp"),
    ):
        with pytest.raises(UserError, match=message):
            settings_of(tmp_path, *flags)

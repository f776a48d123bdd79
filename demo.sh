#!/usr/bin/env bash
# Trim the bundled demo model, verify it, chat with it before and after.
#
#   ./demo.sh [OUT]     # OUT: the trimmed folder, new; default out/demo__trimm_vocab (removed first)
#
# Makes .venv and installs requirements.txt there on the first run; after that it takes less than a minute.
set -euo pipefail
cd "$(dirname "$0")"
./.ci/install requirements.txt
out=${1:-out/demo__trimm_vocab}
python=.venv/bin/python
question="Translate following sentence into Chinese: tôi tên là Lý Quốc Dân"

[ $# -gt 0 ] || rm -rf "$out"  # only what an earlier demo has written
mkdir -p "$(dirname "$out")"
echo "=== 1 trim: python3 model_edit.py -m data/demo -t trimm_vocab -o $out"
$python model_edit.py -m data/demo -t trimm_vocab -o "$out"
echo
echo "=== 2 verify: python3 model_edit.py -b data/demo -m $out -t verify_edit --texts data/demo/heldout_texts.jsonl"
$python model_edit.py -b data/demo -m "$out" -t verify_edit --texts data/demo/heldout_texts.jsonl
echo
echo "=== 3 chat with both: python3 model_chat.py data/demo $out --prompt \"$question\""
$python model_chat.py data/demo "$out" --prompt "$question"
echo
echo "=== 4 before and after: python3 benchmarks/demo.py data/demo $out"
$python benchmarks/demo.py data/demo "$out"

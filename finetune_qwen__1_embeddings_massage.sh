#!/usr/bin/env bash
# Stage 1: only the rows of new words move; every old number keeps its bits. 30 s for the demo.
#
#   ./finetune_qwen__1_embeddings_massage.sh MODEL__extend_vocab [DATA [OUT]] [-- FLAGS of finetune_qwen.py]
#   MODEL=… DATA="vi.jsonl:2 en.jsonl" OUT=… PYTHON=… ./finetune_qwen__1_embeddings_massage.sh
#   ./finetune_qwen__1_embeddings_massage.sh                  # the bundled demo, which is given its words first
#
# OUT is MODEL__1_embeddings_massage unless given, beside MODEL.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
flags=(); for ((i = 1; i <= $#; i++)); do if [ "${!i}" = -- ]; then flags=("${@:i+1}"); set -- "${@:1:i-1}"; break; fi; done
model=${1:-${MODEL:-$here/data/demo}}
data=${2:-${DATA:-$here/data/demo/train_texts.jsonl}}
if [ "$model" -ef "$here/data/demo" ]; then
    model=$here/out/demo__extend_vocab
    mkdir -p "$here/out"
    [ -d "$model" ] || ${PYTHON:-python3} "$here/model_edit.py" -m "$here/data/demo" -t extend_vocab \
        --words "$here/data/demo/words.txt" --init mean -o "$model"
fi
out=${3:-${OUT:-${model%/}__1_embeddings_massage}}

# objective: the frozen model, reading the old tokens, teaches the new rows, beside the next token of the texts;
#   without either (lm, distill) the rows end worse (benchmarks/massage.py)
# learning_rate: 0.04 of the spread of rows a step; nothing else can be hurt by it
# warmup_steps: the first steps of new rows point the same way; a share of all steps
# clamp (on by default): norms stay in the old rows' range
${PYTHON:-python3} "$here/finetune_qwen.py" \
    --model_name_or_path "$model" --data_path $data --output_dir "$out" \
    --train_rows new --finetune_layers none \
    --objective both --learning_rate 1e-3 --warmup_steps 0.1 --num_train_epochs 2 "${flags[@]}"

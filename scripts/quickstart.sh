#!/usr/bin/env bash
# From nothing to a trained, adapted and evaluated recommender on real data (MovieLens latest-small), on two cores.
# Run it again and it goes on where it stopped; remove runs/ml-latest-small to start over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source scripts/environment.sh
environment .venv constraints.txt .

# Waiting threads that spin take time from those that compute.
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0
# Models this small train no faster on two threads than on one: one model a core instead.
export OMP_NUM_THREADS=1
# glibc gives large tensors back to the system after every step, which costs a quarter of the time on a CPU.
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
recbert=.venv/bin/recbert
recipes=recipes/ml-latest-small
runs=runs/ml-latest-small

# step VERB RECIPE RESULT: run a command unless its result stands.
step() {
    if [ -e "$3" ]; then
        echo "== $1 $2: $3 stands"
    else
        echo "== recbert $1 --config $recipes/$2.yaml"
        "$recbert" "$1" --config "$recipes/$2.yaml"
    fi
}

step prepare gpt2 "$runs/data/manifest.json"
bert=
if [ ! -e "$runs/bert/model" ]; then
    echo "== recbert pretrain --config $recipes/bert.yaml, beside the next steps: tail -f $runs/bert.log"
    "$recbert" pretrain --config "$recipes/bert.yaml" >"$runs/bert.log" 2>&1 &
    bert=$!
    trap 'kill "$bert" 2>/dev/null || true' EXIT
fi
step pretrain gpt2 "$runs/gpt2/model"
step prepare gpt2-early "$runs/data-early/manifest.json"
step pretrain gpt2-early "$runs/gpt2-early/model"
step prepare gpt2-late-lora "$runs/data-late/manifest.json"
step finetune gpt2-late-lora "$runs/gpt2-late-lora/model"
echo "== waiting for the masked-item model"
if [ -n "$bert" ] && ! wait "$bert"; then
    tail -n 20 "$runs/bert.log" >&2
    exit 1
fi

echo
echo "== Leave-one-out: the last film of every user"
"$recbert" evaluate --config "$recipes/gpt2.yaml" \
    --evaluation.checkpoints "[$runs/gpt2/model, $runs/bert/model]"
echo
echo "== Adaptation: the last ten films of the users who joined last, before and after LoRA"
"$recbert" evaluate --config "$recipes/gpt2-late-lora.yaml"
echo
echo "== Recommendations for somebody who watched four films"
"$recbert" recommend --checkpoint "$runs/gpt2/model" --items recbert/data/items.parquet \
    --history 260 1196 1210 2571 --k 10

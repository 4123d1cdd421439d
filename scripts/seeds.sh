#!/usr/bin/env bash
# Trains and evaluates one recipe with several seeds, and prints their mean with its interval.
#
#   bash scripts/seeds.sh RECIPE FOLDER "42 1 2" [--key value ...]
#
# Each seed gets FOLDER/SEED; what is finished there is left as it is. The data must be prepared. The test part
# is looked at once for each seed, at the end.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
recipe=$1 folder=$2 seeds=$3
shift 3
runs=()
for seed in $seeds; do
    run=(--config "$recipe" --training.output_dir "$folder/$seed" --training.seed "$seed" "$@")
    [ -d "$folder/$seed/model" ] || recbert pretrain "${run[@]}"
    [ -f "$folder/$seed/ranks-test.safetensors" ] || recbert evaluate "${run[@]}"
    runs+=("$folder/$seed")
done
names=$(IFS=,; echo "${runs[*]}")
recbert compare "$(basename "$folder")=$names"

#!/usr/bin/env bash
# One virtual environment a peer, one after the other, with pins that are known to work together.
#
#   benchmarks/environments.sh FOLDER [PEER ...]
#
# PEER is any of rectools, replay, recbole, cornac (default: all of them). An environment that already answers
# is left alone. About 2 GB a peer. PYTHON chooses the interpreter (3.11), TORCH the build of torch: on a machine
# with a GPU set TORCH to what fits its driver, else the CPU wheel is asked for by its exact version.
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
folder=$1
shift
peers=("$@")
[ ${#peers[@]} -gt 0 ] || peers=(rectools replay recbole cornac)
python=${PYTHON:-python3.11}
torch=${TORCH:-torch==2.13.0}

packages() {
    case $1 in
    rectools) echo "rectools[torch]==0.19.0" ;;
    replay) echo "replay-rec[torch]==0.22.0" ;;
    # recbole 1.2.1 is older than NumPy 2, pandas 3 and the removal of pkg_resources; it imports the rest unasked.
    recbole) echo "recbole==1.2.1 numpy<2 pandas<3 scipy<1.15 setuptools<81" ;;
    cornac) echo "cornac==3.0.1 transformers==5.23.0" ;;
    *)
        echo "unknown peer '$1': choose from rectools, replay, recbole, cornac" >&2
        exit 2
        ;;
    esac
}

for peer in "${peers[@]}"; do
    # An array keeps "numpy<2" one word, whatever is in it.
    read -r -a wanted <<<"$(packages "$peer")"
    home=$folder/$peer
    if [ -f "$home/.complete" ]; then
        echo "$peer: already at $home"
        continue
    fi
    "$python" -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check "$torch" "${wanted[@]}"
    "$home/bin/pip" freeze >"$home/.complete"
    echo "$peer: $home"
done

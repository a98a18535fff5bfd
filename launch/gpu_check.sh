#!/usr/bin/env bash
# One command that proves a GPU machine, in nine minutes at most:
#
#   bash launch/gpu_check.sh OUT             every part on one GPU, the most telling first
#   bash launch/gpu_check.sh OUT --dry-run   every part on the CPU, at toy size
#
# OUT gets a file per part, written as it goes, and summary.txt with a line per part: name, status (124: out of
# time), seconds. The status is 1 if a part failed. Nothing else is left behind.
#
#   doctor       launch/doctor.py: versions, driver, copies, bf16, disk, graph against eager
#   graphs       graph against eager for small32 and vgg64 in float32 and bf16, with the memory they take
#   tests        tests/gpu
#   step         launch/benchmark.py step at batch 96, conv32 and vgg64
#   best-batch   the same at batch 1,024
#   sigterm      SIGTERM in the middle of captured training: saved and gone within 30 s
#   training     with the time that is left: CIFAR-10 if its shards are there, else Fashion-MNIST mini; evaluated
#
# Variables: PYTHON, the interpreter that has the packages (default: python3).

set -uo pipefail

usage="bash launch/gpu_check.sh OUT [--dry-run]"
total_seconds=530
python=${PYTHON:-python3}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "error: $*" >&2
    exit 2
}

# All of the commands run, also behind one that failed; the status is that of the last failure.
status=0
attempt() {
    echo "\$ $*"
    "$@" || status=$?
}

# Parts. DRY_RUN, WORK (a folder that is removed) and SECONDS_LEFT come from below.

doctor() {
    attempt "$python" launch/doctor.py --json --disk "$WORK"
}

graphs() {
    local networks=("small32 10" "vgg64 530") precisions=(no bf16) batch=96 name classes precision
    [[ $DRY_RUN ]] && networks=("mlp2d 3") precisions=(bf16) batch=8
    for network in "${networks[@]}"; do
        read -r name classes <<<"$network"
        for precision in "${precisions[@]}"; do
            attempt "$python" launch/doctor.py --json --only iteration --only graph \
                --architecture "$name" --classes "$classes" --batch-size "$batch" --mixed_precision "$precision"
        done
    done
}

tests() {
    local first="preparing or one_launch or copied_ahead or three_iterations or every_collective"
    local pytest=("$python" -m pytest -o addopts= -v -p no:cacheprovider)
    if [[ $DRY_RUN ]]; then
        attempt "${pytest[@]}" tests/gpu
    else
        attempt "${pytest[@]}" tests/gpu/test_graphs.py -k "$first"
        attempt "${pytest[@]}" tests/gpu -k "not ($first)"
    fi
}

measure() { # batch size, rounds
    local networks=("conv32 10" "vgg64 530") precision=bf16 name classes
    [[ $DRY_RUN ]] && networks=("mlp2d 3") precision=no
    for network in "${networks[@]}"; do
        read -r name classes <<<"$network"
        attempt "$python" launch/benchmark.py step --json --architecture "$name" --classes "$classes" \
            --batch-size "$1" --rounds "$2" --mixed_precision "$precision"
    done
}

step() {
    if [[ $DRY_RUN ]]; then measure 8 1; else measure 96 10; fi
}

best-batch() {
    if [[ $DRY_RUN ]]; then measure 16 1; else measure 1024 3; fi
}

sigterm() {
    local log="$WORK/sigterm.log" run="$WORK/sigterm" process begin code limit=90
    local settings=(train.log_every_steps=100000 train.epochs=10000 train.max_seconds=0 data.source=resident)
    settings+=(train.sample_every_steps=0)
    [[ $DRY_RUN ]] && settings+=(data.batch_size=8)
    : >"$log"
    "$python" launch/train.py --config configs/quickstart.json --run-dir "$run" "${settings[@]/#/--set=}" \
        >"$log" 2>&1 &
    process=$!
    until grep -q "step 1/" "$log"; do
        if ((limit-- == 0)) || ! kill -0 "$process" 2>/dev/null; then
            cat "$log"
            echo "There was no first iteration."
            status=1
            return
        fi
        sleep 1
    done
    sleep 3
    begin=$(date +%s%N)
    kill -TERM "$process"
    wait "$process"
    code=$?
    cat "$log"
    echo "ended with status $code, $((($(date +%s%N) - begin) / 1000000)) ms after SIGTERM"
    ls "$run/checkpoints" || status=1
    ((code == 75)) || status=1 # stopped early, to go on
    (($(date +%s%N) - begin < 30000000000)) || status=1
}

training() {
    local run="$WORK/training" config=configs/quickstart.json settings=()
    local evaluating=75 # seconds of evaluation, at most
    if [[ -f shards/cifar10/train/manifest.json && ! $DRY_RUN ]]; then
        config=configs/cifar10.json
        settings=(evaluation.classifier=null data.source=resident)
    fi
    settings+=("train.max_seconds=$((SECONDS_LEFT > evaluating + 20 ? SECONDS_LEFT - evaluating : 20))")
    if [[ $DRY_RUN ]]; then
        settings+=(train.epochs=1e-9 data.batch_size=8 train.sample_every_steps=0 train.evaluate_at_end=false)
        settings+=(evaluation.batch_norm=running data.train=shards/fashion-mnist-mini/test)
    fi
    attempt "$python" launch/train.py --config "$config" --run-dir "$run" "${settings[@]/#/--set=}"
    local few=()
    [[ $DRY_RUN ]] && few=(--samples-per-class 4 --set evaluation.diversity_samples=3 --set evaluation.splits=2 --set evaluation.neighbour_samples=9)
    attempt "$python" launch/evaluate.py --run "$run" "${few[@]}"
}

# One part, as a process of its own that can run out of time

if [[ ${1:-} == --part ]]; then
    cd "$repository" || exit
    "$2"
    exit "$status"
fi

# All parts

[[ $# -ge 1 && $1 != -* && (${2:-} == "" || ${2:-} == --dry-run) && $# -le 2 ]] || fail "$usage"
line_of_a_part='^[a-z-]+ +(rc=[0-9]+ +[0-9]+ s|left out: no time)$' # of summary.txt, which proves whose OUT is
ours() { [[ -s $1/summary.txt ]] && ! grep -qvE "$line_of_a_part" "$1/summary.txt"; }
[[ ! -e $1 || -z $(ls -A "$1") ]] || ours "$1" ||
    fail "$1 holds files that this check has not written: give another folder as OUT."
mkdir -p "$1" || fail "$1 cannot be made: give another folder as OUT."
out=$(cd "$1" && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
DRY_RUN=${2:+yes}
export WORK DRY_RUN SECONDS_LEFT PYTHONUNBUFFERED=1
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}"
[[ $DRY_RUN ]] && export CUDA_VISIBLE_DEVICES=""
: >"$out/summary.txt"

worst=0
run_part() { # name, seconds at most
    local begin=$SECONDS limit=$2 code line
    [[ $DRY_RUN ]] && limit=150 # a CPU may be busy with other things
    SECONDS_LEFT=$((total_seconds - SECONDS))
    ((SECONDS_LEFT > limit)) && SECONDS_LEFT=$limit
    if ((SECONDS_LEFT < 20)); then
        line=$(printf '%-12s left out: no time' "$1")
    else
        timeout -k 5 "$SECONDS_LEFT" bash "${BASH_SOURCE[0]}" --part "$1" >"$out/$1.txt" 2>&1
        code=$?
        ((code == 0)) || worst=1
        line=$(printf '%-12s rc=%-3s %3s s' "$1" "$code" "$((SECONDS - begin))")
    fi
    echo "$line" | tee -a "$out/summary.txt"
}

run_part doctor 50
run_part graphs 90
run_part tests 110
run_part step 80
run_part best-batch 60
run_part sigterm 50
run_part training "$total_seconds" # what is left
exit "$worst"

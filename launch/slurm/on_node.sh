#!/usr/bin/env bash
# What steps of train.sbatch and evaluate.sbatch run on each node, inside the container if they have one.
#
#   on_node.sh check --config configs/X.json [train.py arguments]
#       whether this node can train: prints "on_node: ready", on the first node with the run directory behind it;
#       else says what is wrong and prints "on_node: refused". The status is 0: what is said is the answer.
#   on_node.sh join [arguments of `accelerate launch`] launch/train.py ...
#       becomes the launcher of this node
#   on_node.sh run COMMAND [arguments]
#       becomes COMMAND

set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

prepare() {
    if [[ -n ${VIRTUAL_ENVIRONMENT:-} ]]; then
        [[ -f $VIRTUAL_ENVIRONMENT/bin/activate ]] ||
            fail "VIRTUAL_ENVIRONMENT=$VIRTUAL_ENVIRONMENT has no bin/activate on $(hostname). Is its disk shared" \
                "(in a container: mounted)?"
        # shellcheck disable=SC1091
        source "$VIRTUAL_ENVIRONMENT/bin/activate"
    fi
    for program in python accelerate; do
        command -v "$program" >/dev/null ||
            fail "$(hostname) finds no $program. Set VIRTUAL_ENVIRONMENT, or activate one before sbatch."
    done
    python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$(command -v python) is $(python --version 2>&1); 3.11 or later is needed. Set VIRTUAL_ENVIRONMENT."
}

run_directory() {
    if [[ $SLURM_NODEID == 0 ]]; then
        python launch/train.py "$@" --print-run-dir # says what is wrong with the arguments
    fi
}

mode=$1
shift
case $mode in
check)
    if answer=$(prepare && run_directory "$@"); then
        echo "on_node: ready $answer"
    else
        echo "on_node: refused"
    fi
    ;;
# The shell replaces itself: between srun and the launcher it would take signals and leave orphans.
join)
    prepare
    exec accelerate launch --machine_rank "$SLURM_NODEID" --rdzv_conf "is_host=$((SLURM_NODEID == 0))" "$@"
    ;;
run)
    prepare
    exec "$@"
    ;;
*) fail "on_node.sh knows check, join and run, not $mode." ;;
esac

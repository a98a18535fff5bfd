# shellcheck shell=bash
# This job as SLURM sees it, and how it comes again; sourced by the batch scripts.

# An element of an array by its own name: one of them has the number of the whole array
job=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_JOB_ID:-} ]]; then
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi

# SIGTERM comes with the end of the job; the step gets it as well, and is waited for.
terminated=false
trap 'terminated=true' TERM

# One field of what SLURM says of this job.
job_field() {
    scontrol --oneliner show job "$job" | sed -n "s/.* $1=\([^ ]*\).*/\1/p"
}

# Whether this start was told to end. Preemption with a grace time tells the step alone, not the batch shell.
told_to_end() {
    local started preempted
    $terminated && return
    started=$(job_field StartTime) && preempted=$(job_field PreemptTime) || return
    [[ $preempted == [0-9]* && ! $preempted < $started ]] # not that of an earlier start
}

# Queue the job again, unless it is ended from outside. No return.
queue_again() {
    local state
    state=$(job_field JobState) || state=unknown
    if [[ $state != RUNNING ]]; then
        echo "Stopped early; the job is being ended ($state), and SLURM decides whether it is queued again."
    elif scontrol requeue "$job"; then
        echo "Stopped early; queued again."
    else
        echo "Stopped early, and SLURM refuses to queue the job again; the same sbatch command goes on." >&2
    fi
    exit 75
}

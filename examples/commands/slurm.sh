#!/bin/bash
# The owner's trainer for `unlearn: {method: command}` on a Slurm cluster: submits a batch script, waits for it, and takes the job back when the guard stops.
#
#   unlearn:
#     method: command
#     command: [examples/commands/slurm.sh, --partition=gpu, --gres=gpu:1, /srv/train/unlearn.sbatch]
#     deadline: 12h
#     grace: 15s
#
# The arguments are those of sbatch, the batch script last. That script gets the same DELTA_GUARD_ variables. What it prints, `progress` lines too, is handed on.
# The job's folder must be the same on the nodes as here (docs/command.md, "Under systemd").
set -euo pipefail
cd "$DELTA_GUARD_RESUME"

# A job of an earlier attempt that was killed before it could take it back.
if [ -s job ]; then
    scancel "$(cat job)" || true
    rm -f job
fi
number() { cut -d';' -f1 submitted 2>/dev/null | head -n 1; }
stop() {
    trap '' TERM
    if [ -n "$(number)" ]; then scancel "$(number)"; fi
    rm -f job
    exit 75
}
trap stop TERM

time=()
if [ -n "${DELTA_GUARD_DEADLINE:-}" ]; then
    minutes=$(((DELTA_GUARD_DEADLINE - $(date +%s)) / 60))
    time=(--time=$((minutes > 1 ? minutes : 1)))
fi
# --parsable: the job's number (";cluster" may follow) comes as soon as it is submitted; --wait: it ends with the job, and with its exit code.
: > submitted
: > slurm.log
sbatch --wait --parsable --export=ALL --job-name=delta-guard-unlearn --open-mode=append --output="$PWD/slurm.log" "${time[@]}" "$@" > submitted &
sbatch=$!
tail -n +1 -F --pid=$sbatch slurm.log 2>/dev/null &
tail=$!
while kill -0 $sbatch 2>/dev/null && [ -z "$(number)" ]; do sleep 0.2; done
number > job
code=0
wait $sbatch || code=$?
wait $tail || true
rm -f job
exit $code

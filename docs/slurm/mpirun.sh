#!/bin/bash
# One run on several machines, its processes started by mpirun:  RUN=runs/paper sbatch docs/slurm/mpirun.sh
#SBATCH --job-name=alexnet --nodes=2 --ntasks-per-node=4 --cpus-per-task=16 --time=04:00:00
#SBATCH --requeue                # where a node fails, or the job has to make room, SLURM starts this script anew
#SBATCH --signal=B:USR1@120      # two minutes before the time is up, to this script, which hands it on: save and stop
#SBATCH --open-mode=append       # one log for all its starts
run=${RUN:-runs/paper}
options=(--shards 8 --preset paper --dataset folder --data imagenet)
module load openmpi              # or whatever this cluster's MPI is called

has_ended() { tail -n 1 "$run/metrics.jsonl" 2> /dev/null | grep -q '"kind": "end"'; } # the one sign of success
newest() { find "$run/checkpoints" -name 'step-*.safetensors' 2> /dev/null | sort | tail -n 1; }

before=$(newest)
[ -n "$before" ] && options=(--resume)
trap '[ -n "$job" ] && kill -USR1 "$job"' USR1
mpirun --map-by "slot:PE=$SLURM_CPUS_PER_TASK" alexnet train --out "$run" "${options[@]}" &
job=$!
while kill -0 "$job" 2> /dev/null; do wait "$job"; done # a signal ends a wait, not the job

has_ended && exit 0
[ "$(newest)" != "$before" ] && scontrol requeue "$SLURM_JOB_ID" # it got further, so it will again
exit 1

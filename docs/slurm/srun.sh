#!/bin/bash
# One run on several machines, its processes started by srun:  RUN=runs/paper sbatch docs/slurm/srun.sh
# With GPUs, one process each: --gpus-per-node=4 --ntasks-per-node=4 below, and --backend cuda among the options.
#SBATCH --job-name=alexnet --nodes=2 --ntasks-per-node=4 --cpus-per-task=16 --time=04:00:00
#SBATCH --requeue                # where a node fails, or the job has to make room, SLURM starts this script anew
#SBATCH --signal=USR1@120        # two minutes before the time is up, to every process: save and stop
#SBATCH --open-mode=append       # one log for all its starts
run=${RUN:-runs/paper}
options=(--shards 8 --preset paper --dataset folder --data imagenet)
module load openmpi              # or whatever this cluster's MPI is called
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # which srun takes from nowhere else

has_ended() { tail -n 1 "$run/metrics.jsonl" 2> /dev/null | grep -q '"kind": "end"'; } # the one sign of success
newest() { find "$run/checkpoints" -name 'step-*.safetensors' 2> /dev/null | sort | tail -n 1; }

before=$(newest)
[ -n "$before" ] && options=(--resume)
srun --mpi=pmix --kill-on-bad-exit=1 alexnet train --out "$run" "${options[@]}"

has_ended && exit 0
[ "$(newest)" != "$before" ] && scontrol requeue "$SLURM_JOB_ID" # it got further, so it will again
exit 1

"""One run on several processes: each takes its share of every batch, and all end with the same bits.

    mpirun -n 4 alexnet train --shards 4 --out runs/paper ...

group       what the processes have in common: messages, and nothing else. MPI moves bytes; what is added is added here
nccl        the same where every process has a GPU: arrays go by NCCL, from GPU to GPU
trees       sums in an order that the number of processes does not change
exchange    gradients summed over all processes, while the backward still runs
behind      who does that: a thread, or a second stream of the GPU
sharded     a training step over this process's shards of a batch
weird       dense layers of which each process holds some units ("one weird trick")
two_towers  a grouped network of which each of two processes holds a tower, as in 2012
crossing    the units and maps that travel in both of these, and their gradients
traffic     what all that sends, by the formula
counted     the same as it is sent, and how long a step waits for it
launch      begins and ends it all: who is there, the watchdog, errors that end every process

The batch is cut into S shards, a power of two that the configuration names. Each shard's gradients are computed by the
same kernels at the same size whoever computes them, and added up by one binary tree over the shards. R processes, R a
divisor of S, own whole branches of that tree: R = 1, 2, 4 give the same bits.
Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), arXiv:1404.5997.
"""

"""Training beside PyTorch, from the same weights, on the same batches, without dropout: how far do the losses part?

    python -m alexnet_np.benchmarks.train_parity [--steps 50] [--batch 128] [--width 1] [--backend numba]
                                                 [--dtype float32] [--threads N]

d2l's network on Fashion-MNIST with d2l's recipe (SGD, lr 0.01). The two take turns, batch by batch, and each one's
images a second are shown. Exit code 1 where losses differ by more than 1e-3 (float32) or 1e-8 (float64), relatively.
With --steps 469 it is a whole epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from alexnet_np.measure.training_parity import TOLERANCES, train_beside_torch
from alexnet_np.study.torch_net import import_torch
from alexnet_np.training.config import Config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--dtype", choices=TOLERANCES, default="float32")
    parser.add_argument("--threads", type=int, help="of torch; its own default otherwise")
    arguments = parser.parse_args()
    torch = import_torch()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = Config(
        width=arguments.width,
        batch_size=arguments.batch,
        dropout=0.0,
        backend=arguments.backend,
        dtype=arguments.dtype,
        epochs=-(-arguments.steps * arguments.batch // 60_000),
    )
    for beside in train_beside_torch(config, arguments.steps):
        step = len(beside.ours)
        if step in (1, arguments.steps) or step % 10 == 0:
            speeds = [arguments.batch / statistics.median(s) for s in (beside.our_seconds, beside.their_seconds)]
            print(
                f"step {step:4}  loss {beside.ours[-1]:.6f}, torch {beside.theirs[-1]:.6f}  "
                f"worst so far {max(beside.differences()):.1e}  images/s {speeds[0]:.0f}, torch {speeds[1]:.0f}",
                flush=True,
            )
    worst = max(beside.differences())
    print(f"{arguments.backend} {arguments.dtype}, {step} batches of {arguments.batch}: losses differ by {worst:.1e}")
    sys.exit(worst > TOLERANCES[arguments.dtype])


if __name__ == "__main__":
    main()

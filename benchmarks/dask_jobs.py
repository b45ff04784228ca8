"""A job on Dask's two local workers beside the same job on one machine: images a second over 2,000 JPEGs.

    python -m alexnet_np.benchmarks.dask_jobs [--images 2000] [--rounds 3] [--part-sizes 32 64 128]

Whole commands as users type them, `alexnet embed` into a .parquet and with --engine dask into a folder, a process each,
in turns: the start of Python, of the cluster and of its workers, reading, packing and handing over the weights, and
writing all count. Beside them, in this process, the same without any start: a cluster that stands, its workers warm by
a first job, beside `jobs.embed` warm likewise. Vectors are compared to the bit. Medians; the share of the one machine's
rate is held against 85%. Exit code 1 where the best part size's share, started or standing, falls short of it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import alexnet_np as anp
from alexnet_np import jobs, threads
from alexnet_np.jobs import cluster
from alexnet_np.jobs.cluster import Cluster
from alexnet_np.jobs.listing import list_images
from alexnet_np.measure.load import write_photographs

TARGET = 0.85


class Bench:
    def __init__(self, folder: Path, images: int, preset: str) -> None:
        self.pictures, self.network, self.out = folder / "pictures", folder / "net.safetensors", folder / "out"
        self.one = folder / "one.parquet"
        write_photographs(self.pictures, images)
        anp.weights.write(self.network, anp.alexnet(preset, seed=0).eval())
        self.files = jobs.find([str(self.pictures)])[0]

    def model(self) -> anp.AlexNet:
        return anp.alexnet(None, weights=str(self.network)).eval()

    def command(self, *more: str) -> None:
        given = [str(self.pictures), "--weights", str(self.network), "--backend", "numba", *more]
        subprocess.run([sys.executable, "-m", "alexnet_np", "embed", *given], check=True, stdout=subprocess.DEVNULL)

    def command_here(self) -> None:
        self.command("--out", str(self.one))

    def command_on_dask(self, size: int) -> None:
        self.command("--out", str(self.out), "--engine", "dask", "--part-size", str(size))

    def here(self) -> None:
        jobs.embed(self.model(), self.files, self.one, backend="numba", forget=True)

    def on_standing(self, where: Cluster, size: int) -> None:
        model = self.model()
        job = cluster.describe("embed", model, str(self.out), backend="numba")
        cluster.run(job, model, list_images([str(self.pictures)]), size, where)

    def same(self) -> bool:
        """Whether both wrote the same rows."""
        from pyarrow import parquet

        tables = [parquet.read_table(path) for path in (self.one, self.out)]
        names = [table["file"].to_pylist() for table in tables]
        rows = [table["embedding"].combine_chunks().flatten().to_numpy() for table in tables]
        return names[0] == names[1] and np.array_equal(*rows)


def in_turns(bench: Bench, ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Images a second of each, the median of the rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        order = list(ways.items())[turn % len(ways) :] + list(ways.items())[: turn % len(ways)]
        for name, way in order:
            shutil.rmtree(bench.out, ignore_errors=True)
            bench.one.with_name(f"{bench.one.name}.done.json").unlink(missing_ok=True)
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    return {name: len(bench.files) / statistics.median(each) for name, each in seconds.items()}


def show(title: str, rates: dict[str, float]) -> float:
    """Print them beside the first; gives the largest share."""
    first, *others = rates.items()
    print(f"\n{title}\n  {first[0]:24}{first[1]:8.1f} images/s")
    shares = []
    for name, rate in others:
        shares.append(rate / first[1])
        print(
            f"  {name:24}{rate:8.1f} images/s{shares[-1]:8.0%}{'' if shares[-1] >= TARGET else f'  below {TARGET:.0%}'}"
        )
    sys.stdout.flush()
    return max(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part-sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--preset", default="torchvision")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as keep:
        bench = Bench(Path(name), options.images, options.preset)
        bench.here()  # kernels are compiled, files are in the page cache
        bench.command_on_dask(options.part_sizes[0])
        if not bench.same():
            sys.exit("the vectors differ")
        client = Cluster(workers=threads.get_num_threads()).open(keep)
        where = Cluster(client.scheduler.address)
        bench.on_standing(where, options.part_sizes[0])
        shutil.rmtree(bench.out)
        ways: dict[str, Callable[[], None]] = {"one machine": bench.here}
        ways |= {f"dask, parts of {n}": lambda n=n: bench.on_standing(where, n) for n in options.part_sizes}  # type: ignore[misc]
        standing = show("standing: processes, workers and their kernels", in_turns(bench, ways, options.rounds))
        keep.close()
        ways = {"one machine": bench.command_here}
        ways |= {f"dask, parts of {n}": lambda n=n: bench.command_on_dask(n) for n in options.part_sizes}  # type: ignore[misc]
        started = show("whole commands, every start counted", in_turns(bench, ways, options.rounds))
    sys.exit(min(standing, started) < TARGET)


if __name__ == "__main__":
    main()

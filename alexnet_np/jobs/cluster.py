"""A job on many machines, by Dask.distributed: a part of the images a task, a bounded number of them in flight.

The driver lists files and hands out names; images and vectors never pass through it, nor through the scheduler. Workers
read the network once, from OUT, and share the compiled kernels of their node as all processes of a user do. A worker
that dies is replaced by its nanny and its part is done again; of a driver that dies the same command does what is
missing. Source for what is measured and how such jobs fail: docs/clusters.md.
"""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image

from alexnet_np import threads
from alexnet_np.errors import ArgumentError, DataError, MissingPackageError, one_line
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import dataset, store
from alexnet_np.jobs.dataset import Job, Part, Written, do_part
from alexnet_np.jobs.embedding import embedding_name
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.listing import Listed, absolute
from alexnet_np.jobs.parts import identity_of
from alexnet_np.models import AlexNet

AHEAD = 3  # parts in flight for each thread of the cluster: one in work, and the next ones at hand
# By local workers as they start.
PRELOADED = (dataset.__name__, "numba", "pyarrow.parquet")
# Of a cluster that is started here: what Dask's own clocks take from the images, 12% of a core with two workers.
CALM = {
    "distributed.admin.tick.interval": "500ms",  # 20 ms: whether the event loop answers
    "distributed.admin.system-monitor.interval": "2s",  # 500 ms: curves of the dashboard
    "distributed.worker.memory.monitor-interval": "1s",  # 100 ms
    "distributed.worker.profile.interval": "100ms",  # 10 ms: of the dashboard's flame graph
}
READERS = 8  # threads that look at footers, which a store gives one a journey
RETRIES = 2  # of a task that raises; Dask itself repeats those whose worker died

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Cluster:
    """Where to compute: a scheduler's address, the file that it wrote, or, without either, this machine."""

    scheduler: str | None = None
    scheduler_file: Path | None = None
    workers: int | None = None  # of a cluster on this machine; by default one a core
    notice: Callable[[str], None] = lambda said: None

    @property
    def named(self) -> bool:
        return self.scheduler is not None or self.scheduler_file is not None

    def open(self, keep: ExitStack) -> Any:
        """A client, closed with `keep`. Raises MissingPackageError, ArgumentError, DataError."""
        distributed = import_distributed()
        if self.scheduler is not None and self.scheduler_file is not None:
            raise ArgumentError("give --scheduler or --scheduler-file, not both")
        try:
            if self.scheduler_file is not None:
                if not self.scheduler_file.is_file():
                    raise DataError(f"{self.scheduler_file}: no such file; dask scheduler --scheduler-file writes it")
                return keep.enter_context(distributed.Client(scheduler_file=str(self.scheduler_file), timeout="30s"))
            if self.scheduler is not None:
                return keep.enter_context(distributed.Client(self.scheduler, timeout="30s"))
            count = self.workers or threads.get_num_threads()
            with without_ctrl_c(), calm():
                local = distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    host="127.0.0.1",
                    silence_logs=50,
                    preload=[name for name in PRELOADED if importlib.util.find_spec(name)],
                )
            if importlib.util.find_spec("bokeh"):
                self.notice(f"Dask's dashboard: {local.dashboard_link}")
            return keep.enter_context(distributed.Client(keep.enter_context(local)))
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a nanny whose worker does not start
            if isinstance(error, DataError):
                raise
            where = self.scheduler or self.scheduler_file or "a cluster on this machine"
            raise DataError(f"{where}: no scheduler answers: {one_line(error)}") from None


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes that are started within get no Ctrl-C, which a terminal sends to all: the driver ends them, silently.

    One that comes meanwhile is raised afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # whose start lifts the block of whoever starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def calm() -> Iterator[None]:
    """Within, a cluster starts with the intervals above, but for those that the user's own configuration names."""
    import dask

    own = dask.config.collect()
    with dask.config.set({name: value for name, value in CALM.items() if dask.config.get(name, None, own) is None}):
        yield


def import_distributed() -> Any:
    for package in ("distributed", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"--engine dask needs {package}: pip install 'alexnet-np[dask]'")
    import distributed

    return distributed


@dataclass
class Done:
    """What a job has written."""

    parts: int
    computed: int  # of them now; the others were there
    images: int = 0  # rows in all parts
    kept: int = 0  # of these rows, in parts that were there
    failures: list[Failure] = field(default_factory=list)


def describe(kind: str, model: AlexNet, out: str, **options: Any) -> Job:
    """A job as its tasks carry it. `options`: top, ten_crop, backend, batch_size."""
    output = dataset.OUTPUTS.get(kind) or embedding_name(model)
    digest = identity_of(model, output, recipe_of(model))
    return Job(
        kind,
        absolute(out),
        f"_network-{digest[:16]}.safetensors",
        digest,
        output,
        version("alexnet-np"),
        str(model.dtype),
        folder=str(Path.cwd()),
        max_pixels=Image.MAX_IMAGE_PIXELS,
        **options,
    )


def run(
    job: Job, model: AlexNet, listed: Listed, size: int, cluster: Cluster, progress: Progress = lambda done: None
) -> Done:
    """Write every part that is missing, or is of other files or weights. `size`: images a part, at most.

    `progress` is told how many images more are done. Parts beyond the last, of an earlier job on more files, go.
    Raises DataError, MissingPackageError.
    """
    import_distributed()
    if not listed.files:  # a mistyped folder: what an earlier job wrote stays
        return Done(0, 0, failures=list(listed.failures))
    count = -(-len(listed.files) // size)
    done = Done(count, 0, failures=list(listed.failures))
    there = store.names_in(job.out)
    with ThreadPoolExecutor(READERS) as pool:
        abouts = dict(zip(there, pool.map(partial(store.about, job.out), there), strict=True))
    todo = []
    for part in parts_of(job, listed, size):
        said = abouts.get(part.name, {})
        if said.get("identity") == part.identity:
            bad = [Failure(**failure) for failure in said["failures"]]
            add(done, Written(part.number, said["files"] - len(bad), bad), progress)
            done.kept = done.images
        else:
            todo.append(part.number)
    for name in there:
        if name > store.part_name(count - 1) and abouts[name]:
            store.drop(job.out, name)
    if todo:
        with ExitStack() as keep:
            keep.callback(store.drop, job.out, job.network)
            client = cluster.open(keep) if cluster.named else None  # first, for a wrong address leaves nothing in OUT
            with ThreadPoolExecutor(1) as beside:  # while processes start
                laid = beside.submit(store.put_network, job.out, job.network, model)
                client = client or cluster.open(keep)
            laid.result()
            wanted = (part_at(job, listed, size, i) for i in todo)
            for written in through(client, job, task, wanted):
                done.computed += 1
                add(done, written, progress)
    store.sweep(job.out)
    return done


def map_parts(job: Job, work: Callable[[Job, Any], Any], items: Sequence[Any], cluster: Cluster) -> Iterator[Any]:
    """`work(job, item)` of each item, as they are done: by the cluster that was named, else by this process's threads.

    For what parts are read for once they are there: here no processes need to be started for it. Raises DataError.
    """
    if cluster.named:
        with ExitStack() as keep:
            yield from through(cluster.open(keep), job, work, iter(items))
    else:
        with ThreadPoolExecutor(threads.get_num_threads()) as pool:
            yield from pool.map(partial(work, job), items)


def add(done: Done, written: Written, progress: Progress) -> None:
    done.images += written.images
    done.failures += written.failures
    progress(written.images + len(written.failures))


def parts_of(job: Job, listed: Listed, size: int) -> Iterator[Part]:
    return (part_at(job, listed, size, i) for i in range(-(-len(listed.files) // size)))


def part_at(job: Job, listed: Listed, size: int, index: int) -> Part:
    here = slice(index * size, (index + 1) * size)
    files = listed.files[here]
    targets = list(listed.targets[here])
    return Part(index, files, job.identity(files, listed.stamps[here], targets), targets)


def through(client: Any, job: Job, work: Callable[[Job, Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`work(job, item)` of each item, in the order in which they are done. Raises DataError."""
    distributed = import_distributed()
    client.wait_for_workers(1, timeout=60)
    options = {"pure": False, "retries": RETRIES}
    flying: Any = distributed.as_completed()
    room = AHEAD * sum(client.nthreads().values())

    def send() -> bool:
        item = next(items, None)
        if item is not None:
            flying.add(client.submit(work, job, item, key=f"alexnet-{job.kind}-{uuid4().hex}", **options))
        return item is not None

    while room and send():
        room -= 1
    for future in flying:
        try:
            result = future.result()
        except distributed.scheduler.KilledWorker as error:
            raise DataError(
                f"{job.out}: workers die of one part ({one_line(error)}); the same command goes on"
            ) from None
        future.release()
        send()
        yield result


def task(job: Job, part: Part) -> Written:
    """What a worker runs. Raises DataError where it has another version of this package."""
    from distributed import get_worker

    have = version("alexnet-np")
    if have != job.version:
        raise DataError(f"a worker has alexnet-np {have}, this machine {job.version}: install the same everywhere")
    return do_part(job, part, get_worker().state.nthreads)

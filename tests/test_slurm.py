"""The job scripts of docs/slurm: by bash with a stand-in for SLURM, and by a real SLURM of one node where there is.

The scripts are run as they stand. What `alexnet` is there trains a small network instead of ImageNet's, for real.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from mpi_runs import check_equal
from slurm_node import one_node, why_not

SCRIPTS = Path(__file__).parent.parent / "docs" / "slurm"
SMALL = "--dataset synthetic --limit 40 --image-size 67 --width 0.03125 --batch-size 8 --epochs 4 --shards 2 "
SMALL += "--dropout 0.5 --momentum 0.9 --save-every 0 --backend numpy --workers 1 --json"
RUN = 'exec "$@"\n'
STAND_INS = {
    "srun": "while [[ $1 == --* ]]; do shift; done\n" + RUN,
    "mpirun": "shift 2\n" + RUN,  # --map-by and what follows it
    "module": "",
    "scontrol": 'echo "$@" >> requeued\n',
    "alexnet": f"""
if [[ " $* " == *" --resume "* ]]; then options="--save-every 0 --backend numpy --workers 1 --json --resume"
else options="{SMALL}"; [ -n "$STOP" ] && mkdir -p "$3" && touch "$3/stop"; fi
exec {sys.executable} -m alexnet_np train --out "$3" $options
""",
}

Job = Callable[..., subprocess.Popen]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Starts a script as SLURM does; `alexnet`: another stand-in for that."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def start(script: str, alexnet: str = "", **environment: str) -> subprocess.Popen:
        for name, body in {**STAND_INS, **({"alexnet": alexnet} if alexnet else {})}.items():
            (folder / name).write_text(f"#!/bin/bash\n{body}")
            (folder / name).chmod(0o755)
        slurm = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "2", "RUN": "runs/a"}
        variables = os.environ | slurm | environment | {"PATH": f"{folder}:{os.environ['PATH']}"}
        return subprocess.Popen(["bash", str(SCRIPTS / script)], cwd=tmp_path, env=variables)

    return start


def requeued(tmp_path: Path) -> str:
    return (tmp_path / "requeued").read_text() if (tmp_path / "requeued").exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize("script", ["srun.sh", "mpirun.sh"])
def test_a_job_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, job: Job, script: str) -> None:
    assert job(script, RUN="runs/whole").wait(120) == 0
    assert requeued(tmp_path) == "", "it had ended"
    assert job(script, STOP="1").wait(120) == 1
    assert requeued(tmp_path) == "requeue 4711\n"
    assert job(script).wait(120) == 0
    assert requeued(tmp_path) == "requeue 4711\n", "once"
    check_equal(tmp_path / "runs" / "whole", tmp_path / "runs" / "a")


@pytest.mark.parametrize("script", ["srun.sh", "mpirun.sh"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_job_that_gets_no_further_is_not_tried_for_ever(tmp_path: Path, job: Job, script: str, code: int) -> None:
    """Whatever its exit code says: there is no end record, and no checkpoint that was not there before."""
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "checkpoints" / "step-00000003.safetensors").touch()
    assert job(script, alexnet=f'echo "$@" > said; exit {code}').wait(60) == 1
    assert (tmp_path / "said").read_text() == "train --out runs/a --resume\n"
    assert requeued(tmp_path) == ""


def test_the_signal_before_the_time_is_up_reaches_mpirun(tmp_path: Path, job: Job) -> None:
    waits = """trap 'mkdir -p runs/a/checkpoints; touch runs/a/checkpoints/step-00000009.safetensors; exit 0' USR1
touch began; while true; do sleep 0.05; done"""
    process = job("mpirun.sh", alexnet=waits)
    until = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert requeued(tmp_path) == "requeue 4711\n"


def test_the_scripts_ask_slurm_for_what_the_page_says() -> None:
    for script, wanted in (("srun.sh", "--signal=USR1@120"), ("mpirun.sh", "--signal=B:USR1@120")):
        asked = [line for line in (SCRIPTS / script).read_text().splitlines() if line.startswith("#SBATCH")]
        words = " ".join(asked).split()
        assert {"--requeue", wanted, "--open-mode=append"} <= set(words)
    assert "srun --mpi=pmix --kill-on-bad-exit=1 alexnet train" in (SCRIPTS / "srun.sh").read_text()


@pytest.mark.slow
def test_a_real_slurm_stops_and_requeues_a_job_which_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Two processes by srun and PMIx; a signal as before the end of the time; a requeue as where a node failed."""
    if (reason := why_not()) or find_spec("mpi4py") is None:
        pytest.skip(reason or "no mpi4py here")
    folder = tmp_path / "bin"
    folder.mkdir()
    long = {"alexnet": STAND_INS["alexnet"].replace("--epochs 4", "--epochs 20")}  # it is to be stopped in its middle
    for name, body in ({"module": ""} | long).items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    with one_node(tmp_path / "slurm") as environment:
        environment |= {"ALEXNET_NP_NUM_THREADS": "1", "PATH": f"{folder}:{environment['PATH']}"}

        def ask(*command: str, **more: str) -> str:
            done = subprocess.run(command, env=environment | more, cwd=tmp_path, capture_output=True, text=True)
            return (done.stdout + done.stderr).strip()

        def wait(what: Callable[[], bool]) -> None:
            until = time.monotonic() + 240
            while not what():
                assert time.monotonic() < until, "it takes too long"
                time.sleep(0.1)

        def submit(run: str) -> str:
            small = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", f"--output={run}.log"]
            return ask("sbatch", "--parsable", *small, str(SCRIPTS / "srun.sh"), RUN=run)

        def state(job: str) -> str:
            return ask("scontrol", "show", "job", job).partition("JobState=")[2].partition(" ")[0]

        def has_step(run: str, step: int) -> bool:
            log = tmp_path / run / "metrics.jsonl"
            return log.is_file() and f'"step": {step},' in log.read_text()

        if "pmix" not in ask("srun", "--mpi=list"):
            pytest.skip("this SLURM has no PMIx: install libpmix-dev")
        whole = submit("whole")
        wait(lambda: state(whole) == "COMPLETED")
        job = submit("a")
        for step, command in ((10, ["scancel", "--signal=USR1", job]), (50, ["scontrol", "requeue", job])):
            wait(lambda step=step: has_step("a", step))
            ask(*command)
            wait(lambda: state(job) == "PENDING")
            ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM would wait two minutes
        wait(lambda: state(job) in ("COMPLETED", "FAILED"))
        assert "Restarts=2" in ask("scontrol", "show", "job", job)
        log = (tmp_path / "a.log").read_text()
        assert log.count("saved; to go on: alexnet train --resume --out a\n") == 1 and "Traceback" not in log
    check_equal(tmp_path / "whole", tmp_path / "a")

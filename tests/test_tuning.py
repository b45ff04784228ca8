"""What was measured on this machine: measured, kept, read by other processes, exported, imported, dropped, refused."""

import json
import re
import subprocess
import sys
import time
from unittest import mock

import cuda_shim
import fake_gpu
import numpy as np
import pytest
from command_line import run

import alexnet_np as anp
from alexnet_np.kernels import choices, linear_numba, linear_training_numba, tuning
from alexnet_np.kernels.choices import Row
from alexnet_np.kernels.cpu.simd import MACHINES
from alexnet_np.kernels.gpu import runtime
from alexnet_np.kernels.problems import LIMITS, MANY, Problem, formed
from alexnet_np.kernels.rows import SIZES
from alexnet_np.measure import gpu, tuning_cpu, tuning_gpu, tuning_subjects, tuning_whole
from alexnet_np.measure import tuning as measuring
from alexnet_np.measure.tuning_subjects import Contest, Subject
from alexnet_np.plan.layout import walk


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "home"))
    yield
    choices.use_measured([])


ROW = Row("direct", kernel=3, stride=1, OH=13, batch=[2, 1 << 30], why="measured")


def in_another_process():
    code = (
        "from alexnet_np.kernels import choices; print(*(row.as_dict() for row in choices.measured('cpu')), sep='\\n')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_what_is_kept_is_read_by_other_processes_and_can_be_dropped():
    assert in_another_process().strip() == "" and choices.rows_here() == []
    choices.keep([ROW])
    assert "'kernel': 3" in in_another_process()
    assert [row.as_dict() for row in choices.rows_here()] == [ROW.as_dict()]
    assert "measured" in anp.choices()
    assert choices.drop() and not choices.drop()
    assert in_another_process().strip() == ""


def test_other_machines_and_other_numbers_of_threads_have_tables_of_their_own(monkeypatch):
    choices.keep([ROW])
    here = tuning.machine()
    monkeypatch.setattr(tuning, "machine", lambda device="cpu": here + " more" if device == "cpu" else "")
    assert choices.rows_here() == []
    choices.keep([])
    assert len(tuning.kept()) == 2 and len(tuning.kept()[here]) == 1


def test_files_go_from_machine_to_machine(tmp_path):
    choices.keep([ROW])
    file = tmp_path / "here.json"
    tuning.write(tuning.kept(), file)
    choices.drop()
    assert choices.take(file) == [tuning.machine()]
    assert len(choices.rows_here()) == 1


BAD = {
    "no JSON": "{",
    "another program's": '{"a": 1}',
    "a list": "[]",
    "rows that are none": json.dumps({"format": tuning.FORMAT, "machines": {"a": 3}}),
    "an unknown quantity": json.dumps({"format": tuning.FORMAT, "machines": {"a": [{"algorithm": None, "colour": 1}]}}),
    "an unknown way": json.dumps({"format": tuning.FORMAT, "machines": {"a": [{"algorithm": "magic"}]}}),
    "a value of no sort": json.dumps({"format": tuning.FORMAT, "machines": {"a": [{"algorithm": None, "kernel": {}}]}}),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_corrupt_and_foreign_files_are_refused_in_one_line(tmp_path, text):
    file = tmp_path / "bad.json"
    file.write_text(text)
    choices.keep([ROW])
    with pytest.raises(anp.DataError, match=r"bad\.json: ") as error:
        choices.take(file)
    assert "\n" not in str(error.value)
    assert len(choices.rows_here()) == 1


PROBLEM = Problem("conv2d", batch=8, C=64, F=64, kernel=3, output=(13, 13), dtype="float32", machine=MACHINES["avx512"])


def sleeping(times, problem=PROBLEM, **fields):
    """A subject that takes so many milliseconds, by who computes it or by a size."""

    def run():
        choice = choices.choose(problem)
        time.sleep(
            1e-3 * next(t for name, t in times.items() if name in (str(choice), choice.sizes.get("block_tiles")))
        )

    where = {"C": 64, "F": 64, "batch": (2, 16)}
    return lambda: Subject("one layer", problem, where, lambda: run, **fields)


def only(monkeypatch, *makes):
    monkeypatch.setattr(measuring, "works", lambda *a: (list(makes), []))


def test_a_measurement_keeps_what_is_faster_and_says_why(monkeypatch):
    sizes = {"direct": ("block_tiles",), "winograd": ("gradient_tiles",)}
    only(monkeypatch, sleeping({108: 1, "direct": 3, "im2col": 9, "winograd F(5,3)": 9, "": 0}, sizes=sizes))
    told = []
    with choices.overriding(Row("winograd", tiles=(5,))):
        monkeypatch.setattr(choices, "ways", lambda problem: [choices.Choice("direct"), choices.Choice("im2col")])
        rows = anp.tune(60, width=1 / 8, told=told.append)
    assert [(row.algorithm, row.says) for row in rows] == [("direct", {}), (None, {"block_tiles": 108})]
    assert all(row.where == {"C": 64, "F": 64, "batch": (2, 16)} for row in rows) and told == [0.5, 1]
    assert re.fullmatch(r"measured: [4-8]\d% less for one layer", rows[0].why)
    for batch, way in ((8, "direct"), (16, "direct"), (17, "winograd F(5,3)")):
        assert str(choices.choose(PROBLEM._replace(batch=batch))) == way
    assert "'algorithm': 'direct'" in in_another_process()


def test_the_time_is_kept_to_and_what_was_not_measured_stays(monkeypatch):
    same = {"": 0, "direct": 30, "im2col": 30, **{f"winograd F({m},3)": 30 for m in (4, 5, 6)}}
    kept = Row("im2col", C=3, why="of another layer"), Row("direct", C=64, F=64, batch=(2, 16), why="of this one")
    choices.keep(kept)
    only(monkeypatch, sleeping(same), sleeping(same))
    begin = time.monotonic()
    tuned = measuring.measure(0.3, width=1 / 8)
    assert time.monotonic() - begin < 20 and (tuned.measured, tuned.of) == (0, 2)
    assert [row.why for row in choices.rows_here()] == [row.why for row in kept]
    quick = dict.fromkeys(same, 0)
    only(monkeypatch, sleeping(quick, ways=()), sleeping(same))
    tuned = measuring.measure(0.3, width=1 / 8)
    assert (tuned.measured, tuned.of) == (1, 2)
    assert [row.why for row in tuned.rows] == ["of another layer"]


@pytest.fixture
def few_batches(monkeypatch):
    monkeypatch.setattr(tuning_subjects, "BATCHES", {1: (1, 1), 32: (2, MANY)})
    for module in (tuning_cpu, tuning_gpu):
        monkeypatch.setattr(module, "BATCHES", tuning_subjects.BATCHES)
    monkeypatch.setattr(tuning_cpu, "CONVOLVED", tuning_subjects.BATCHES)


SIZE = (67, 67)


def asked(act):
    """The problems that choices.py is asked while `act` runs."""
    found, choose = set(), choices.choose

    def note(problem):
        found.add(problem)
        return choose(problem)

    with mock.patch.object(choices, "choose", note):
        act()
    return found


def use_everything(model):
    x = np.random.default_rng(0).standard_normal((2, 3, *SIZE), dtype=np.float32)
    anp.compile(model, 1, size=SIZE)(x[:1])
    anp.compile(model, 32, size=SIZE)(x)
    numba = anp.alexnet(width=1 / 8, seed=0, backend="numba").train()
    for images in (x[:1], x):
        numba.backward(numba(images))
    optimizer = anp.SGD(model.named_parameters(), lr=0.0)
    anp.compile_training(model, optimizer, 32, SIZE)(x, np.zeros(2, np.int64))
    with anp.use_backend("numba"):
        y = np.random.default_rng(0).standard_normal((2, 9, 9, 16), dtype=np.float32).transpose(0, 3, 1, 2)
        for op, options in (("avg_pool2d", {"kernel_size": 3}), ("max_pool2d", {"kernel_size": 3}), LRN):
            out, cache = getattr(anp.ops, op).forward(y, **options)
            getattr(anp.ops, op).backward(out, cache)
        anp.ops.local_response_norm.forward(np.ascontiguousarray(y), **LRN[1])
        anp.ops.conv2d.forward(y.astype(float), np.ones((16, 16, 3, 3)))


LRN = ("local_response_norm", {"size": 5})


def test_every_piece_of_work_runs_and_its_rows_are_what_plans_eager_and_training_ask(few_batches):
    """A row that fitted nothing that anybody asks would be measured for nothing."""
    model = anp.alexnet(width=1 / 8, seed=0).eval()
    problems = asked(lambda: use_everything(model))
    subjects = [make() for make in tuning_cpu.subjects(model, SIZE)]
    for subject in subjects:
        row = subject.row({}, **subject.where)
        fitting = [p for p in problems if row.fits(formed(p, choices.choose(p).form))]
        assert fitting, f"{subject.name}: nobody asks what fits {subject.where}"
        assert row.fits(formed(subject.problem, choices.choose(subject.problem).form)), subject.name
        subject.build()()
    assert len({subject.name for subject in subjects}) == len(subjects)


def test_every_way_and_size_of_the_table_is_tried(few_batches):
    model = anp.alexnet(width=1 / 8, seed=0).eval()
    with fake_gpu.machine() as gpu:
        subjects = [make() for make in tuning_cpu.subjects(model, SIZE)]
        subjects += [make() for make in tuning_gpu.subjects(model, SIZE, gpu)]
        ways = {
            (s.problem.op, s.problem.device, way.algorithm)
            for s in subjects
            if s.ways is None
            for way in choices.ways(s.problem)
        }
    sizes = {(s.problem.op, s.problem.device, name) for s in subjects for names in s.sizes.values() for name in names}
    said = {(row.op, row.device, name) for row in choices.TABLE for name in row.says.keys() - {"form", "tiles"}}
    assert said == sizes
    assert {(op, device, way) for (op, device), known in LIMITS.items() for way in known if op != "gemm"} == ways
    assert set(tuning_subjects.TRIED) == set(SIZES) - {"form", "tiles"}


def test_candidates_are_timed_on_a_real_layer(few_batches):
    model = anp.alexnet(width=1 / 8, seed=0).eval()
    subject = next(iter(tuning_cpu.subjects(model, SIZE)))()
    for row in Contest(subject, time.monotonic() + 60).rows():
        assert row.where == subject.where and "less for features.0" in row.why


class Quick(fake_gpu.FakeGpu):
    """Where the convolution without columns takes half the time."""

    def seconds(self, run):
        executor = runtime.current_executor()
        executor.launched.clear()
        run()
        return 4e-3 if any(kernel.stem == "conv2d_implicit" for kernel in executor.launched) else 8e-3


def test_a_gpu_is_measured_kept_under_its_name_and_asked_by_its_plan(monkeypatch):
    monkeypatch.setattr(tuning_gpu, "BATCHES", {2: (1, 4)})
    monkeypatch.setattr(measuring, "available_backends", lambda: {"numba": "not asked", "cuda": True})
    monkeypatch.setattr(gpu, "Gpu", Quick)
    monkeypatch.setattr(tuning_gpu, "walk", lambda model, size: walk(model, SIZE))
    with fake_gpu.machine():
        assert tuning.machine("gpu").startswith("shim, ")
        rows = anp.tune(600, width=1 / 32)
        assert {(row.op, row.device, row.algorithm) for row in rows} == {("conv2d", "gpu", "implicit")}
        assert len(rows) == 5 and all("50% less" in row.why for row in rows)
        choices.use_measured([])
        model = cuda_shim_model()
        assert "implicit" not in repr(anp.compile(model, 4, size=SIZE))
        choices.use_measured(choices.rows_here())
        assert repr(anp.compile(model, 4, size=SIZE)).count("implicit GEMM") == 5
        assert list(tuning.kept()) == [tuning.machine(), tuning.machine("gpu")]
    assert choices.rows_here() == []


def cuda_shim_model():
    model = anp.alexnet(width=1 / 32, seed=0).eval()
    for parameter in model.parameters():
        parameter.data = cuda_shim.to_device(parameter.data)
    return model


def test_nothing_to_measure_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(measuring, "available_backends", lambda: {"numba": "no Numba", "cuda": "no GPU"})
    with pytest.raises(anp.BackendError, match="neither is there"):
        anp.tune(1, width=1 / 8)


def test_ctrl_c_keeps_what_was_found_until_then_and_the_command_says_so(monkeypatch):
    """An error keeps nothing."""

    def broken_off(problem=None):
        raise KeyboardInterrupt if problem is None else MemoryError

    sizes = {"direct": ("block_tiles",)}
    quick = sleeping({108: 1, "direct": 9, "": 0}, ways=(), sizes=sizes)
    choices.keep([ROW])
    monkeypatch.setattr(choices, "ways", lambda problem: [])
    with choices.overriding(Row("direct")):
        only(monkeypatch, quick, lambda: broken_off(PROBLEM))
        with pytest.raises(MemoryError):
            anp.tune(60, width=1 / 8)
        assert (
            [row.as_dict() for row in choices.rows_here()] == [ROW.as_dict()] == [choices.measured("cpu")[0].as_dict()]
        )
        only(monkeypatch, quick, broken_off, quick)
        result = run("tune", code=130)
        assert result.stderr.strip() == "alexnet: stopped; what 1 of 3 pieces of work gave is kept"
        assert [row.says for row in choices.rows_here()] == [{"block_tiles": 108}, {}]
        with pytest.raises(KeyboardInterrupt):
            anp.tune(60, width=1 / 8)


def test_what_is_ahead_by_chance_is_not_kept(monkeypatch):
    """The first time a candidate is timed, the machine favours it; when it is timed again, it is not ahead."""
    favoured = iter([*[0.5] * 6, *[1] * 100])
    subject = Subject("one", PROBLEM, {"C": 64}, lambda: lambda: None, (), {"": ("block_tiles",)})
    monkeypatch.setattr(tuning_subjects, "TRIED", {"block_tiles": (108,)})
    tried = []

    def clocked(run, clock):
        run()
        tried.append(run)
        mine = len(tried)
        return lambda: 1.0 if mine == 1 else next(favoured)

    monkeypatch.setattr(tuning_subjects, "often", clocked)
    assert Contest(subject, time.monotonic() + 60).rows() == [] and len(tried) == 2
    assert next(favoured) == 1


@pytest.mark.parametrize("training", [False, True])
def test_what_makes_the_whole_network_slower_is_not_kept(monkeypatch, training):
    """A row may be faster in its layer alone and slower in the network, where its weights are not in the cache."""
    model = anp.alexnet(width=1 / 32, seed=0).eval()
    slow = Row(tiles=(5,), block_tiles=77, why="slow", batch=(17, MANY), training=training)
    other = Row(op="relu", chunk=1 << 14, why="asked by neither")

    def built(model, size, batch, training):
        sizes = choices.choose(PROBLEM._replace(batch=batch, training=training)).sizes
        return lambda: time.sleep(0.02 if sizes["block_tiles"] == 77 else 0.01)

    monkeypatch.setattr(tuning_whole, "build", built)
    sound = tuning_whole.sound(model, SIZE, [slow, other], time.monotonic() + 60)
    assert [row.why for row in sound] == ["asked by neither"]
    assert tuning_whole.sound(model, SIZE, [slow, other], time.monotonic()) == [slow, other]


def test_whole_plans_and_steps_are_built_by_the_rows_in_question():
    model = anp.alexnet(width=1 / 8, seed=0).eval()
    for training in (False, True):
        problems = asked(tuning_whole.build(model, SIZE, 2, training)) | asked(
            lambda training=training: tuning_whole.build(model, SIZE, 2, training)
        )
        assert {p.op for p in problems} >= {"conv2d", "linear", "stages"}
        for problem in problems:
            row = Row(op=problem.op, block_tiles=32, training=problem.training, batch=(2, 2))
            assert tuning_whole.is_asked(row, 2, training) == (problem.training == training), problem


@pytest.mark.parametrize("op", ["linear", "trained forward", "trained backward"])
def test_a_block_may_be_said_to_be_larger_than_the_sum(op):
    """`all`, as the table says of it, is no workspace of 256 GiB."""
    N, K = 64, 96
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((32, K), dtype=np.float32), rng.standard_normal((N, K), dtype=np.float32)
    dy = rng.standard_normal((32, N), dtype=np.float32)
    with choices.overriding(Row(op="linear", block_k=MANY), Row("panels", op="linear")):
        if op == "linear":
            np.testing.assert_allclose(linear_numba.compute(x, weight, None), x @ weight.T, atol=1e-4)
            dx, dweight, _ = linear_numba.gradients(dy, x, weight, (True, True, True))
        else:
            shape = linear_numba.Shape(32, N, K, K, N)
            y, dx, dweight = np.empty_like(dy), np.empty_like(x), None
            if op == "trained forward":
                linear_training_numba.forward(
                    x.ravel(), weight.ravel(), np.zeros(N, np.float32), False, y.ravel(), shape
                )
                np.testing.assert_allclose(y, x @ weight.T, atol=1e-4)
                return
            linear_training_numba.backward(dy.ravel(), x.ravel(), weight.ravel(), dx.ravel(), None, shape)
    np.testing.assert_allclose(dx, dy @ weight, atol=1e-4)
    if dweight is not None:
        np.testing.assert_allclose(dweight, dy.T @ x, atol=1e-4)


@pytest.mark.parametrize("seconds", [0, -1, "long"])
def test_seconds_must_be_above_zero(seconds):
    with pytest.raises(anp.ArgumentError, match="seconds"):
        anp.tune(seconds)


def test_the_command_shows_exports_imports_and_drops(tmp_path):
    choices.keep([ROW])
    held = json.loads(run("tune", "--show", "--json").stdout)
    assert held["machine"] == tuning.machine() and held["rows"][0]["kernel"] == 3
    file = tmp_path / "out.json"
    run("tune", "--export", str(file))
    assert json.loads(run("tune", "--drop", "--json").stdout)["done"] == "dropped"
    assert not tuning.file().exists()
    run("tune", "--import", str(file))
    assert len(tuning.kept()) == 1

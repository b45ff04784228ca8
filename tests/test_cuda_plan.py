"""The inference plan on the GPU, run under the shim, and unchanged on a GPU.

Every preset against float64, batches, sizes, arithmetic; bytes as input; refresh; and that the loop allocates
nothing. What is refused: test_cuda_plan_refused.py.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from at_once import at_once
from cuda_shim import ShimExecutor, compiler
from cuda_shim.machines import machine_called
from cuda_shim.plans import build, images, machine, photographs

import alexnet_np as anp
from alexnet_np.data.preprocess import normalise
from alexnet_np.kernels import choices
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.kernels.gpu.runtime import recording
from alexnet_np.kernels.gpu.tape import Tape
from alexnet_np.layers import Dropout
from alexnet_np.plan import layout
from alexnet_np.plan.cuda import PROGRAMS, CudaPlan
from alexnet_np.plan.cuda_steps import STEPS, Weighted
from alexnet_np.plan.steps import Options, make
from alexnet_np.presets import PRESETS

__all__ = ["machine"]  # a fixture

CLOSE = {"strict": 1e-6, "tf32": 3e-3, "tf32x3": 1e-6}  # relative to the largest logit
ROOT = Path(__file__).parent.parent


def truth(model: anp.models.AlexNet, x: np.ndarray) -> np.ndarray:
    """By the array operations on the CPU in float64."""
    double = build(model.preset, dtype="float64", weights={n: to_numpy(a) for n, a in model.state_dict().items()})
    return double(x.astype(np.float64))


def to_numpy(array: object) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.array(array)


def assert_close(logits: np.ndarray, expected: np.ndarray, bound: float = CLOSE["strict"]) -> None:
    assert logits.shape == expected.shape
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["strict", "tf32", "tf32x3"])
@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_plan_agrees_with_float64(machine, preset: str, precision: str) -> None:
    """Three batches, the first twice (launch by launch, then as a graph), then another size of image.

    Up to 4 images the dense layers are computed in another way than with more.
    """
    model = build(preset)
    plan = anp.compile(machine.move(model), max_batch=5, size=99, precision=precision)
    assert isinstance(plan, CudaPlan)
    errors = []
    for N, size in [(5, (99, 99)), (5, (99, 99)), (1, (99, 99)), (3, (99, 99)), (2, (130, 107)), (1, (99, 99))]:
        x = images(N, model.in_channels, size, seed=N)
        placed = machine.place(x)
        logits = machine.fetch(plan(placed))
        expected = truth(model, x)
        assert_close(logits, expected, CLOSE[precision])
        assert np.array_equal(machine.fetch(placed), x)
        errors.append(np.abs(logits - expected).max() / np.abs(expected).max())
    assert precision != "tf32" or max(errors) > 1e-5, "tf32 does not show: another arithmetic was used"


def test_a_graph_gives_the_bits_of_the_first_run(machine) -> None:
    plan = anp.compile(machine.move(build()), max_batch=2, size=99)
    x = machine.place(images(2))
    first, second, third = (machine.fetch(plan(x)) for _ in range(3))
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


def test_every_size_of_batch_gives_each_image_the_same_logits(machine) -> None:
    """Programs share their memory: nothing that one leaves behind may leak into another."""
    plan = anp.compile(machine.move(build("paper")), max_batch=5, size=99)
    x = images(5)
    whole = machine.fetch(plan(machine.place(x)))
    for N in (1, 5, 2, 1, 4, 5, 3):
        logits = machine.fetch(plan(machine.place(x[:N])))
        np.testing.assert_allclose(logits, whole[:N], rtol=0, atol=1e-6 * np.abs(whole).max())


def test_programs_are_kept_for_a_few_sizes_of_batch(machine) -> None:
    model = build()
    plan = anp.compile(machine.move(model), max_batch=PROGRAMS + 2, size=63)
    x = images(PROGRAMS + 2, 3, (63, 63))
    expected = truth(model, x)
    for N in [*range(1, PROGRAMS + 3), 1]:
        assert_close(machine.fetch(plan(machine.place(x[:N]))), expected[:N])
    assert len(plan._programs) == PROGRAMS


def test_the_weights_are_copies_until_refreshed(machine) -> None:
    model = machine.move(build())
    plan = anp.compile(model, max_batch=1, size=99, precision="tf32x3")
    x = images(1)
    before = machine.fetch(plan(machine.place(x)))
    for parameter in model.parameters():
        parameter.data *= np.float32(0.5)
    assert np.array_equal(machine.fetch(plan(machine.place(x))), before)
    plan.refresh()
    assert_close(machine.fetch(plan(machine.place(x))), truth(model, x))
    new = build(dtype="float32")
    model.load_state_dict({name: 2 * array for name, array in new.state_dict().items()})
    machine.move(model)
    plan.refresh()
    assert_close(machine.fetch(plan(machine.place(x))), truth(model, x))


def test_a_model_that_is_another_now_cannot_be_refreshed(machine) -> None:
    model = machine.move(build())
    plan = anp.compile(model, max_batch=1, size=99)
    model.replace_head(7)
    machine.move(model)
    with pytest.raises(anp.ShapeError, match=r"classifier.6.weight is float32 \(7, 256\) now and was .*compile"):
        plan.refresh()
    machine.move_back(model)
    with pytest.raises(anp.BackendError, match="features.0.weight is on the CPU now; move the model back"):
        plan.refresh()


@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_bytes_are_normalised_as_preprocess_does(machine, preset: str) -> None:
    """From anywhere: the host, page-locked memory, the GPU, in any layout, batch after batch; to the last bit."""
    model = build(preset)
    plan = anp.compile(machine.move(model), max_batch=3, size=99)
    for N in (3, 1, 2, 3):
        pixels = photographs(N, model.in_channels)
        x = normalise(pixels, PRESETS[preset].preprocessing, np.empty((N, model.in_channels, 99, 99), np.float32))
        expected = machine.fetch(plan(machine.place(x)))
        room = plan.pinned_input(N)
        room[:] = pixels
        strided = np.repeat(pixels, 2, axis=1)[:, ::2]
        for given in (pixels, strided, room, machine.place(pixels)):
            assert np.array_equal(machine.fetch(plan(given)), expected)
        another = plan.pinned_input(N)
        another[:] = 255 - pixels
        assert np.array_equal(machine.fetch(plan(room)), expected)


def test_page_locked_buffers_take_turns() -> None:
    with machine_called("shim") as machine:
        plan = anp.compile(machine.move(build()), max_batch=2, size=99)
        first, second, third = (plan.pinned_input(2) for _ in range(3))
        assert np.shares_memory(first, third)
        assert not np.shares_memory(first, second)
        plan.queue.events.clear()
        plan(second)
        assert plan.queue.events[:2] == ["copy", "fence set"], "bytes in page-locked memory are sent from there"
        plan.queue.events.clear()
        plan.pinned_input(1)
        assert plan.queue.events == ["fence wait"], "nobody may write to a buffer that the GPU still fetches"
        larger = plan.pinned_input(2, (130, 130))
        assert larger.shape == (2, 130, 130, 3)


def test_the_loop_allocates_nothing() -> None:
    with machine_called("shim") as machine:
        plan = anp.compile(machine.move(build()), max_batch=2, size=99)
        x, pixels, out = machine.place(images(2)), plan.pinned_input(2), machine.place(np.zeros((2, 10), np.float32))
        pixels[:] = 7
        for given in (x, pixels):
            plan(given)
        plan.queue.events.clear()
        with mock.patch.object(ShimExecutor, "empty", side_effect=AssertionError("allocated in the loop")):
            for _ in range(3):
                assert plan(x, out=out) is out
                assert plan(pixels, out=out) is out
        assert plan.queue.events == ["copy", "graph", "copy", "copy", "fence set", "graph", "copy"] * 3


def test_logits_are_handed_out_as_new_arrays(machine) -> None:
    plan = anp.compile(machine.move(build()), max_batch=1, size=99)
    x = [machine.place(images(1, seed=seed)) for seed in range(2)]
    kept = plan(x[0])
    before = machine.fetch(kept)
    assert not np.array_equal(machine.fetch(plan(x[1])), before)
    assert np.array_equal(machine.fetch(kept), before)
    assert plan(x[0][:0]).shape == (0, 10)


def test_inputs_of_any_layout_are_taken(machine) -> None:
    plan = anp.compile(machine.move(build()), max_batch=2, size=99)
    x = images(2)
    expected = machine.fetch(plan(machine.place(x)))
    last = machine.place(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    assert np.array_equal(machine.fetch(plan(last)), expected)


def test_a_relu_after_something_else(machine) -> None:
    """The authors' own configuration normalises and pools before the ReLU."""
    model, double = build("paper"), build("paper", dtype="float64")
    double.load_state_dict(model.state_dict())
    for net in (model, double):
        net.features.layers[1:4] = [net.features[2], net.features[3], net.features[1]]
    x = images(2)
    plan = anp.compile(machine.move(model), max_batch=2, size=99)
    assert_close(machine.fetch(plan(machine.place(x))), double(x.astype(float)))


def test_outputs_by_name_are_written_where_they_are_wanted(machine) -> None:
    model = build()
    plan = anp.compile(machine.move(model), max_batch=2, size=99, outputs=("features.0", "avgpool", "logits"))
    x = machine.place(images(2))
    found = plan(x)
    assert {name: array.shape for name, array in found.items()} == {
        "features.0": (2, 4, 24, 24),
        "avgpool": (2, 16, 6, 6),
        "logits": (2, 10),
    }
    assert (machine.fetch(found["features.0"]) < 0).any(), "the ReLU after it has its own step"
    assert_close(machine.fetch(found["logits"]), truth(model, images(2)))
    room = {name: machine.place(np.zeros(array.shape, np.float32)) for name, array in found.items()}
    assert plan(x, out=room)["avgpool"] is room["avgpool"]
    for name, array in found.items():
        assert np.array_equal(machine.fetch(room[name]), machine.fetch(array))
    room["features.0"] = machine.place(np.zeros((24, 24, 4, 2), np.float32)).transpose(3, 2, 0, 1)
    with pytest.raises(anp.ShapeError, match=r"out\['features.0'\] must be in C order"):
        plan(x, out=room)


def test_a_plan_is_copied_and_pickled_by_compiling_it_anew(machine) -> None:
    plan = anp.compile(machine.move(build()), max_batch=2, size=99, precision="tf32x3")
    x = machine.place(images(2))
    for again in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert repr(again) == repr(plan)
        assert np.array_equal(machine.fetch(again(x)), machine.fetch(plan(x)))


def test_the_precision_in_force_is_taken(machine) -> None:
    model = machine.move(build())
    with matmul_precision("tf32x3"):
        assert anp.compile(model, max_batch=1, size=99).precision == "tf32x3"
        assert anp.compile(model, max_batch=1, size=99, precision="strict").precision == "strict"
    assert anp.compile(model, max_batch=1, size=99).precision == "strict"


def test_the_table_of_choices_governs_the_plan(machine) -> None:
    model = build()
    x = images(5)
    rows = choices.Row("implicit", device="gpu"), choices.Row("rows", "linear", "gpu")
    with choices.overriding(*rows):
        plan = anp.compile(machine.move(model), max_batch=5, size=99)
        assert_close(machine.fetch(plan(machine.place(x))), truth(model, x))
    for way, count in {"implicit GEMM": 5, "a warp an output": 3, "cuBLAS": 0}.items():
        assert repr(plan).count(way) == count


def test_a_plan_prints_its_steps(machine) -> None:
    model = machine.move(build())
    lines = repr(anp.compile(model, max_batch=5, size=99, precision="tf32")).splitlines()
    assert lines[0] == "Plan on the GPU for up to 5 images of 99x99, float32, products tf32"
    named = {line.split()[0]: line for line in lines[2:]}
    assert "im2col + cuBLAS + bias + relu" in named["features.0"]
    assert "5x4x24x24" in named["features.0"]
    assert "max 3x3/2" in named["features.2"]
    assert " cuBLAS + bias + relu" in named["classifier.1"]
    assert "a warp an output + bias + relu" in repr(anp.compile(model, max_batch=4, size=99))
    assert "GFLOP an image" in lines[-1]
    assert len(lines) == 2 + 14 + 1  # a header, a line a step, a sum


def test_memory_is_little_more_than_what_is_needed_at_once() -> None:
    model, weights = anp.alexnet(width=1 / 4, seed=0), Tape()
    tape = Tape(weights)
    prepared: dict = {name: weights.ghost(p.shape) for name, p in model.named_parameters()}
    steps = make(layout.walk(model, (224, 224)), Options(128), STEPS)
    with recording(weights):
        prepared |= {n: s.prepare(prepared[n]) for s in steps if isinstance(s, Weighted) for n in [f"{s.name}.weight"]}
    with recording(tape):
        y = tape.enters((128, 3, 224, 224))
        for step in steps:
            y = step.forward(y, prepared)
    at_once = [sum(b.nbytes for b in tape.buffers if b.first <= i <= b.last) for i in range(len(tape.calls))]
    assert tape.plan_memory() <= 1.05 * max(at_once)
    assert max(at_once) < 0.2 * sum(b.nbytes for b in tape.buffers)


def test_one_plan_in_several_threads(machine) -> None:
    plan = anp.compile(machine.move(build()), max_batch=2, size=99)
    xs = [machine.place(images(N, seed=N)) for N in (1, 2)]
    expected = [machine.fetch(plan(x)) for x in xs]
    wrong = []

    def work(which: int) -> None:
        for turn in range(4):
            i = (which + turn) % 2
            if not np.array_equal(machine.fetch(plan(xs[i])), expected[i]):
                wrong.append((which, turn))

    at_once(work, range(3))
    assert not wrong


def test_dropout_does_nothing_in_inference(machine) -> None:
    model = machine.move(build().train())
    plan = anp.compile(model, max_batch=1, size=99)
    x = images(1)
    assert_close(machine.fetch(plan(machine.place(x))), truth(model, x))
    assert all(layer.calls == 0 for _, layer in model.leaves() if isinstance(layer, Dropout))


SCRIPT = """
import sys
sys.modules["numba"] = sys.modules["cupy"] = sys.modules["typer"] = sys.modules["rich"] = None
sys.path.insert(0, "tests")
import numpy as np, alexnet_np as anp, cuda_shim
from alexnet_np.kernels.gpu.runtime import use_executor
from alexnet_np.plan.base import Request
from alexnet_np.plan.cuda import CudaPlan
from alexnet_np.plan.cuda_training import CudaTrainingPlan
from alexnet_np.plan.training import TrainingRequest
model = anp.alexnet(width=1 / 16, num_classes=10, seed=3)
for parameter in model.parameters():
    parameter.data = cuda_shim.to_device(parameter.data)
x = cuda_shim.to_device(np.ones((2, 3, 63, 63), np.float32))
with use_executor(cuda_shim.ShimExecutor()):
    plan = CudaPlan(Request(model, 2, None, False, (63, 63)))
    optimizer = anp.SGD(model.named_parameters(), lr=0.1)
    step = CudaTrainingPlan(TrainingRequest(model, optimizer, 2, (63, 63), 0.0, "strict"))
    before = plan(x)
    assert np.isfinite(step(x, np.array([1, 2])))
    plan.refresh()
    assert not np.array_equal(plan(x), before)
print("ok")
"""


@pytest.mark.skipif(compiler() is None, reason="needs g++ to compile the CUDA sources as C++")
def test_plans_need_no_numba() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.stdout == "ok\n", run.stderr[-2000:]

"""The shipped table on a processor without AVX-512: forced by Numba's own variables, in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

FEATURES = "sse,sse2,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,fma,f16c,bmi,bmi2,lzcnt,movbe,cx16,sahf,fxsr,xsave"

CODE = """
import numpy as np
import alexnet_np as anp
from alexnet_np.kernels import choices
from alexnet_np.kernels.cpu.simd import MACHINE, MACHINES

assert MACHINE == MACHINES["avx2"]
choices.use_measured([])
model = anp.alexnet(width=1 / 8, num_classes=10, seed=0).eval()
x = np.random.default_rng(0).standard_normal((3, 3, 224, 224), dtype=np.float32)
double = anp.alexnet(width=1 / 8, num_classes=10, weights=model.state_dict(), dtype="float64").eval()
with anp.no_grad():
    true = double(x.astype(np.float64))
for options in ({}, {"exact": True}, {"dense": "int16"}):
    plan = anp.compile(model, max_batch=3, **options)
    for N in (1, 3):
        error = np.abs(plan(x[:N]) - true[:N]).max() / np.abs(true).max()
        assert error < 1e-4, (options, N, error)

import copy
target = np.array([1, 7, 3])
def step(own, images, train):
    optimizer = anp.SGD(own.named_parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loss = train(own, optimizer, images)
    return [loss, *(p.data for p in own.parameters())]
def eagerly(own, optimizer, images):
    y, cache = anp.ops.cross_entropy.forward(own(images), target)
    own.backward(anp.ops.cross_entropy.backward(1.0, cache), input_grad=False)
    for p in own.parameters():
        gradients.append(p.grad)
    optimizer.step()
    return y
def planned(own, optimizer, images):
    return anp.compile_training(own, optimizer, 3)(images, target)
found, lists = [], []
for kind, train in (("float64", eagerly), ("numba", eagerly), ("numba", planned)):
    gradients = []
    own = copy.deepcopy(model)
    own = own.astype("float64") if kind == "float64" else own.to(kind)
    with anp.use_backend("numpy" if kind == "float64" else kind):
        found.append(step(own.train(), x.astype("float64" if kind == "float64" else "float32"), train))
    lists.append(gradients)
for a, b in zip(lists[0], lists[1], strict=True):
    assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(a), "gradients"
for got in found[1:]:
    for a, b in zip(found[0], got, strict=True):
        assert np.abs(a - b).max() < 1e-5 * max(np.abs(a).max(), 0.1), "a step"
x[1, 0, 100, 100] = np.nan
found = anp.compile(model, max_batch=3, outputs=["features.0"])(x)["features.0"]
assert np.isnan(found).any(1).sum() == 9 and not np.isnan(found[[0, 2]]).any()
"""


@pytest.mark.slow  # every kernel is compiled for another processor
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not an x86 processor")
def test_plans_gradients_and_training_are_right_on_avx2():
    forced = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ",".join(f"+{name}" for name in FEATURES.split(","))}
    done = subprocess.run([sys.executable, "-c", CODE], env=os.environ | forced, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The whole network's inference: our plan (and exact plan, and eager) beside PyTorch, ONNX Runtime and OpenVINO.

    alexnet bench model [--batch 1 --batch 32 --batch 128] [--preset torchvision] [--out FILE]

Every contender has the same weights and the same images, runs in float32 on the same cores, and is verified against
the array operations in float64 before anything is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np import plan
from alexnet_np.backend import available_backends
from alexnet_np.measure.harness import Contender, Run, Work, attempt
from alexnet_np.measure.peers import torch_net
from alexnet_np.models import AlexNet
from alexnet_np.study.summary import summary
from alexnet_np.study.torch_net import import_torch
from alexnet_np.threads import get_num_threads

LOGITS = 1e-4  # largest error relative to the largest logit
TRUTHS = 4  # images that are computed in float64: enough to catch a wrong contender, and quick


def works(batch: int, preset: str = "torchvision") -> list[Work]:
    model = anp.alexnet(preset, seed=0).eval()
    x = np.random.default_rng(0).standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
    double = anp.alexnet(preset, dtype="float64", weights=model.state_dict()).eval()
    with anp.no_grad():
        truth = double(x[:TRUTHS].astype(np.float64))
    counted = summary(model, x.shape)

    def check(logits: Any) -> None:
        error = np.abs(np.asarray(logits)[:TRUTHS] - truth).max() / np.abs(truth).max()
        assert error < LOGITS, f"a contender's logits are wrong: relative error {error:.1e}"

    makers: dict[str, Callable[[], Run]] = {
        "plan": lambda: ours(lambda: plan.compile(model, max_batch=batch), x),
        "plan, int16 dense weights": lambda: ours(lambda: plan.compile(model, max_batch=batch, dense="int16"), x),
        "plan, exact": lambda: ours(lambda: plan.compile(model, max_batch=batch, exact=True), x),
        "eager numba": lambda: ours(lambda: eager(preset, model), x),
        "torch contiguous": lambda: torch_runner(model, x, "contiguous_format", compiled=False),
        "torch channels_last": lambda: torch_runner(model, x, "channels_last", compiled=False),
        "torch compiled": lambda: torch_runner(model, x, "channels_last", compiled=True),
        "onnxruntime": lambda: onnx_runner(model, x),
        "openvino": lambda: openvino_runner(model, x),
    }
    contenders = [Contender(name, *attempt(make)) for name, make in makers.items()]
    moved = x.nbytes + 4.0 * counted.parameters
    return [Work(f"inference, {preset}, batch {batch}", 2.0 * counted.macs, moved, contenders, check)]


def ours(build: Callable[[], Callable[[Any], Any]], x: np.ndarray) -> Run:
    usable = available_backends()["numba"]
    if usable is not True:
        return None, str(usable)
    runner = build()
    return lambda: runner(x), ""


def eager(preset: str, model: AlexNet) -> Callable[[Any], Any]:
    own = anp.alexnet(preset, weights=model.state_dict(), backend="numba").eval()

    def run(x: np.ndarray) -> Any:
        with anp.no_grad():
            return own(x)

    return run


def torch_runner(model: AlexNet, x: np.ndarray, layout: str, compiled: bool) -> Run:
    torch = import_torch()
    torch.set_num_threads(get_num_threads())
    memory = getattr(torch, layout)
    net = torch_net(model).eval().to(memory_format=memory)
    images = torch.from_numpy(x).to(memory_format=memory)
    runner = torch.compile(net) if compiled else net

    def run() -> Any:
        with torch.inference_mode():
            return runner(images)

    run()  # torch.compile fails here, if it does
    return run, ""


def onnx_file(model: AlexNet, x: np.ndarray, folder: str) -> Path:
    """The network as torch's own exporter writes it."""
    torch = import_torch()
    path = Path(folder) / "alexnet.onnx"
    torch.onnx.export(torch_net(model).eval(), (torch.from_numpy(x[:1]),), path, dynamo=False, **BATCH_IS_FREE)
    return path


BATCH_IS_FREE: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}


def onnx_runner(model: AlexNet, x: np.ndarray) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(model, x, folder)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0], ""


def openvino_runner(model: AlexNet, x: np.ndarray) -> Run:
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        network = core.read_model(onnx_file(model, x, folder))
        network.reshape(list(x.shape))
        options = {"INFERENCE_NUM_THREADS": get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(network, "CPU", options).create_infer_request()
    return lambda: request.infer([x])[0], ""

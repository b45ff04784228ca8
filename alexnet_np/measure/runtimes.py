"""PyTorch, ONNX Runtime and OpenVINO with one of our networks: in float32, and in modes of their own with fewer bits.

    bf16            products of numbers with 8 bits, sums in float32 (PyTorch's module as bfloat16; OpenVINO's hint)
    f16             the same with 11 bits, where the processor has them
    f16 weights     weights kept in 16 bits, as OpenVINO writes them by default, products in float32
    int8            weights, one scale an output, and activations, calibrated on the images that are timed: convolutions
                    and dense layers (ONNX Runtime's static quantisation)
    int8 dense      the dense layers alone, their activations' scales found anew for each batch (its dynamic one)

Sources: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html and
https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.measure.harness import Run
from alexnet_np.measure.peers import torch_net
from alexnet_np.models import AlexNet
from alexnet_np.study.torch_net import import_torch
from alexnet_np.threads import get_num_threads

BATCH_IS_FREE: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}


def reduced(model: AlexNet, x: np.ndarray) -> dict[str, Callable[[], Run]]:
    """What makes each of the reduced modes, by a contender's name."""
    return {
        "torch bf16": partial(torch_runner, model, x, "channels_last", dtype="bfloat16"),
        "onnxruntime int8": partial(onnx_runner, model, x, quantised_statically),
        "onnxruntime int8 dense": partial(onnx_runner, model, x, quantised_dynamically),
        "openvino bf16": partial(openvino_runner, model, x, "bf16"),
        "openvino f16": partial(openvino_runner, model, x, "f16"),
        "openvino f16 weights": partial(openvino_runner, model, x, half_weights=True),
    }


def torch_runner(model: AlexNet, x: np.ndarray, layout: str, compiled: bool = False, dtype: str = "float32") -> Run:
    torch = import_torch()
    torch.set_num_threads(get_num_threads())
    memory, kind = getattr(torch, layout), getattr(torch, dtype)
    net = torch_net(model).eval().to(dtype=kind, memory_format=memory)
    images = torch.from_numpy(x).to(dtype=kind, memory_format=memory)
    runner = torch.compile(net) if compiled else net

    def run() -> Any:
        with torch.inference_mode():
            return runner(images).float()

    run()  # torch.compile fails here, if it does
    return run, ""


def onnx_file(model: AlexNet, x: np.ndarray, folder: str) -> Path:
    """The network as torch's own exporter writes it."""
    return exported(torch_net(model).eval(), x[:1], Path(folder) / "alexnet.onnx")


def exported(net: Any, x: np.ndarray, path: Path) -> Path:
    """A module of torch for images like x, as torch's own exporter writes it; their number is free."""
    torch = import_torch()
    torch.onnx.export(net, (torch.from_numpy(x),), path, dynamo=False, **BATCH_IS_FREE)
    return path


def torch_trunk(model: Any) -> Any:
    """torchvision's module up to the embedding."""
    torch, net = import_torch(), torch_net(model).eval()
    return torch.nn.Sequential(net.features, net.avgpool, torch.nn.Flatten(1), net.classifier[:6]).eval()


def trunk_file(model: Any, folder: str) -> Path:
    """The network up to the embedding, as torch's own exporter writes it."""
    return exported(torch_trunk(model), np.zeros((1, 3, 224, 224), np.float32), Path(folder) / "trunk.onnx")


def onnx_runner(model: AlexNet, x: np.ndarray, quantised: Callable[[Path, np.ndarray], Path] | None = None) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(model, x, folder)
        session = onnx_session(path if quantised is None else quantised(path, x))
    return lambda: session(x), ""


def onnx_session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """ONNX Runtime with the network of a file, on all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def prepared(path: Path) -> Path:
    """Shapes inferred and layers fused, as ONNX Runtime asks for before it quantises."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    made = path.with_name("prepared.onnx")
    quant_pre_process(path, made, skip_symbolic_shape=True)
    return made


def quantised_statically(path: Path, x: np.ndarray) -> Path:
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        """What it is calibrated on: the images themselves, one by one, eight at most."""

        def __init__(self) -> None:
            self.left = iter([{"x": image[None]} for image in x[:8]])

        def get_next(self) -> Any:
            return next(self.left, None)

    made = path.with_name("int8.onnx")
    quantization.quantize_static(
        prepared(path), made, Images(), per_channel=True, weight_type=quantization.QuantType.QInt8
    )
    return made


def quantised_dynamically(path: Path, x: np.ndarray) -> Path:
    from onnxruntime import quantization

    made = path.with_name("int8_dense.onnx")
    options = {"per_channel": True, "weight_type": quantization.QuantType.QInt8}
    quantization.quantize_dynamic(prepared(path), made, op_types_to_quantize=["MatMul", "Gemm"], **options)
    return made


def openvino_runner(model: AlexNet, x: np.ndarray, precision: str = "f32", half_weights: bool = False) -> Run:
    """Missing where the processor does not compute in `precision`: OpenVINO would take float32 and not say so."""
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(model, x, folder)
        if half_weights:
            halved = path.with_suffix(".xml")
            openvino.save_model(core.read_model(path), halved, compress_to_fp16=True)
            path = halved
        network = core.read_model(path)
        network.reshape(list(x.shape))
        options = {"INFERENCE_NUM_THREADS": get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
        compiled = core.compile_model(network, "CPU", options)
    if precision != "f32" and precision.upper() not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        able = {"bf16": "bfloat16", "f16": "float16"}[precision]
        return None, f"this processor has no {able} arithmetic"
    request = compiled.create_infer_request()
    return lambda: request.infer([x])[0], ""

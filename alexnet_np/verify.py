"""A network side by side with torch: every layer's forward and gradients, and the whole net's, against float64 truth.

The truth is torch in float64 with the very same weights. Errors are relative, ||a - truth|| / ||truth|| (L2). In
float32, torch's own float32 error stands beside ours: it is what the arithmetic allows.

float32 has kinks: where a value before a ReLU is within rounding of 0, or two values under a max pool within rounding
of each other, two correct implementations decide differently, and from there on one unit's gradient differs wholly.
So layers are judged one by one, each implementation given the SAME x and the SAME dy (the truth's, rounded to float32):
then all decide alike, and the errors are those of that layer's own arithmetic. The whole net runs end to end as well;
there the logits are judged against torch's error, and the float32 gradients only as coarsely as kinks demand.
The numba backend's convolutions may be Winograd's, which is faster and rounds more: they have a limit of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from alexnet_np import layers, ops
from alexnet_np.backend import Array, array_module, as_array, current_backend, on_gpu, one_line
from alexnet_np.errors import AlexNetError, MissingPackageError
from alexnet_np.models import AlexNet

# How far ours may be from the truth. In float32: RATIO times torch's own error, or FLOOR where that is next to nothing.
FLOAT32_RATIO = 1.5
FLOAT32_FLOOR = 4 * float(np.finfo(np.float32).eps)  # a GEMM sums hundreds of products in its BLAS's own order: 2-3 eps
FLOAT32_WINOGRAD = 2e-5  # it adds and subtracts before it multiplies, on the numba backend: up to 7e-6 was measured
FLOAT32_NET_GRADIENT = 2e-2  # a kink may cost 1e-3 or so, and more in a narrow net; a wrong gradient is about 1
FLOAT64_LAYER = 1e-12
FLOAT64_NET = 1e-10

INSTALL = "pip install torch torchvision"

Arrays = dict[str, Array]


@dataclass(frozen=True)
class Comparison:
    """One array: how far ours, and torch's in the same dtype, lie from the truth."""

    quantity: str  # of a layer: forward, dx, dweight, dbias; of the net: logits, dx, or a parameter's name
    ours: float
    torch: float | None  # None in float64, where torch is the truth
    limit: float

    @property
    def ok(self) -> bool:
        return self.ours <= self.limit

    @property
    def ratio(self) -> float | None:
        """Our error over torch's; None where torch has none."""
        return self.ours / self.torch if self.torch else None


@dataclass(frozen=True)
class LayerReport:
    name: str  # as in state_dict: "features.0"
    type: str
    comparisons: list[Comparison]

    @property
    def ok(self) -> bool:
        return all(comparison.ok for comparison in self.comparisons)


@dataclass(frozen=True)
class Report:
    dtype: str
    winograd: bool  # whether convolutions may be Winograd's, and are allowed its error
    peer: str  # whose network: "torchvision 0.28.0", or "torch 2.13.0" where torchvision has none such
    layers: list[LayerReport]  # each layer by itself
    net: list[Comparison]  # end to end: logits, dx, then every parameter's gradient

    @property
    def ok(self) -> bool:
        return self.first_divergence is None and all(comparison.ok for comparison in self.net)

    @property
    def first_divergence(self) -> LayerReport | None:
        return next((layer for layer in self.layers if not layer.ok), None)


def verify(model: AlexNet, x: Any, seed: int = 0) -> Report:
    """Compare `model` with torch on x (N,C,H,W), of the model's dtype and device, dropout off.

    dlogits is drawn from N(0, 1) by `seed`. The model's gradients and mode are left as they were.
    Raises MissingPackageError without torch (and torchvision, for its preset), and what the model raises for a wrong x.
    """
    x = as_array(x, "verify: x")
    dtype = str(model.dtype)
    winograd = dtype == "float32" and (model.backend or current_backend(x)) == "numba"
    with _borrowed(model):
        logits = model(x)
        truth_net = TorchNet(model, "float64")
        torch_net = None if dtype == "float64" else TorchNet(model, dtype)
        dlogits = np.random.default_rng(seed).standard_normal(logits.shape).astype(dtype)
        ours = {"logits": logits, "dx": model.backward(array_module(x).asarray(dlogits))}
        ours.update({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        inputs, dys, truth = truth_net.run(to_numpy(x), dlogits)
        theirs = None if torch_net is None else torch_net.run(to_numpy(x), dlogits)[2]
        net = _compare(ours, theirs, truth, {quantity: _net_floor(quantity, dtype, winograd) for quantity in ours})
        del ours, theirs, truth  # each holds all gradients
        reports = []
        for (name, layer), layer_x, dy in zip(model.leaves(), inputs, dys, strict=True):
            given = layer_x.astype(dtype), dy.astype(dtype)
            ours = _run_layer(layer, *given, like=x)
            theirs = None if torch_net is None else torch_net.run_layer(name, *given)
            truth = truth_net.run_layer(name, *given)
            floor = _rounding(dtype, winograd and isinstance(layer, layers.Conv2d))
            compared = _compare(ours, theirs, truth, dict.fromkeys(ours, floor))
            reports.append(LayerReport(name, type(layer).__name__, compared))
    return Report(dtype, winograd, truth_net.peer, reports, net)


class TorchNet:
    """torch's own modules, one for each layer of a model, in evaluation mode, holding the model's weights as `dtype`.

    For the torchvision preset they are torchvision.models.alexnet's own (unless width or in_channels differ from it).
    """

    def __init__(self, model: AlexNet, dtype: str) -> None:
        torch = import_torch()
        self.peer, self.modules = _torchvision_modules(model) or _torch_modules(model)
        for name, layer in model.leaves():
            module = self.modules[name].eval()
            state = [torch.from_numpy(to_numpy(p.data)).to(getattr(torch, dtype)) for p in layer.parameters()]
            module.load_state_dict(dict(zip(module.state_dict(), state, strict=True)), assign=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The logits."""
        torch = import_torch()
        y = torch.tensor(x)
        with torch.no_grad():
            for module in self.modules.values():
                y = module(y)
        return y.numpy()

    def run(self, x: np.ndarray, dlogits: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], Arrays]:
        """Each layer's input, the gradient of each layer's output, and {logits, dx, every parameter's gradient}."""
        values = [self._input(x)]
        for module in self.modules.values():
            values.append(module(values[-1]))
            values[-1].retain_grad()
        values[-1].backward(self._input(dlogits).detach())
        arrays = {"logits": values[-1].detach().numpy(), "dx": values[0].grad.numpy()}
        for name, module in self.modules.items():
            arrays.update({f"{name}.{key}": gradient for key, gradient in _take_gradients(module).items()})
        inputs, gradients = [v.detach().numpy() for v in values[:-1]], [v.grad.numpy() for v in values[1:]]
        return inputs, gradients, arrays

    def run_layer(self, name: str, x: np.ndarray, dy: np.ndarray) -> Arrays:
        """{forward, dx, dweight, dbias} of one layer by itself."""
        entered = self._input(x)
        y = self.modules[name](entered)
        y.backward(self._input(dy).detach())
        gradients = {f"d{key}": gradient for key, gradient in _take_gradients(self.modules[name]).items()}
        return {"forward": y.detach().numpy(), "dx": entered.grad.numpy(), **gradients}

    def _input(self, x: np.ndarray) -> Any:
        parameter = next(p for module in self.modules.values() for p in module.parameters())
        return import_torch().tensor(x, dtype=parameter.dtype, requires_grad=True)


def _take_gradients(module: Any) -> Arrays:
    """{weight, bias} -> gradient, and none left behind in the module."""
    gradients = {key: p.grad.numpy() for key, p in zip(("weight", "bias"), module.parameters(), strict=False)}
    module.zero_grad()
    return gradients


def _torchvision_modules(model: AlexNet) -> tuple[str, dict[str, Any]] | None:
    """Those of torchvision.models.alexnet, or None where it has no such network."""
    if model.preset != "torchvision":
        return None
    torch, torchvision = import_torch(), import_torchvision()
    with torch.device("meta"):  # no memory, no initialisation: the weights come from the model
        net = torchvision.models.alexnet(num_classes=model.num_classes)
    if {k: tuple(v.shape) for k, v in net.state_dict().items()} != {k: v.shape for k, v in model.state_dict().items()}:
        return None
    nn = torch.nn
    modules = {name: nn.Flatten() if name == "flatten" else net.get_submodule(name) for name, _ in model.leaves()}
    for module in modules.values():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # it would overwrite what the layer before gave
    return f"torchvision {torchvision.__version__}", modules


def _torch_modules(model: AlexNet) -> tuple[str, dict[str, Any]]:
    torch = import_torch()
    with torch.device("meta"):
        return f"torch {torch.__version__}", {name: torch_module(layer) for name, layer in model.leaves()}


def torch_module(layer: layers.Layer) -> Any:
    """The torch.nn module that computes what `layer` does, its weights not filled in."""
    nn = import_torch().nn
    match layer:
        case layers.Conv2d():
            F, CG, KH, KW = layer.weight.shape
            stride, dilation = (ops.checks.pair("Conv2d", "", value, 1) for value in (layer.stride, layer.dilation))
            top, bottom, left, right = ops.conv2d.find_padding(layer.padding, (KH, KW), stride, dilation)
            even = (top, left) == (bottom, right)  # what torch's own argument can say
            sides = (top, left) if even else (0, 0)
            bias = layer.bias is not None
            conv = nn.Conv2d(CG * layer.groups, F, (KH, KW), stride, sides, dilation, layer.groups, bias)
            return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)
        case layers.Linear():
            return nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        case layers.MaxPool2d():
            return nn.MaxPool2d(**layer.arguments())
        case layers.AdaptiveAvgPool2d():
            return nn.AdaptiveAvgPool2d(layer.output_size)
        case layers.ReLU():
            return nn.ReLU()
        case layers.LocalResponseNorm():
            window = ops.local_response_norm.find_geometry(**layer.arguments())
            size = window.low + 1 + window.high
            if (window.low, window.high) == (size // 2, (size - 1) // 2):  # torch's, and torch divides alpha by size
                return nn.LocalResponseNorm(size, window.scale * size, window.beta, window.k)
        case layers.Dropout():
            return nn.Dropout(layer.p)
        case layers.Flatten():
            return nn.Flatten(layer.start_dim, layer.end_dim)
    raise AlexNetError(f"verify: torch has no module that computes {layer!r}")


def _run_layer(layer: layers.Layer, x: np.ndarray, dy: np.ndarray, like: Array) -> Arrays:
    """{forward, dx, dweight, dbias} of one of our layers by itself, on the device of `like`."""
    xp = array_module(like)
    for parameter in layer.parameters():
        parameter.grad = None
    arrays = {"forward": layer(xp.asarray(x)), "dx": layer.backward(xp.asarray(dy))}
    arrays.update({f"d{name}": p.grad for name, p in layer.named_parameters() if p.grad is not None})
    return arrays


def _compare(ours: Arrays, theirs: Arrays | None, truth: Arrays, floors: dict[str, float]) -> list[Comparison]:
    """Every array of ours: its limit is FLOAT32_RATIO times torch's error, and at least its floor."""
    compared = []
    for quantity, array in ours.items():
        error = relative_error(to_numpy(array), truth[quantity])
        torch_error = None if theirs is None else relative_error(theirs[quantity], truth[quantity])
        limit = max(floors[quantity], FLOAT32_RATIO * (torch_error or 0))
        compared.append(Comparison(quantity, error, torch_error, limit))
    return compared


def _rounding(dtype: str, winograd: bool) -> float:
    """What rounding may cost one layer."""
    if dtype == "float64":
        return FLOAT64_LAYER
    return FLOAT32_WINOGRAD if winograd else FLOAT32_FLOOR


def _net_floor(quantity: str, dtype: str, winograd: bool) -> float:
    if dtype == "float64":
        return FLOAT64_NET
    return _rounding(dtype, winograd) if quantity == "logits" else FLOAT32_NET_GRADIENT


def relative_error(a: np.ndarray, truth: np.ndarray) -> float:
    """||a - truth|| / ||truth|| in float64; infinite where shapes differ or `a` holds a NaN that `truth` does not."""
    if a.shape != truth.shape:
        return float("inf")
    norm, error = float(np.linalg.norm(truth)), float(np.linalg.norm(a - truth))
    if not np.isfinite(error):
        return float("inf")
    return error / norm if norm else error


def to_numpy(x: Array) -> np.ndarray:
    return x.get() if on_gpu(x) else x


@contextmanager
def _borrowed(model: AlexNet) -> Iterator[None]:
    """`model` in evaluation mode and without gradients; both given back afterwards."""
    training, gradients = model.training, [p.grad for p in model.parameters()]
    model.eval().zero_grad()
    try:
        yield
    finally:
        model.train(training)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient


def import_torch() -> ModuleType:
    """torch. Raises MissingPackageError where it is not installed."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of it that does not load
        raise MissingPackageError(f"torch cannot be imported ({one_line(error)}): {INSTALL}") from error
    return torch


_declared: list[Any] = []  # torch forgets the operators when the Library object dies


def import_torchvision() -> ModuleType:
    """torchvision, even where its compiled operators do not load, as beside a torch that it was not built for.

    Its import then stops at `operator torchvision::nms does not exist`, though models and transforms need no operator:
    it is enough to declare the two it asks for, without an implementation.
    Raises MissingPackageError where torch or torchvision is not installed.
    """
    torch = import_torch()
    try:
        try:
            import torchvision
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]  # half-imported
            _declared.append(torch.library.Library("torchvision", "DEF"))
            for name in "nms", "qnms":
                _declared[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            import torchvision
    except ImportError as error:
        raise MissingPackageError(f"torchvision cannot be imported ({one_line(error)}): {INSTALL}") from error
    return torchvision

"""torch's own network with a model's weights, layer for layer: what `verify` compares with."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from alexnet_np import layers, ops
from alexnet_np.arguments import pair
from alexnet_np.device import Array, to_cpu
from alexnet_np.errors import AlexNetError, MissingPackageError, one_line
from alexnet_np.models import AlexNet

INSTALL = "pip install torch torchvision"

Arrays = dict[str, Array]


class TorchNet:
    """torch's own modules, one for each layer of a model, in evaluation mode, holding the model's weights as `dtype`.

    For the torchvision preset they are torchvision.models.alexnet's own (unless width or in_channels differ from it).
    """

    def __init__(self, model: AlexNet, dtype: str) -> None:
        torch = import_torch()
        self.peer, self.modules = _torchvision_modules(model) or _torch_modules(model)
        for name, layer in model.leaves():
            module = self.modules[name].eval()
            state = [torch.from_numpy(to_cpu(p.data)).to(getattr(torch, dtype)) for p in layer.parameters()]
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
    if model.preset != "torchvision" or model.described().is_changed:
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
            stride, dilation = (
                pair("Conv2d", "stride or dilation", value, 1) for value in (layer.stride, layer.dilation)
            )
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
        case layers.AvgPool2d():
            return nn.AvgPool2d(**layer.arguments())
        case layers.AdaptiveAvgPool2d():
            return nn.AdaptiveAvgPool2d(layer.output_size)
        case layers.ReLU():
            return nn.ReLU()
        case layers.Tanh():
            return nn.Tanh()
        case layers.Sigmoid():
            return nn.Sigmoid()
        case layers.Identity():
            return nn.Identity()
        case layers.LocalResponseNorm():
            return normalisation(ops.local_response_norm.find_geometry(**layer.arguments()))
        case layers.Dropout():
            return nn.Dropout(layer.p)
        case layers.Flatten():
            return nn.Flatten(layer.start_dim, layer.end_dim)
    raise AlexNetError(f"verify: torch has no module that computes {layer!r}")


def normalisation(window: Any) -> Any:
    """The torch module of a LocalResponseNorm: torch's own where it has that window, else from torch's operations.

    It sums by unfolding padded squares, not as the layer itself does.
    """
    torch = import_torch()
    low, high, scale, beta, k, groups, region = window
    size = low + 1 + high
    if region == "across" and groups == 1 and (low, high) == (size // 2, (size - 1) // 2):
        return torch.nn.LocalResponseNorm(size, scale * size, beta, k)  # torch divides alpha by size

    class Normalisation(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, x: Any) -> Any:
            pad = torch.nn.functional.pad
            if region == "within":
                squares = pad(x * x, (low, high, low, high)).unfold(2, size, 1).unfold(3, size, 1).sum((-1, -2))
            else:
                grouped = (x * x).unflatten(1, (groups, -1))
                squares = pad(grouped, (0, 0, 0, 0, low, high)).unfold(2, size, 1).sum(-1).flatten(1, 2)
            return x / (k + scale * squares) ** beta

    return Normalisation()


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

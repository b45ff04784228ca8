"""The same network in torch, as fast as torch's own users would have it."""

from __future__ import annotations

from typing import Any

from alexnet_np.models import AlexNet
from alexnet_np.study.torch_net import import_torch, import_torchvision, torch_module


def torch_net(model: AlexNet) -> Any:
    """torchvision's own module for its preset, else torch.nn's layers in a row; the weights are the model's, copied."""
    torch = import_torch()
    weights = [torch.tensor(parameter.data) for parameter in model.parameters()]
    if model.preset == "torchvision" and not model.described().is_changed:
        net = import_torchvision().models.alexnet(num_classes=model.num_classes)
    else:
        net = torch.nn.Sequential(*(torch_module(layer) for _, layer in model.leaves()))
    with torch.no_grad():
        for theirs, ours in zip(net.parameters(), weights, strict=True):
            theirs.copy_(ours)
    return net

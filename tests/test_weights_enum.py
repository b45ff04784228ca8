"""Members of torchvision's enum of weights, by their names."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace

import pytest

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402
from alexnet_np.weights import registry  # noqa: E402


def test_members_of_torchvisions_enum(monkeypatch, tmp_path):
    url = registry.ENTRIES["IMAGENET1K_V1"].url
    members = Enum("AlexNet_Weights", {"IMAGENET1K_V1": SimpleNamespace(url=url)})
    others = Enum(
        "ResNet18_Weights", {"IMAGENET1K_V1": SimpleNamespace(url="https://download.pytorch.org/resnet18.pth")}
    )
    monkeypatch.setattr(registry, "find", lambda name: tmp_path / name)
    assert registry.path_of(members.IMAGENET1K_V1) == tmp_path / "IMAGENET1K_V1"
    with pytest.raises(WeightsError, match="ResNet18_Weights.IMAGENET1K_V1 is not of AlexNet"):
        registry.path_of(others.IMAGENET1K_V1)
    for wrong in (True, 3, b"x"):
        with pytest.raises(WeightsError, match="weights must be a published name"):
            anp.alexnet(weights=wrong)

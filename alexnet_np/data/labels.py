"""The names of the classes, in the order of the networks' outputs."""

from functools import cache
from importlib.resources import files

# Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms" (2017)
FASHION_MNIST = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]


@cache
def imagenet_categories() -> list[str]:
    """The 1000 ImageNet labels, as torchvision's `AlexNet_Weights.IMAGENET1K_V1.meta["categories"]`."""
    return (files("alexnet_np") / "assets" / "imagenet_categories.txt").read_text(encoding="utf-8").splitlines()

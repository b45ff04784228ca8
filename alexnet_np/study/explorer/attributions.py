"""What the page shows over the picture: which pixels the most probable class comes from, by several methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.models import AlexNet
from alexnet_np.study.attribution import METHODS, find_unit, make_method, method_name
from alexnet_np.study.attribution.overlay import shown
from alexnet_np.study.explorer.tensors import Tensors

QUICK = ("grad_cam", "saliency", "guided_backprop", "deconvnet")  # one pass through the network each
STEPS = 31  # that a map is kept in, a byte a pixel: as many as an eye tells apart over a picture
ZERO = 128  # the byte of 0; what speaks against the class lies below

WORDS = {  # name, and what it says
    "grad_cam": ("Grad-CAM", "the maps before the last pooling, each times its mean gradient, placed where units look"),
    "saliency": ("saliency", "how much the class's logit changes with each pixel: the gradient's size"),
    "guided_backprop": ("guided backprop", "the gradient, only what is positive passing back through every ReLU"),
    "deconvnet": ("deconvnet", "the gradient, each ReLU passing what is positive whether it was on or off"),
    "occlusion": ("occlusion", "what the logit loses where a 15×15 square is set to the mean; blue: what it gains"),
    "smooth_grad": ("SmoothGrad", "the gradient's mean over 50 copies of the picture with noise"),
    "integrated_gradients": ("integrated gradients", "the gradient along the way from the mean colour, times the way"),
}


def attributed(model: AlexNet, x: Array, number: int, methods: Sequence[str], tensors: Tensors) -> list[dict[str, Any]]:
    """A record for each method that the network can be asked by; x (C,H,W), `number` the class."""
    found = []
    for name in methods:
        method = make_method(name, {})
        try:
            values = method.values(find_unit(model, x[None], number, method), x[None], lambda done: None)[0]
        except ArgumentError:  # no maps for Grad-CAM, or a picture smaller than the window
            continue
        one = shown(name, values, method)
        steps = np.round(one.heat * STEPS) * (127 // STEPS) + ZERO
        title, words = WORDS[name]
        record = {"method": name, "title": title, "words": words, "class": number}
        shape = {"signed": method.signed, "limit": one.scale, "values": tensors.add(steps.astype(np.uint8))}
        found.append(record | shape)
    return found


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Those named: `all` and `none` too. Raises ArgumentError."""
    if "all" in names:
        return (*QUICK, *(name for name in METHODS if name not in QUICK))
    return tuple(dict.fromkeys(method_name(name) for name in names if name != "none"))

"""Attribution: which pixels of the picture the value of a class, or of any unit, comes from.

methods.py     saliency, guided backprop, deconvnet, SmoothGrad, integrated gradients, occlusion
grad_cam.py    Grad-CAM, and where its maps lie in the picture
network.py     what they go back through: frozen copies of the layers, with the ReLU of the method
overlay.py     the maps over the picture, to be looked at
"""

from __future__ import annotations

import difflib
import warnings
from dataclasses import fields
from typing import Any

from alexnet_np import arguments
from alexnet_np.device import Array, as_array, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import no_grad
from alexnet_np.models import AlexNet, check_model
from alexnet_np.ops.checks import float_arrays
from alexnet_np.study.attribution.grad_cam import GradCam
from alexnet_np.study.attribution.methods import (
    BATCH,
    Deconvnet,
    GuidedBackprop,
    IntegratedGradients,
    Method,
    Occlusion,
    Saliency,
    SmoothGrad,
    Tick,
)
from alexnet_np.study.attribution.network import Unit, frozen
from alexnet_np.study.units import Index, check_index, check_layer, places

METHODS: dict[str, type[Method]] = {
    "saliency": Saliency,
    "guided_backprop": GuidedBackprop,
    "deconvnet": Deconvnet,
    "grad_cam": GradCam,
    "occlusion": Occlusion,
    "smooth_grad": SmoothGrad,
    "integrated_gradients": IntegratedGradients,
}


class ZeroMapWarning(UserWarning):
    """A map that is 0 everywhere: nothing of the picture speaks for the unit, as the method counts it."""


def attribution(
    model: AlexNet,
    x: Any,
    target: Any = None,
    method: str = "saliency",
    *,
    tick: Tick = lambda done: None,
    **settings: Any,
) -> Array:
    """What of a unit's value each number of the input x accounts for, as `method` counts it.

    x: (C,H,W), or (N,C,H,W) of any N, BATCH at a time. `target`: a class, whose logit before the softmax is meant; a
    class for each of the N images; (layer, index) for any unit, as ("features.3", (7, 5, 9)); None: each image's most
    probable class. `method`: one of METHODS ("grad_cam", or "Grad-CAM"), whose class says what it computes and which
    `settings` it takes, as attribution(model, x, 281, "occlusion", window=31). `tick` is told how many passes more are
    done.
    Returns an array of x's shape and dtype, where the model lies; Grad-CAM's has one channel. Gradients are with
    respect to the normalised input. The model stays as it was: its mode, its gradients, what its forward has kept.
    A map that is 0 everywhere is returned with a ZeroMapWarning.
    Raises ArgumentError for a method, setting, layer, class or index that is not there; ShapeError, DtypeError as the
    model does.
    """
    made = make_method(method, settings)
    check_model("attribution", model)
    arguments.function("attribution", "tick", tick)
    x = as_array(x, "attribution: x")
    (batch,) = float_arrays("attribution", x=model.check_input(x[None] if x.ndim == 3 else x))
    unit = find_unit(model, batch, target, made)
    values = made.values(unit, batch, tick) if len(batch) else batch
    for n, one in enumerate(values):
        if not one.any():
            which = f" of image {n}" if len(batch) > 1 else ""
            layer, at = unit.names[-1], ",".join(map(str, unit.indices[n]))
            said = f"{method}: the map{which} is 0 everywhere: no pixel counts for {layer}[{at}] here"
            warnings.warn(said, ZeroMapWarning, stacklevel=2)
    return values[0] if x.ndim == 3 else values


def make_method(name: str, settings: dict[str, Any]) -> Method:
    """Raises ArgumentError for a method or a setting that there is not."""
    name = method_name(name)
    kind = METHODS[name]
    known = [field.name for field in fields(kind)]
    for setting in settings:
        if setting not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ArgumentError(f"attribution: {name} has no setting {setting!r}; {takes}")
    return kind(**settings)


def method_name(name: Any) -> str:
    """A key of METHODS, however it is written: "Grad-CAM" is "grad_cam". Raises ArgumentError naming those like it."""
    keys = {_letters(key): key for key in METHODS}
    if isinstance(name, str) and _letters(name) in keys:
        return keys[_letters(name)]
    near = difflib.get_close_matches(_letters(str(name)), keys, n=2, cutoff=0.6)
    said = f"did you mean {' or '.join(keys[one] for one in near)}?" if near else f"choose one of {', '.join(METHODS)}"
    raise ArgumentError(f"attribution: unknown method {arguments.shown(name)}: {said}")


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def find_unit(model: AlexNet, x: Array, target: Any, method: Method) -> Unit:
    """The unit, with the layers that lead to it. Raises ArgumentError."""
    known = places(model, x.shape[1:])
    *_, (logits, _) = model.leaves()
    layer, indices = logits, None
    if isinstance(target, tuple | list) and target and isinstance(target[0], str):
        if len(target) != 2:
            raise ArgumentError(f"attribution: a unit is (layer, index), got {arguments.shown(target)}")
        layer = check_layer(target[0], list(known))
        indices = [check_index(layer, known[layer].shape, target[1])] * len(x)
    names, net = frozen(model, layer, method.relu)
    if indices is None:
        classes = most_probable(net, x) if target is None else given_classes(target, len(x))
        indices = [check_index(layer, known[layer].shape, one) for one in classes]
    return Unit(net, names, known, indices)


def most_probable(net: Any, x: Array) -> list[Index]:
    with no_grad():
        logits = [to_cpu(net(x[start : start + BATCH])) for start in range(0, len(x), BATCH)]
    return [(int(one),) for part in logits for one in part.argmax(1)]


def given_classes(target: Any, images: int) -> list[Any]:
    """The class of each image. Raises ArgumentError where there are not as many as images."""
    if hasattr(target, "dtype"):
        target = to_cpu(as_array(target, "attribution: target")).tolist()
    if not isinstance(target, list | tuple):
        return [target] * images
    classes = list(target)
    if len(classes) != images:
        raise ArgumentError(f"attribution: {len(classes)} classes for {images} images; give one, or one an image")
    return classes

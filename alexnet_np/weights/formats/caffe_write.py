"""A network as a .caffemodel and, beside it, the .prototxt that Caffe wants with it.

Layers are called as bvlc_alexnet's, after the convolution or dense layer that they follow: conv1, relu1, norm1, pool1.
What Caffe cannot say in one layer is put together from several, exactly:

    a window over the right and bottom edge    padding by a whole stride on all sides, and Slice takes the first row off
    a pooling that counts by floor             Slice takes the row off that Caffe, which counts by ceil, has more
    LRN of two towers                          Slice, two LRN, Concat

Refused, with the reason: LRN of an even window, or within maps with k other than 1; adaptive pooling whose windows
differ; a padding of pooling that Caffe's counting does not reach; an average that does not count the padding, or has a
divisor of its own.

Source: BVLC/caffe, src/caffe/layers/{conv,pooling,lrn,slice}_layer.cpp, models/bvlc_alexnet/deploy.prototxt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.files import replacing
from alexnet_np.weights.formats import protobuf_write
from alexnet_np.weights.formats.caffe_schema import SCHEMA, messages
from alexnet_np.weights.formats.protobuf_write import Part, field
from alexnet_np.weights.lrn import geometry
from alexnet_np.weights.steps import Network, Step, Writer, output_size

LAYER, BLOBS = SCHEMA["NetParameter"]["layer"][0], SCHEMA["LayerParameter"]["blobs"][0]  # numbers of fields
DATA = SCHEMA["BlobProto"]["data"][0]
ACTIVATIONS = {"relu": "ReLU", "tanh": "TanH", "sigmoid": "Sigmoid"}
SHORT = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "lrn": "norm", "dropout": "drop"}
SHORT |= {"max_pool": "pool", "avg_pool": "pool", "adaptive": "pool"}


def write(path: Path, network: Network, beside: Path) -> None:
    """Write the numbers to `path` and the layers to `beside`. Raises WeightsError, MissingPackageError, OSError."""
    from google.protobuf import text_format

    net = _Net(network)
    for each in network.steps:
        net.add(each)
    protobuf_write.write(path, net.parts())
    with replacing(beside) as temporary:
        temporary.write_text(text_format.MessageToString(net.message), encoding="utf-8")


class _Net(Writer):
    """The network while it is made: its layers, and the blob and the shape of what they have come to."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.message = messages()["NetParameter"](name=network.title)
        self.arrays: dict[str, list[np.ndarray]] = {}  # by layer: they are not put into its message
        self.blob, self.shape, self.number = "data", network.input, 0
        layer = self.message.layer.add(name="data", type="Input", top=["data"])
        layer.input_param.shape.add(dim=[1, *network.input])

    def name(self, each: Step) -> str:
        """norm2, or norm2b where there is one already."""
        base = f"{SHORT[each.kind]}{self.number}"
        taken = {layer.name for layer in self.message.layer}
        return next(name for name in (base, *(f"{base}{letter}" for letter in "bcdefgh")) if name not in taken)

    def layer(self, kind: str, name: str, tops: Sequence[str] = (), bottoms: Sequence[str] = ()) -> Any:
        """A layer that takes what has been reached, or `bottoms`; its top, or the last of `tops`, is reached then."""
        tops = list(tops) or [name]
        layer = self.message.layer.add(name=name, type=kind, bottom=list(bottoms) or [self.blob], top=tops)
        self.blob = tops[-1]
        return layer

    def blobs(self, layer: Any, name: str) -> int:
        """Put a layer's arrays into it. Gives the number of its outputs."""
        weight, bias = (self.network.arrays.get(f"{name}.{kind}") for kind in ("weight", "bias"))
        assert weight is not None
        both = [np.ascontiguousarray(array, "<f4") for array in (weight, bias) if array is not None]
        self.arrays[layer.name] = both
        return weight.shape[0]

    def parts(self) -> Iterator[Part]:
        """The file: the network's name, and every layer with its blobs."""
        yield messages()["NetParameter"](name=self.message.name).SerializeToString()
        for layer in self.message.layer:
            inside: list[Part] = [layer.SerializeToString()]
            for array in self.arrays.get(layer.name, ()):
                blob = messages()["BlobProto"]()
                blob.shape.dim.extend(array.shape)
                inside += field(BLOBS, [blob.SerializeToString(), *field(DATA, [array])])
            yield from field(LAYER, inside)

    def convolution(self, each: Step) -> None:
        """Caffe pads alike on both sides. For padding at the end alone a stride more stands before, and is cut off."""
        self.number += 1
        name, weight = f"conv{self.number}", self.network.arrays[f"{each.name}.weight"]
        stride, padding, size = each.settings["stride"], each.settings["padding"], self.shape[1:]
        kernel = (weight.shape[2], weight.shape[3])
        first = [int(before != after) for before, after in padding]
        pads = [padding[axis][0] + first[axis] * stride[axis] for axis in (0, 1)]
        layer = self.layer("Convolution", name)
        p = layer.convolution_param
        p.num_output, p.bias_term = self.blobs(layer, each.name), f"{each.name}.bias" in self.network.arrays
        p.group = each.settings["groups"]
        p.kernel_h, p.kernel_w = kernel
        p.pad_h, p.pad_w = pads
        p.stride_h, p.stride_w = stride
        gives = [(size[axis] + 2 * pads[axis] - kernel[axis]) // stride[axis] + 1 for axis in (0, 1)]
        self.shape = (p.num_output, gives[0], gives[1])
        self.crop(name, first, output_size(each, size, kernel))

    def crop(self, name: str, first: Sequence[int], output: tuple[int, int]) -> None:
        """Rows and columns from `first` on, `output` of them. Raises WeightsError where there are not so many."""
        for axis, letter in ((2, "h"), (3, "w")):
            have, begin, count = self.shape[axis - 1], first[axis - 2], output[axis - 2]
            if begin + count > have:
                raise WeightsError(f"{name}: Caffe's counting gives {have} rows or columns of {begin + count}")
            points = [point for point in (begin, begin + count) if 0 < point < have]
            if points:
                tops = [f"{name}_{letter}{i}" for i in range(len(points) + 1)]
                kept = tops[1 if begin else 0]
                layer = self.layer("Slice", f"{name}_{letter}", tops)
                layer.slice_param.axis = axis
                layer.slice_param.slice_point.extend(points)
                self.layer("Silence", f"{name}_{letter}_rest", [""], [top for top in tops if top != kept])
                del self.message.layer[-1].top[:]
                self.blob = kept
            shape = list(self.shape)
            shape[axis - 1] = count
            self.shape = (shape[0], shape[1], shape[2])

    def dense(self, each: Step) -> None:
        self.number += 1
        layer = self.layer("InnerProduct", f"fc{self.number}")
        layer.inner_product_param.num_output = self.blobs(layer, each.name)
        layer.inner_product_param.bias_term = f"{each.name}.bias" in self.network.arrays
        self.shape = (layer.inner_product_param.num_output, 1, 1)

    def pooling(self, each: Step) -> None:
        name, kernel, stride = self.name(each), each.settings["kernel"], each.settings["stride"]
        (top, _), (left, _) = each.settings["padding"]
        if each.settings.get("divisor") or (max(top, left) and not each.settings.get("include_pad", True)):
            raise WeightsError(f"{each.name}: Caffe's average divides by the places of a window, padding included")
        output = output_size(each, self.shape[1:], kernel)
        p = self.layer("Pooling", name).pooling_param
        p.pool = 0 if each.kind == "max_pool" else 1
        p.kernel_h, p.kernel_w = kernel
        p.stride_h, p.stride_w = stride
        p.pad_h, p.pad_w = top, left
        gives = [_ceil_count(*each_side) for each_side in zip(self.shape[1:], (top, left), kernel, stride, strict=True)]
        self.shape = (self.shape[0], gives[0], gives[1])
        self.crop(name, (0, 0), output)

    def adaptive(self, each: Step) -> None:
        wanted, size = each.settings["output_size"], self.shape[1:]
        wanted = (wanted, wanted) if isinstance(wanted, int) else wanted
        output = (size[0] if wanted[0] is None else wanted[0], size[1] if wanted[1] is None else wanted[1])
        if output == size:
            return
        if size[0] % output[0] or size[1] % output[1]:
            raise WeightsError(f"{each.name}: Caffe cannot average {size} maps to {output}: the windows differ in size")
        p = self.layer("Pooling", self.name(each)).pooling_param
        p.pool, p.kernel_h, p.kernel_w = 1, size[0] // output[0], size[1] // output[1]
        p.stride_h, p.stride_w = p.kernel_h, p.kernel_w
        self.shape = (self.shape[0], *output)

    def norm(self, each: Step) -> None:
        sees, name = geometry(each), self.name(each)
        n = sees.low + sees.high + 1
        if sees.low != sees.high:
            raise WeightsError(
                f"{each.name}: Caffe's LRN takes odd windows only, and this one reaches {sees.low} and {sees.high}"
            )
        if sees.region == "within" and sees.k != 1:
            raise WeightsError(f"{each.name}: within maps Caffe's LRN always has k 1, and this one has {sees.k:g}")
        alpha = sees.scale * (n * n if sees.region == "within" else n)
        parts = [self.blob]
        if sees.groups > 1 and sees.region == "across":
            parts = [f"{name}_tower{i}" for i in range(sees.groups)]
            layer = self.layer("Slice", f"{name}_towers", parts)
            each_has = self.shape[0] // sees.groups
            layer.slice_param.axis = 1
            layer.slice_param.slice_point.extend(range(each_has, self.shape[0], each_has))
        normed = []
        for i, part in enumerate(parts):
            title = name if len(parts) == 1 else f"{name}_{i}"
            p = self.layer("LRN", title, bottoms=[part]).lrn_param
            p.local_size, p.alpha, p.beta, p.k = n, alpha, sees.beta, sees.k
            p.norm_region = int(sees.region == "within")
            normed.append(title)
        if len(parts) > 1:
            self.layer("Concat", name, bottoms=normed).concat_param.axis = 1

    def flatten(self, each: Step) -> None:
        self.shape = (prod(self.shape), 1, 1)  # which InnerProduct does itself

    def dropout(self, each: Step) -> None:
        self.layer("Dropout", self.name(each)).dropout_param.dropout_ratio = each.settings["p"]

    def activation(self, each: Step) -> None:
        if each.kind not in ACTIVATIONS:
            raise WeightsError(f"{each.name}: Caffe has no layer for {each.kind}")
        self.layer(ACTIVATIONS[each.kind], self.name(each))


def _ceil_count(side: int, pad: int, kernel: int, stride: int) -> int:
    """Caffe's outputs of a pooling along one axis."""
    count = -(-(side + 2 * pad - kernel) // stride) + 1
    return count - 1 if pad and (count - 1) * stride >= side + pad else count

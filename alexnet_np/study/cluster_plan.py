"""How long training takes on N nodes of G devices each, on paper: an open model, every number of it an argument.

    step      = max(compute + exposed, input)
    compute   = (B / devices) / rate
    exchange  of W bytes among R:  ring  2 (R-1)/R W / bandwidth + 2 R latency
                                   tree  2 W / bandwidth + 2 ceil(log2 R) latency     (up and down, pipelined)
    data      all gradients: inside a node, then 1/G of them between nodes
    hybrid    dense layers split over a node's devices ("one weird trick"): their activations inside the node, the
              convolutions' gradients inside it, and 1/G of all gradients between nodes
    exposed   = exchange - what a share `hide` of the backward (two thirds of compute) hides, at least 4% of it
    input     = B / (nodes * decoding cores * images a second each)

Source: bandwidths of rings and trees, Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication
Operations in MPICH" (2005); the hybrid, Krizhevsky, "One weird trick" (arXiv 1404.5997, 2014), sec. 4.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Linear
from alexnet_np.models import AlexNet
from alexnet_np.study.summary import summary

TOPOLOGIES = ("ring", "tree")
SCHEMES = ("data", "hybrid")
LEAST_EXPOSED = 0.04  # of the exchange: the first layers' gradients are ready last, with nothing left to hide behind

# What batches AlexNet without batch normalisation was trained with, and what came of it: (up to, what, source).
BATCHES = (
    (128, "the paper's own", "Krizhevsky, Sutskever, Hinton 2012, sec. 5"),
    (1024, "about half a point of accuracy less, the rate grown with the batch", "Krizhevsky 2014, arXiv 1404.5997"),
    (8192, "may diverge without warm-up and layer-wise rates (LARS)", "You, Gitman, Ginsburg 2017, arXiv 1708.03888"),
    (32768, "with LARS, batch normalisation and warm-up", "You et al. 2018, arXiv 1709.05011"),
    (65536, "likewise, in half precision", "Jia et al. 2018, arXiv 1807.11205"),
)
BEYOND = ("nobody has published that AlexNet learns with such batches", "")


class Network(NamedTuple):
    """What the model needs to know of a network."""

    conv_bytes: int  # of gradients
    dense_bytes: int
    activation_bytes: int  # that the hybrid exchanges, an image
    flops: int  # of a training image: forward, dx of all but the first layer, dweight


@dataclass(frozen=True)
class Machines:
    """N nodes of G devices. Bandwidths in GB/s for each device and direction, latency in microseconds a hop."""

    nodes: int = 1
    devices: int = 8
    rate: float = 10_000.0  # training images a second of one device
    inside: float = 400.0
    between: float = 45.0
    latency: float = 10.0
    hide: float = 0.7
    decoding_cores: int = 64  # of a node
    decode_rate: float = 600.0  # images a second of one core

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and (value > 0 or (name in ("latency", "hide") and value == 0))):
                raise ArgumentError(f"plan-cluster: {name.replace('_', ' ')} must be more than 0, got {value:g}")
        if self.hide > 1:
            raise ArgumentError(f"plan-cluster: hide is a share, 0 to 1, got {self.hide:g}")


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step and its parts; bytes that a device sends in it."""

    batch: int
    scheme: str
    topology: str
    compute: float
    exchange: float
    exposed: float
    input: float
    step: float
    sent_inside: float
    sent_between: float
    efficiency: float
    images_per_second: float
    decoding_cores_needed: int
    tflops: float  # of one device, while it computes

    @property
    def bound(self) -> str:
        """What a faster one of would help most."""
        if self.input > self.compute + self.exposed:
            return "input"
        return "exchange" if self.exposed > self.compute else "compute"

    def days(self, images: int, epochs: float) -> float:
        return epochs * images / self.images_per_second / 86_400

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bound": self.bound}


def network_of(model: AlexNet, size: int) -> Network:
    rows = summary(model, (1, model.in_channels, size, size)).layers
    convs = sum(row.parameters for row in rows if row.type == "Conv2d")
    dense = [layer for _, layer in model.leaves() if isinstance(layer, Linear)]
    entering = [layer.in_features for layer in dense]
    floats = 2 * sum(entering) + dense[-1].out_features  # gathered forward, and their gradients scattered
    macs = [row.macs for row in rows if row.macs]
    weights = sum(row.parameters for row in rows)
    return Network(4 * convs, 4 * (weights - convs), 4 * floats, 2 * (3 * sum(macs) - macs[0]))


def estimate(
    network: Network, machines: Machines, batch: int, scheme: str = "data", topology: str = "ring"
) -> Estimate:
    """One step of `batch` images in all. Raises ArgumentError where a device would have less than one image."""
    if topology not in TOPOLOGIES or scheme not in SCHEMES:
        wrong, known = (topology, TOPOLOGIES) if topology not in TOPOLOGIES else (scheme, SCHEMES)
        raise ArgumentError(f"plan-cluster: choose one of {', '.join(known)}, got {wrong!r}")
    N, G = machines.nodes, machines.devices
    if batch < N * G:
        raise ArgumentError(f"plan-cluster: a batch of {batch} leaves some of {N * G} devices without an image")
    compute = batch / (N * G) / machines.rate
    weights = network.conv_bytes + network.dense_bytes
    between = sent(weights / G, N, topology)
    if scheme == "data":
        inside = sent(weights, G, topology)
    else:
        inside = batch / N * network.activation_bytes * (G - 1) / G + sent(network.conv_bytes, G, topology)
    waits = 2 * machines.latency * 1e-6 * (hops(G, topology) + hops(N, topology))
    wire_inside, wire_between = inside / machines.inside / 1e9, between / machines.between / 1e9
    exchange = wire_inside + wire_between + waits
    hidden = machines.hide * compute * 2 / 3
    if scheme == "data":
        exposed = max(exchange - hidden, LEAST_EXPOSED * exchange)
    else:  # the activations are waited for: only what goes between nodes can hide
        exposed = exchange - min(hidden, wire_between)
    feed = batch / (N * machines.decoding_cores * machines.decode_rate)
    step = max(compute + exposed, feed)
    needed = math.ceil(batch / (compute + exposed) / machines.decode_rate)
    parts = (compute, exchange, exposed, feed, step, inside, between)
    tflops = machines.rate * network.flops / 1e12
    return Estimate(batch, scheme, topology, *parts, compute / step, batch / step, needed, tflops)


def sent(size: float, ranks: int, topology: str) -> float:
    """Bytes that each of `ranks` sends to have the sum of `size` bytes everywhere."""
    if ranks == 1:
        return 0.0
    return 2 * size * (ranks - 1) / ranks if topology == "ring" else 2 * size


def hops(ranks: int, topology: str) -> int:
    return ranks if topology == "ring" else math.ceil(math.log2(ranks))


def about_batch(batch: int) -> tuple[str, str]:
    """What is known of learning with such a batch, and where that is published."""
    return next(((said, source) for most, said, source in BATCHES if batch <= most), BEYOND)

"""PyTorch on the GPU, every way its users make it fast: inference and training steps of the same network.

Strict float32 and TF32 are settings of the process, so every call sets its own (a CUDA graph keeps those it was
captured with). A graph's input is copied into the memory it was captured with, which is part of the time, as it is of
our plans'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from alexnet_np.device import Array
from alexnet_np.measure.gpu import in_turn
from alexnet_np.measure.peers import torch_net
from alexnet_np.models import AlexNet
from alexnet_np.study.torch_net import import_torch

Call = Callable[..., Any]


class Peer(NamedTuple):
    name: str
    memory: str  # a torch.memory_format
    benchmark: bool  # cudnn.benchmark: algorithms are timed at first, and the fastest is kept
    how: str  # "eager", "compiled" or "graph"


PEERS = (
    Peer("torch eager", "contiguous_format", False, "eager"),
    Peer("torch channels_last", "channels_last", False, "eager"),
    Peer("torch cudnn.benchmark", "contiguous_format", True, "eager"),
    Peer("torch compiled", "channels_last", True, "compiled"),
    Peer("torch CUDA graph", "contiguous_format", True, "graph"),
    Peer("torch CUDA graph, channels_last", "channels_last", True, "graph"),
)
WARM_UP = 3  # calls on a side stream before a capture


def configure(arithmetic: str, benchmark: bool) -> None:
    """Set what torch's float32 products and convolutions are computed in ("strict" or "tf32")."""
    torch = import_torch()
    tf32 = arithmetic == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark


def inference(peer: Peer, model: AlexNet, xs: list[Array], arithmetic: str, device: str) -> Call:
    """A call of the network on the next of `xs`; `model` is on the CPU."""
    torch = import_torch()
    configure(arithmetic, peer.benchmark)
    memory = getattr(torch, peer.memory)
    net = torch_net(model).eval().to(device, memory_format=memory)
    runner = _compiled(net) if peer.how == "compiled" else net

    def forward(x: Any) -> Any:
        with torch.inference_mode():
            return runner(x)

    return _finished(peer, arithmetic, forward, [torch.from_dlpack(x).contiguous(memory_format=memory) for x in xs])


def training(
    peer: Peer, model: AlexNet, xs: list[Array], target: Array, arithmetic: str, device: str, options: dict[str, float]
) -> Call:
    """A whole training step, of SGD with fused=True, on the next of `xs`; `model` is on the CPU."""
    torch = import_torch()
    configure(arithmetic, peer.benchmark)
    memory = getattr(torch, peer.memory)
    net = torch_net(model).train().to(device, memory_format=memory)
    runner = _compiled(net) if peer.how == "compiled" else net
    optimizer = torch.optim.SGD(net.parameters(), **options, fused=True)
    labels = torch.from_dlpack(target)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(runner(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _finished(peer, arithmetic, step, [torch.from_dlpack(x).contiguous(memory_format=memory) for x in xs])


def _compiled(net: Any) -> Any:
    """Compiled anew: a function that torch has recompiled often, for other shapes, it gives back to eager mode."""
    torch = import_torch()
    torch.compiler.reset()
    return torch.compile(net)


def _finished(peer: Peer, arithmetic: str, run: Call, xs: list[Any]) -> Call:
    """`run` on the next of `xs`, called once (torch.compile fails here, if it does) or captured, with its settings."""
    if peer.how == "graph":
        return in_turn(_captured(run, xs[0]), xs)

    def configured(x: Any) -> Any:
        configure(arithmetic, peer.benchmark)
        return run(x)

    configured(xs[0])
    return in_turn(configured, xs)


def _captured(run: Call, x: Any) -> Call:
    """`run` as a CUDA graph, in the way of torch's documentation: warmed up on a side stream, then captured."""
    torch = import_torch()
    static = x.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run(static)

    def replay(x: Any) -> Any:
        static.copy_(x)
        graph.replay()
        return result

    return replay

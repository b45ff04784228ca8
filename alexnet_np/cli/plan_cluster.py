"""`alexnet plan-cluster`: what training on many machines would take, on paper."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.identity import alexnet, recipe_of
from alexnet_np.presets import PRESETS, check_preset
from alexnet_np.study.cluster_plan import Estimate, Machines, about_batch, estimate, network_of

OURS = Machines()


def register(app: typer.Typer) -> None:
    app.command("plan-cluster", rich_help_panel="Training")(plan_cluster)


def plan_cluster(
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="Machines.", min=1)] = OURS.nodes,
    gpus: Annotated[int, typer.Option("--gpus", "-g", help="Devices in each; 1 for CPU nodes.", min=1)] = OURS.devices,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", "-b", help="Images a step, in all; may be repeated.", min=1)
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", help="Training images a second of one device: alexnet bench train.")
    ] = OURS.rate,
    inside: Annotated[float, typer.Option("--inside", help="GB/s of a device inside its node.")] = OURS.inside,
    between: Annotated[float, typer.Option("--between", help="GB/s of a device between nodes.")] = OURS.between,
    latency: Annotated[float, typer.Option("--latency", help="Microseconds a hop.")] = OURS.latency,
    hide: Annotated[float, typer.Option("--hide", help="Share of the backward that hides exchange.")] = OURS.hide,
    cores: Annotated[int, typer.Option("--cores", help="Cores of a node that decode.", min=1)] = OURS.decoding_cores,
    decode: Annotated[float, typer.Option("--decode", help="Images a second of such a core.")] = OURS.decode_rate,
    topology: Annotated[str, typer.Option("--topology", help="ring or tree.")] = "ring",
    parallel: Annotated[
        str, typer.Option("--parallel", help="data, or hybrid: dense layers split in a node.")
    ] = "data",
    images: Annotated[int, typer.Option("--images", help="Of the training set.", min=1)] = 1_281_167,
    epochs: Annotated[float, typer.Option("--epochs", help="Times through it.")] = 90.0,
    preset: Annotated[str, typer.Option("--preset", "-p", help=f"{', '.join(PRESETS)}.")] = "torchvision",
    as_json: Json = False,
) -> None:
    """What training on many machines would take: efficiency, what limits it, days. On paper: nothing is run.

    The defaults are assumptions (eight GPUs of 10,000 images a second, NVLink, InfiniBand), not measurements; give
    yours. The formulas and their sources stand in alexnet_np/study/cluster_plan.py.

    Examples:
      alexnet plan-cluster --nodes 8 --batch 1024 --batch 8192
      alexnet plan-cluster --nodes 8 --gpus 1 --rate 4000 --between 1.1 --batch 1024
      alexnet plan-cluster --nodes 8 --parallel hybrid --topology tree --json
    """
    check_preset(preset)
    model = alexnet(preset, seed=0)
    network = network_of(model, recipe_of(model).crop)
    machines = Machines(nodes, gpus, rate, inside, between, latency, hide, cores, decode)
    found = [estimate(network, machines, each, parallel, topology) for each in batch or [1024]]
    if as_json:
        steps = []
        for each in found:
            said, source = about_batch(each.batch)
            steps.append({**each.to_json(), "days": each.days(images, epochs), "batch_known": said, "source": source})
        show.print_json({"preset": preset, "network": network._asdict(), "machines": asdict(machines), "steps": steps})
        return
    for i, each in enumerate(found):
        if i:
            print()
        said, source = about_batch(each.batch)
        sent = f"{each.sent_inside / 1e6:,.1f} MB inside a node, {each.sent_between / 1e6:,.1f} MB between nodes"
        rows = {
            "batch": f"{each.batch:,} on {nodes} x {gpus} devices",
            "step": parts_of(each),
            "sent by a device": sent,
            "efficiency": f"{each.efficiency:.0%}, bound by {each.bound}",
            "images a second": f"{each.images_per_second:,.0f}; {each.decoding_cores_needed:,} cores must decode",
            "a device computes": f"{each.tflops:.1f} TFLOP/s",
            f"{epochs:g} epochs": how_long(each.days(images, epochs)),
            "such a batch": f"{said} ({source})" if source else said,
        }
        show.console().print(show.facts(rows))


def parts_of(step: Estimate) -> str:
    compute, exposed, feed = (f"{1e3 * each:,.2f}" for each in (step.compute, step.exposed, step.input))
    return f"{1e3 * step.step:,.2f} ms: {compute} computing + {exposed} waiting, or the {feed} that decoding takes"


def how_long(days: float) -> str:
    if days >= 1:
        return f"{days:,.1f} days"
    return f"{24 * days:.1f} hours" if days >= 1 / 24 else f"{1440 * days:.1f} minutes"

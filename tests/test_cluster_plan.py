"""The paper model of training on many machines, beside a table worked out before it, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from oracles import refused
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli.app import app
from alexnet_np.study.cluster_plan import Machines, Network, about_batch, estimate, network_of, sent

GPUS = Machines(decoding_cores=10**9)
TABLE = [  # nodes, batch, scheme -> percent, of the model's first version; 400 and 45 GB/s, 10,000 images/s a GPU
    *[(1, 128, "data", 76), (1, 1024, "data", 100), (2, 128, "data", 34), (2, 1024, "data", 99)],
    *[(8, 128, "data", 7), (8, 1024, "data", 47), (8, 1024, "hybrid", 65), (8, 8192, "data", 99)],
    *[(64, 1024, "data", 5), (64, 8192, "data", 34), (64, 8192, "hybrid", 43), (64, 65536, "data", 99)],
]


@pytest.fixture(scope="module")
def network():
    return network_of(anp.alexnet(seed=0), 224)


def test_what_it_knows_of_torchvisions_network(network):
    """Parameters of the documentation; activations 2 (9216 + 4096 + 4096) + 1000 floats; FLOPs without conv 1's dx."""
    flops = 2 * (3 * 714_188_480 - 70_276_800)
    assert network == Network(4 * 2_469_696, 4 * 58_631_144, 4 * 35_816, flops)


@pytest.mark.parametrize(("nodes", "batch", "scheme", "percent"), TABLE)
def test_efficiency_is_that_of_the_table(network, nodes, batch, scheme, percent):
    found = estimate(network, replace(GPUS, nodes=nodes), batch, scheme)
    assert abs(100 * found.efficiency - percent) < 1


def test_a_case_by_hand():
    """Two devices, 1 GB of gradients, 1 GB/s: a second there and back; 100 images take two, of which 0.5 hide."""
    machines = Machines(2, 1, 25.0, 1.0, 1.0, latency=0.0, hide=0.375, decoding_cores=1, decode_rate=1000.0)
    found = estimate(Network(10**9, 0, 0, 10**9), machines, 100)
    assert (found.compute, found.exchange, found.exposed, found.step) == (2.0, 1.0, 0.5, 2.5)
    assert (found.efficiency, found.images_per_second, found.bound) == (0.8, 40.0, "compute")
    assert found.days(images=86_400, epochs=40) == 1.0
    slow = estimate(Network(10**9, 0, 0, 10**9), replace(machines, decode_rate=10.0), 100)
    assert (slow.step, slow.bound) == (5.0, "input")


def test_rings_send_less_and_trees_wait_less(network):
    assert sent(8.0, 4, "ring") == 12.0 and sent(8.0, 4, "tree") == 16.0 and sent(8.0, 1, "tree") == 0.0
    many = replace(GPUS, nodes=512, devices=1, latency=1000.0)
    ring, tree = (estimate(network, many, 8192, topology=name) for name in ("ring", "tree"))
    assert tree.exchange < ring.exchange and tree.sent_between > ring.sent_between


def test_batches_have_sources():
    assert about_batch(128)[0] == "the paper's own"
    assert "1708.03888" in about_batch(8192)[1] and "nobody" in about_batch(10**6)[0]


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"between": -1.0}, {"hide": 1.5}, {"latency": float("nan")}])
def test_wrong_machines(wrong):
    with refused(anp.ArgumentError, "plan-cluster: "):
        Machines(**wrong)


def test_the_command_line():
    run = CliRunner().invoke
    said = json.loads(
        run(app, ["plan-cluster", "--nodes", "8", "-b", "1024", "-b", "8192", "--cores", "9999", "--json"]).stdout
    )
    assert [round(100 * step["efficiency"]) for step in said["steps"]] == [47, 99]
    shown = run(app, ["plan-cluster", "--nodes", "2"])
    assert shown.exit_code == 0 and "minutes" in shown.stdout and "1404.5997" in shown.stdout
    for given, word in ((["--batch", "4"], "without an image"), (["--topology", "star"], "ring, tree")):
        result = run(app, ["plan-cluster", *given])
        assert result.exit_code == 1 and word in result.stderr and result.stderr.count("\n") == 1

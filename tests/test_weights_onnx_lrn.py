"""LRN that a graph spells out is known again: ours, of every dialect, and torch's of both exporters."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402
from test_weights_writing import layers  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np import export  # noqa: E402
from alexnet_np.errors import ArgumentError  # noqa: E402
from alexnet_np.identity import identify  # noqa: E402
from alexnet_np.layers import AdaptiveAvgPool2d, LocalResponseNorm  # noqa: E402
from alexnet_np.ops.local_response_norm import CONVENTIONS, find_geometry  # noqa: E402
from alexnet_np.presets import PRESETS  # noqa: E402
from alexnet_np.study.torch_net import torch_module  # noqa: E402
from alexnet_np.weights.formats import onnx_file  # noqa: E402
from alexnet_np.weights.formats.onnx_fold import folded  # noqa: E402
from alexnet_np.weights.formats.onnx_schema import messages  # noqa: E402
from alexnet_np.weights.formats.protobuf import Parsed  # noqa: E402
from alexnet_np.weights.lrn import geometry  # noqa: E402
from alexnet_np.weights.reading import opened  # noqa: E402
from alexnet_np.weights.source import source_of  # noqa: E402
from alexnet_np.weights.steps import step  # noqa: E402

LRN = {"alpha": 0.7, "beta": 0.75, "k": 2.0}


def norms(path):
    with opened(path) as contents:
        assert [each.kind for each in contents.steps if each.kind not in ("lrn", "conv", "flatten", "linear")] == []
        return [each for each in contents.steps if each.kind == "lrn"], contents


def cases(alpha, beta, k, sizes=(1, 4, 5)):
    """(settings, what they mean) of everything that the dialects can say."""
    for convention, size, region, groups in itertools.product(CONVENTIONS, sizes, ["across", "within"], [1, 2]):
        settings = {"size": size, "convention": convention, "region": region, "groups": groups}
        with suppress(ArgumentError):
            yield settings, find_geometry(alpha=alpha, beta=beta, k=k, **settings)


CASES = list(cases(**LRN))


@pytest.mark.parametrize(("settings", "want"), CASES)
def test_what_was_written_is_read_as_the_same_norm(tmp_path, settings, want):
    anp.weights.write(tmp_path / "w.onnx", layers(step("lrn", "n", **LRN, **settings)))
    (found,), _ = norms(tmp_path / "w.onnx")
    got = geometry(found)
    no_matter = settings["size"] == 1 or want.region == "within"
    groups = got.groups if no_matter else want.groups
    assert got[:2] == want[:2] and (got.region, got.groups) == (want.region, groups)
    assert got[2:5] == pytest.approx(want[2:5], rel=1e-6)


class Norm(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 8, 3), torch.nn.LocalResponseNorm(size, 0.7, 0.75, 2.0)
        self.dense = torch.nn.Linear(8 * 5 * 5, 2)

    def forward(self, x):
        return self.dense(torch.flatten(self.norm(self.conv(x)), 1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [5, 4])
def test_torchs_new_exporter_spells_it_out(tmp_path, size):
    pytest.importorskip("onnxscript")
    torch.onnx.export(Norm(size).eval(), (torch.zeros(1, 3, 7, 7),), str(tmp_path / "a.onnx"))
    (found,), contents = norms(tmp_path / "a.onnx")
    assert geometry(found)[:2] == (size // 2, (size - 1) // 2) and found.settings["region"] == "across"
    assert {key: found.settings[key] for key in LRN} == LRN
    assert len(contents.tree) == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("size", "is_folded", "is_dynamic"), [(5, True, False), (4, False, False), (4, True, True)])
def test_torchs_old_exporter_computes_the_padding_in_the_graph(tmp_path, size, is_folded, is_dynamic):
    more = {"do_constant_folding": is_folded, "input_names": ["x"]}
    more |= {"dynamic_axes": {"x": {0: "N"}}} if is_dynamic else {}
    path = tmp_path / "a.onnx"
    torch.onnx.export(Norm(size).eval(), (torch.zeros(1, 3, 7, 7),), str(path), dynamo=False, **more)
    (found,), contents = norms(path)
    assert geometry(found)[:2] == (size // 2, (size - 1) // 2) and found.settings["region"] == "across"
    assert {key: found.settings[key] for key in LRN} == LRN
    assert len(contents.tree) == 4
    model = onnx.load(path)  # the other branch of the If hands on something else: nobody says what this is
    (branching,) = [node for node in model.graph.node if node.op_type == "If"]
    other = next(a for a in branching.attribute if a.name == "else_branch")
    other.g.node[0].input[0] = next(node.output[0] for node in model.graph.node if node.op_type == "Pad")
    onnx.save(model, path)
    with opened(path) as contents:
        assert contents.steps == () and len(contents.tree) == 4


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_torchs_old_exporter_is_known_by_its_layers(tmp_path):
    leaves = [layer for _, layer in anp.alexnet("caffenet", width=1 / 8, num_classes=10, seed=0).leaves()]
    norm = torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
    leaves = [layer for layer in leaves if not isinstance(layer, AdaptiveAvgPool2d)]  # 6x6 already; that exporter fails
    modules = [norm if isinstance(layer, LocalResponseNorm) else torch_module(layer) for layer in leaves]
    net = torch.nn.Sequential(*modules).eval()
    torch.onnx.export(net, (torch.zeros(1, 3, 227, 227),), str(tmp_path / "a.onnx"), dynamo=False)
    assert identify(tmp_path / "a.onnx").preset == "caffenet"


def folded_in(path, *nodes, **constants):
    """The value of "v" in a graph of these nodes."""
    given = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    made = helper.make_graph(list(nodes), "g", [], [], given)
    onnx.save(helper.make_model(made), path)
    with source_of(path) as source:
        found = folded(onnx_file._Graph(Parsed(source, messages()["ModelProto"])), "v", set())
    return None if found is None else found.tolist()


def test_whole_numbers_are_folded_or_nothing(tmp_path):
    node, value = helper.make_node, partial(folded_in, tmp_path / "g.onnx")
    back = node("Slice", ["a", "b", "e", "z", "s"], ["v"])
    assert value(back, a=[1, 2, 3], b=[-1], e=[-(2**63) + 1], z=[0], s=[-1]) == [3, 2, 1]
    assert value(node("Gather", ["a", "b"], ["v"]), a=[4, 5, 6], b=1) == 5
    assert value(node("Gather", ["a", "b"], ["v"]), a=[4, 5, 6], b=9) is None
    assert value(node("Reshape", ["a", "b"], ["v"]), a=[4, 5, 6], b=[2, 2]) is None
    assert value(node("ConstantOfShape", ["a"], ["v"]), a=[1 << 40]) is None
    assert value(node("Cast", ["a"], ["v"], to=1), a=[1]) is None
    assert value(node("Mul", ["v", "v"], ["v"])) is None
    assert value(node("Erf", ["a"], ["v"]), a=[1]) is None
    assert value(node("Add", ["a", "a"], ["v"]), a=np.zeros(99, np.int64)) is None
    long = [node("Add", [f"v{i}", "a"], [f"v{i + 1}"]) for i in range(99)]
    assert value(*long, node("Add", ["v99", "a"], ["v"]), a=[1], v0=[1]) is None


def test_a_graph_that_is_not_understood_is_no_evidence(tmp_path):
    numbers = {"a": 0.1, "k": 1.0, "p": 0.75, "band": np.eye(4)[:, :, None, None]}
    assert graph(tmp_path, *chain()[:-2], **numbers) == ([], ["w", "band"])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_known_by_the_layers_of_its_graph(tmp_path, preset):
    """What is noted beside the graph is taken out: the layers alone tell."""
    model = anp.alexnet(preset, width=1 / 8, seed=0)
    anp.weights.write(tmp_path / "a.onnx", model)
    made = onnx.load(tmp_path / "a.onnx")
    del made.metadata_props[:]
    for node in made.graph.node:
        node.name = ""
    onnx.save(made, tmp_path / "b.onnx")
    assert identify(tmp_path / "b.onnx").preset == preset
    assert list(anp.weights.read(tmp_path / "b.onnx")) == list(model.state_dict())
    if preset == "krizhevsky145":
        found = [each.settings for each in norms_of(tmp_path / "b.onnx")]
        assert [(each["region"], each["groups"], each["k"]) for each in found] == [
            ("across", 2, 2.0),
            ("across", 2, 2.0),
            ("within", 1, 1.0),
        ]
        export.convert(tmp_path / "b.onnx", tmp_path / "c.caffemodel")
        assert identify(tmp_path / "c.caffemodel").preset == preset


def norms_of(path):
    with opened(path) as contents:
        return [each for each in contents.steps if each.kind == "lrn"]


def graph(tmp_path, *nodes, **constants):
    given = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    conv = helper.make_node("Conv", ["input", "w"], ["x"])
    ends = [helper.make_tensor_value_info(name, 1, None) for name in ("input", "y")]
    made = helper.make_graph([conv, *nodes], "g", ends[:1], ends[1:], [weight, *given])
    onnx.save(helper.make_model(made), tmp_path / "g.onnx")
    with opened(tmp_path / "g.onnx") as contents:
        return [each.kind for each in contents.steps], list(contents.tree)


def chain(square=("x", "x"), power="p", band="band"):
    return [
        helper.make_node("Mul", list(square), ["q"]),
        helper.make_node("Conv", ["q", band], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["as"]),
        helper.make_node("Add", ["k", "as"], ["n"]),
        helper.make_node("Pow", ["n", power], ["d"]),
        helper.make_node("Div", ["x", "d"], ["y"]),
    ]


def test_only_what_computes_it_is_taken_for_it(tmp_path):
    numbers = {"a": 0.1, "k": 1.0, "p": 0.75, "band": np.eye(4)[:, :, None, None]}
    assert graph(tmp_path, *chain(), **numbers) == (["conv", "lrn"], ["w"])
    numbers["band"] = np.random.default_rng(0).standard_normal(
        (4, 4, 1, 1)
    )  # a layer of weights, whatever stands around
    assert graph(tmp_path, *chain(), **numbers) == ([], ["w", "band"])
    numbers["band"] = np.triu(np.ones((4, 4)))[:, :, None, None]  # ones, and no window
    assert graph(tmp_path, *chain(), **numbers) == ([], ["w", "band"])
    numbers["band"] = np.eye(4)[:, :, None, None]
    assert graph(tmp_path, *chain(square=("x", "input")), **numbers)[0] == []
    assert graph(tmp_path, *chain(), **{**numbers, "a": [0.1, 0.2]})[0] == []


def test_a_graph_of_many_norms_or_of_a_circle_takes_no_time(tmp_path):
    numbers = {"a": 0.1, "k": 1.0, "p": 0.75, "band": np.eye(4)[:, :, None, None]}
    begun = time.monotonic()
    divisions = [helper.make_node("Div", ["x", "d"], [f"y{i}"]) for i in range(20000)]
    assert graph(tmp_path, *chain(), *divisions, **numbers) == ([], ["w"])
    circle = [helper.make_node("Reshape", ["s"], ["s"]), *chain()[2:]]
    assert graph(tmp_path, *circle, **numbers) == ([], ["w"])
    assert time.monotonic() - begun < 5

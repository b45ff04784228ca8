"""SGD beside torch.optim.SGD, the schedules beside torch.optim.lr_scheduler, and the paper's rule by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from oracles import implementations, to_device, to_host

import alexnet_np as anp
from alexnet_np.backend import BACKENDS
from alexnet_np.layers import Parameter
from alexnet_np.ops import sgd
from alexnet_np.training import schedules
from alexnet_np.training.sgd import SGD

backend = implementations("sgd")

EXACT = 1e-12  # float64: a hundred steps of a few roundings each
SHAPES = {"conv.weight": (7, 3, 5, 5), "conv.bias": (7,), "fc.weight": (40, 90), "fc.bias": (40,)}

OPTIONS = [
    {"momentum": m, "dampening": d, "weight_decay": wd, "nesterov": n}
    for m, d, wd, n in itertools.product((0, 0.9), (0, 0.3), (0, 5e-2), (False, True))
    if not n or (m and not d)
]


def make_parameters(dtype="float64", backend="numpy"):
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    return {name: Parameter(to_device(array, BACKENDS[backend]), 1) for name, array in arrays.items()}


def make_twins(parameters):
    return {name: torch.tensor(to_host(p.data), requires_grad=True) for name, p in parameters.items()}


def give_gradients(step, parameters, twins, backend="numpy"):
    """The same gradients to both; at some steps a parameter has none."""
    random = np.random.default_rng(step)
    for i, (name, p) in enumerate(parameters.items()):
        g = random.standard_normal(p.shape).astype(p.data.dtype)
        missing = (step + i) % 7 == 0
        p.grad = None if missing else to_device(g, BACKENDS[backend])
        twins[name].grad = None if missing else torch.tensor(g)


def assert_equal(parameters, twins, tolerance=EXACT):
    for name, p in parameters.items():
        np.testing.assert_allclose(
            to_host(p.data), twins[name].detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_hundred_steps_as_torch(options, backend):
    parameters = make_parameters(backend=backend)
    twins = make_twins(parameters)
    ours = SGD(parameters.items(), 0.05, backend=backend, **options)
    theirs = torch.optim.SGD(twins.values(), 0.05, **options)
    for step in range(100):
        give_gradients(step, parameters, twins, backend)
        ours.step()
        theirs.step()
        if step == 50:
            ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.005
    assert_equal(parameters, twins)
    for name, twin in twins.items():
        expected = theirs.state[twin].get("momentum_buffer") if theirs.state else None
        if options["momentum"]:
            np.testing.assert_allclose(to_host(ours.velocities[name]), expected.numpy(), rtol=EXACT, atol=EXACT)
        else:
            assert expected is None and not ours.velocities


def test_parameter_groups_as_torch():
    parameters = make_parameters()
    twins = make_twins(parameters)
    biases = {"lr": 0.2, "weight_decay": 0.0}

    def groups(pairs, only_values):
        split = [[(n, p) for n, p in pairs.items() if ("bias" in n) == bias] for bias in (False, True)]
        weights, others = [[p for _, p in part] if only_values else part for part in split]
        return [{"params": weights}, {"params": others, **biases}]

    ours = SGD(groups(parameters, False), 0.1, momentum=0.9, weight_decay=0.05)
    theirs = torch.optim.SGD(groups(twins, True), 0.1, momentum=0.9, weight_decay=0.05)
    for step in range(100):
        give_gradients(step, parameters, twins)
        ours.step()
        theirs.step()
    assert_equal(parameters, twins)


@pytest.mark.parametrize("nesterov", [False, True])
def test_float32_stays_float32_and_in_place(nesterov, backend):
    parameters = make_parameters("float32", backend)
    arrays = {name: p.data for name, p in parameters.items()}
    twins = make_twins(parameters)
    options = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": nesterov}
    ours = SGD(parameters.items(), 0.05, backend=backend, **options)
    theirs = torch.optim.SGD(twins.values(), 0.05, **options)
    for step in range(10):
        give_gradients(step, parameters, twins, backend)
        kept = {name: None if p.grad is None else p.grad.copy() for name, p in parameters.items()}
        ours.step()
        theirs.step()
        for name, p in parameters.items():
            assert kept[name] is None or (p.grad == kept[name]).all(), "step() must leave gradients alone"
    for name, p in parameters.items():
        assert p.data is arrays[name] and p.data.dtype == np.float32
        assert ours.velocities[name].dtype == np.float32
    assert_equal(parameters, twins, 2e-6)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_any_memory_order(backend):
    random = np.random.default_rng(0)
    start, gradient = random.standard_normal((2, 300, 400))
    results = []
    for order in ("C", "F"):
        parameter = Parameter(np.array(start, order=order), 1)
        parameter.grad = np.array(gradient, order="F" if order == "C" else "C")
        SGD([("w", parameter)], 0.1, momentum=0.9, backend=backend).step()
        results.append(parameter.data)
    assert np.array_equal(*results)
    np.testing.assert_allclose(results[0], start - 0.1 * gradient, rtol=1e-14)


def test_blocks_cover_everything():
    for shape in ((1,), (10,), (3, 100_000), (1000, 129), (200_001,)):
        covered = np.zeros(shape, int)
        for rows in sgd.row_slices(covered):
            covered[rows] += 1
        assert (covered == 1).all()


def test_the_papers_rule_by_hand():
    w = Parameter(np.array([2.0]), 1)
    optimizer = SGD([("w", w)], 0.1, momentum=0.9, weight_decay=0.5, rule="paper")
    w.grad = np.array([1.0])
    optimizer.step()  # v = -0.5*0.1*2 - 0.1*1 = -0.2
    assert w.data[0] == pytest.approx(1.8, rel=1e-15)
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()  # v = 0.9*-0.2 - 0.5*0.01*1.8 - 0.01 = -0.199
    assert w.data[0] == pytest.approx(1.601, rel=1e-15)


def test_the_papers_rule_is_torchs_while_the_rate_stays(backend):
    runs = {}
    for rule in ("torch", "paper"):
        parameters = make_parameters(backend=backend)
        optimizer = SGD(parameters.items(), 0.05, momentum=0.9, weight_decay=5e-2, rule=rule, backend=backend)
        for step in range(30):
            give_gradients(step, parameters, make_twins(parameters), backend)
            optimizer.step()
            runs[rule, step] = to_host(parameters["fc.weight"].data).copy()
            if step == 20:
                optimizer.param_groups[0]["lr"] = 0.005
    np.testing.assert_allclose(runs["torch", 20], runs["paper", 20], rtol=1e-12, atol=1e-13)
    assert abs(runs["torch", 29] - runs["paper", 29]).max() > 1e-3  # and no longer once it changes


def test_frozen_parameters_are_skipped():
    parameters = make_parameters()
    before = {name: p.data.copy() for name, p in parameters.items()}
    for p in parameters.values():
        p.grad = np.ones(p.shape)
    parameters["conv.weight"].requires_grad = False
    optimizer = SGD(parameters.items(), 0.1, momentum=0.9)
    optimizer.step()
    assert np.array_equal(parameters["conv.weight"].data, before["conv.weight"])
    assert "conv.weight" not in optimizer.velocities
    assert not np.array_equal(parameters["fc.weight"].data, before["fc.weight"])
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters.values())


def test_state_dict_continues_the_same():
    straight, broken = make_parameters(), make_parameters()
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.2}
    first = SGD(straight.items(), **options)
    second = SGD(broken.items(), **options)
    for step in range(20):
        if step == 10:
            second.param_groups[0]["lr"] = first.param_groups[0]["lr"] = 0.02
            saved = second.state_dict()
            second = SGD(broken.items(), lr=9.0)
            second.load_state_dict(saved)
            for buffer in saved["state"].values():
                buffer["momentum_buffer"][...] = np.nan  # what was loaded is a copy
        give_gradients(step, straight, make_twins(straight))
        give_gradients(step, broken, make_twins(broken))
        first.step()
        second.step()
    assert all(np.array_equal(straight[name].data, broken[name].data) for name in straight)


def test_state_of_another_network_is_refused():
    optimizer = SGD(make_parameters().items(), 0.1, momentum=0.9)
    other = SGD([("other", Parameter(np.zeros(3), 1))], 0.1)
    with pytest.raises(anp.CheckpointError, match="other parameters: conv.bias"):
        other.load_state_dict(optimizer.state_dict())
    wrong = optimizer.state_dict() | {"state": {"fc.bias": {"momentum_buffer": np.zeros(3)}}}
    with pytest.raises(anp.CheckpointError, match=r"'fc.bias' is \(40,\) but its saved momentum buffer \(3,\)"):
        optimizer.load_state_dict(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1}, "lr must be a number of at least 0, got -1"),
        ({"lr": math.nan}, "lr must be a number"),
        ({"lr": 0.1, "momentum": -0.1}, "momentum must be"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs a momentum"),
        ({"lr": 0.1, "nesterov": True, "momentum": 0.9, "dampening": 0.1}, "no dampening"),
        ({"lr": 0.1, "rule": "caffe"}, "choose one of torch, paper"),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "rule": "paper"}, "neither nesterov nor dampening"),
    ],
)
def test_options_out_of_range(arguments, message):
    with pytest.raises(anp.ArgumentError, match=message):
        SGD(make_parameters().items(), **arguments)


def test_parameters_without_names_twice_or_none():
    parameters = make_parameters()
    with pytest.raises(anp.ArgumentError, match="named_parameters"):
        SGD(parameters.values(), 0.1)
    with pytest.raises(anp.ArgumentError, match="'fc.bias' is given twice"):
        SGD([{"params": parameters.items()}, {"params": [("fc.bias", parameters["fc.bias"])]}], 0.1)
    with pytest.raises(anp.ArgumentError, match="no parameters"):
        SGD([], 0.1)
    with pytest.raises(anp.ArgumentError, match="a group has"):
        SGD([{"params": parameters.items(), "learning_rate": 1}], 0.1)


# (ours, keyword arguments, steps); torch's has the same name
SCHEDULES = [
    (schedules.StepLR, {"step_size": 7, "gamma": 0.3}, 40),
    (schedules.CosineAnnealingLR, {"T_max": 30, "eta_min": 1e-3}, 30),
    (schedules.OneCycleLR, {"max_lr": [0.05, 0.1], "total_steps": 97}, 96),
    (schedules.OneCycleLR, {"max_lr": 0.05, "total_steps": 10, "pct_start": 0.5}, 9),
]


def two_groups():
    weights, biases = Parameter(np.ones(2), 1), Parameter(np.ones(2), 1)
    ours = SGD([{"params": [("w", weights)]}, {"params": [("b", biases)], "lr": 0.4}], 0.2)
    theirs = torch.optim.SGD([{"params": [torch.ones(2)]}, {"params": [torch.ones(2)], "lr": 0.4}], 0.2)
    return ours, theirs


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize(("make", "arguments", "steps"), SCHEDULES)
def test_schedules_as_torch(make, arguments, steps):
    ours, theirs = two_groups()
    extra = {"cycle_momentum": False} if make is schedules.OneCycleLR else {}
    schedule = make(ours, **arguments)
    reference = getattr(torch.optim.lr_scheduler, make.__name__)(theirs, **arguments, **extra)
    for step in range(steps):
        assert rates(ours) == pytest.approx(rates(theirs), rel=1e-11, abs=1e-15), f"after {step} steps"
        schedule.step()
        reference.step()
    assert rates(ours) == pytest.approx(rates(theirs), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 2},
        {"mode": "max", "patience": 0, "cooldown": 3, "factor": 0.5, "min_lr": 0.01},
        {"patience": 1, "threshold": 0.1},
    ],
    ids=str,
)
def test_plateau_as_torch(arguments):
    ours, theirs = two_groups()
    schedule = schedules.ReduceLROnPlateau(ours, **arguments)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **arguments)
    random = np.random.default_rng(1)
    values = [2 / (1 + i) + 0.2 * random.random() for i in range(60)]
    values[20] = math.nan
    seen = set()
    for value in values:
        schedule.step(value)
        reference.step(value)
        assert rates(ours) == pytest.approx(rates(theirs), rel=1e-12)
        seen.add(ours.param_groups[0]["lr"])
    assert len(seen) > 3


CONTINUED = [*SCHEDULES[:3], (schedules.ReduceLROnPlateau, {}, 0), (schedules.ConstantLR, {}, 0)]


@pytest.mark.parametrize(("make", "arguments"), [case[:2] for case in CONTINUED])
def test_schedules_continue_from_their_state(make, arguments):
    values = [1.0, 0.9, *[0.95] * 40]
    step = (lambda s, i: s.step(values[i])) if make is schedules.ReduceLROnPlateau else (lambda s, i: s.step())
    straight, broken = two_groups()[0], two_groups()[0]
    first, second = make(straight, **arguments), make(broken, **arguments)
    for i in range(29):
        if i == 13:
            saved = second.state_dict()
            broken = two_groups()[0]
            second = make(broken, **arguments)
            second.load_state_dict(saved)
        step(first, i)
        step(second, i)
        assert rates(straight) == rates(broken)
    assert make is schedules.ConstantLR or rates(straight) != rates(two_groups()[0])


def test_one_cycle_beyond_its_end_and_wrong_arguments():
    ours, _ = two_groups()
    schedule = schedules.OneCycleLR(ours, 0.05, total_steps=5)
    for _ in range(9):
        schedule.step()
    assert rates(ours) == pytest.approx([0.05 / 25 / 1e4] * 2)
    for arguments, message in [
        ({"max_lr": [0.1], "total_steps": 5}, "1 max_lr for 2"),
        ({"max_lr": 0.1, "total_steps": 0}, "total_steps must be at least 1"),
        ({"max_lr": 0.1, "total_steps": 5, "pct_start": 2}, "pct_start"),
    ]:
        with pytest.raises(anp.ArgumentError, match=message):
            schedules.OneCycleLR(ours, **arguments)
    with pytest.raises(anp.ArgumentError, match="unknown mode .*: choose one of min, max"):
        schedules.ReduceLROnPlateau(ours, mode="best")
    with pytest.raises(anp.ArgumentError, match="factor must be"):
        schedules.ReduceLROnPlateau(ours, factor=1.0)

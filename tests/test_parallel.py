"""A run on several processes, as far as one process can show it: the tree, the shards, the masks, the exchange."""

from typing import Any

import numpy as np
import pytest
from oracles import implementations
from thread_groups import Hall, Stood, everybody

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.layers import Dropout
from alexnet_np.parameters import Parameter
from alexnet_np.threads import get_num_threads, limit, set_num_threads
from alexnet_np.training.config import Config
from alexnet_np.training.parallel import group as groups
from alexnet_np.training.parallel.exchange import Exchange
from alexnet_np.training.parallel.group import Alone
from alexnet_np.training.parallel.sharded import Sharded, share_of
from alexnet_np.training.parallel.trees import Counter, cuts, fold
from alexnet_np.training.parallel.weird import Weird
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import Stepper

backend = implementations("dropout")


@pytest.mark.parametrize("count", [1, 2, 4, 8, 32])
def test_the_tree_is_the_same_by_steps_and_by_branches(rng, count):
    items = (rng.standard_normal((count, 50)) * 10.0 ** rng.integers(-6, 6, (count, 50))).astype(np.float32)
    whole = fold(np.add, list(items))
    counter = Counter(np.add)
    for item in items:
        counter.put(item)
        assert len(counter.partial) <= 6
    assert np.array_equal(counter.total(), whole)
    for branches in (b for b in (1, 2, 4) if b <= count):
        parts = [fold(np.add, list(part)) for part in np.split(items, branches)]
        assert np.array_equal(fold(np.add, parts), whole)
    assert count < 8 or not np.array_equal(items.cumsum(0)[-1], whole), "another order has other bits"


@pytest.mark.parametrize(("samples", "shards"), [(128, 4), (7, 4), (3, 8), (0, 2)])
def test_shards_are_even_and_whole(samples, shards):
    cut = cuts(samples, shards)
    sizes = np.diff(cut)
    assert cut[0] == 0 and cut[-1] == samples and sizes.max() - sizes.min() <= 1
    for processes in (p for p in (1, 2, 4) if p <= shards):
        config, rows = Config(shards=shards), []
        for rank in range(processes):
            rows += range(samples)[share_of(config, Stood(Hall(processes), rank)).rows(samples)]
        assert rows == list(range(samples))


def test_parts_are_dropped_as_the_whole(backend, rng):
    with anp.use_backend(backend):
        x = rng.standard_normal((11, 3, 7)).astype(np.float32)
        whole = ops.dropout.forward(x, p=0.4, seed=2**40 + 9)[0]
        for begin, end in ((0, 4), (4, 5), (5, 11), (11, 11)):
            part = ops.dropout.forward(x[begin:end], p=0.4, seed=2**40 + 9, first=begin * 21)[0]
            assert np.array_equal(part, whole[begin:end])


def test_a_layer_drops_its_rows_and_columns_as_the_whole(rng):
    x = rng.standard_normal((8, 12)).astype(np.float32)
    whole, part = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    expected = [whole(x), whole(x)]
    part.row = 2
    assert np.array_equal(part(x[2:5]), expected[0][2:5])
    part.columns = (4, 12)
    assert np.array_equal(part(x[2:5, 4:9]), expected[1][2:5, 4:9])


def test_hooks_hear_of_every_gradient_and_can_be_removed(rng):
    model = anp.alexnet("torchvision", width=1 / 16, num_classes=5, seed=0, backend="numba")
    heard: list[tuple[str, bool]] = []
    handles = [
        p.register_post_accumulate_grad_hook(lambda p, name=name: heard.append((name, p.grad is not None)))
        for name, p in model.named_parameters()
    ]
    x = rng.standard_normal((2, 3, 63, 63)).astype(np.float32)
    model.backward(np.ones_like(model(x)))
    names = [name for name, _ in model.named_parameters()]
    assert sorted(heard) == sorted((name, True) for name in names)
    order = [name.rpartition(".")[0] for name, _ in heard]
    assert order.index("classifier.6") < order.index("classifier.1") < order.index("features.0"), "the last come first"
    for handle in handles:
        handle.remove()
    model.backward(np.ones_like(model(x)))
    assert len(heard) == len(names)
    with pytest.raises(anp.ArgumentError, match="register_post_accumulate_grad_hook: hook must be"):
        model.classifier[6].weight.register_post_accumulate_grad_hook("print")


@pytest.mark.parametrize("reduce", ["exact", "fast"])
@pytest.mark.parametrize("overlap", [True, False])
def test_gradients_are_summed_over_everybody_bucket_by_bucket(rng, reduce, overlap):
    shapes = [(3, 5), (7,), (200, 11), (2,)]
    values = rng.standard_normal((2, 4, 4000)).astype(np.float32)

    def work(group: Stood) -> Any:
        parameters = [Parameter(np.zeros(shape, np.float32), 1) for shape in shapes]
        exchange = Exchange(group, parameters, reduce, bucket=100, overlap=overlap)
        found = []
        for step in values:
            for parameter in reversed(parameters):
                parameter.grad = step[group.rank, : parameter.size].reshape(parameter.shape).copy()
                exchange.ready(parameter)
            exchange.finish()
            found.append([np.array(parameter.grad) for parameter in parameters])
        exchange.close()
        assert group.scattered == (2 * len(exchange.buckets) if reduce == "exact" else 0)
        return len(exchange.buckets), found

    ends = everybody(4, work)
    assert ends[0][0] == 3, "the matrix and what lies behind it have buckets of their own"
    for _, found in ends:
        for step, gradients in zip(values, found, strict=True):
            for shape, gradient in zip(shapes, gradients, strict=True):
                wanted = fold(np.add, list(step[:, : int(np.prod(shape))])).reshape(shape)
                if reduce == "exact":
                    assert np.array_equal(gradient, wanted)
                else:
                    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_what_the_exchange_raises_ends_the_step():
    class Broken(Alone):
        def scatter(self, parts: np.ndarray, inbox: np.ndarray) -> None:
            raise OSError("the network is down")

    parameter = Parameter(np.zeros(3, np.float32), 1)
    exchange = Exchange(Broken(), [parameter], "exact")
    parameter.grad = np.ones(3, np.float32)
    exchange.ready(parameter)
    with pytest.raises(OSError, match="the network is down"):
        exchange.finish()


def a_net(dtype: str) -> tuple[anp.AlexNet, SGD]:
    net = anp.alexnet("torchvision", width=1 / 16, num_classes=6, seed=0, dtype=dtype, backend="numba").train()
    return net, SGD(net.named_parameters(), 0.05, momentum=0.9, weight_decay=1e-3, backend="numba")


def trained(stepper: Any, x: np.ndarray, target: np.ndarray, net: anp.AlexNet, optimizer: SGD) -> tuple[list, dict]:
    """What three steps said, and all that came of them."""
    with anp.use_backend("numba"):
        done = [stepper(x, target, lambda loss: None) for _ in range(3)]
    tensors = net.state_dict() | {f"momentum.{name}": v for name, v in optimizer.velocities.items()}
    tensors = stepper.gathered(tensors) if isinstance(stepper, Weird) else tensors
    return done, {name: np.array(array) for name, array in tensors.items()}


def batch(rng: np.random.Generator, dtype: str, samples: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((samples, 3, 63, 63)).astype(dtype), rng.integers(0, 6, samples)


def check_same(found: tuple[list, dict], whole: tuple[list, dict], limit: float) -> None:
    assert [d.correct for d in found[0]] == [d.correct for d in whole[0]]
    np.testing.assert_allclose([d.loss for d in found[0]], [d.loss for d in whole[0]], rtol=limit)
    for name, array in whole[1].items():
        assert abs(found[1][name] - array).max() <= limit * abs(array).max(), name


LIMITS = [("float64", 1e-12), ("float32", 1e-5)]


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
@pytest.mark.parametrize("samples", [12, 3])
def test_shards_are_the_batch_but_for_rounding(rng, dtype, limit, samples):
    x, target = batch(rng, dtype, samples)
    net, optimizer = a_net(dtype)
    whole = trained(Stepper(net, optimizer, "numpy", samples, 0.1), x, target, net, optimizer)
    net, optimizer = a_net(dtype)
    parts = Sharded(net, optimizer, Alone(), Config(shards=4, label_smoothing=0.1))
    check_same(trained(parts, x, target, net, optimizer), whole, limit)
    assert [layer.calls for layer in parts.dropouts] == [3, 3] and not any(layer.row for layer in parts.dropouts)


@pytest.mark.parametrize("samples", [13, 3])
def test_any_number_of_processes_ends_with_the_same_bits(rng, samples):
    x, target = batch(rng, "float32", samples)
    config = Config(shards=4)

    def work(group: Any) -> Any:
        net, optimizer = a_net("float32")
        net.freeze("features.3.bias")
        return trained(
            Sharded(net, optimizer, group, config), x[share_of(config, group).rows(samples)], target, net, optimizer
        )

    alone = work(Alone())
    for processes in (2, 4):
        for done, tensors in everybody(processes, work):
            assert done == alone[0]
            for name, array in alone[1].items():
                assert np.array_equal(tensors[name], array), name


@pytest.mark.parametrize("samples", [13, 5, 3])
def test_any_number_of_processes_judges_with_the_same_bits(rng, samples):
    """Of few outputs a BLAS may take the product, which sums by how many rows there are."""
    x, _ = batch(rng, "float32", samples)
    config = Config(shards=4)

    def work(group: Any) -> Any:
        net = anp.alexnet("torchvision", width=1 / 16, num_classes=2, seed=0, backend="numba").eval()
        parts = Sharded(net, SGD(net.named_parameters(), 0.05), group, config)
        with anp.use_backend("numba"), anp.no_grad():
            return parts.logits(x[share_of(config, group).rows(samples)], samples), net(x)

    alone, whole = work(Alone())
    np.testing.assert_allclose(alone, whole, rtol=1e-4, atol=1e-6)
    for processes in (2, 4):
        for logits, _ in everybody(processes, work):
            assert np.array_equal(logits, alone)


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
@pytest.mark.parametrize("processes", [2, 4])
def test_one_weird_trick_is_the_batch_but_for_rounding(rng, dtype, limit, processes):
    samples = 7
    x, target = batch(rng, dtype, samples)
    net, optimizer = a_net(dtype)
    whole = trained(Stepper(net, optimizer, "numpy", samples), x, target, net, optimizer)
    config = Config(parallel="weird")

    def work(group: Stood) -> Any:
        net, optimizer = a_net(dtype)
        parts = Weird(net, optimizer, group, config)
        mine = x[share_of(config, group).rows(samples)]
        done, tensors = trained(parts, mine, target, net, optimizer)
        assert all(np.array_equal(parts.cut(tensors)[name], p.data) for name, p in net.named_parameters())
        assert net.classifier[1].weight.shape == (256 // processes, 576)
        net.eval()
        with anp.no_grad():
            return done, tensors, parts.logits(mine, samples), parts.logits(np.stack([mine, mine], 1), samples)

    ends = everybody(processes, work)
    for done, tensors, logits, of_crops in ends:
        assert done == ends[0][0]
        check_same((done, tensors), whole, limit)
        assert np.array_equal(logits, ends[0][2]) and logits.shape == (samples, 6)
        assert of_crops.shape == (samples, 2, 6), "two crops of everybody's images, whoever had them"
        np.testing.assert_allclose(of_crops, np.stack([logits, logits], 1), rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(limit() < 2, reason="Numba was started with one thread")
@pytest.mark.parametrize(("preset", "width"), [("torchvision", 1 / 8), ("torchvision", 1 / 4), ("d2l", 1 / 8)])
def test_gradients_do_not_depend_on_the_number_of_threads(rng, preset, width):
    """Sums that were cut by threads once: blocks of images in Winograd's dweight, of columns in im2col's."""
    x = rng.standard_normal((20, 1 if preset == "d2l" else 3, 224, 224), dtype=np.float32)
    before, found = get_num_threads(), []
    try:
        for count in (1, 2):
            set_num_threads(count)
            net = anp.alexnet(preset, width=width, seed=0, backend="numba")
            logits = net(x)
            net.backward(np.ones_like(logits), input_grad=False)
            found.append([logits, *(p.grad for p in net.parameters())])
    finally:
        set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("config", "size", "match"),
    [
        ({"shards": 2}, 4, "2 shards cannot be shared evenly by 4 processes: give --shards a multiple of 4"),
        ({"shards": 4}, 3, "4 shards cannot be shared evenly by 3 processes"),
        ({"shards": 2, "parallel": "weird"}, 2, "leave shards out"),
    ],
)
def test_shares_that_do_not_come_out_even_are_refused(config, size, match):
    with pytest.raises(anp.ArgumentError, match=match):
        share_of(Config(**config), Stood(Hall(size), 0))


def test_shards_are_a_power_of_two():
    with pytest.raises(anp.ArgumentError, match="shards must be a power of two, got 6; take 4"):
        Config(shards=6)


@pytest.mark.parametrize(
    ("said", "processes"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 4),
        ({"PMI_SIZE": "2"}, 2),
        ({"SLURM_NTASKS": "8"}, 1),
        ({"SLURM_NTASKS": "8", "PMIX_RANK": "0"}, 8),
    ],
)
def test_how_many_were_started_is_what_the_launcher_says(monkeypatch, said, processes):
    for name in (*groups.SIZES, *groups.UNDER_SLURM, "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert groups.processes() == processes
    groups.world.cache_clear()
    if processes > 1:
        monkeypatch.setattr(groups, "find_spec", lambda name: None)
        with pytest.raises(
            anp.MissingPackageError, match=rf"one of {processes} processes, which needs mpi4py: pip inst"
        ):
            groups.world()
    else:
        assert groups.world().size == 1
    groups.world.cache_clear()

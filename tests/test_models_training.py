"""What a network does between forward and backward: dropout, gradients, freezing, heads, hooks, backends, threads."""

import threading

import numpy as np
import pytest
from small_networks import gradients, narrow, random_input, relative

import alexnet_np as anp
from alexnet_np.layers import Linear
from alexnet_np.presets import PRESETS
from alexnet_np.sequential import Sequential


def test_training_draws_dropout_by_the_seed_and_evaluation_drops_nothing():
    first, second = narrow(), narrow()
    x = random_input(first)
    assert first.training
    trained = first(x)
    np.testing.assert_array_equal(trained, second(x))  # same seed, same masks
    assert not np.array_equal(first(x), trained)  # and new ones at every call
    assert first.eval() is first
    np.testing.assert_array_equal(first(x), first(x))
    first.train()
    assert not np.array_equal(first(x), first(x))


def test_the_dropout_layers_of_a_model_draw_differently():
    model = narrow("paper")
    x = np.ones((2, 256), "float32")
    assert not np.array_equal(model.classifier[2](x), model.classifier[5](x))


def test_gradients_accumulate_until_zero_grad():
    model = narrow().eval()
    x, dlogits = random_input(model), np.ones((2, 1000), "float32")
    once = gradients(model, x, dlogits)[2]
    model.backward(dlogits)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.grad, 2 * once[name])
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_the_input_gradient_is_left_out_on_request():
    model = narrow().eval()
    expected = gradients(model, random_input(model), np.ones((2, 1000), "float32"))[2]
    model.zero_grad()
    assert model.backward(np.ones((2, 1000), "float32"), input_grad=False) is None
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.grad, expected[name])


def test_no_grad_needs_a_new_forward_before_backward():
    model = narrow()
    with anp.no_grad():
        logits = model(random_input(model))
    with pytest.raises(anp.AlexNetError, match="backward needs a forward first"):
        model.backward(np.ones_like(logits))


def test_freezing_stops_the_backward_early():
    model = narrow().eval()
    reached = []
    for name, layer in model.leaves():
        layer.register_full_backward_hook(lambda layer, dx, dy, name=name: reached.append(name))
    assert model.freeze("features") is model
    model(random_input(model))
    model.backward(np.ones((2, 1000), "float32"), input_grad=False)
    assert reached[-1] == "classifier.1"
    assert all((p.grad is None) == name.startswith("features") for name, p in model.named_parameters())
    with pytest.raises(anp.ArgumentError, match="no parameter is named 'feature_map'"):
        model.freeze("feature_map")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_replace_head(dtype):
    model = narrow(dtype=dtype).eval()
    x, body = random_input(model), {k: v.copy() for k, v in model.state_dict().items() if "classifier.6" not in k}
    assert model.replace_head(5, seed=9) is model
    assert model.num_classes == 5
    assert model(x).shape == (2, 5)
    assert model(x).dtype == dtype
    for name, array in body.items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    np.testing.assert_array_equal(
        model.classifier[6].weight.data, narrow(dtype=dtype).replace_head(5, seed=9).classifier[6].weight.data
    )
    model.backward(np.ones((2, 5), dtype))
    assert model.classifier[6].weight.grad.shape == (5, 256)
    with pytest.raises(anp.ArgumentError, match="num_classes must be at least 1, got 0"):
        model.replace_head(0)


def test_the_embedding_by_slice_and_by_hook_is_the_same():
    model = narrow().eval()
    x, kept = random_input(model), {}
    handle = model.classifier[5].register_forward_hook(lambda layer, x, y: kept.update(embedding=y))
    logits = model(x)
    handle.remove()
    copy = kept["embedding"].copy()
    by_slice = model.classifier[:6](model.flatten(model.avgpool(model.features(x))))
    np.testing.assert_array_equal(kept["embedding"], by_slice)
    model(x + 1)
    np.testing.assert_array_equal(kept["embedding"], copy)  # removed, and never overwritten
    assert isinstance(model.classifier[:6], Sequential)
    assert isinstance(model.classifier[-1], Linear)
    np.testing.assert_array_equal(model.classifier[6](by_slice), logits)


def test_what_hooks_on_every_layer_keep_never_changes():
    model, kept, copies = narrow(), [], []

    def keep(layer, first, second):
        kept.extend([first, second])
        copies.extend([first.copy(), second.copy()])

    for _, layer in model.leaves():
        layer.register_forward_hook(keep)
        layer.register_full_backward_hook(keep)
    for seed in range(2):
        model(random_input(model, seed=seed))
        model.backward(np.ones((2, 1000), "float32"))
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_hooks_on_the_whole_model():
    model, seen = narrow().eval(), {}
    x, dlogits = random_input(model), np.ones((2, 1000), "float32")
    logits = model(x)
    with model.register_forward_hook(lambda model, x, y: y + 1):
        np.testing.assert_array_equal(model(x), logits + 1)
    with model.register_full_backward_hook(lambda model, dx, dy: seen.update(dx=dx, dy=dy)):
        assert model.backward(dlogits) is seen["dx"]
    assert seen["dy"] is dlogits


def test_the_input_is_left_alone():
    model = narrow()
    x, dlogits = random_input(model), np.ones((2, 1000), "float32")
    before = x.copy()
    gradients(model, x, dlogits)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(dlogits, 1)


def backends_here():
    return [name for name, usable in anp.available_backends().items() if usable is True]


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_backend_gives_the_array_operations_numbers(backend, preset):
    reference, model = narrow(preset, dtype="float64"), narrow(preset, dtype="float64", backend=backend)
    x = random_input(model)
    xp = type(model.features[0].weight.data)
    dlogits = np.random.default_rng(1).standard_normal((2, model.num_classes))
    expected = gradients(reference, x, dlogits)
    if xp is not np.ndarray:
        import cupy

        x, dlogits = cupy.asarray(x), cupy.asarray(dlogits)
    logits, dx, grads = gradients(model, x, dlogits)
    for ours, truth in [(logits, expected[0]), (dx, expected[1]), *((grads[k], expected[2][k]) for k in grads)]:
        assert type(ours) is xp
        assert relative(ours if xp is np.ndarray else ours.get(), truth) < 1e-12


@pytest.mark.parametrize("backend", [name for name in backends_here() if name in ("numpy", "numba")])
def test_two_models_in_two_threads(backend):
    models = [narrow("torchvision", seed=0, backend=backend), narrow("paper", seed=1, backend=backend)]
    inputs = [random_input(model, 2, 96) for model in models]
    dlogits = np.ones((2, 1000), "float32")
    expected = [gradients(model, x, dlogits) for model, x in zip(models, inputs, strict=True)]
    for _, layer in [leaf for model in models for leaf in model.leaves()]:
        if hasattr(layer, "calls"):
            layer.calls = 0
    found = [None, None]

    def work(i):
        found[i] = gradients(models[i], inputs[i], dlogits)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (logits, dx, grads), (expected_logits, expected_dx, expected_grads) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(logits, expected_logits)
        np.testing.assert_array_equal(dx, expected_dx)
        for name, gradient in grads.items():
            np.testing.assert_array_equal(gradient, expected_grads[name])


def test_no_grad_in_one_thread_leaves_the_others_alone():
    model, failed = narrow().eval(), []

    def work():
        try:
            gradients(model, random_input(model), np.ones((2, 1000), "float32"))
        except anp.AlexNetError as error:
            failed.append(error)

    with anp.no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not failed

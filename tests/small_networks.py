"""Networks to test with: of their full size, and narrow ones; what is compared of them."""

from functools import cache

import numpy as np

import alexnet_np as anp


@cache
def full_size(preset):
    return anp.alexnet(preset, seed=0).eval()


def narrow(preset="torchvision", **options):
    return anp.alexnet(preset, **{"width": 1 / 16, "seed": 0, **options})


def random_input(model, N=2, H=67, W=None, seed=0):
    """x (N,C,H,W) of the model's channels and dtype; 67x67 is the smallest that every preset takes."""
    x = np.random.default_rng(seed).standard_normal((N, model.in_channels, H, W or H))
    return x.astype(model.dtype)


def relative(a, truth):
    return np.linalg.norm(a - truth) / np.linalg.norm(truth)


def gradients(model, x, dlogits):
    """(logits, dx, every parameter's gradient) of a fresh backward."""
    model.zero_grad()
    logits = model(x)
    return logits, model.backward(dlogits, retain_graph=True), {name: p.grad for name, p in model.named_parameters()}

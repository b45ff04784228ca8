"""One right answer to every exercise of docs/course, and the wrong ones that people give."""

from __future__ import annotations

import numpy as np


def output_size(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def output_size_rounded_up(size, kernel, stride, padding):
    return -(-(size + 2 * padding - kernel) // stride) + 1


def output_size_padded_once(size, kernel, stride, padding):
    return (size + padding - kernel) // stride + 1


def convolve(x, weight, bias, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    F, _, K, _ = weight.shape
    OH, OW = ((side - K) // stride + 1 for side in x.shape[1:])
    y = np.empty((F, OH, OW))
    for f in range(F):
        for i in range(OH):
            for j in range(OW):
                patch = x[:, i * stride : i * stride + K, j * stride : j * stride + K]
                y[f, i, j] = (patch * weight[f]).sum() + bias[f]
    return y


def convolve_turned(x, weight, bias, stride, padding):
    return convolve(x, weight[:, :, ::-1, ::-1], bias, stride, padding)


def convolve_no_bias(x, weight, bias, stride, padding):
    return convolve(x, weight, 0 * bias, stride, padding)


def convolve_no_stride(x, weight, bias, stride, padding):
    return convolve(x, weight, bias, 1, padding)


def convolve_no_padding(x, weight, bias, stride, padding):
    return convolve(x, weight, bias, stride, 0)


def im2col(x, kernel, stride):
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    return windows.transpose(0, 3, 4, 1, 2).reshape(len(x) * kernel * kernel, -1)


def im2col_rows(x, kernel, stride):
    return im2col(x, kernel, stride).T


def im2col_channels_last(x, kernel, stride):
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    return windows.transpose(3, 4, 0, 1, 2).reshape(len(x) * kernel * kernel, -1)


def column_bytes(N, C, K, OH, OW):
    return 4 * N * C * K * K * OH * OW


def column_bytes_one_image(N, C, K, OH, OW):
    return 4 * C * K * K * OH * OW


def column_bytes_doubles(N, C, K, OH, OW):
    return 2 * column_bytes(N, C, K, OH, OW)


def col2im(columns, shape, kernel, stride, add=True):
    C, H, W = shape
    x = np.zeros(shape)
    OH, OW = (H - kernel) // stride + 1, (W - kernel) // stride + 1
    columns = columns.reshape(C, kernel, kernel, OH, OW)
    for kh in range(kernel):
        for kw in range(kernel):
            there = x[:, kh : kh + (OH - 1) * stride + 1 : stride, kw : kw + (OW - 1) * stride + 1 : stride]
            there[...] = there * add + columns[:, kh, kw]
    return x


def col2im_overwrites(columns, shape, kernel, stride):
    return col2im(columns, shape, kernel, stride, add=False)


def dweight(x, dy, kernel, stride):
    F = dy.shape[1]
    total = sum(dy[n].reshape(F, -1) @ im2col(x[n], kernel, stride).T for n in range(len(x)))
    return total.reshape(F, x.shape[1], kernel, kernel)


def dweight_mean(x, dy, kernel, stride):
    return dweight(x, dy, kernel, stride) / len(x)


def dweight_turned(x, dy, kernel, stride):
    return dweight(x, dy, kernel, stride)[:, :, ::-1, ::-1]


def max_pool_backward(x, dy):
    dx = np.zeros_like(x)
    for c, i, j in np.ndindex(dy.shape):
        window = x[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        kh, kw = np.unravel_index(window.argmax(), window.shape)
        dx[c, 2 * i + kh, 2 * j + kw] += dy[c, i, j]
    return dx


def max_pool_backward_overwrites(x, dy):
    dx = np.zeros_like(x)
    for c, i, j in np.ndindex(dy.shape):
        window = x[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        kh, kw = np.unravel_index(window.argmax(), window.shape)
        dx[c, 2 * i + kh, 2 * j + kw] = dy[c, i, j]
    return dx


def max_pool_backward_every_tie(x, dy):
    dx = np.zeros_like(x)
    for c, i, j in np.ndindex(dy.shape):
        window = x[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        dx[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += dy[c, i, j] * (window == window.max())
    return dx


def lrn(x, size, alpha, beta, k, divided=True):
    s = np.empty_like(x)
    for c in range(len(x)):
        window = x[max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        s[c] = k + alpha / (size if divided else 1) * (window**2).sum(0)
    return x / s**beta


def lrn_undivided(x, size, alpha, beta, k):
    return lrn(x, size, alpha, beta, k, divided=False)


def lrn_mean(x, size, alpha, beta, k):
    windows = [x[max(0, c - size // 2) : c + size // 2 + 1] for c in range(len(x))]
    return x / np.stack([k + alpha * (w**2).mean(0) for w in windows]) ** beta


def dropout(x, mask, p, training):
    return x * mask / (1 - p) if training else x.copy()


def dropout_of_2012(x, mask, p, training):
    return x * mask if training else x * (1 - p)


def dropout_always(x, mask, p, training):
    return x * mask / (1 - p)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def softmax_overflows(x):
    with np.errstate(all="ignore"):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def softmax_whole(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def count_parameters(layers):
    return sum(F * C * K * K + F for C, F, K in layers)


def count_parameters_no_bias(layers):
    return sum(F * C * K * K for C, F, K in layers)


def receptive_field(layers):
    size, step = 1, 1
    for kernel, stride in layers:
        size += (kernel - 1) * step
        step *= stride
    return size


def receptive_field_no_steps(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def receptive_field_own_stride(layers):
    size, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        size += (kernel - 1) * step
    return size


def winograd_f23(d, g):
    a = (d[0] - d[2]) * g[0]
    b = (d[1] + d[2]) * ((g[0] + g[1] + g[2]) / 2)
    c = (d[2] - d[1]) * ((g[0] - g[1] + g[2]) / 2)
    e = (d[1] - d[3]) * g[2]
    return [a + b + c, b - c - e]


def winograd_f23_directly(d, g):
    return [d[i] * g[0] + d[i + 1] * g[1] + d[i + 2] * g[2] for i in (0, 1)]


def winograd_f23_sign(d, g):
    y = winograd_f23(d, g)
    return [y[0], -y[1]]


def winograd_saving(m, r):
    return (m * r) ** 2 / (m + r - 1) ** 2


def winograd_saving_one_dimension(m, r):
    return m * r / (m + r - 1)


def cross_entropy_gradient(logits, target):
    return (softmax(logits) - np.eye(logits.shape[1])[target]) / len(logits)


def cross_entropy_gradient_of_the_sum(logits, target):
    return softmax(logits) - np.eye(logits.shape[1])[target]


def cross_entropy_gradient_overflows(logits, target):
    return (softmax_overflows(logits) - np.eye(logits.shape[1])[target]) / len(logits)


def sgd_steps(w, gradients, rates, momentum, decay):
    w, v = w.copy(), 0
    for g, lr in zip(gradients, rates, strict=True):
        v = momentum * v + g + decay * w
        w -= lr * v
    return w


def sgd_steps_rate_in_velocity(w, gradients, rates, momentum, decay):
    w, v = w.copy(), 0
    for g, lr in zip(gradients, rates, strict=True):
        v = momentum * v + lr * (g + decay * w)
        w -= v
    return w


def sgd_steps_in_place(w, gradients, rates, momentum, decay):
    w[...] = sgd_steps(w, gradients, rates, momentum, decay)
    return w


def sgd_steps_decay_apart(w, gradients, rates, momentum, decay):
    w, v = w.copy(), 0
    for g, lr in zip(gradients, rates, strict=True):
        v = momentum * v + g
        w -= lr * (v + decay * w)
    return w


def attainable(intensity, peak, bandwidth):
    return min(peak, intensity * bandwidth)


def attainable_peak(intensity, peak, bandwidth):
    return peak


def attainable_higher(intensity, peak, bandwidth):
    return max(peak, intensity * bandwidth)


def linear_intensity(N, C, F):
    return 2 * N * C * F / (4 * (N * C + C * F + F + N * F))


def linear_intensity_of_macs(N, C, F):
    return linear_intensity(N, C, F) / 2


def linear_intensity_weights_alone(N, C, F):
    return 2 * N * C * F / (4 * C * F)

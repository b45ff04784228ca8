"""Hand-written kernels, op first: `conv2d_*` is every faster way to compute `alexnet_np.ops.conv2d`. See README.md."""

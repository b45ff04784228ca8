"""Measurements, kept apart from the tests and installed as `alexnet_np.benchmarks`: `alexnet bench --help`."""

"""Measurements beside `alexnet bench`, each run by `python -m alexnet_np.benchmarks.<name>`."""

"""The workshop of the Numba kernels: how they are compiled, vectorised and given memory. It knows no op."""

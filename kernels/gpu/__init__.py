"""The workshop of the CUDA kernels: how they are compiled, launched and recorded. It knows no op."""

"""Versions of ours and peers side by side: verified first, then timed in turn. `alexnet bench` runs it."""

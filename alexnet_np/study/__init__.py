"""Looking at networks: summary, walk, timing, verify, compare; what a unit sees and where a number comes from."""

# These modules hold a function of their own name: it, and not the module, is what `anp.study.explain` means.
from alexnet_np.study.attribution import attribution
from alexnet_np.study.compare import compare
from alexnet_np.study.differences import effects
from alexnet_np.study.explain import explain
from alexnet_np.study.receptive_field import receptive_field

__all__ = ["attribution", "compare", "effects", "explain", "receptive_field"]

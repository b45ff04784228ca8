"""Networks with one of the paper's ideas taken out, to see what it was good for."""

from __future__ import annotations

from typing import Any

# ablation: variant -> the changes to a configuration that make it. The first is the paper's own.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "activation": {  # without dropout: figure 1 was drawn without any regularisation
        "ReLU": {"dropout": 0.0},
        "tanh": {"dropout": 0.0, "activation": "tanh"},
        "sigmoid": {"dropout": 0.0, "activation": "sigmoid"},
    },
    "pooling": {"overlapping pooling, 3/2": {}, "plain pooling, 2/2": {"pooling": "plain"}},
    "lrn": {"with LRN": {}, "without LRN": {"lrn": False}},
    "dropout": {"with dropout": {}, "without dropout": {"dropout": 0.0}},
}

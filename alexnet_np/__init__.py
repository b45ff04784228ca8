"""AlexNet, to study, to check against and to measure with: every layer's forward and backward by hand."""

__version__ = "0.1.0"

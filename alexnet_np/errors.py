"""Every error this package raises on purpose. One line each: what was wrong, where, and how to mend it."""

BREAKS = {ord(character): repr(character)[1:-1] for character in "\n\r\v\f\x1b\x85\u2028\u2029"}


class AlexNetError(Exception):
    """The base of every error below: `except anp.AlexNetError` catches them all."""

    def __str__(self) -> str:
        """The message, on one line also where a file's name in it is not."""
        return super().__str__().translate(BREAKS)


class ShapeError(AlexNetError, ValueError):
    """An array's rank or shape does not fit the operation."""


class DtypeError(AlexNetError, TypeError):
    """Not an array, not float32 or float64, or two dtypes mixed."""


class ArgumentError(AlexNetError, ValueError):
    """A hyper-parameter or a name is out of its range."""


class OutsideError(ArgumentError, IndexError):
    """An index of a layer that is not there."""


class BackendError(AlexNetError, RuntimeError):
    """A backend is unknown, unavailable here, or given arrays of another device."""


class MissingPackageError(AlexNetError, ImportError):
    """A feature needs a package that is not installed."""


class WeightsError(AlexNetError, OSError, ValueError):
    """A weight file or a state dict is missing, damaged, refused, or does not fit the model."""


class ImageError(AlexNetError, OSError, ValueError):
    """A file is not an image that can be read."""


class DataError(AlexNetError, OSError, ValueError):
    """A data set is missing or damaged."""


class CheckpointError(AlexNetError, OSError, ValueError):
    """A training checkpoint is missing, damaged, or of another configuration."""


def one_line(error: BaseException) -> str:
    """An error's message on one line, for messages that quote another's."""
    return " ".join(str(error).split()) or type(error).__name__

"""The pickle inside a file of torch.save, read as data: nothing in it is imported and nothing in it is called.

A pickle is a program for a small stack machine, and Python's own machine is too obliging to run one from a stranger,
even when told which globals to allow (`find_class`): its BUILD sets attributes of whatever was allowed, a memo index of
2^31 makes it allocate gigabytes, a key made of a million nested tuples overflows the C stack when it is hashed.
So pickletools.genops splits the stream into opcodes, which runs nothing, and the machine below knows those few that
torch.save writes for tensors in dicts, lists and tuples, and the few globals in `_REBUILD` and `_INERT`. What comes out
are descriptions: a `Tensor` says where its numbers lie, and no number has been read yet.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.tensors import Storage, Tensor

MAX_PICKLE = 16 << 20  # bytes; AlexNet's is 1.4 kB, a network's of a thousand layers some 100 kB
MAX_STEPS = 1_000_000  # AlexNet's takes 450
MAX_AXES = 64  # of an array, in NumPy and in torch
MAX_KEY = 1 << 31  # of the ints that are keys, as in an optimizer's state; far larger ones can be made to collide

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


class Global(NamedTuple):
    """A name that the pickle asked for, and may have. It stays a name."""

    module: str
    name: str


class Parameter:
    """torch.nn.Parameter as torch before 0.4 pickled it: made from its tensor, or made empty and filled by BUILD."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any = None) -> None:
        self.tensor = tensor


def load(stream: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The next pickle of `stream`; `persistent` gives the meaning of the ids that stand for what lies outside of it."""
    machine = _Machine(persistent)
    for opcode, argument, _ in pickletools.genops(stream):  # ends at STOP, or raises ValueError
        machine.spend(1)
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class Storages(dict[str, Storage]):
    """The storages that a pickle refers to, by key. Called with a persistent id it gives the storage that is meant."""

    def __call__(self, identity: Any) -> Storage:
        """`identity`: ("storage", type, key, location, numel); the legacy format adds None (once it was a view)."""
        if type(identity) is not tuple or len(identity) not in (4, 5, 6):
            raise WeightsError("damaged: its pickle refers to something that is not a storage")
        what, kind, name, _, *rest = identity
        if what == "module":
            raise WeightsError("holds a whole pickled model, not its weights: save model.state_dict() instead")
        if what != "storage" or rest[1:] not in ([], [None]):
            raise WeightsError(
                f"refers to {quoted(what)}, or to a view of a storage, which only torch before 0.4 wrote"
            )
        storage = new_storage(kind, name, *rest[:1])
        if self.setdefault(storage.key, storage) != storage:
            raise WeightsError(f"damaged: storage {quoted(storage.key)} has two types or sizes")
        return storage


def new_storage(kind: Any, name: Any, numel: Any = None) -> Storage:
    if type(kind) is not Global or kind.name not in STORAGES:
        raise WeightsError("damaged: a storage without a type")
    return Storage(key(name), STORAGES[kind.name], size(numel))


def key(name: Any) -> str:
    """What a storage or a tensor goes by: a string, in some formats a number."""
    if type(name) not in (str, int):
        raise WeightsError("damaged: a storage or a tensor without a name")
    return str(name)


def size(value: Any) -> int:
    """A size, stride or offset, checked: a whole number that fits 64 bits."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise WeightsError("damaged: a size, stride or offset in its pickle is not a whole number, or out of range")
    return value


def sizes(values: Any) -> tuple[int, ...]:
    """The sizes or strides of a tensor, checked."""
    if type(values) not in (tuple, list) or len(values) > MAX_AXES:
        raise WeightsError(f"damaged: the sizes of a tensor are not a tuple of at most {MAX_AXES}")
    return tuple(map(size, values))


class _Machine:
    """The stack machine. `stack` holds what came after the last MARK, `below` the stacks under the earlier marks."""

    def __init__(self, persistent: Callable[[Any], Any] | None) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent
        self.steps_left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise WeightsError(f"refused: its pickle takes more than {MAX_STEPS} steps, a state dict takes hundreds")

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if opcode in _LITERALS:
                stack.append(argument)
            case _ if opcode in _CONSTANTS:
                stack.append(_CONSTANTS[opcode])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                items = self.since_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS":
                items = self.since_mark()
                _extend(self.stack[-1], items)
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                _set_items(stack[-1], pair)
            case "SETITEMS":
                items = self.since_mark()
                _set_items(self.stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_allowed(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_allowed(module, name))
            case "BINPERSID" if self.persistent is not None:
                stack.append(self.persistent(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                stack.append(self.rebuild(called, arguments))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case _:
                raise WeightsError(f"refused before anything ran: its pickle uses {opcode}, which no state dict needs")

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def rebuild(self, called: Any, arguments: Any) -> Any:
        if type(called) is not Global or called not in _REBUILD or type(arguments) is not tuple:
            raise WeightsError("refused before anything ran: its pickle calls something that is not a function")
        self.spend(len(arguments) + sum(len(argument) for argument in arguments if type(argument) is list))
        return _REBUILD[called](*arguments)


def _allowed(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise WeightsError("damaged: its pickle asks for something without a name")
    wanted = Global(module, name)
    if wanted not in _REBUILD and wanted not in _INERT:
        raise WeightsError(
            f"refused before anything ran: its pickle asks for {quoted(f'{module}.{name}')}, which no state dict needs "
            "(if it holds a whole model, or other objects beside the weights, save model.state_dict() alone)"
        )
    return wanted


def _build(target: Any, state: Any) -> None:
    """BUILD gives an object its state: a Parameter its tensor; an OrderedDict's attributes (versions) are left out."""
    if type(target) is Parameter and type(state) is tuple and len(state) in (3, 5):
        target.tensor = state[0] if len(state) == 5 else target.tensor
    elif type(target) is not dict:
        raise WeightsError("refused before anything ran: its pickle sets attributes of something")


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is not list:
        raise WeightsError("damaged: its pickle appends to something that is not a list")
    target.extend(items)


def _set_items(target: Any, flat: list[Any]) -> None:
    if type(target) is not dict or len(flat) % 2:
        raise WeightsError("damaged: its pickle sets items of something that is not a dict")
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        if type(name) is not str and not (type(name) is int and abs(name) < MAX_KEY):
            raise WeightsError(f"refused: a dict in its pickle has a key of type {type(name).__name__}")
        target[name] = value


def _ordered_dict(*items: Any) -> dict[Any, Any]:
    """Python 2 pickled the items as the argument, [[key, value], ...]; Python 3 sets them afterwards."""
    result: dict[Any, Any] = {}
    for pairs in items:
        if type(pairs) is not list or any(type(pair) not in (tuple, list) or len(pair) != 2 for pair in pairs):
            raise WeightsError("damaged: its pickle fills a dict with something else than pairs")
        _set_items(result, [part for pair in pairs for part in pair])
    return result


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor:
    """`rest`: requires_grad, hooks, and flags: a mapping which is filled for conjugated and negated views only."""
    if type(storage) is not Storage or any(rest[2:]):
        raise WeightsError("refused: a tensor that is not a plain one, with a storage of its own and no flags")
    return Tensor(storage, size(offset), sizes(shape), sizes(stride))


def _rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Parameter:
    return Parameter(tensor)


_REBUILD: dict[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch.nn.parameter", "Parameter"): Parameter,
}
_INERT = {  # only ever mentioned: the types of storages, and of the tensors in the oldest format
    Global(module, name)
    for module in ("torch", "torch.cuda")
    for storage_name in STORAGES
    for name in (storage_name, storage_name.replace("Storage", "Tensor"))
}

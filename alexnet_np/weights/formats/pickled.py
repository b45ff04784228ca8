"""A pickle read as data: nothing in it is imported and nothing in it is called.

A pickle is a program for a small stack machine, and Python's own machine is too obliging to run one from a stranger,
even when told which globals to allow (`find_class`): its BUILD sets attributes of whatever was allowed, a memo index of
2^31 makes it allocate gigabytes, a key made of a million nested tuples overflows the C stack when it is hashed.
So the machine below has only dicts, lists, tuples and numbers of its own, and knows the few functions in `_REBUILD`, by
which torch and NumPy put arrays together. Whatever else a pickle asks for stays a name, and what it would have made of
it an `Inert` object that holds the arguments: a checkpoint's Namespace, a whole pickled model, or an attack, all alike.
What comes out are descriptions: a leaf says where its numbers lie, and no number has been read yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.weights.formats.pickle_arrays import REBUILD as ARRAYS
from alexnet_np.weights.formats.pickle_arrays import fill
from alexnet_np.weights.formats.pickle_stream import opcodes
from alexnet_np.weights.formats.torch_tensors import YOUNG, Global, Storage, tensor
from alexnet_np.weights.leaves import Holder, Inert
from alexnet_np.weights.stream import Stream

MAX_STEPS = 1_000_000  # AlexNet's takes 450
MAX_KEY = 1 << 31  # of the ints that are keys, as in an optimizer's state; far larger ones can be made to collide
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT INT LONG FLOAT"
_TEXT = "BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE STRING SHORT_BINSTRING"
_BYTES = "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
_LITERALS = {*_NUMBERS.split(), *_TEXT.split(), *_BYTES.split()}
Persistent = Callable[[Any], Any]


def load(
    stream: Stream,
    persistent: Persistent | None = None,
    storage_in: Persistent | None = None,
    steps: int = MAX_STEPS,
) -> Any:
    """The next pickle of `stream`, of at most so many steps.

    `persistent` gives the meaning of the ids that stand for what lies outside of it, `storage_in` of the bytes that are
    a storage as torch saves it alone. Raises WeightsError, and others where the pickle is damaged.
    """
    machine = _Machine(persistent, storage_in, steps)
    for name, argument in opcodes(stream):
        machine.spend(1)
        if name in _CONSTANTS:
            machine.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            machine.stack.append(argument)
        else:
            machine.step(name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack machine. `stack` holds what came after the last MARK, `below` the stacks under the earlier marks."""

    def __init__(self, persistent: Persistent | None, storage_in: Persistent | None, steps: int) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent, self.storage_in = persistent, storage_in
        self.steps_left = self.steps = steps

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise WeightsError(f"refused: its pickle takes more than {self.steps} steps, a state dict takes hundreds")

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "BINSTRING":  # of Python 2: text, or the bytes of an array
                stack.append(argument.decode("latin-1") if type(argument) is bytes else argument)
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "POP":
                stack.pop() if stack else self.since_mark()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "GLOBAL":
                stack.append(Global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(module, name))
            case "BINPERSID" | "PERSID":
                identity = stack.pop() if argument is None else argument
                stack.append(
                    Inert("a persistent id", identity) if self.persistent is None else self.persistent(identity)
                )
            case _:
                self.build(opcode, argument)

    def build(self, opcode: str, argument: Any) -> None:
        """The opcodes that make or fill containers and objects, which take several times the memory of a number."""
        self.spend(3)
        stack = self.stack
        match opcode:
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict}.get(opcode, lambda: Inert("set"))())
            case "TUPLE" | "LIST" | "FROZENSET":
                items = self.since_mark()
                self.stack.append(tuple(items) if opcode == "TUPLE" else items)
            case "DICT":
                items = self.since_mark()
                self.stack.append({})
                _set_items(self.stack[-1], items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items = self.since_mark()
                _extend(self.stack[-1], items)
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                _set_items(stack[-1], pair)
            case "SETITEMS":
                items = self.since_mark()
                _set_items(self.stack[-1], items)
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(self.call(called, arguments))
            case "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                known = type(called) is Global and called in _REBUILD
                stack.append(self.call(called, arguments) if known else Inert(_name(called), arguments))
            case "NEWOBJ_EX":
                keywords, arguments, called = stack.pop(), stack.pop(), stack.pop()
                stack.append(Inert(_name(called), (arguments, keywords)))
            case "OBJ":  # an object of a Python 2 class, and INST the same in text
                items = self.since_mark()
                self.stack.append(Inert(_name(items[0]), tuple(items[1:])))
            case "INST":
                items = self.since_mark()
                self.stack.append(Inert(argument.replace(" ", "."), tuple(items)))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case _:
                raise WeightsError(f"refused before anything ran: its pickle uses {opcode}, which no weights need")

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def call(self, called: Any, arguments: Any) -> Any:
        """What a function that puts arrays together makes of its arguments; of any other, an inert object."""
        if type(arguments) is not tuple:
            raise WeightsError("damaged: its pickle calls something without arguments")
        self.spend(len(arguments) + sum(len(argument) for argument in arguments if type(argument) is list))
        if type(called) is Global and called in _REBUILD:
            return _REBUILD[called](*arguments)
        if called == ("torch.storage", "_load_from_bytes") and self.storage_in is not None:
            return self.storage_in(*arguments)
        if called == ("torch._tensor", "_rebuild_from_type_v2") and type(arguments[2]) is tuple:
            return self.call(arguments[0], arguments[2])  # a subclass of Tensor: its own class is left out
        return Inert(_name(called))


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise WeightsError("damaged: its pickle asks for something without a name")
    return Global(module, name)


def _name(called: Any) -> str:
    if type(called) is Global:
        return str(called)
    if type(called) is Inert:
        return f"what {called.kind}"[:200]
    raise WeightsError("refused before anything ran: its pickle calls something that is not a function")


def _build(target: Any, state: Any) -> None:
    """BUILD gives an object its state: a Parameter its tensor, an array its numbers. A dict's attributes go."""
    if type(target) is Inert:
        target.state = state
    elif isinstance(target, Holder):
        fill(target, state)
    elif type(target) is not dict:
        raise WeightsError("refused before anything ran: its pickle sets attributes of something")


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is Inert:
        target.items = target.items if type(target.items) is list else []
        target = target.items
    if type(target) is not list:
        raise WeightsError("damaged: its pickle appends to something that is not a list")
    target.extend(items)


class _Key:
    """A key that cannot be a name, and is not hashed."""


def _set_items(target: Any, flat: list[Any]) -> None:
    if type(target) is Inert:
        target.items = target.items if type(target.items) is dict else {}
        target = target.items
    if type(target) is not dict or len(flat) % 2:
        raise WeightsError("damaged: its pickle sets items of something that is not a dict")
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        usable = type(name) is str or (type(name) is int and abs(name) < MAX_KEY)
        target[name if usable else _Key()] = value


def _dict(*items: Any) -> dict[Any, Any]:
    """Python 2 pickled the items as the argument, [[key, value], ...]; Python 3 sets them afterwards."""
    result: dict[Any, Any] = {}
    for pairs in items:
        if type(pairs) is not list or any(type(pair) not in (tuple, list) or len(pair) != 2 for pair in pairs):
            raise WeightsError("damaged: its pickle fills a dict with something else than pairs")
        _set_items(result, [part for pair in pairs for part in pair])
    return result


def _default_dict(*factory: Any) -> dict[Any, Any]:
    return {}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
    """`rest`: requires_grad, hooks, and flags: a mapping which is filled for conjugated and negated views only."""
    if type(storage) is Inert or any(rest[2:]):
        return Inert("a tensor that is not a plain one")
    if type(storage) is not Storage:
        raise WeightsError("damaged: a tensor without a storage")
    return tensor(storage, offset, shape, stride)


def _rebuild_young_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    """A tensor of a dtype that has no storage type of its own."""
    if type(storage) is not Storage or type(dtype) is not Global or dtype.name not in YOUNG:
        return Inert(f"a tensor of {dtype}" if type(dtype) is Global else "a tensor that is not a plain one")
    return tensor(storage, offset, shape, stride, dtype.name)


def _rebuild_parameter(value: Any, *rest: Any) -> Holder:
    return Holder(value)


def _encoded(text: Any, encoding: Any) -> Any:
    """How Python 3 writes bytes in protocol 2."""
    return text.encode("latin-1") if type(text) is str and encoding == "latin1" else Inert("bytes")


_REBUILD: dict[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): _dict,
    Global("collections", "defaultdict"): _default_dict,
    Global("_codecs", "encode"): _encoded,
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _rebuild_young_tensor,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global("torch.nn.parameter", "Parameter"): Holder,
    **{Global(*name): function for name, function in ARRAYS.items()},
}

"""Protocol buffers from a stranger, read by the protobuf library, with the long runs of numbers left where they lie.

The library would copy every number two times and hold all three at once. So a message is first written out anew
without them: each bytes field beyond some thousand is stepped over, and what the library parses has a mark instead,
which leads to a `Run`. Fields that the schema does not know are left out, and so there is little to parse however large
the file is. Schemas are tables, given to the library as descriptors.

Source of the encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.weights.leaves import Run
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import Stream

MAX_FIELDS = 200_000
MAX_SIZE = 8 << 20  # bytes of a message without its numbers; AlexNet's has some thousand
LARGE = 1024  # bytes that are rather left where they are
MARK = 20  # bytes of a mark: some that nobody can foresee, and the number of the run

Schema = Mapping[str, Mapping[str, tuple[int, str]]]  # message -> field -> (number, type; "*" repeated, "+" packed)
_TYPES = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_ENUM, _MESSAGE = 14, 11


def classes(package: str, schema: Schema, enums: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The library's classes for the messages of a schema. Raises MissingPackageError."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise MissingPackageError(".caffemodel and .onnx need the package protobuf: pip install protobuf") from None
    file = descriptor_pb2.FileDescriptorProto(name=f"alexnet_np_{package}.proto", package=package, syntax="proto2")
    for name, values in enums.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in schema.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            plain = kind.rstrip("*+")
            added = message.field.add(name=field, number=number, label=1 if plain == kind else 3)
            added.type = _TYPES.get(plain) or (_ENUM if plain in enums else _MESSAGE)
            if added.type in (_ENUM, _MESSAGE):
                added.type_name = f".{package}.{plain}"
            if kind.endswith("+"):
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in schema}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


class Parsed:
    """A message, and the runs of numbers that its marks stand for."""

    def __init__(self, source: Source, message_class: Any) -> None:
        """Parse all of `source`. Raises WeightsError."""
        from google.protobuf.message import DecodeError

        self.stream, self.source = Stream(source), source
        self.secret, self.runs = secrets.token_bytes(MARK - 4), list[Run]()
        self.left = MAX_FIELDS
        content = self._without_numbers(source.size, message_class.DESCRIPTOR)
        try:
            self.message = message_class.FromString(bytes(content))
        except DecodeError as error:
            raise WeightsError("damaged: not what a protocol buffer may hold") from error

    def run(self, field: bytes) -> Run:
        """The numbers of a bytes field, wherever they are."""
        if len(field) == MARK and field.startswith(self.secret):
            return self.runs[int.from_bytes(field[-4:], "little")]
        return Run(Source(bytearray(field), 0, len(field)), 0, len(field))

    def _without_numbers(self, end: int, descriptor: Any) -> bytearray:
        """The message that ends at `end`, written out anew."""
        out, fields = bytearray(), descriptor.fields_by_number
        while (here := self.stream.tell()) < end:
            self._spend(len(out))
            tag = self._varint()
            field, wire = fields.get(tag >> 3), tag & 7
            if not tag >> 3 or wire not in (0, 1, 2, 5):
                raise WeightsError(f"damaged: no field of a protocol buffer at {here}")
            if wire == 2:
                size = self._varint()
                content = self._content(field, size, end)
            else:
                content = self._number(wire)
            if field is not None:
                out += varint(tag) + (varint(len(content)) if wire == 2 else b"") + content
        if here > end:
            raise WeightsError(f"damaged: a message that ends at {end} reaches to {here}")
        return out

    def _content(self, field: Any, size: int, end: int) -> bytes | bytearray:
        """What a field of `size` bytes is written as."""
        start = self.stream.tell()
        if start + size > end:
            raise WeightsError(f"damaged: a field of {size} bytes at {start} in a message that ends at {end}")
        if field is not None and field.message_type is not None and size > LARGE:
            return self._without_numbers(start + size, field.message_type)
        if field is not None and size <= LARGE:
            return self.stream.read(size)
        run = self.stream.run(size)
        if field is None:
            return b""
        if field.type != _TYPES["bytes"]:
            self._spend(size)
            return self.source.read(start, size)
        self.runs.append(run)
        return self.secret + (len(self.runs) - 1).to_bytes(4, "little")

    def _number(self, wire: int) -> bytes:
        return varint(self._varint()) if wire == 0 else self.stream.read(8 if wire == 1 else 4)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.stream.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise WeightsError("damaged: a number in a protocol buffer does not end")

    def _spend(self, size: int) -> None:
        self.left -= 1
        if self.left < 0 or size > MAX_SIZE:
            raise WeightsError("refused: a protocol buffer of too many fields beside its numbers")


def varint(value: int) -> bytes:
    """A whole number, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

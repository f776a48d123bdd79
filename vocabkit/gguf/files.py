"""GGUF files as they lie on disk: fields, tensors, splits, read and written.

Reads FILE.gguf, or all of FILE-00001-of-0000N.gguf; writes one file. A GGUF file is: "GGUF", version, number
of tensors and of fields; the fields (key, type, value); of each tensor its name, dimensions, type and place;
then the tensors' bytes, each aligned. Source: gguf.md of ggml-org/ggml. All numbers are little-endian. Only
what changes is decoded: other fields and tensors pass as the bytes they are, and rows of a quantized matrix
are blocks of their own, so they move without being unpacked.
"""

import contextlib
import math
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from vocabkit.checkpoint.shards import Tensor as RowTensor
from vocabkit.checkpoint.shards import read_rows, write_all, write_zeros
from vocabkit.errors import UserError, reading
from vocabkit.files import Progress, copy_range

MAGIC, VERSIONS = b"GGUF", (2, 3)
# enum gguf_type: struct's code of each number, then string and array
NUMBERS = "BbHhIif?"

STRING, ARRAY = 8, 9
LENGTH = struct.Struct("<Q")  # of a string, before its bytes
WIDE = {10: "Q", 11: "q", 12: "d"}

UINT32, INT32, FLOAT32, BOOL = 4, 5, 6, 7

ALIGNMENT, DEFAULT_ALIGNMENT = "general.alignment", 32
MAX_DIMS = 4  # GGML_MAX_DIMS

T = TypeVar("T")
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def import_gguf() -> Any:
    """Return the gguf package; UserError with the command that installs it."""
    try:
        import gguf
    except ImportError:
        raise UserError("GGUF files need the gguf package: pip install gguf") from None
    return gguf


@dataclass(frozen=True)
class Field:
    """One field: its type and the bytes of its value; items: type of an array's items, else None."""

    type: int
    data: bytes
    items: int | None = None

    def value(self) -> Any:
        """Decode: a number, a string, or a list of them. What is not UTF-8 keeps its bytes as surrogates."""
        if self.items is not None:
            count = struct.unpack_from("<Q", self.data, 4)[0]
            if self.items == STRING:
                return list(_strings(self.data, 12, count))
            return np.frombuffer(self.data, _dtype(self.items), count, 12).tolist()
        if self.type == STRING:
            return next(_strings(self.data, 0, 1))
        return struct.unpack("<" + _code(self.type), self.data)[0]


@dataclass(frozen=True)
class GgufTensor:
    """A tensor: dimensions as ggml counts them, the length of a row first; where its bytes lie."""

    name: str
    file: Path
    dims: tuple[int, ...]
    type: int
    start: int
    size: int

    @property
    def rows(self) -> int:
        """Number of rows of a matrix, of values of a vector: one for each token in those of a vocabulary."""
        return self.dims[-1]

    def as_rows(self) -> RowTensor:
        """The same place on disk for read_rows()."""
        return RowTensor(
            self.name, self.file, "U8", (self.rows, self.size // self.rows), self.start, self.size
        )


@dataclass(frozen=True)
class GgufFile:
    """One file of a model: its fields and tensors in their order, and the alignment of tensors."""

    path: Path
    version: int
    fields: dict[str, Field]
    tensors: dict[str, GgufTensor]
    alignment: int


def number(value: float, *, type: int) -> Field:
    """Return a field that holds one number."""
    return Field(type, struct.pack("<" + _code(type), value))


def string(value: str) -> Field:
    """Return a field that holds a string."""
    return Field(STRING, _packed(value))


def array(values: Sequence[Any], *, items: int) -> Field:
    """Return a field that holds an array of strings or of numbers."""
    head = struct.pack("<IQ", items, len(values))
    if items == STRING:
        return Field(ARRAY, head + b"".join(map(_packed, values)), items)
    return Field(ARRAY, head + np.asarray(values, _dtype(items)).tobytes(), items)


def field(value: bool | int | float | str | list[str] | list[int] | list[float]) -> Field:
    """Return a field that holds a value, of the type that llama.cpp's own converter takes for such a one."""
    if isinstance(value, str):
        return string(value)
    if isinstance(value, list):
        return array(value, items={str: STRING, int: INT32, float: FLOAT32}[type(value[0])])
    return number(value, type={bool: BOOL, int: UINT32, float: FLOAT32}[type(value)])


def _packed(text: str) -> bytes:
    data = text.encode("utf-8", errors="surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _code(kind: int) -> str:
    return NUMBERS[kind] if kind < len(NUMBERS) else WIDE[kind]


def _dtype(kind: int) -> np.dtype:
    return np.dtype("<" + _code(kind))


def _strings(data: bytes, at: int, count: int) -> Iterator[str]:
    for _ in range(count):
        (size,) = struct.unpack_from("<Q", data, at)
        at += 8 + size
        yield data[at - size : at].decode("utf-8", errors="surrogateescape")


class _Header:
    """Reads the header of a file; UserError where it ends early."""

    def __init__(self, path: Path, data: mmap.mmap | bytes) -> None:
        self.path, self._data, self.at = path, data, 0

    def take(self, size: int) -> bytes:
        self._skip(size)
        return self._data[self.at - size : self.at]

    def _skip(self, size: int) -> None:
        self._check(size)
        self.at += size

    def _check(self, size: int) -> None:
        if size > len(self._data) - self.at:
            raise UserError(
                f"{self.path} has {len(self._data):,} bytes, its header needs {size:,} more at byte "
                f"{self.at:,}: truncated; download the file again"
            )

    def unpack(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def name(self) -> str:
        return self.take(self.unpack("Q")).decode("utf-8")

    def add(self, found: dict[str, T], name: str, read: Callable[[], T]) -> None:
        """Read what belongs to a name; UserError for a name that was there already."""
        if name in found:
            raise _damaged(self.path, f"{name!r} is there twice")
        found[name] = read()

    def place(self) -> tuple[tuple[int, ...], int, int]:
        """Dimensions, type and offset of a tensor."""
        count = self.unpack("I")
        dims = struct.unpack(f"<{count}Q", self.take(8 * count))
        return dims, self.unpack("I"), self.unpack("Q")

    def field(self) -> Field:
        kind, start = self.unpack("I"), self.at
        items = None
        if kind == STRING:
            self._skip_strings(1)
        elif kind != ARRAY:
            self._skip(struct.calcsize("<" + _code(kind)))
        else:
            items, count = struct.unpack("<IQ", self.take(12))
            self._check(count)  # each item is a byte at least: nobody counts to 2 ** 60
            if items == STRING:
                self._skip_strings(count)
            else:
                self._skip(count * _dtype(items).itemsize)
        return Field(kind, self._data[start : self.at], items)

    def _skip_strings(self, count: int) -> None:
        for _ in range(count):
            self._skip(8)
            self._skip(LENGTH.unpack_from(self._data, self.at - 8)[0])


def read_gguf(path: Path) -> GgufFile:
    """Read the header of one file; UserError if it is damaged or of an unknown version.

    What is asked of the layout is what llama.cpp asks (gguf.cpp): no key and no tensor twice, tensors one
    after another in the order in which they are named, each aligned; and nothing of the file is left over.
    """
    sizes = {int(kind): size for kind, size in import_gguf().GGML_QUANT_SIZES.items()}
    if not path.is_file():
        raise UserError(f"{path} is missing; give a GGUF file, or the first of a split one")
    total = path.stat().st_size
    with reading(path), path.open("rb") as file, _mapped(file, total) as mapped:
        header = _Header(path, mapped)
        magic, version = header.take(4), header.unpack("I")
        if magic != MAGIC or version not in VERSIONS:
            raise UserError(
                f"{path} begins with {magic!r} version {version}, expected b'GGUF' version 2 or 3; "
                "give a GGUF file"
            )
        n_tensors, n_fields = header.unpack("Q"), header.unpack("Q")
        fields: dict[str, Field] = {}
        for _ in range(n_fields):
            header.add(fields, header.name(), header.field)
        alignment = fields[ALIGNMENT].value() if ALIGNMENT in fields else DEFAULT_ALIGNMENT
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _damaged(path, f"{ALIGNMENT} is {alignment!r}, expected a power of two")
        found: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(n_tensors):
            header.add(found, header.name(), header.place)
        start = header.at + -header.at % alignment
    tensors, end = {}, 0
    for name, (dims, kind, offset) in found.items():
        if (
            not 1 <= len(dims) <= MAX_DIMS
            or not all(0 < size < 1 << 63 for size in dims)
            or kind not in sizes
        ):
            raise _damaged(path, f"{name!r} has type {kind} and dimensions {dims}")
        block, size = sizes[kind]
        if dims[0] % block:
            raise _damaged(
                path, f"{name!r} has rows of {dims[0]:,} values, of type {kind} they are {block} each"
            )
        if offset != end:
            raise _damaged(path, f"{name!r} starts at byte {start + offset:,}, expected {start + end:,}")
        length = math.prod(dims) // block * size
        tensors[name] = GgufTensor(name, path, dims, kind, start + offset, length)
        end += length + -length % alignment
        if start + offset + length > total:
            raise _damaged(
                path, f"it has {total:,} bytes, {name!r} ends at {start + offset + length:,}: truncated"
            )
    if tensors and total > start + end:
        raise _damaged(path, f"it has {total:,} bytes, its header describes {start + end:,}")
    return GgufFile(path, version, fields, tensors, alignment)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; download the file again")


def _mapped(file: IO[bytes], size: int) -> contextlib.AbstractContextManager[mmap.mmap | bytes]:
    """Return the bytes of a file, read where they are looked at; nothing can be mapped of an empty one."""
    if not size:
        return contextlib.nullcontext(b"")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def split_files(path: Path) -> list[Path]:
    """Return all files of a model: one, or every part of a split one; UserError if one is missing."""
    match = SPLIT.fullmatch(path.name)
    if not match:
        return [path]
    count = int(match[3])
    files = [path.with_name(f"{match[1]}-{at:05}-of-{count:05}.gguf") for at in range(1, count + 1)]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing, a part of {path.name}; download it too")
    return files


@dataclass(frozen=True)
class NewTensor:
    """A tensor that is to be written: name, dimensions and type as GgufTensor has them, size in bytes.

    write: appends exactly these bytes to an unbuffered file, and tells the progress how many it wrote.
    """

    name: str
    dims: tuple[int, ...]
    type: int
    size: int
    write: Callable[[IO[bytes], Progress], None]


def write_gguf(
    out: Path,
    *,
    fields: Mapping[str, Field],
    tensors: Sequence[NewTensor],
    version: int = max(VERSIONS),
    alignment: int = DEFAULT_ALIGNMENT,
    progress: Progress = lambda bytes_written: None,
) -> None:
    """Write a file with these fields and tensors, in this order."""
    head = _header(fields, tensors, version=version, alignment=alignment)
    with out.open("wb", buffering=0) as writer:
        write_all(writer, head)
        for tensor in tensors:
            tensor.write(writer, progress)
            write_all(writer, bytes(-tensor.size % alignment))
        os.fsync(writer.fileno())


def _header(
    fields: Mapping[str, Field], tensors: Sequence[NewTensor], *, version: int, alignment: int
) -> bytes:
    header = [MAGIC, struct.pack("<IQQ", version, len(tensors), len(fields))]
    for key, value in fields.items():
        header += [_packed(key), struct.pack("<I", value.type), value.data]
    offset = 0
    for tensor in tensors:
        header.append(_packed(tensor.name))
        header.append(struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims))
        header.append(struct.pack("<IQ", tensor.type, offset))
        offset += tensor.size + -tensor.size % alignment
    head = b"".join(header)
    return head + bytes(-len(head) % alignment)


def file_size(
    fields: Mapping[str, Field], tensors: Sequence[NewTensor], *, version: int, alignment: int
) -> int:
    """Return how many bytes write_gguf() writes."""
    head = len(_header(fields, tensors, version=version, alignment=alignment))
    return head + sum(tensor.size + -tensor.size % alignment for tensor in tensors)


def unchanged(tensor: GgufTensor) -> NewTensor:
    """Return the same tensor, byte for byte."""

    def write(writer: IO[bytes], progress: Progress) -> None:
        with tensor.file.open("rb", buffering=0) as reader:
            copy_range(reader, writer, offset=tensor.start, count=tensor.size, progress=progress)

    return NewTensor(tensor.name, tensor.dims, tensor.type, tensor.size, write)


def with_rows(tensor: GgufTensor, places: Sequence[int], *, count: int) -> NewTensor:
    """Return the rows at these ascending places, then zeros up to count; a few megabytes are in memory."""
    row = tensor.size // tensor.rows

    def write(writer: IO[bytes], progress: Progress) -> None:
        for block in read_rows(tensor.as_rows(), places):
            write_all(writer, block.data.cast("B"))
            progress(block.nbytes)
        # A block of zero bytes is zero in every type: its scale is.
        write_zeros(writer, (count - len(places)) * row)

    return NewTensor(tensor.name, (*tensor.dims[:-1], count), tensor.type, count * row, write)

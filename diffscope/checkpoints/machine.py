"""Reads a pickle as data, one opcode at a time, with nothing in it that could run the file's code.

The standard library's unpickler trusts its input: it allocates what a length or memo index declares, recurses, and
calls what `find_class` returns. This machine knows only the opcodes that the picklers of protocols 2 to 5 write for
tensors and plain values; names resolve through a closed table of stand-ins; byte strings of any size stay in the file
as windows, so that weights nobody asked for are never read.

Opcodes and their arguments: the Python library's `pickletools` documentation,
https://docs.python.org/3/library/pickletools.html.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from diffscope.checkpoints.budget import KEYS, Budget, ByIdentity
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError, UnsafePickle

MAX_NAME = 256  # bytes in the module or class name of a global
INLINE_BYTES = 1024  # byte strings up to this long are read at once, longer ones stay in the file
SCALARS = KEYS
WIDE = re.compile(rb"[\xc4-\xff]")  # begins a character that makes Python keep the whole text at 4 bytes a character

# What broken bytes can raise on their way through decoders; our own refusals are CheckpointErrors.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Global(ByIdentity):
    """What a name in a pickle stands for: a function of ours to call, a way to make an empty object, or just a tag."""

    name: str
    call: Callable[..., Any] | None = None
    new: Callable[[], Any] | None = None
    value: Any = None

    def __str__(self) -> str:
        """Gives the name."""
        return self.name


class Built:
    """An object of ours that takes the state a pickle gives it. Nothing else accepts a BUILD."""

    def build(self, state: object) -> None:
        """Takes the state.

        Args:
            state: As the pickle gives it.

        Raises:
            CheckpointError: If it is not what such an object has.
        """
        raise NotImplementedError


Table = Mapping[tuple[str, str], Global]


def _refuse_persistent(_: object) -> Any:
    """Refuses every persistent id: for files whose pickles have no storages outside."""
    raise CheckpointError("the pickle refers to storages outside itself, which this kind of file does not have")


class Machine:
    """One pickle stream; `load` leaves the window just behind its end.

    Args:
        window: The stream, from its first opcode.
        table: (module, name) → what the name stands for; all others are refused.
        budget: Shared by all streams of a file.
        persistent: Gives the object of a persistent id.
    """

    def __init__(
        self,
        window: Window,
        table: Table,
        budget: Budget,
        persistent: Callable[[object], Any] = _refuse_persistent,
    ) -> None:
        self.window = window
        self.table = table
        self.budget = budget
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.opcodes = 0

    def load(self) -> Any:
        """Runs the stream to its end.

        Returns:
            The object that it leaves.

        Raises:
            CheckpointError: If the stream is damaged or costs too much.
            UnsafePickle: If it asks for more than data.
        """
        begin = self.window.position
        try:
            while (opcode := self.window.read(1)) != b".":
                begin = self.window.position - 1
                self.opcodes += 1
                self.budget.charge_steps(1)
                step = STEPS.get(opcode)
                if step is None:
                    raise CheckpointError(
                        f"damaged pickle at byte {begin}: opcode 0x{opcode[0]:02x}, which no checkpoint uses"
                    )
                step(self)
            if self.marked or len(self.stack) != 1:
                raise CheckpointError(f"damaged pickle at byte {begin}: it ends with unfinished values")
            return self.stack.pop()
        except DAMAGE as error:
            raise CheckpointError(f"damaged pickle at byte {begin}: {type(error).__name__}: {error}") from error

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def integer(self, size: int, signed: bool = False) -> int:
        """Reads an integer, little-endian.

        Args:
            size: Its length, in bytes.
            signed: Whether it may be negative.

        Returns:
            The integer.

        Raises:
            CheckpointError: If the stream ends before.
        """
        return int.from_bytes(self.window.read(size), "little", signed=signed)

    def items(self) -> list[Any]:
        """Takes what was pushed since the last mark."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def tuple_of(self, count: int) -> None:
        """Makes a tuple of the last `count` values."""
        if len(self.stack) < count:
            raise ValueError("stack underflow")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    # Text and bytes

    def text(self, size: int) -> None:
        """Pushes a text in UTF-8 whose length stands before it.

        Args:
            size: Bytes of the length.

        Raises:
            CheckpointError: If the stream ends before, or the text costs too much.
        """
        count = self.integer(size)
        self.window.expect(count)
        self.budget.charge_bytes(count)
        raw = self.window.read(count)
        if not raw.isascii() and WIDE.search(raw):
            self.budget.charge_bytes(3 * count)
        try:
            self.push(str(raw, "utf-8"))
        except UnicodeDecodeError:
            self.budget.charge_steps(count)  # each lone surrogate is a call of Python's
            self.push(str(raw, "utf-8", "surrogatepass"))

    def raw(self, size: int) -> None:
        """Pushes bytes whose length stands before them; more than INLINE_BYTES as a window, unread.

        Args:
            size: Bytes of the length.

        Raises:
            CheckpointError: If the stream ends before.
        """
        count = self.integer(size)
        self.push(self.window.read(count) if count <= INLINE_BYTES else self.window.cut(count))

    # Containers: the target must be of our own making, and a key cheap and safe to hash

    def append(self, items: Iterable[Any]) -> None:
        """Appends to the list on top of the stack."""
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Sets entries of the dict on top of the stack.

        Args:
            items: Keys and values in turn.

        Raises:
            CheckpointError: If a key is not cheap and safe to hash.
            ValueError: If there is no such dict, or a key has no value.
        """
        if len(items) % 2:
            raise ValueError("a key without a value")
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.budget.key(key)] = value

    def set_item(self) -> None:
        """Sets one entry of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def add_items(self) -> None:
        """Adds to the set on top of the stack."""
        items = [self.budget.key(item) for item in self.items()]
        self.top(set).update(items)

    def top(self, kind: type) -> Any:
        """Gives the value on top of the stack.

        Args:
            kind: list, dict or set.

        Returns:
            The value, of this kind.

        Raises:
            ValueError: If it is of another kind.
        """
        target = self.stack[-1]
        if not isinstance(target, kind):
            raise ValueError(f"a {kind.__name__} was expected, not {type(target).__name__}")
        return target

    # Memo

    def remember(self, index: int) -> None:
        """Keeps the value on top of the stack; ValueError where `index` is higher than there were opcodes."""
        if index > self.opcodes:
            raise ValueError(f"memo index {index} after {self.opcodes} opcodes")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        """Pushes what was remembered under a number; ValueError where nothing was."""
        if index not in self.memo:
            raise ValueError(f"memo index {index} was never set")
        self.push(self.memo[index])

    # Names, calls, states

    def line_global(self) -> None:
        """Pushes a name that is spelled in the stream, as two lines."""
        module, name = (str(self.window.line(MAX_NAME), "utf-8") for _ in range(2))
        self.push_global(module, name)

    def stack_global(self) -> None:
        """Pushes a name that is spelled on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or type(name) is not str:
            raise ValueError("a global whose name is not text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        """Pushes what a name stands for.

        Args:
            module: As the pickle spells it.
            name: As the pickle spells it.

        Raises:
            UnsafePickle: If it is not in the table.
        """
        found = self.table.get((module, name))
        if found is None:
            raise UnsafePickle(
                f"the pickle asks for '{module[:MAX_NAME]}.{name[:MAX_NAME]}', and only tensors and plain values are "
                "read: nothing that a file carries is run; where you trust it, load it with its own code and re-save "
                "the weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
            )
        self.push(found)

    def reduce(self) -> None:
        """Calls a function of ours; UnsafePickle for anything else."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function.call is None or type(arguments) is not tuple:
            raise UnsafePickle(f"the pickle calls {described(function)}, which is no function that may be called")
        self.budget.charge_given(arguments)
        self.push(function.call(*arguments))

    def new_object(self) -> None:
        """Makes an empty object of ours; UnsafePickle for anything else."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global) or kind.new is None or arguments != ():
            raise UnsafePickle(f"the pickle makes an object of {described(kind)}, which is no class that may be made")
        self.push(kind.new())

    def build(self) -> None:
        """Gives an object of ours its state; UnsafePickle for anything else."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Built):
            raise UnsafePickle(f"the pickle sets attributes of {described(target)}, which has none to set")
        target.build(state)

    def persistent_id(self) -> None:
        """Pushes the object of a persistent id."""
        self.push(self.persistent(self.stack.pop()))

    # Framing

    def protocol(self) -> None:
        """Checks the protocol's number, 2 to 5."""
        version = self.integer(1)
        if not 2 <= version <= 5:
            raise ValueError(f"pickle protocol {version}; 2 to 5 are read")

    def frame(self) -> None:
        """Checks that a frame is no longer than the stream."""
        self.window.expect(self.integer(8))

    def mark(self) -> None:
        """Sets a mark on the stack."""
        self.marked.append(self.stack)
        self.stack = []

    def discard(self) -> None:
        """Drops the top of the stack, or the mark above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.items()


def described(value: object) -> str:
    """Names a value for a message."""
    return f"'{value.name}'" if isinstance(value, Global) else f"a {type(value).__name__}"


STEPS: Mapping[bytes, Callable[[Machine], object]] = {
    b"\x80": Machine.protocol,
    b"\x95": Machine.frame,
    b"(": Machine.mark,
    b"0": Machine.discard,
    b"1": Machine.items,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.integer(4, signed=True)),
    b"K": lambda m: m.push(m.integer(1)),
    b"M": lambda m: m.push(m.integer(2)),
    b"\x8a": lambda m: m.push(m.integer(m.integer(1), signed=True)),
    b"G": lambda m: m.push(struct.unpack(">d", m.window.read(8))[0]),
    b"\x8c": lambda m: m.text(1),
    b"X": lambda m: m.text(4),
    b"\x8d": lambda m: m.text(8),
    b"C": lambda m: m.raw(1),
    b"B": lambda m: m.raw(4),
    b"\x8e": lambda m: m.raw(8),
    b"\x96": lambda m: m.raw(8),
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"t": lambda m: m.push(tuple(m.items())),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.items()),
    b"}": lambda m: m.push({}),
    b"s": Machine.set_item,
    b"u": lambda m: m.set_items(m.items()),
    b"\x8f": lambda m: m.push(set()),
    b"\x90": Machine.add_items,
    b"q": lambda m: m.remember(m.integer(1)),
    b"r": lambda m: m.remember(m.integer(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.recall(m.integer(1)),
    b"j": lambda m: m.recall(m.integer(4)),
    b"c": Machine.line_global,
    b"\x93": Machine.stack_global,
    b"R": Machine.reduce,
    b"\x81": Machine.new_object,
    b"b": Machine.build,
    b"Q": Machine.persistent_id,
}

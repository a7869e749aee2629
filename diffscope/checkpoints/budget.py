"""What the pickles of one file may cost together, whatever they say: charged before memory is taken or time is spent.

A pickle is short and what it makes may be long: a list that is remembered once can be copied by every later call, a
text can be compared with every key. So one account is kept for a whole file, with the streams inside it. An opcode
costs one step; what a call is given costs as if it were made anew, for that is what calls do with it.
"""

from __future__ import annotations

from collections.abc import Sized

from diffscope.errors import CheckpointError

MAX_STEPS = 1_000_000  # the largest training dumps need some 100,000 opcodes
MAX_BYTES = 3 << 28  # text and copies of bytes; weights are neither, but for those of a plain pickle of protocol 2
MAX_KEY = 1024  # characters: equal keys are compared to their end
MAX_KEY_PARTS = 8  # a tuple is hashed anew each time
SAFE_INTEGER = 2**60  # integers below have hashes of their own
MAX_ODD_KEYS = 1000  # keys whose hashes a file could make collide: looking one up costs as many comparisons

SHORT = 16  # values in a container, or given to a call; no call takes more

TEXT_OR_BYTES = (str, bytes)
KEYS = (str, int, float, complex, bool, bytes, type(None))


class ByIdentity:
    """A stand-in of ours that may be a key, for it is hashed and compared as the one object that it is."""


class Budget:
    """The account of one file. Every charge raises CheckpointError once the limit is passed."""

    def __init__(self) -> None:
        self.steps = 0
        self.bytes = 0
        self.odd_keys = 0

    def charge_steps(self, count: int) -> None:
        """Charges for opcodes and copied values.

        Args:
            count: How many more.

        Raises:
            CheckpointError: If there are more than MAX_STEPS.
        """
        self.steps += count
        if self.steps > MAX_STEPS:
            raise CheckpointError(
                f"a pickle of more than {MAX_STEPS} opcodes and copied values, which no checkpoint needs"
            )

    def charge_bytes(self, count: int) -> None:
        """Charges for text and copies of bytes.

        Args:
            count: How many bytes more.

        Raises:
            CheckpointError: If there are more than MAX_BYTES.
        """
        self.bytes += count
        if self.bytes > MAX_BYTES:
            raise CheckpointError(
                f"a pickle of more than {MAX_BYTES} bytes of text or of copies; re-save the weights with torch.save"
            )

    def charge_given(self, values: tuple[object, ...]) -> None:
        """Charges for what a call is given.

        Args:
            values: The arguments. Bytes that stay in the file cost nothing, short values no more than the call.

        Raises:
            CheckpointError: If a limit is passed.
        """
        for value in (values, *values[:SHORT]):
            if isinstance(value, TEXT_OR_BYTES):
                self.charge_bytes(len(value))
            elif isinstance(value, Sized) and len(value) > SHORT:
                self.charge_steps(len(value))

    def key(self, key: object) -> object:
        """Lets a key of a dict or set pass if it is cheap and safe to hash.

        Args:
            key: Plain and flat, for nested tuples would overflow the stack.

        Returns:
            The same key.

        Raises:
            CheckpointError: If it is of another kind, too long, or one too many whose hash can be forged.
        """
        if isinstance(key, ByIdentity):
            return key
        parts = key if type(key) is tuple else (key,)
        if len(parts) > MAX_KEY_PARTS or not all(type(part) in KEYS for part in parts):
            raise CheckpointError(
                f"a dict or set with a key of type {type(key).__name__}; text, numbers and tuples of up to "
                f"{MAX_KEY_PARTS} of them are read"
            )
        for part in parts:
            if isinstance(part, TEXT_OR_BYTES) and len(part) > MAX_KEY:
                raise CheckpointError(f"a dict or set with a key of {len(part)} characters; {MAX_KEY} are read")
        if type(key) is tuple or _has_forgeable_hash(key):
            self.odd_keys += 1
            if self.odd_keys > MAX_ODD_KEYS:
                raise CheckpointError(
                    f"a pickle with more than {MAX_ODD_KEYS} keys that are tuples, fractions or integers beyond 2^60"
                )
        return key


def _has_forgeable_hash(key: object) -> bool:
    """Tells whether a file could choose many keys of one hash.

    Python's hash of a number is its remainder by 2^61 - 1, so any number of numbers may share one; text has a secret in
    its hash.

    Args:
        key: A key that is no tuple.

    Returns:
        True for fractions, and for integers beyond 2^60.
    """
    return type(key) in (float, complex) or (type(key) is int and not -SAFE_INTEGER < key < SAFE_INTEGER)

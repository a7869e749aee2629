"""Small files that ask for much: their reading ends within five seconds and a gigabyte, in one line."""

from __future__ import annotations

import struct

import pytest
from bounded import Ending, assert_refused, read_each

MANY = 200_000


def head(text: bytes) -> bytes:
    return b"\x80\x04" + text


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def put(index: int) -> bytes:
    """Remember the top of the stack, and take it off."""
    return b"q" + bytes([index]) + b"0"


def name(module: str, function: str) -> bytes:
    return f"c{module}\n{function}\n".encode()


def number(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


LONG = b"](" + b"K\x01" * 500_000 + b"e"  # a list
DISTINCT = b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(100_000)) + b"e"
TUPLE = b"(" + b"N" * 500_000 + b"t"


def called_often(function: bytes, arguments: bytes, times: int = MANY) -> bytes:
    """One call, made over and over with the same remembered arguments, its results kept."""
    return head(function + put(0) + arguments + put(1) + b"](" + b"h\x00h\x01R" * times + b"e.")


def keyed_often(key: bytes, times: int = MANY) -> bytes:
    """One remembered key, set over and over."""
    return head(key + put(0) + b"}(" + b"h\x00N" * times + b"u.")


def keys(values: list[bytes]) -> bytes:
    return head(b"}(" + b"".join(value + b"N" for value in values) + b"u.")


PRIME = 2**61 - 1
COMPLEX = name("builtins", "complex") + b"G"
DTYPE = name("numpy", "dtype") + b"\x8c\x02u1\x85R" + put(2)
ENTRIES = b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(100_000))
PAIRS = b"](" + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(100_000)) + b"e"
RAW = b"B" + struct.pack("<I", 500_000) + bytes(500_000)
BLOB = bytes.fromhex("8002") + number(0x1950A86A20F9469CFC6C) + b"."
STORAGE = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\x00\x40NtQ."
BLOB += (
    b"\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
    + STORAGE
    + b"\x80\x02]X\x01\x00\x00\x000a."
    + struct.pack("<q", 1 << 14)
    + bytes(1 << 16)
)
BLOB_CALL = name("torch.storage", "_load_from_bytes") + put(0) + b"B" + struct.pack("<I", len(BLOB)) + BLOB
VIEW = name("torch._utils", "_rebuild_tensor_v2") + put(2)


def tensors_of_one_blob(times: int) -> bytes:
    """As many tensors, each of a storage of 64 kB, all of them made from the same bytes."""
    view = b"h\x02(h\x00h\x01R" + b"K\x00M\x00\x40\x85K\x01\x85\x89NtR"
    entries = b"".join(text(b"w%d" % i) + view for i in range(times))
    return head(BLOB_CALL + b"\x85" + put(1) + VIEW + b"}(" + entries + b"u.")


def attributes_of_one_list(times: int) -> bytes:
    """A network of as many attributes, each the same list of 90,000 numbers."""
    wrapped = (
        b"}(" + text(b"type") + text(b"class") + text(b"version") + b"K\x06" + text(b"class_name") + text(b"Net")
        + text(b"state")
    )  # fmt: skip
    state = b"}(" + text(b"_parameters") + b"}" + text(b"w") + TENSOR + b"s"
    state += b"".join(text(b"a%d" % i) + b"h\x05" for i in range(times)) + b"u"
    function = name("torch_utils.persistence", "_reconstruct_persistent_obj")
    return head(
        b"](" + b"K\x01" * 90_000 + b"e" + put(5) + b"}" + text(b"ema") + function + wrapped + state + b"u\x85Rs."
    )


TENSOR = (
    name("torch._utils", "_rebuild_tensor_v2") + b"(" + name("torch.storage", "_load_from_bytes")
    + b"B" + struct.pack("<I", len(BLOB)) + BLOB + b"\x85RK\x00K\x01\x85K\x01\x85\x89NtR"
)  # fmt: skip


def module(state: bytes) -> bytes:
    return name("torch.nn.modules.container", "ModuleDict") + b")\x81" + state + b"b"


def modules_of_one_table(times: int) -> bytes:
    """As many modules, each with the same table of 50,000 parameters."""
    table = b"}(" + b"".join(text(b"w%d" % i) + b"N" for i in range(50_000)) + b"u" + put(3)
    child = module(b"}" + text(b"_parameters") + b"h\x03s")
    children = b"}(" + b"".join(text(b"m%d" % i) + child for i in range(times)) + b"u"
    return head(table + b"}" + text(b"ema") + module(b"}" + text(b"_modules") + children + b"s") + b"s.")


def buffers_looked_up_in_a_list(times: int) -> bytes:
    """As many buffers, each looked for in a list of as many numbers where a set of names should be."""
    buffers = b"}(" + b"".join(text(b"w%d" % i) + TENSOR_AGAIN for i in range(times)) + b"u"
    listed = b"](" + b"K\x01" * times + b"e"
    state = b"}(" + text(b"_buffers") + buffers + text(b"_non_persistent_buffers_set") + listed + b"u"
    return head(TENSOR + put(4) + b"}" + text(b"ema") + module(state) + b"s.")


TENSOR_AGAIN = b"h\x04"


def arrays_in_arguments(times: int) -> bytes:
    array = name("numpy.core.numeric", "_frombuffer") + b"(B\x00\x10\x00\x00" + bytes(4096)
    array += DTYPE + b"h\x02M\x00\x10\x85\x8c\x01CtR" + put(6)
    listed = b"](" + b"h\x06" * times + b"e"
    top = b"}(" + text(b"ema") + b"}" + text(b"w") + TENSOR + b"s" + text(b"args") + b"}" + text(b"x") + listed + b"su"
    return head(array + top + b".")


def array_of_nothing() -> bytes:
    """An array of 2^40 rows without columns, which takes no bytes until it is written out."""
    array = (
        name("numpy.core.numeric", "_frombuffer")
        + b"(C\x00"
        + DTYPE
        + b"h\x02"
        + number(2**40)
        + b"K\x00\x86\x8c\x01CtR"
    )
    top = b"}(" + text(b"ema") + b"}" + text(b"w") + TENSOR + b"s" + text(b"args") + b"}" + text(b"x") + array + b"su"
    return head(top + b".")


PARAMETER = name("torch._utils", "_rebuild_parameter")
GREEDY = {
    "torch.Size of one list": called_often(name("torch", "Size"), LONG + b"\x85"),
    "set of one list": called_often(name("builtins", "set"), DISTINCT + b"\x85"),
    "OrderedDict of one list": called_often(name("collections", "OrderedDict"), PAIRS + b"\x85"),
    "Counter of one dict": called_often(name("collections", "Counter"), b"}(" + ENTRIES + b"u\x85"),
    "bytes of one text": called_often(
        name("_codecs", "encode"), text(b"a" * 1_000_000) + text(b"latin1") + b"\x86"
    ),
    "device of one text": called_often(name("torch", "device"), b"(" + text(b"a" * 1000) * 1000 + b"t"),
    "surplus arguments": called_often(PARAMETER, b"(" + TENSOR + b"N" * 500_000 + b"t"),
    "arrays of one stretch of bytes": called_often(
        name("numpy.core.numeric", "_frombuffer"),
        b"(" + RAW + DTYPE + b"h\x02" + number(500_000) + b"\x85\x8c\x01Ct",
    ),
    "storages of one stretch of bytes": head(BLOB_CALL + b"\x85" + put(1) + b"](" + b"h\x00h\x01R" * MANY + b"e."),
    "tensors of one storage": tensors_of_one_blob(49_000),
    "a long tuple as a key": keyed_often(TUPLE, 300_000),
    "two equal long texts as keys": head(
        text(b"a" * 10**6) + put(0) + text(b"a" * 10**6) + put(1) + b"}h\x00Ns(" + b"h\x01N" * 300_000 + b"u."
    ),
    "integers of one hash": keys([number(PRIME * i) for i in range(100_000)]),
    "negative integers of one hash": keys([number(-PRIME * i) for i in range(100_000)]),
    "complex numbers of one hash": keys(
        [COMPLEX + struct.pack(">dcd", 1000003.0 * i, b"G", -1.0 * i) + b"\x86R" for i in range(100_000)]
    ),
    "a set of integers of one hash": head(b"\x8f(" + b"".join(number(PRIME * i) for i in range(100_000)) + b"\x90."),
    "attributes of one list": attributes_of_one_list(10_000),
    "modules of one table": modules_of_one_table(20_000),
    "buffers looked up in a list": buffers_looked_up_in_a_list(90_000),
    "one array in many arguments": arrays_in_arguments(90_000),
    "an array of nothing": array_of_nothing(),
}  # fmt: skip


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    folder = tmp_path_factory.mktemp("greedy")
    for greedy, content in GREEDY.items():
        (folder / greedy).write_bytes(content)
    return read_each([folder / greedy for greedy in GREEDY])


@pytest.mark.parametrize("greedy", GREEDY)
def test_what_small_files_ask_for_is_bounded(endings: dict[str, Ending], greedy: str) -> None:
    assert_refused(endings[greedy])

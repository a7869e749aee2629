"""diffscope report: results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import OUTPUT, Argument, Option

Results = Annotated[
    tuple[str, ...],
    Argument("Results: each a result.json, or the folder of one.", metavar="RESULT...", several=True),
]
Out = Annotated[
    str,
    Option("The page to write.", group=OUTPUT, flag="--output", short="-o", metavar="PAGE.html", path=True),
]


def run(results: Results, out: Out = "report.html") -> None:
    """One page of one or several results: curves to read and to switch on and off, tables, verdicts, protocols.

    It is a single file that needs no network. Curves of the same kind stand in one chart. ICR of each two results is
    compared in pairs, of more than six that of each with the first, where their protocols allow; where not, the page
    names the field.

    Example: diffscope report sweep-a/ sweep-b/ -o page.html
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"`out={out}`: expected a name that ends in .html")
    from diffscope.report.files import write_page
    from diffscope.report.page import beside
    from diffscope.studies.compare.compare import compare_each_two

    read = [beside.read(path) for path in results]
    pairs = compare_each_two(read)
    names = beside.distinct(results)
    compared = [beside.Compared(names[old], names[new], found) for (old, new), found in pairs.items()]
    print(write_page(beside.page(results, read, compared), Path(out)))


PYTHON = False

"""Pictures for all tests of commands and studies, and an environment that is the same everywhere."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import write_pictures

# The Hub's client reads them when it is first imported, which a test module may do.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="diffscope-tests-")

TOLD = (
    "DIFFSCOPE_CACHE_SIZE",
    "DIFFSCOPE_DEBUG",
    "DIFFSCOPE_DEVICE",
    "FORCE_COLOR",
    "NO_COLOR",
    "COLUMNS",
    "GITHUB_STEP_SUMMARY",
)
"""What would change an output."""


LONGEST = ("test_recorded.py", "test_manual.py", "test_edges.py", "test_scripts.py", "test_pipeline_files.py")
"""Files of minutes each: first, so that of two processes none waits for the other at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True, scope="session")
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the machine's environment, no parts of earlier runs; and what is started here can be interrupted,
    even if the tests were started in the background, where a shell has SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in TOLD:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 of them."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 200)

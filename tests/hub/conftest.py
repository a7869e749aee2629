"""A Hub on loopback for each test, with a cache of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TOKEN, FakeHub


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def environment(fake: FakeHub, tmp_path: Path) -> dict[str, str]:
    """What a process of its own needs, to know this Hub alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": fake.endpoint, "HF_TOKEN": TOKEN}
    return {**kept, **home, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The same for this process, in which the client has read its environment long ago."""
    values: dict[str, Any] = {
        "ENDPOINT": fake.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": fake.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
    }
    for name, value in values.items():
        set_constant(monkeypatch, name, value)
    for name in os.environ:
        if "proxy" in name.lower():
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return fake


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and from then on it is as with HF_HUB_OFFLINE=1."""
    return lambda: set_constant(monkeypatch, "HF_HUB_OFFLINE", True)


def set_constant(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Wherever the client has taken it to: before 1.0, its modules import constants by value."""
    import huggingface_hub.file_download
    import huggingface_hub.hf_api  # noqa: F401

    for module in [module for key, module in sys.modules.items() if key.startswith("huggingface_hub")]:
        if name in vars(module):
            monkeypatch.setattr(module, name, value)

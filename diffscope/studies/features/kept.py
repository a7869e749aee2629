"""Files of features that stand in a run's folder until its result is safe, each made once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffscope.cache.store import Records, checksum_of_file
from diffscope.measure.job import Job
from diffscope.measure.memory import passes_at_once
from diffscope.measure.progress import Listener
from diffscope.ranks import world
from diffscope.studies.features.export import export


def keep_features(job: Job, folder: Path, listener: Listener) -> Path:
    """Writes the features of a job, unless an earlier run did and they are as it wrote them.

    Args:
        job: What to extract.
        folder: Where the file is kept.
        listener: Hears of each pass.

    Returns:
        The file, as `export` writes it.
    """
    path, records = features_path(job, folder), Records(folder, listener.say)
    if world().lead(partial(_is_there, path, records, listener)):
        listener.advance(passes_at_once(job))
    else:
        export(job, path, listener)
        world().lead(partial(_record, path, records))
    return path


def features_path(job: Job, folder: Path) -> Path:
    """Where the features of a job are kept."""
    return folder / f"features-{job.protocol.hash()[:16]}.safetensors"


def _record(path: Path, records: Records) -> None:
    records.write(path.stem, {"file": checksum_of_file(path)})


def _is_there(path: Path, records: Records, listener: Listener) -> bool:
    if not path.exists() or (record := records.read(path.stem)) is None:
        return False
    if record["file"] != checksum_of_file(path):
        listener.say(f"{path}: damaged on disk; these features are computed again")
        return False
    return True

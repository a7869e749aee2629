"""What commands find out: plain records, read and written as JSON, without torch.

`result.json` is documented in the manual (output); its keys are stable within a `schema`.
"""

from diffscope.results.result import RESULT, SCHEMA, Record, Result, dumps, finite, read_record, read_result
from diffscope.results.rows import FEW_FEATURES, HEAD, VARIED, Row
from diffscope.results.sections import (
    Alarm,
    AlarmCell,
    AlarmLimit,
    AlarmPoint,
    Minimum,
    OnsetRow,
    Overlay,
    OverlayAgainst,
    ProbeRow,
    SegmentationRow,
    WindowRow,
)
from diffscope.results.shown import Shown

__all__ = [
    "FEW_FEATURES",
    "HEAD",
    "RESULT",
    "SCHEMA",
    "VARIED",
    "Alarm",
    "AlarmCell",
    "AlarmLimit",
    "AlarmPoint",
    "Minimum",
    "OnsetRow",
    "Overlay",
    "OverlayAgainst",
    "ProbeRow",
    "Record",
    "Result",
    "Row",
    "SegmentationRow",
    "Shown",
    "WindowRow",
    "dumps",
    "finite",
    "read_record",
    "read_result",
]

"""A model card as the Hub reads it: Markdown after metadata in YAML (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TASK = "image-feature-extraction"
"""What is measured, in the Hub's own words: the features, not the images that a model makes."""


def model_card(name: str, scores: Sequence[Mapping[str, Any]], text: str) -> str:
    """Puts metadata before a text.

    Args:
        name: Of the model.
        scores: Fields of huggingface_hub's `EvalResult`, but for the task.
        text: Markdown.

    Returns:
        The card, which ends in a newline.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    found = [EvalResult(task_type=TASK, **score) for score in scores]
    data = ModelCardData(model_name=name, tags=["diffscope"], eval_results=found or None)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text.strip()}\n"))

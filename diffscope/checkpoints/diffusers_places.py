"""Where networks of diffusers lie: in pipelines, alone, and in what the training scripts leave.

RUN/checkpoint-500/unet and unet_ema, and in the end RUN itself, a pipeline
"""

from __future__ import annotations

import os
import re

from diffscope.checkpoints.diffusers_weights import STEM

NETWORKS = ("unet", "transformer")
STEP = re.compile(r"checkpoint-(\d+)")


def is_diffusers_folder(path: str) -> bool:
    """Tells whether a folder is a pipeline or a model of diffusers, or holds a model.

    Args:
        path: Of the folder.

    Returns:
        True if there is a pipeline's index, or a network's config with weights beside it.
    """
    networks = [os.path.join(path, name + suffix) for name in NETWORKS for suffix in ("", "_ema")]
    marks = [os.path.join(path, "model_index.json"), *(os.path.join(network, "config.json") for network in networks)]
    if any(map(os.path.isfile, marks)):
        return True
    names = os.listdir(path)
    return "config.json" in names and any(name.startswith(STEM) for name in names)


def homes_of(pipeline: str) -> list[str]:
    """Gives the folders with a pipeline's other parts: its own, and the run's, where a script puts its scheduler.

    Args:
        pipeline: Folder of the pipeline, such as RUN/checkpoint-500.

    Returns:
        One or two folders, in the order of preference.
    """
    whole = os.path.abspath(pipeline)
    return [pipeline, os.path.dirname(whole)] if STEP.fullmatch(os.path.basename(whole)) else [pipeline]


def which_of_two(path: str, network: str) -> str:
    """Says which of two networks in a script's folder was taken.

    Args:
        path: The folder that was given.
        network: The folder of the network that was taken.

    Returns:
        The beginning of a reason; "" where there is one network, or it was given itself.
    """
    name = os.path.basename(network)
    other = name.removesuffix("_ema") if name.endswith("_ema") else f"{name}_ema"
    if os.path.samefile(path, network) or not os.path.isdir(os.path.join(os.path.dirname(network), other)):
        return ""
    return f"{name} beside {other}, {'the EMA being the default' if name.endswith('_ema') else 'as asked for'}: "

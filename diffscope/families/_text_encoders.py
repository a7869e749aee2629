"""Text encoders of the transformers library: loaded from a pipeline's folder, run once on one text, let go.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), 2021,
https://arxiv.org/abs/2103.00020; Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (T5), 2020, https://arxiv.org/abs/1910.10683; Gemma Team, "Gemma 2", 2024,
https://arxiv.org/abs/2408.00118. Weights stay in their file and type, and are cast to float32 part by part: the largest
encoder has 4.8 · 10^9. What a config says reaches a constructor only under names that are known here; nothing is
downloaded by the library.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffscope.checkpoints.diffusers_weights import ENCODER_STEMS, read_json, read_weights
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._building import build_on_meta, load_weights
from diffscope.families._facts import Facts, shown
from diffscope.families.networks.library import transformers_class
from diffscope.families.networks.stored import cast_while_running

_CONFIGS = {
    "CLIPTextModel": "CLIPTextConfig",
    "CLIPTextModelWithProjection": "CLIPTextConfig",
    "T5EncoderModel": "T5Config",
    "Gemma2Model": "Gemma2Config",
}
_TOKENIZERS = {
    "CLIPTextConfig": "CLIPTokenizerFast",
    "T5Config": "T5TokenizerFast",
    "Gemma2Config": "GemmaTokenizerFast",
}
_LAYERS = ("num_hidden_layers", "num_layers")
_MARKS = ("bos_token_id", "eos_token_id", "pad_token_id")
_MAX_LAYERS = 256
_NOT_THE_NETWORK_S = {
    "self", "transformers_version", "architectures", "output_hidden_states", "return_dict", "dtype", "torch_dtype",
    "id2label", "label2id", "problem_type", "kwargs", "chunk_size_feed_forward",
}  # fmt: skip
_PREFIXES = ("", "text_model.", "model.")
"""What stands before the names of weights, or not: versions of transformers differ in it."""
_TIED = ("shared.weight", "encoder.embed_tokens.weight")
"""Two names of one tensor of T5; files hold either."""


@dataclass(frozen=True)
class Ids:
    """A text as numbers."""

    ids: Tensor
    """(1, rows), int64."""
    mask: Tensor
    """(1, rows) of 0 and 1: which are not padding."""


class TextEncoder:
    """One text encoder of a pipeline, with its tokenizer.

    Args:
        pipeline: Folder of the pipeline.
        name: Of the encoder's folder in it, such as "text_encoder_2".
        allowed: Classes that are taken here.

    Raises:
        CheckpointError: If it is missing or of another class.
    """

    def __init__(self, pipeline: str, name: str, allowed: tuple[str, ...]) -> None:
        self.folder = os.path.join(pipeline, name)
        self.tokenizer = os.path.join(pipeline, name.replace("text_encoder", "tokenizer"))
        file = os.path.join(self.folder, "config.json")
        if not os.path.exists(file):
            raise CheckpointError(
                f"{pipeline}: no text encoder in {name}/, which the network is told of; give the whole pipeline, or "
                "`prompt_from=` a pipeline with it or a .safetensors file of embeddings"
            )
        self.config = read_json(file)
        named = self.config.get("architectures")
        self.kind = str(named[0]) if isinstance(named, list) and named else ""
        if self.kind not in allowed:
            raise CheckpointError(f"{self.folder}: a {shown(self.kind, quotes=False)}; expected {' or '.join(allowed)}")
        self.tensors, self.files, _ = read_weights(self.folder, access="mapped", stems=ENCODER_STEMS)

    def ids(self, prompt: str, rows: int) -> Ids:
        """Turns a text into numbers.

        The empty text needs no tokenizer: beginning and end of CLIP's, the end of T5's, the beginning of Gemma's.

        Args:
            prompt: The text.
            rows: It is padded to so many; CLIP's are always those of its positions.

        Returns:
            Numbers and mask.

        Raises:
            UsageError: If the text is longer.
            CheckpointError: If the tokenizer cannot be read.
        """
        clip = _CONFIGS[self.kind] == "CLIPTextConfig"
        if clip:
            rows = self._integer("max_position_embeddings", 77)
        if prompt:
            return self._tokenized(prompt, rows)
        if clip:
            first, pad = _clip_ids(self.tokenizer)
        else:
            t5 = _CONFIGS[self.kind] == "T5Config"
            first = [self._integer("eos_token_id", 1) if t5 else self._integer("bos_token_id", 2)]
            pad = self._integer("pad_token_id", 0)
        ids = [*first, *[pad] * (rows - len(first))]
        mask = [1] * len(first) + [0] * (rows - len(first))
        return Ids(torch.tensor([ids]), torch.tensor([mask]))

    def run(self, ids: Ids, masked: bool) -> Any:
        """Loads the network, runs it once in float32 and lets it go.

        Args:
            ids: From `ids`.
            masked: Whether padding is hidden from the text.

        Returns:
            What the library's network returns, with `hidden_states`.

        Raises:
            CheckpointError: If its config or weights are damaged.
            WeightsMismatch: If they do not fit each other.
        """
        network = self._network()
        mask = ids.mask if masked else None
        with torch.inference_mode(), cast_while_running(network, torch.float32):
            return network(input_ids=ids.ids, attention_mask=mask, output_hidden_states=True)

    def _integer(self, key: str, default: int) -> int:
        return Facts(self.folder, self.config).integer(key, default, 0)

    def _network(self) -> Any:
        model, config = transformers_class(self.kind), transformers_class(_CONFIGS[self.kind])
        known = set(inspect.signature(config.__init__).parameters) - _NOT_THE_NETWORK_S
        arguments = {key: value for key, value in self.config.items() if key in known}
        for key in _LAYERS:
            Facts(self.folder, arguments).integer(key, 1, 1, _MAX_LAYERS)

        def make(arguments: Mapping[str, Any]) -> Any:
            said = config(**arguments)
            said._attn_implementation = "eager"
            return model(said)

        network = build_on_meta(lambda: make(arguments), self.folder)
        load_weights(network, _renamed(list(network.state_dict()), self.tensors), self.folder, as_stored=True)
        if any(buffer.is_meta for _, buffer in network.named_buffers()):
            # Tables that no file stores, from a network of one layer and a few words that is built in memory.
            few = {key: value for key, value in arguments.items() if key != "layer_types"}
            # Marks beyond these few words would make the library warn.
            words = {"vocab_size": 256, **{key: None for key in _MARKS if key in known}}
            small = make({**few, **{key: 1 for key in _LAYERS if key in few}, **words})
            for name, buffer in list(network.named_buffers()):
                owner, _, leaf = name.rpartition(".")
                if buffer.is_meta:
                    network.get_submodule(owner).register_buffer(leaf, small.get_buffer(name), persistent=False)
        return network

    def _tokenized(self, prompt: str, rows: int) -> Ids:
        tokenizer = transformers_class(_TOKENIZERS[_CONFIGS[self.kind]])
        try:
            made = tokenizer.from_pretrained(self.tokenizer, local_files_only=True)
            made.padding_side = "right"
            found = made([prompt], padding="max_length", max_length=rows, truncation=False, return_tensors="pt")
        except Exception as error:  # the library raises what it likes, and so does what it imports
            words = " ".join(str(error).split())[:120]
            raise CheckpointError(f"{self.tokenizer}: no tokenizer can be read ({words})") from None
        if found.input_ids.shape[1] > rows:
            raise UsageError(
                f"`prompt=`: {found.input_ids.shape[1]} tokens; this pipeline's {self.kind} reads {rows}: shorten it"
            )
        return Ids(found.input_ids, found.attention_mask)


def _renamed(names: list[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the library has now; what the network has no place for is left out."""
    found = {}
    for name in names:
        bare = name.removeprefix("text_model.").removeprefix("model.")
        spelled = [name, *(prefix + bare for prefix in _PREFIXES)]
        spelled += _TIED if name in _TIED else ()
        first = next((other for other in spelled if other in tensors), None)
        if first is not None:
            found[name] = tensors[first]
    return found


def _clip_ids(tokenizer: str) -> tuple[list[int], int]:
    """([beginning, end], padding) of CLIP's vocabulary."""
    vocabulary = _vocabulary(tokenizer)
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = os.path.join(tokenizer, name)
        said |= read_json(file) if os.path.exists(file) else {}
    pad = said.get("pad_token", "<|endoftext|>")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    try:
        return [vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]], vocabulary[str(pad)]
    except KeyError as error:
        raise CheckpointError(f"{tokenizer}: its vocabulary has no {shown(error.args[0])}") from None


def _vocabulary(tokenizer: str) -> dict[str, int]:
    plain, whole = (os.path.join(tokenizer, name) for name in ("vocab.json", "tokenizer.json"))
    if os.path.exists(plain):
        found: Any = read_json(plain)
    elif os.path.exists(whole):
        said = read_json(whole)
        model = said.get("model")
        words = model.get("vocab") if isinstance(model, dict) else None
        found = dict(words) if isinstance(words, dict) else {}
        added = said.get("added_tokens")
        listed = added if isinstance(added, list) else []
        found |= {str(token.get("content")): token.get("id") for token in listed if isinstance(token, dict)}
    else:
        raise CheckpointError(f"{tokenizer}: no vocab.json or tokenizer.json in it; fetch or copy the pipeline again")
    return {str(word): number for word, number in found.items() if type(number) is int}

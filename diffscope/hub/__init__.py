"""Hub references → local files: `hf://[datasets/]OWNER/NAME[@REVISION][/PATH]`, through huggingface_hub.

Checkpoints, sources and the image encoder of latent models all need this, and none of their rooms may import another:
so it is a room of row 1. A branch or tag becomes a commit once, and everything after that is of this commit; commits,
files and lists of files that are in the client's cache are used without network. HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN mean what they mean to the client, which is imported at the first reference.
Code of a repository is neither downloaded nor run.

    repository = hub.open("hf://OWNER/NAME@v1/weights.pt", "model")
    local = repository.find("weights.pt")     # downloaded, or from the cache
    repository.commit                         # what `v1` is today

Failures are CheckpointError for models and DataError for data sets, one sentence each.
"""

from diffscope.hub.failures import listed
from diffscope.hub.reference import Reference, hint, is_reference, parse
from diffscope.hub.repository import Repository, local_modules, open, snapshot

__all__ = ["Reference", "Repository", "hint", "is_reference", "listed", "local_modules", "open", "parse", "snapshot"]

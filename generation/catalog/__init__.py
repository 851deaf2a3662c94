"""Which models exist and where they are: the catalogue, downloads, checks. Imports no model library.

``resolve`` finds a model by name, ``pull`` brings it onto this machine, ``verify`` reads every byte of it again,
``remove`` frees its room, ``installed`` lists what is here.
"""

from generation.catalog.entry import ModelEntry, entries
from generation.catalog.identity import identity
from generation.catalog.location import ModelLocation, resolve
from generation.catalog.manifest import Manifest
from generation.catalog.pulling import PullProgress, pull
from generation.catalog.store import check_files, installed, remove, verify

__all__ = [
    "Manifest",
    "ModelEntry",
    "ModelLocation",
    "PullProgress",
    "check_files",
    "entries",
    "identity",
    "installed",
    "pull",
    "remove",
    "resolve",
    "verify",
]

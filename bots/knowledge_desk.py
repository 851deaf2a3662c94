"""What administrators do to a tenant's knowledge in a front-end: files, addresses, messages and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bots import knowledge_process
from bots.answers import inert

NOTHING = "Nothing is known here yet: add a document with `/knowledge add`."
NOTHING_SAID = "There is no text in it that I can read."
_LISTED = 25
_TITLE_CHARS = 100


async def add_file(tenant: str, name: str, content: bytes, address: str) -> str:
    """Have a document known; returns what to tell.

    Args:
        tenant: Whose.
        name: As it was uploaded; its ending tells the format.
        content: Its bytes.
        address: Where people can open it.

    Raises:
        KnowledgeProcessError: It cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="palaver") as directory:
        path = Path(directory) / (PurePosixPath(name.replace("\\", "/")).name or "document")
        path.write_bytes(content)
        (added,) = await knowledge_process.run(
            "add", "--address", address, "--json", "--tenant", tenant, "--", str(path)
        )
    return f"Added: {_line(added)}"


async def add_address(tenant: str, address: str) -> str:
    """Have a page known; returns what to tell.

    Raises:
        KnowledgeProcessError: It cannot be fetched or read.
    """
    if not address.startswith(("https://", "http://")) or any(letter.isspace() for letter in address):
        raise knowledge_process.KnowledgeProcessError("An address begins with https:// and has no spaces.")
    (added,) = await knowledge_process.run("add", "--json", "--tenant", tenant, "--", address)
    return f"Added: {_line(added)}"


async def add_messages(tenant: str, texts: Sequence[str], address: str) -> str:
    """Have a message, or the messages of a thread, known; returns what to tell.

    Args:
        tenant: Whose.
        texts: What was said, in order; the first line is the title.
        address: The link of the first.

    Raises:
        KnowledgeProcessError: They cannot be kept.
    """
    said = [text.strip() for text in texts if text.strip()]
    if not said:
        return NOTHING_SAID
    title = " ".join(said[0].split())[:_TITLE_CHARS]
    # As plain text: what people write is nobody's mark-up. A thread's first message is the question of the others.
    body = "\n\n".join(said[1:] if len(said) > 1 and len(said[0]) <= _TITLE_CHARS else said)
    return await add_file(tenant, f"{_file_name(title)}.txt", body.encode(), address)


async def listed(tenant: str) -> str:
    """What is known, for a person to read."""
    found = await knowledge_process.run("list", "--json", "--tenant", tenant)
    more = f"\nand {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "\n".join(map(_line, found[:_LISTED])) + more if found else NOTHING


async def remove(tenant: str, document: str) -> str:
    """Have a document forgotten; returns what to tell.

    Raises:
        KnowledgeProcessError: There is none of this id.
    """
    await knowledge_process.run("remove", "--tenant", tenant, "--", document)
    return "Removed: the next answer knows nothing of it."


def _file_name(title: str) -> str:
    """A title as the name of a file: the document is called by it."""
    kept = "".join(letter if letter.isalnum() or letter in " -_,'" else " " for letter in title)
    return " ".join(kept.split())[:60] or "message"


def _line(document: dict[str, object]) -> str:
    return f"`{document.get('document_id')}` {inert(str(document.get('title')))}, {document.get('passages')} passages"

"""DOCX to sections, by way of HTML."""

from __future__ import annotations

import io
import zipfile

from generation.errors import UnreadableDocumentError
from generation.retrieval.chunking import ParsedDocument
from generation.retrieval.formats.html import parse_html

MAX_UNPACKED_BYTES = 200 * 2**20
MAX_PARTS = 5000
#: How an OLE container begins: an old .doc, or a .docx with a password.
_OLE = b"\xd0\xcf\x11\xe0"


def parse_docx(content: bytes) -> ParsedDocument:
    """Read a document of Word: its headings are those of its heading styles; pictures are left out.

    Raises:
        UnreadableDocumentError: It is encrypted, broken, or grows beyond bounds when it is unpacked.
    """
    import mammoth

    _require_bounds(content)
    try:
        converted = mammoth.convert_to_html(
            io.BytesIO(content), convert_image=mammoth.images.img_element(lambda _: {}), external_file_access=False
        )
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        # mammoth lets out whatever its parsers of ZIP and XML raise.
        raise UnreadableDocumentError("it is a broken DOCX") from error
    return parse_html(converted.value)


def _require_bounds(content: bytes) -> None:
    if content.startswith(_OLE):
        raise UnreadableDocumentError("it is encrypted or an old .doc; save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise UnreadableDocumentError("it is a broken DOCX") from error
    # The sizes that it states are those up to which zipfile unpacks.
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED_BYTES:
        raise UnreadableDocumentError(f"it unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MiB")

"""Real documents of every format, and hostile ones: one clear line, in bounded time and memory, nothing half there."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator

import pytest

from generation.errors import UnreadableDocumentError
from generation.retrieval.formats.confinement import ConfinedParser

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_HEADING = '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>{}</w:t></w:r></w:p>'
_STYLES = '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>'
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def docx(body: str) -> bytes:
    """A document as Word writes it, with as little as it takes."""
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        f'<Override PartName="/word/document.xml" ContentType="{main}.document.main+xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{_RELATIONS}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
        f'relationships"><Relationship Id="r2" Type="{_RELATIONS}/styles" Target="styles.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<w:styles xmlns:w="{_WORD}">{_STYLES}</w:styles>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def pdf(*pages: bytes, packed: bool = False) -> bytes:
    """A PDF of pages with these content streams."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, page in enumerate(pages):
        objects.append(b"<</Type/Page/Parent 2 0 R/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>" % (5 + 2 * number))
        held = b"/Filter/FlateDecode" if packed else b""
        objects.append(b"<</Length %d%s>>stream\n%s\nendstream" % (len(page), held, page))
    file, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return file + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Root 1 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF"
        % (len(objects) + 1, table, len(objects) + 1, len(file))
    )


def words(text: bytes) -> bytes:
    return b"BT /F 12 Tf 72 720 Td (%s) Tj ET" % text


def encrypted_pdf() -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(words(b"secret")))))
    writer.encrypt("password", algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def zip_bomb() -> bytes:
    return docx("<w:p><w:r><w:t>" + " " * (250 * 2**20) + "</w:t></w:r></w:p>")


def pdf_bomb() -> bytes:
    packer = zlib.compressobj(9)
    page = b"".join(packer.compress(b" " * 2**24) for _ in range(16)) + packer.flush()  # of 256 MiB
    return pdf(page, packed=True)


@pytest.fixture(scope="module")
def parser() -> Iterator[ConfinedParser]:
    found = ConfinedParser(time_limit_s=2)
    yield found
    found.close()


def test_a_pdf_keeps_its_pages(parser: ConfinedParser) -> None:
    parsed = parser.parse("manual.PDF", pdf(words(b"Switch it off."), words(b"Then wait.")))
    assert [(each.paragraphs, each.page) for each in parsed.sections] == [
        (("Switch it off.",), 1),
        (("Then wait.",), 2),
    ]


def test_a_docx_keeps_its_headings(parser: ConfinedParser) -> None:
    body = (
        _HEADING.format("Returns")
        + "<w:p><w:r><w:t>Within 30 days.</w:t></w:r></w:p>"
        + _HEADING.format("\u5730\u5740")
    )
    (section,) = parser.parse("help.docx", docx(body)).sections
    assert (section.heading_path, section.paragraphs) == (("Returns",), ("Within 30 days.",))


@pytest.mark.parametrize(
    "content",
    [
        b"question,answer\nWhere?,\"Here, \"\"there\"\"\"\n",
        b"\xef\xbb\xbfid;Answer;Question\n1;Here, \"there\";Where?\n",
        "id\t\u95ee\u9898\t\u7b54\u6848\n1\tWhere?\tHere, \"there\"\n".encode("gb18030"),
        "Q|A\nWhere?|Here, \"there\"\n".encode("utf-16"),
    ],
    ids=["commas", "semicolons-and-mark", "tabs-in-gb18030", "bars-in-utf-16"],
)  # fmt: skip
def test_rows_of_questions_and_answers_are_read(parser: ConfinedParser, content: bytes) -> None:
    (section,) = parser.parse("faq.csv", content).sections
    assert (section.heading_path, section.paragraphs) == (("Where?",), ('Here, "there"',))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", lambda: b"%PDF-1.4\nnothing follows", "broken PDF"),
        ("a.pdf", encrypted_pdf, "encrypted"),
        ("a.pdf", pdf_bomb, "broken PDF|memory|longer|no text"),
        ("a.docx", lambda: b"PK\x03\x04 and no more", "broken DOCX"),
        ("a.docx", lambda: b"\xd0\xcf\x11\xe0" + b"\0" * 512, "encrypted"),
        ("a.docx", zip_bomb, "unpacks to more"),
        ("a.csv", lambda: b"name,price\nx,1\n", "column question"),
        ("a.csv", lambda: b"question,answer\nx," + b"y" * 200_000, "broken"),
        ("a.html", lambda: b"<b>" * 3_000_000 + b"x", "longer|nested|memory|broke"),
        ("a.txt", lambda: b"x" * 10_000_000, "10,000,000 characters"),
        ("a.md", lambda: b">" * 200_000 + b" x", "nested|longer|no text"),
    ],
)
def test_a_hostile_file_ends_with_one_line(parser: ConfinedParser, name: str, content, reason: str) -> None:
    with pytest.raises(UnreadableDocumentError, match=reason) as told:
        parser.parse(name, content())
    assert "\n" not in str(told.value)
    # The next document is read as if nothing had been.
    assert parser.parse("next.txt", b"Still here.").sections[0].paragraphs == ("Still here.",)


def test_what_no_database_takes_is_left_out(parser: ConfinedParser) -> None:
    assert parser.parse("a.txt", "a\0b".encode("utf-16")).sections[0].paragraphs == ("ab",)

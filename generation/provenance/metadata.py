"""What stands in a picture's file beside its pixels: XMP with IPTC's digital source type, EXIF, and China's AIGC label.

Anybody can remove or forge it; the invisible mark and signed credentials are for that.

Sources: XMP specification part 1; IPTC Photo Metadata Standard 2023.1; GB 45438-2025, annex E.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape, quoteattr, unescape

from PIL import Image, PngImagePlugin

from generation.provenance.types import TRAINED_ALGORITHMIC_MEDIA, Provenance

#: Key of our own record.
RECORD = "palaver:provenance"
_XMP_KEY = "XML:com.adobe.xmp"
_EXIF_SOFTWARE, _EXIF_DESCRIPTION = 0x0131, 0x010E
_MOST_BYTES = 1_000_000


def save_arguments(provenance: Provenance, image_format: str) -> dict[str, Any]:
    """What ``Image.save`` must be given for a file to carry a provenance.

    Args:
        provenance: What it says.
        image_format: ``PNG``, ``JPEG`` or ``WEBP``.
    """
    packet = xmp(provenance)
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = provenance.producer
    exif[_EXIF_DESCRIPTION] = f"AI-generated image, {provenance.model}"
    if image_format == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt(_XMP_KEY, packet)
        info.add_text("Software", provenance.producer)
        info.add_itxt("AIGC", aigc(provenance))
        return {"pnginfo": info, "exif": exif}
    return {"xmp": packet.encode(), "exif": exif}


def xmp(provenance: Provenance) -> str:
    """The XMP packet."""
    record = json.dumps(asdict(provenance), sort_keys=True)
    attributes = {
        "xmp:CreatorTool": provenance.producer,
        "Iptc4xmpExt:DigitalSourceType": TRAINED_ALGORITHMIC_MEDIA,
        "Iptc4xmpExt:AISystemUsed": provenance.model,
        "TC260:AIGC": aigc(provenance),
        RECORD: record,
    }
    written = "\n   ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
   xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"
   xmlns:palaver="https://github.com/palaver-chat/palaver/ns/1.0/"
   {written}>
   <dc:description xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Alt><rdf:li xml:lang="x-default">{
        escape(f"AI-generated image, {provenance.model}")
    }</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def aigc(provenance: Provenance) -> str:
    """China's implicit label: generated for sure (1), by whom, and under which number."""
    return json.dumps(
        {"Label": "1", "ContentProducer": provenance.producer, "ProduceID": provenance.job_id}, ensure_ascii=False
    )


def read(image: Image.Image) -> tuple[Provenance | None, str | None]:
    """What a picture's metadata says.

    Args:
        image: As opened from its file.

    Returns:
        Our record, if it is there and whole; and the IPTC digital source type, if there is one.
    """
    packet = image.info.get("xmp") or image.info.get(_XMP_KEY) or ""
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    text = text[:_MOST_BYTES]
    found = re.search(r"digitalsourcetype/(\w+)", text)
    source_type = found[1] if found else None
    record = re.search(rf"{RECORD}=(?:\"([^\"]*)\"|'([^']*)')", text)
    if record is None:
        return None, source_type
    entities = {"&quot;": '"', "&apos;": "'", "&#10;": "\n", "&#13;": "\r", "&#9;": "\t"}
    try:
        values = json.loads(unescape(record[1] or record[2] or "", entities))
        provenance = Provenance(**values)
        texts = (provenance.job_id, provenance.model, provenance.prompt_sha256, provenance.producer)
        if not all(isinstance(value, str) for value in texts) or not isinstance(provenance.created_at_s, int | float):
            return None, source_type
    except (ValueError, TypeError):
        return None, source_type
    return provenance, source_type

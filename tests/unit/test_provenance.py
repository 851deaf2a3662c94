from __future__ import annotations

import datetime as dt
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image, ImageDraw

from generation.errors import GenerationError, InvalidRequestError
from generation.moderation.policy import Policy
from generation.moderation.policy_file import read_policy
from generation.provenance import watermark
from generation.provenance.credentials import Certificate, Signer
from generation.provenance.engine import MarkingEngine
from generation.provenance.engine import marked as build_marked
from generation.provenance.label import labelled
from generation.provenance.marking import Marking, mark, told, verify
from generation.provenance.types import TRAINED_ALGORITHMIC_MEDIA, Provenance, hash_prompt
from generation.types import EngineEvent, EngineInfo, Failed, Finished, ImageRequest, Origin, Picture, Usage

PROVENANCE = Provenance("guild__1", "icons-5m", hash_prompt("a red car"), 1_700_000_000.0, 'Ünï "Quoted" & <co>')


def drawing(seed: int, size: int = 256) -> Image.Image:
    """Shapes on white, as icons are."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = random.integers(0, size * 3 // 4, 2).tolist()
        width, height = random.integers(size // 10, size // 2, 2).tolist()
        colour = tuple(random.integers(0, 256, 3).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x, y, x + width, y + height), fill=colour, outline="black")
    return image


def encoded(image: Image.Image, image_format: str = "PNG", **arguments: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **arguments)
    return out.getvalue()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image.convert("RGB"), "JPEG", quality=quality)))


def screenshot(image: Image.Image) -> Image.Image:
    """Shown larger, cut at the edges by a pixel, saved as JPEG, made smaller again by a chat platform."""
    large = image.resize((round(image.width * 1.25), round(image.height * 1.25)), Image.Resampling.BILINEAR)
    shown = jpeg(large.crop((1, 1, large.width - 1, large.height - 1)), 80)
    return jpeg(shown.resize((round(shown.width * 0.83), round(shown.height * 0.83)), Image.Resampling.BICUBIC), 85)


TREATMENTS = {
    "none": lambda image: image,
    "jpeg75": lambda image: jpeg(image, 75),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "screenshot": screenshot,
}


@pytest.fixture(scope="module")
def marked() -> list[Image.Image]:
    return [watermark.embed(drawing(seed)) for seed in range(12)]


@pytest.mark.parametrize("treatment", TREATMENTS.values(), ids=TREATMENTS.keys())
def test_the_mark_survives(treatment: object, marked: list[Image.Image]) -> None:
    found = [watermark.detect(treatment(image)).found for image in marked]  # type: ignore[operator]
    assert sum(found) >= len(found) - 1


def test_unmarked_pictures_are_not_ours() -> None:
    scores = [watermark.detect(drawing(seed)).score for seed in range(60)]
    assert max(scores) < watermark.DETECTED
    assert abs(float(np.mean(scores))) < 0.6
    assert 0.5 < float(np.std(scores)) < 1.5


def test_the_mark_is_faint_and_another_key_does_not_see_it(marked: list[Image.Image]) -> None:
    for seed, image in enumerate(marked):
        error = np.mean((np.asarray(image, float) - np.asarray(drawing(seed), float)) ** 2)
        assert 10 * np.log10(255**2 / error) > 30
        assert not watermark.detect(image, "another key").found


def test_blank_flat_and_transparent_pictures_can_be_marked() -> None:
    for colour in ("white", "black", "#4488cc"):
        assert watermark.detect(watermark.embed(Image.new("RGB", (256, 256), colour))).found
    drawn = drawing(3).convert("RGBA")
    drawn.putalpha(Image.new("L", drawn.size, 255))
    out = watermark.embed(drawn)
    assert out.mode == "RGBA"
    assert watermark.detect(out).found


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_marked_picture_tells_its_job_in_every_format(image_format: str) -> None:
    picture = mark(encoded(drawing(1), image_format), PROVENANCE)
    report = verify(picture)
    assert (report.origin, report.watermarked) == ("ours", True)
    assert report.provenance == PROVENANCE
    assert report.source_type == "trainedAlgorithmicMedia"
    assert TRAINED_ALGORITHMIC_MEDIA.encode() in picture
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == image_format
        assert image.size == (256, 256)
        assert "AI-generated" in str(image.getexif()[0x010E])


def test_without_metadata_the_mark_alone_tells() -> None:
    stripped = encoded(jpeg(Image.open(io.BytesIO(mark(encoded(drawing(2)), PROVENANCE))), 80))
    report = verify(stripped)
    assert (report.origin, report.provenance) == ("ours", None)
    assert told(report)[0] == "This picture was generated here."


def test_others_pictures_are_not_ours() -> None:
    report = verify(encoded(drawing(4)))
    assert report.origin == "not ours"
    assert told(report)[0].startswith("Not ours")
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="{TRAINED_ALGORITHMIC_MEDIA}"/></x:xmpmeta>'
    other = verify(encoded(drawing(4), "JPEG", xmp=packet.encode()))
    assert (other.origin, other.source_type) == ("generated", "trainedAlgorithmicMedia")


@pytest.mark.parametrize("record", ["{", '{"job_id": 3}', "[]", '{"job_id": null, "model": "", "x": 1}'])
def test_a_forged_record_harms_nobody(record: str) -> None:
    from xml.sax.saxutils import quoteattr

    picture = encoded(drawing(5), "JPEG", xmp=f"<x palaver:provenance={quoteattr(record)}/>".encode())
    assert verify(picture).provenance is None


@pytest.mark.parametrize(
    "junk",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
)
def test_what_is_no_picture_is_a_clear_error(junk: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="no picture"):
        verify(junk)
    with pytest.raises(InvalidRequestError, match="no picture"):
        mark(junk, PROVENANCE)


def test_the_visible_label_is_seen_and_keeps_the_size() -> None:
    image = Image.new("RGB", (256, 256), "white")
    out = labelled(image)
    assert out.size == image.size
    assert np.asarray(out)[200:, 200:].min() < 140
    assert np.asarray(out)[:128].min() == 255
    assert verify(mark(encoded(image), PROVENANCE, Marking(visible_label="AI"))).watermarked


def test_letters_that_the_font_lacks_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    image = Image.new("RGB", (256, 256), "white")
    for text, same in (("AI生成", "AI"), ("人工智能生成", "AI"), ("KI-erzeugt", "KI-erzeugt")):
        assert labelled(image, text).tobytes() == labelled(image, same).tobytes()
    assert "provenance.label_font" in caplog.text


def test_a_font_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    wanted = {"visible_label": "AI", "label_font": str(tmp_path / "missing.ttf")}
    with pytest.raises(GenerationError, match=r"missing\.ttf"):
        build_marked(lambda *_: Draws(b""), {"provenance": wanted}, lambda *_: None)


def test_a_tenant_has_a_label_of_its_own() -> None:
    def drawn(policy: Policy, marking: Marking) -> np.ndarray:
        engine = MarkingEngine(Draws(encoded(Image.new("RGB", (256, 256), "white"))), marking)
        engine.submit(ImageRequest("r", "a fox", origin=Origin("j", "t", "u", policy.at())))
        (picture,) = (event for event in engine.step() if isinstance(event, Picture))
        return np.asarray(Image.open(io.BytesIO(picture.data)))

    bare = Marking(watermark=False)
    operators = Marking(watermark=False, visible_label="AI")
    own = Policy(picture_label="Made by AI")
    assert drawn(Policy(), bare).min() == 255
    assert drawn(own, bare).min() < 140
    assert (drawn(Policy(), operators) == drawn(Policy(picture_label="AI"), bare)).all()
    assert (drawn(own, operators) == drawn(own, bare)).all()
    assert read_policy('picture_label = "AI生成"').at().picture_label == "AI生成"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A local authority and a certificate that it issued."""
    folder = tmp_path_factory.mktemp("certificate")
    now = dt.datetime.now(dt.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Co")]
        )
        for name in ("Test CA", "Test signer")
    ]
    made = []
    for place, authority in ((0, True), (1, False)):
        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[place])
            .issuer_name(names[0])
            .public_key(keys[place].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[place].public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
        )
        if not authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "chain.pem").write_bytes(made[1] + made[0])
    private = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return Certificate(folder / "chain.pem", folder / "key.pem")


def test_content_credentials_are_signed_and_a_change_is_noticed(certificate: Certificate) -> None:
    pytest.importorskip("c2pa")
    picture = mark(encoded(drawing(6)), PROVENANCE, Marking(signer=Signer(certificate)))
    report = verify(picture)
    assert (report.origin, report.provenance) == ("ours", PROVENANCE)
    assert report.credentials == "signed by Test Co; the file is as it was signed"
    at = picture.rindex(b"IDAT") + 200
    changed = picture[:at] + bytes([picture[at] ^ 1]) + picture[at + 1 :]
    from generation.provenance.credentials import read_credentials

    assert read_credentials(changed, "image/png") == "signed by Test Co; the file was changed afterwards"


def test_a_certificate_that_does_not_fit_is_a_clear_error(certificate: Certificate, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(GenerationError, match=r"cannot be used .*key\.pem"):
        Signer(Certificate(certificate.chain_file, tmp_path / "key.pem"))


class Draws:
    """An engine that finishes one picture."""

    info = EngineInfo("icons", "test", "cpu", "float32", 4, 0)
    busy = True

    def __init__(self, data: bytes) -> None:
        self.events: list[EngineEvent] = [
            Picture("r", 0, data, "image/png", 256, 256, 1),
            Finished("r", "stop", Usage()),
        ]

    def submit(self, request: ImageRequest) -> None: ...

    def cancel(self, request_id: str) -> None: ...

    def step(self) -> list[EngineEvent]:
        events, self.events = self.events, []
        return events

    def close(self) -> None: ...


def test_every_picture_of_an_engine_is_marked_with_its_job() -> None:
    engine = MarkingEngine(Draws(encoded(drawing(7))), Marking())
    engine.submit(ImageRequest("r", "a red car", origin=Origin("guild__9", "guild", "u")))
    picture, end = engine.step()
    assert isinstance(picture, Picture)
    assert isinstance(end, Finished)
    report = verify(picture.data)
    assert report.watermarked
    assert report.provenance is not None
    assert (report.provenance.job_id, report.provenance.prompt_sha256) == ("guild__9", hash_prompt("a red car"))


def test_a_picture_that_cannot_be_marked_does_not_leave() -> None:
    engine = MarkingEngine(Draws(b"broken"), Marking())
    engine.submit(ImageRequest("r", "a red car"))
    (end,) = engine.step()
    assert isinstance(end, Failed)


def test_the_command_tells_ours_from_others(tmp_path: Path) -> None:
    (tmp_path / "ours.png").write_bytes(mark(encoded(drawing(8)), PROVENANCE))
    (tmp_path / "other.png").write_bytes(encoded(drawing(9)))
    done = subprocess.run(
        [sys.executable, "-m", "bots.cli", "verify", str(tmp_path / "ours.png"), str(tmp_path / "other.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ours.png: This picture was generated here." in done.stdout
    assert "Job: guild__1. Model: icons-5m." in done.stdout
    assert "other.png: Not ours" in done.stdout

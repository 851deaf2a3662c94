"""Content credentials (C2PA): signed statements in a picture's file, where the operator has a certificate."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

from generation.errors import GenerationError
from generation.provenance.types import TRAINED_ALGORITHMIC_MEDIA, Provenance


@dataclass(frozen=True, slots=True)
class Certificate:
    """What signs.

    Args:
        chain_file: PEM: the signing certificate first, then who issued it.
        key_file: PEM: its private key.
        algorithm: ``es256``, ``es384``, ``ps256`` or ``ed25519``, as the key is.
    """

    chain_file: Path
    key_file: Path
    algorithm: str = "es256"


class Signer:
    """Signs pictures.

    Args:
        certificate: What with.

    Raises:
        GenerationError: The files or the library are missing, or they do not fit together.
    """

    def __init__(self, certificate: Certificate) -> None:
        try:
            import c2pa  # sixteen megabytes of native code that only operators with a certificate need
        except ImportError:
            raise GenerationError("Content credentials need c2pa-python: pip install 'palaver[c2pa]'.") from None
        self._c2pa = c2pa
        try:
            info = c2pa.C2paSignerInfo(
                certificate.algorithm.encode(),
                certificate.chain_file.read_bytes(),
                certificate.key_file.read_bytes(),
                None,
            )
            self._signer = c2pa.Signer.from_info(info)
        except (OSError, c2pa.C2paError, ValueError, TypeError) as error:
            raise GenerationError(
                f"The certificate for content credentials cannot be used ({type(error).__name__}). Check "
                f"{certificate.chain_file} and {certificate.key_file}."
            ) from error

    def sign(self, picture: bytes, media_type: str, provenance: Provenance) -> bytes:
        """A picture with signed credentials.

        Args:
            picture: Encoded, complete in every other way: what changes it later breaks the signature.
            media_type: Of the file.
            provenance: What is stated.

        Raises:
            GenerationError: It cannot be signed.
        """
        manifest = {
            "claim_generator_info": [{"name": provenance.producer}],
            "title": provenance.job_id,
            "assertions": [
                {
                    "label": "c2pa.actions.v2",
                    "data": {
                        "actions": [
                            {
                                "action": "c2pa.created",
                                "digitalSourceType": TRAINED_ALGORITHMIC_MEDIA,
                                "softwareAgent": {"name": provenance.model},
                            }
                        ]
                    },
                }
            ],
        }
        out = io.BytesIO()
        try:
            with self._c2pa.Builder(json.dumps(manifest)) as builder:
                builder.sign(self._signer, media_type, io.BytesIO(picture), out)
        except self._c2pa.C2paError as error:
            raise GenerationError(f"A picture cannot be signed ({type(error).__name__}).") from error
        return out.getvalue()


def read_credentials(picture: bytes, media_type: str) -> str | None:
    """What a picture's credentials say, in a sentence; None if it has none or the library is not installed.

    Args:
        picture: Encoded.
        media_type: Of the file.
    """
    try:
        import c2pa
    except ImportError:
        return None
    try:
        with c2pa.Reader(media_type, io.BytesIO(picture)) as reader:
            told = json.loads(reader.json())
    except (c2pa.C2paError, ValueError):
        return None
    manifest = told.get("manifests", {}).get(told.get("active_manifest"), {})
    who = manifest.get("signature_info", {}).get("issuer") or "somebody unknown"
    problems = [
        status.get("code", "")
        for status in told.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
        if status.get("code") != "signingCredential.untrusted"
    ]
    state = "the file was changed afterwards" if problems else "the file is as it was signed"
    return f"signed by {who}; {state}"

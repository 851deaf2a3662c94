"""Where a picture's bytes lie when Redis does not keep them: files in the data directory, or objects in a bucket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4
from zlib import crc32

from workers.errors import ArtifactNotFoundError, ArtifactStoreError, SettingsError
from workers.settings import ArtifactSettings

if TYPE_CHECKING:
    from obstore.store import S3Store

_GONE = "The picture's bytes are gone from the store."
#: A file that is still being written after so long never will be.
_UNFINISHED_S = 3_600
_CONNECT_TIMEOUT_S = 5
_TIMEOUT_S = 30
_RETRIES = 2


class BlobStore(Protocol):
    """Bytes by id. Every method raises ``ArtifactStoreError`` when the store fails."""

    def put(self, blob_id: str, data: bytes, media_type: str) -> None:
        """Store bytes, whole or not at all; the same id again changes nothing but the time it is kept."""
        ...

    def get(self, blob_id: str) -> bytes:
        """Read them, or raise ``ArtifactNotFoundError``."""
        ...

    def delete(self, blob_id: str) -> None:
        """Delete them; unknown ids are ignored."""
        ...

    def sweep(self, ttl_s: float) -> int:
        """Delete what was stored longer ago than this; returns how many."""
        ...


def open_blobs(settings: ArtifactSettings, data_dir: Path) -> BlobStore | None:
    """The configured store, None if Redis keeps the bytes.

    Raises:
        SettingsError: It cannot be used.
    """
    match settings.store:
        case "disk":
            return DiskBlobs(data_dir / "artifacts")
        case "s3":
            return S3Blobs(settings)
        case _:
            return None


class DiskBlobs:
    """Files below one directory, for its owner's eyes only.

    Args:
        directory: Made at the first use.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, blob_id: str, data: bytes, media_type: str) -> None:  # noqa: ARG002 - the owner's record has the type
        """Write to a new file and give it its name when it is complete."""
        path = self._path(blob_id)
        with _disk_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished = path.with_name(f".{uuid4().hex}")
            try:
                with open(unfinished, "xb", opener=_private) as file:
                    file.write(data)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)

    def get(self, blob_id: str) -> bytes:
        """Read the file."""
        with _disk_errors():
            return self._path(blob_id).read_bytes()

    def delete(self, blob_id: str) -> None:
        """Remove the file."""
        with _disk_errors():
            self._path(blob_id).unlink(missing_ok=True)

    def sweep(self, ttl_s: float) -> int:
        """Remove old files, and what a killed process left unfinished."""
        now_s, removed = time.time(), 0
        for path in self._directory.glob("??/*"):
            limit_s = min(ttl_s, _UNFINISHED_S) if path.name.startswith(".") else ttl_s
            with suppress(FileNotFoundError), _disk_errors():
                if now_s - path.stat().st_mtime > limit_s:
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, blob_id: str) -> Path:
        return self._directory / f"{crc32(blob_id.encode()) & 0xFF:02x}" / blob_id  # no directory holds them all


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ArtifactNotFoundError(_GONE) from None
    except OSError as error:
        raise ArtifactStoreError(f"The data directory cannot keep the picture: {error.strerror}.") from None


class S3Blobs:
    """Objects of one bucket of an S3-compatible store.

    Args:
        settings: Which, and with which keys.

    Raises:
        SettingsError: The library is missing or a setting is wrong.
    """

    def __init__(self, settings: ArtifactSettings) -> None:
        try:
            from obstore.exceptions import BaseError  # an optional part, and not small
            from obstore.store import S3Store
        except ModuleNotFoundError:
            raise SettingsError("artifacts.store = s3 needs another part: pip install 'palaver[s3]'.") from None
        secret = settings.s3_secret_access_key
        keys = {"access_key_id": settings.s3_access_key_id, "endpoint": settings.s3_endpoint}
        keys["secret_access_key"] = secret.get_secret_value() if secret else None
        try:
            self._store: S3Store = S3Store(
                settings.s3_bucket,
                prefix=settings.s3_prefix or None,
                region=settings.s3_region,
                client_options={
                    "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
                    "timeout": timedelta(seconds=_TIMEOUT_S),
                    "allow_http": (settings.s3_endpoint or "").startswith("http://"),
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_TIMEOUT_S)},
                **{name: value for name, value in keys.items() if value},  # type: ignore[arg-type]  # a TypedDict
            )
        except (BaseError, ValueError) as error:
            raise SettingsError(f"artifacts.s3_*: {type(error).__name__}; look at bucket, endpoint and keys.") from None

    def put(self, blob_id: str, data: bytes, media_type: str) -> None:
        """Write the object."""
        with _s3_errors():
            self._store.put(blob_id, data, attributes={"Content-Type": media_type})

    def get(self, blob_id: str) -> bytes:
        """Read the object."""
        with _s3_errors():
            return bytes(self._store.get(blob_id).bytes())

    def delete(self, blob_id: str) -> None:
        """Remove the object."""
        with suppress(ArtifactNotFoundError), _s3_errors():
            self._store.delete(blob_id)

    def sweep(self, ttl_s: float) -> int:
        """Remove old objects; a lifecycle rule of the bucket may do the same."""
        oldest, removed = datetime.now(UTC) - timedelta(seconds=ttl_s), 0
        with _s3_errors():
            for batch in self._store.list():
                old = [each["path"] for each in batch if each["last_modified"] < oldest]
                if old:
                    self._store.delete(old)
                    removed += len(old)
        return removed


@contextmanager
def _s3_errors() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise ArtifactNotFoundError(_GONE) from None
    except (BaseError, OSError) as error:
        # Its text names hosts, buckets and request ids: the class is enough for people, and it is logged here only.
        raise ArtifactStoreError(f"The bucket cannot be used ({type(error).__name__}).") from None

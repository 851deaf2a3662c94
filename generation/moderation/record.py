"""What was decided, for those who must account for it: never the texts, unless a tenant wants them kept.

One SQL database, SQLite in the data directory or any other by URL. Users are stored as a keyed hash; kept texts are
encrypted with a key that is not in the database, and expire. Decisions are written by a thread of their own: a slow
disk holds up no step.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Engine,
    create_engine,
    delete,
    event,
    func,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from generation.errors import GenerationError
from generation.moderation.appeals import Appeals
from generation.moderation.record_tables import APPEALS, DECISIONS, META, ROUTES, TEXTS
from generation.moderation.types import Action, Decision

if TYPE_CHECKING:
    from generation.moderation.config import ModerationConfig
    from generation.moderation.decided import Decided

_LOG = logging.getLogger("palaver.moderation")

KEY_FILE = "moderation.key"
_DAY_S = 86_400.0
_FLUSH_S = 0.5
_MOST_WAITING = 10_000
_PURGE_EVERY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class CategoryCount:
    """How often one action was taken for one category.

    Args:
        category: What for; empty where nothing was found.
        action: What was done.
        shadow: Whether it was only recorded.
        count: How often.
    """

    category: str
    action: str
    shadow: bool
    count: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was decided since some time.

    Args:
        decisions: How many.
        jobs: About how many jobs.
        stopped_jobs: Of those, how many were refused.
        counts: By category and action, the most frequent first.
        appeals: By status.
    """

    decisions: int
    jobs: int
    stopped_jobs: int
    counts: tuple[CategoryCount, ...]
    appeals: dict[str, int]

    @property
    def stopped_share(self) -> float:
        """Share of the jobs that was refused, 0 to 1."""
        return self.stopped_jobs / self.jobs if self.jobs else 0.0


class Record(Appeals):
    """The database of decisions and appeals.

    Args:
        url: SQLAlchemy URL.
        secret: Key for hashes and kept texts.

    Raises:
        GenerationError: The database cannot be opened.
    """

    def __init__(self, url: str, secret: bytes) -> None:
        try:
            engine = _connect(url)
            META.create_all(engine)
        except (SQLAlchemyError, ImportError) as error:
            raise GenerationError(f"The moderation record cannot be opened ({type(error).__name__}).") from error
        super().__init__(engine, secret)
        self._waiting: queue.Queue[tuple[float, Decided] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._purged_at = 0.0

    # Decisions

    def decided(self, decided: Sequence[Decided]) -> None:
        """Write decisions soon; never blocks. What does not fit is counted as lost in the log."""
        self._start()
        for each in decided:
            try:
                self._waiting.put_nowait((time.time(), each))
            except queue.Full:
                _LOG.error("The moderation record cannot keep up; a decision on job %s is lost.", each.origin.job_id)

    def flush(self) -> None:
        """Wait until everything told so far is written."""
        self._waiting.join()

    def close(self) -> None:
        """Write what waits and let go of the database."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(10)
            self._thread = None
        self._engine.dispose()

    def report(self, tenant: str | None = None, since_s: float = 0.0) -> Report:
        """Counts and rates.

        Args:
            tenant: One tenant, or None for all.
            since_s: Unix time of the oldest decision.
        """
        where = [DECISIONS.c.at_s >= since_s]
        appealed = [APPEALS.c.at_s >= since_s]
        if tenant is not None:
            where.append(DECISIONS.c.tenant == tenant)
            appealed.append(APPEALS.c.tenant == tenant)
        stops = (Action.REFUSE.value, Action.ESCALATE.value)
        jobs = select(func.count(DECISIONS.c.job_id.distinct())).where(*where)
        stopped = jobs.where(DECISIONS.c.action.in_(stops), DECISIONS.c.shadow.is_(False))
        grouped = (
            select(DECISIONS.c.category, DECISIONS.c.action, DECISIONS.c.shadow, func.count().label("n"))
            .where(*where)
            .group_by(DECISIONS.c.category, DECISIONS.c.action, DECISIONS.c.shadow)
            .order_by(func.count().desc())
        )
        by_status = select(APPEALS.c.status, func.count()).where(*appealed).group_by(APPEALS.c.status)
        with self._engine.connect() as connection:
            counts = tuple(CategoryCount(*row) for row in connection.execute(grouped))
            return Report(
                decisions=sum(count.count for count in counts),
                jobs=connection.execute(jobs).scalar_one(),
                stopped_jobs=connection.execute(stopped).scalar_one(),
                counts=counts,
                appeals={str(row[0]): int(row[1]) for row in connection.execute(by_status)},
            )

    # Privacy

    def forget_user(self, tenant: str | None, user: str) -> int:
        """Delete a user's kept texts and appeals, and take the user out of the decisions.

        Args:
            tenant: Where; None for everywhere.
            user: Who.

        Returns:
            Decisions that no longer name anybody.
        """
        self.flush()
        if tenant is None:
            with self._engine.connect() as connection:
                tenants = connection.execute(select(DECISIONS.c.tenant).distinct()).scalars().all()
            return sum(self.forget_user(each, user) for each in tenants)
        user_hash = self.user_hash(tenant, user)
        own = select(DECISIONS.c.id).where(DECISIONS.c.tenant == tenant, DECISIONS.c.user_hash == user_hash)
        with self._engine.begin() as connection:
            connection.execute(delete(TEXTS).where(TEXTS.c.decision_id.in_(own)))
            mine = (APPEALS.c.tenant == tenant, APPEALS.c.user_hash == user_hash)
            connection.execute(delete(ROUTES).where(ROUTES.c.appeal_id.in_(select(APPEALS.c.id).where(*mine))))
            connection.execute(delete(APPEALS).where(*mine))
            done = connection.execute(
                update(DECISIONS)
                .where(DECISIONS.c.tenant == tenant, DECISIONS.c.user_hash == user_hash)
                .values(user_hash="", job_id="")
            )
        return done.rowcount

    def purge(self, now_s: float | None = None) -> int:
        """Delete what has outlived its tenant's retention; returns how many decisions that were."""
        now_s = time.time() if now_s is None else now_s
        old = select(DECISIONS.c.id).where(DECISIONS.c.expires_at_s < now_s)
        with self._engine.begin() as connection:
            connection.execute(delete(TEXTS).where(TEXTS.c.decision_id.in_(old)))
            return connection.execute(delete(DECISIONS).where(DECISIONS.c.expires_at_s < now_s)).rowcount

    # The writing thread

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="moderation-record", daemon=True)
                self._thread.start()

    def _write(self) -> None:
        while True:
            batch = [self._waiting.get()]
            deadline = time.monotonic() + _FLUSH_S
            with suppress(queue.Empty):
                while batch[-1] is not None and len(batch) < 500 and time.monotonic() < deadline:
                    batch.append(self._waiting.get(timeout=0.02))
            try:
                self._insert([each for each in batch if each is not None])
                if time.monotonic() - self._purged_at > _PURGE_EVERY_S:
                    self._purged_at = time.monotonic()
                    self.purge()
            except SQLAlchemyError as error:
                _LOG.error("%d moderation decisions could not be written (%s).", len(batch), type(error).__name__)
            finally:
                for _ in batch:
                    self._waiting.task_done()
            if batch[-1] is None:
                return

    def _insert(self, batch: Sequence[tuple[float, Decided]]) -> None:
        if not batch:
            return
        with self._engine.begin() as connection:
            for at_s, decided in batch:
                row = self._row(at_s, decided)
                inserted = connection.execute(DECISIONS.insert().values(**row))
                stopped = decided.decision.action is not Action.ALLOW
                if decided.policy.keep_texts and stopped and decided.text and inserted.inserted_primary_key:
                    sealed = self._fernet().encrypt(decided.text.encode())
                    values = {"decision_id": inserted.inserted_primary_key[0], "sealed": sealed}
                    connection.execute(TEXTS.insert().values(**values))

    def _row(self, at_s: float, decided: Decided) -> dict[str, Any]:
        origin = decided.origin
        return {
            "at_s": at_s,
            "expires_at_s": at_s + decided.policy.retention_days * _DAY_S,
            "job_id": origin.job_id,
            "tenant": origin.tenant,
            "user_hash": self.user_hash(origin.tenant, origin.user),
            **_columns(decided.decision),
        }


class NoRecord:
    """Keeps nothing."""

    def decided(self, decided: Sequence[Decided]) -> None:
        """Forget decisions."""

    def forget_user(self, tenant: str | None, user: str) -> int:
        """Nobody is remembered."""
        del tenant, user
        return 0

    def close(self) -> None:
        """Nothing is held."""


def open_record(config: ModerationConfig) -> Record | NoRecord:
    """The record that a configuration asks for.

    Raises:
        GenerationError: It cannot be opened.
    """
    if config.record_url == "none":
        return NoRecord()
    url = config.record_url or f"sqlite:///{config.data_dir / 'moderation.sqlite3'}"
    secret = config.secret.encode() if config.secret else local_secret(config.data_dir)
    return Record(url, secret)


def local_secret(data_dir: Path) -> bytes:
    """The key of this installation, made at first use and readable by its owner only."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / KEY_FILE
    with suppress(FileExistsError):
        draft = data_dir / f".{KEY_FILE}.{os.getpid()}.{threading.get_ident()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # whole or not at all, and never over another process's
        finally:
            draft.unlink()
    return path.read_bytes()


def _columns(decision: Decision) -> dict[str, Any]:
    verdict = decision.decisive
    if verdict is None:
        empty = {"category": "", "score": 0.0, "threshold": 0.0, "action": Action.ALLOW.value, "shadow": False}
        return {"stage": decision.stage, **empty, "decided_by": "", "version": ""}
    return {
        "stage": decision.stage,
        "category": verdict.category.value if verdict.action is not Action.ALLOW else "",
        "score": round(verdict.score, 4),
        "threshold": verdict.threshold,
        "action": verdict.action.value,
        "shadow": verdict.shadow,
        "decided_by": verdict.decided_by,
        "version": verdict.version,
    }


def _connect(url: str) -> Engine:
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "secure_delete=ON"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    return engine

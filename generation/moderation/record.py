"""What was decided, for those who must account for it: never the texts, unless a tenant wants them kept.

One SQL database, SQLite in the data directory or any other by URL. Users are stored as a keyed hash; kept texts are
encrypted with a key that is not in the database, and expire. Decisions are written by a thread of their own: a slow
disk holds up no step.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
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
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from generation.errors import GenerationError, InvalidRequestError
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
AppealStatus = Literal["open", "approved", "denied"]

_META = MetaData()
DECISIONS = Table(
    "moderation_decisions",
    _META,
    Column("id", Integer, primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("expires_at_s", Float, nullable=False),
    Column("job_id", String(200), nullable=False),
    Column("tenant", String(80), nullable=False),
    Column("user_hash", String(64), nullable=False),
    Column("stage", String(20), nullable=False),
    Column("category", String(40), nullable=False),
    Column("score", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("action", String(20), nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("decided_by", String(120), nullable=False),
    Column("version", String(80), nullable=False),
    Index("moderation_decisions_job", "job_id"),
    Index("moderation_decisions_time", "tenant", "at_s"),
)
TEXTS = Table(
    "moderation_texts",
    _META,
    Column("decision_id", ForeignKey("moderation_decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
APPEALS = Table(
    "moderation_appeals",
    _META,
    Column("id", Integer, primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("job_id", String(200), nullable=False, unique=True),
    Column("tenant", String(80), nullable=False),
    Column("user_hash", String(64), nullable=False),
    Column("status", String(20), nullable=False),
    Column("decided_at_s", Float),
    Column("moderator_hash", String(64)),
)


@dataclass(frozen=True, slots=True)
class Appeal:
    """Somebody's objection to a refusal.

    Args:
        appeal_id: Its number.
        at_s: Unix time.
        job_id: What was refused.
        tenant: Where.
        category: What for.
        status: ``open``, ``approved`` or ``denied``.
        text: What it was about, where the tenant has texts kept; else None.
    """

    appeal_id: int
    at_s: float
    job_id: str
    tenant: str
    category: str
    status: AppealStatus
    text: str | None = None


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


class Record:
    """The database of decisions and appeals.

    Args:
        url: SQLAlchemy URL.
        secret: Key for hashes and kept texts.

    Raises:
        GenerationError: The database cannot be opened.
    """

    def __init__(self, url: str, secret: bytes) -> None:
        self._secret = secret
        try:
            self._engine = _connect(url)
            _META.create_all(self._engine)
        except (SQLAlchemyError, ImportError) as error:
            raise GenerationError(f"The moderation record cannot be opened ({type(error).__name__}).") from error
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

    def user_hash(self, tenant: str, user: str) -> str:
        """What stands for a user: the same in one tenant, unrelated in another, worthless without the key."""
        return hmac.new(self._secret, f"{tenant}\0{user}".encode(), hashlib.sha256).hexdigest()[:32]

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

    # Appeals

    def appeal(self, job_id: str, tenant: str, user: str) -> Appeal:
        """Record that a user objects to a refusal; again for the same job it finds what there is.

        Raises:
            InvalidRequestError: No such refusal of this user's, or one that cannot be appealed.
        """
        user_hash = self.user_hash(tenant, user)
        stops = (Action.REFUSE.value, Action.ESCALATE.value)
        refusals = select(DECISIONS.c.id).where(
            DECISIONS.c.job_id == job_id,
            DECISIONS.c.tenant == tenant,
            DECISIONS.c.user_hash == user_hash,
            DECISIONS.c.action.in_(stops),
            DECISIONS.c.shadow.is_(False),
        )
        with self._engine.begin() as connection:
            if connection.execute(refusals).first() is None:
                raise InvalidRequestError("There is no refused request of yours under that number.")
            known = connection.execute(select(APPEALS.c.id).where(APPEALS.c.job_id == job_id)).scalar()
            if known is None:
                row = {"at_s": time.time(), "job_id": job_id, "tenant": tenant, "user_hash": user_hash}
                inserted = connection.execute(APPEALS.insert().values(**row, status="open"))
                known = inserted.inserted_primary_key[0] if inserted.inserted_primary_key else 0
        return next(appeal for appeal in self.appeals(tenant) if appeal.appeal_id == known)

    def appeals(self, tenant: str | None = None, status: AppealStatus | None = None) -> list[Appeal]:
        """Appeals, the oldest first.

        Args:
            tenant: One tenant, or None for all.
            status: Only those.
        """
        wanted = select(APPEALS).order_by(APPEALS.c.at_s)
        if tenant is not None:
            wanted = wanted.where(APPEALS.c.tenant == tenant)
        if status is not None:
            wanted = wanted.where(APPEALS.c.status == status)
        with self._engine.connect() as connection:
            rows = connection.execute(wanted).mappings().all()
            return [self._appeal(connection, row) for row in rows]

    def resolve(self, appeal_id: int, tenant: str | None, moderator: str, *, approve: bool) -> Appeal:
        """Record a moderator's answer to an appeal.

        Args:
            appeal_id: Its number.
            tenant: The moderator's tenant; None for the operator.
            moderator: Who answers.
            approve: Whether the refusal was a mistake.

        Raises:
            InvalidRequestError: No such appeal there, or it has been answered.
        """
        where = [APPEALS.c.id == appeal_id, APPEALS.c.status == "open"]
        if tenant is not None:
            where.append(APPEALS.c.tenant == tenant)
        values = {
            "status": "approved" if approve else "denied",
            "decided_at_s": time.time(),
            "moderator_hash": self.user_hash(tenant or "", moderator),
        }
        with self._engine.begin() as connection:
            if connection.execute(update(APPEALS).where(*where).values(**values)).rowcount != 1:
                raise InvalidRequestError(f"There is no open appeal {appeal_id} here.")
        return next(appeal for appeal in self.appeals(tenant) if appeal.appeal_id == appeal_id)

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
            connection.execute(delete(APPEALS).where(APPEALS.c.tenant == tenant, APPEALS.c.user_hash == user_hash))
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

    def _appeal(self, connection: Any, row: Any) -> Appeal:
        worst = (
            select(DECISIONS.c.id, DECISIONS.c.category)
            .where(DECISIONS.c.job_id == row["job_id"], DECISIONS.c.action.in_(("refuse", "escalate")))
            .order_by(DECISIONS.c.id)
        )
        decision = connection.execute(worst).first()
        sealed = None
        if decision is not None:
            sealed = connection.execute(select(TEXTS.c.sealed).where(TEXTS.c.decision_id == decision.id)).scalar()
        text = self._fernet().decrypt(sealed).decode() if sealed else None
        category = decision.category if decision is not None else ""
        return Appeal(row["id"], row["at_s"], row["job_id"], row["tenant"], category, row["status"], text)

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

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a record lives as long as its process
    def _fernet(self) -> Any:
        from cryptography.fernet import Fernet  # only tenants that keep texts need it

        key = hmac.new(self._secret, b"kept texts", hashlib.sha256).digest()
        return Fernet(base64.urlsafe_b64encode(key))


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

"""Appeals: users' objections to refusals, moderators' answers, and who is still to be told the outcome."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Engine, delete, select, update

from generation.errors import InvalidRequestError
from generation.moderation.record_tables import APPEALS, DECISIONS, ROUTES, TEXTS
from generation.moderation.types import Action

AppealStatus = Literal["open", "approved", "denied"]
#: A process that has claimed an outcome and has not told it after so long may have died.
_CLAIM_S = 60.0


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
class Filed:
    """An appeal, and whether it is new."""

    appeal: Appeal
    new: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answered appeal, and how to reach the person who made it."""

    appeal: Appeal
    route: str


class Appeals:
    """Those in one database.

    Args:
        engine: The database, its tables made.
        secret: Key for hashes and for what is kept encrypted.
    """

    def __init__(self, engine: Engine, secret: bytes) -> None:
        self._engine = engine
        self._secret = secret

    def user_hash(self, tenant: str, user: str) -> str:
        """What stands for a user: the same in one tenant, unrelated in another, worthless without the key."""
        return hmac.new(self._secret, f"{tenant}\0{user}".encode(), hashlib.sha256).hexdigest()[:32]

    def appeal(self, job_id: str, tenant: str, user: str, platform: str = "", route: str = "") -> Filed:
        """Record that a user objects to a refusal; again for the same job it finds what there is.

        Args:
            job_id: What was refused.
            tenant: Where.
            user: Whose request it was.
            platform: Which front-end can tell the outcome.
            route: How, in that front-end's own words; kept encrypted until it is told. Nothing for none.

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
            new = known is None
            if new:
                row = {"at_s": time.time(), "job_id": job_id, "tenant": tenant, "user_hash": user_hash}
                inserted = connection.execute(APPEALS.insert().values(**row, status="open"))
                known = inserted.inserted_primary_key[0] if inserted.inserted_primary_key else 0
                if route:
                    sealed = self._fernet().encrypt(route.encode())
                    values = {"appeal_id": known, "platform": platform, "sealed": sealed, "claimed_at_s": 0.0}
                    connection.execute(ROUTES.insert().values(**values))
        return Filed(next(appeal for appeal in self.appeals(tenant) if appeal.appeal_id == known), new)

    def find(self, job_id: str, tenant: str) -> Appeal | None:
        """The appeal against the refusal of a job of a tenant's."""
        wanted = select(APPEALS).where(APPEALS.c.job_id == job_id, APPEALS.c.tenant == tenant)
        with self._engine.connect() as connection:
            row = connection.execute(wanted).mappings().first()
            return self._appeal(connection, row) if row is not None else None

    def outcomes(self, platform: str) -> list[Outcome]:
        """Answered appeals whose outcome is still to be told by a front-end; told again later unless ``told``."""
        now_s = time.time()
        wanted = (
            select(APPEALS, ROUTES.c.sealed)
            .join(ROUTES, ROUTES.c.appeal_id == APPEALS.c.id)
            .where(APPEALS.c.status != "open", ROUTES.c.platform == platform, ROUTES.c.claimed_at_s < now_s - _CLAIM_S)
        )
        found = []
        with self._engine.begin() as connection:
            for row in connection.execute(wanted).mappings().all():
                claim = (ROUTES.c.appeal_id == row["id"], ROUTES.c.claimed_at_s < now_s - _CLAIM_S)
                if connection.execute(update(ROUTES).where(*claim).values(claimed_at_s=now_s)).rowcount == 1:
                    route = self._fernet().decrypt(row["sealed"]).decode()
                    found.append(Outcome(self._appeal(connection, row), route))
        return found

    def told(self, appeal_id: int) -> None:
        """An outcome has been told, or cannot be: forget how."""
        with self._engine.begin() as connection:
            connection.execute(delete(ROUTES).where(ROUTES.c.appeal_id == appeal_id))

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

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a record lives as long as its process
    def _fernet(self) -> Any:
        from cryptography.fernet import Fernet  # only tenants that keep texts need it

        key = hmac.new(self._secret, b"kept texts", hashlib.sha256).digest()
        return Fernet(base64.urlsafe_b64encode(key))

"""Every Redis key and queue name, in one place. rq's own keys (``rq:*``) are rq's affair.

Every key below expires or is bounded; the comment beside each says how.
"""

import hashlib
import re

PREFIX = "palaver:"

#: A front-end's stream of events expires when nobody has used it for this long.
EVENTS_TTL_S = 7 * 86_400
#: Payloads that were refused are kept up to this number.
REJECTED_KEPT = 1_000


def queue(kind: str, model: str | None = None) -> str:
    """The rq queue of a kind of model: ``chat`` is inspected with ``rq info chat``.

    Args:
        kind: Of model.
        model: One that runs beside the kind's usual one, and has a queue of its own; None for the usual one.
    """
    if model is None:
        return kind
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-")[-40:]
    return f"{kind}-{readable}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"


def kind_of(queue_name: str) -> str:
    """The kind of model whose queue it is."""
    return queue_name.partition("-")[0]


def fair(queue_name: str, part: str) -> str:
    """State of fair queuing (``ring``, ``finish``, ``state``, ``lane:<tenant>``...); empty lanes are removed."""
    return f"{PREFIX}fair:{queue_name}:{part}"


def limit(kind: str, scope: str, name: str) -> str:
    """One GCRA state; expires when the limit has fully recovered."""
    return f"{PREFIX}limit:{kind}:{scope}:{name}"


def usage(tenant: str, user: str | None, period: str) -> str:
    """Hash of what a tenant, or a user within it, has used in a day or month; expires: see ``workers.usage``."""
    owner = tenant if user is None else f"{tenant}:{user}"
    return f"{PREFIX}usage:{owner}:{period}"


def admission(job_id: str) -> str:
    """What was charged for a job, so that it can be deduplicated and refunded once; expires after a day."""
    return f"{PREFIX}admission:{job_id}"


def admitted() -> str:
    """Sorted set of jobs admitted lately, by time; maintenance looks for them in the queue and empties it."""
    return f"{PREFIX}admitted"


def text(execution_id: str) -> str:
    """The answer's UTF-8 text so far, of one execution; expires with the job's result."""
    return f"{PREFIX}text:{execution_id}"


def image_progress(execution_id: str) -> str:
    """Hash of an execution's denoising steps and its newest preview, overwritten; expires minutes after the last."""
    return f"{PREFIX}image_progress:{execution_id}"


def artifact(artifact_id: str) -> str:
    """Hash of one stored picture: its owner, and its bytes where Redis keeps them; expires, deletable at once."""
    return f"{PREFIX}artifact:{artifact_id}"


def artifact_index() -> str:
    """Sorted set of the pictures whose bytes Redis keeps, by expiry; bounded by their size in all."""
    return f"{PREFIX}artifacts"


def artifact_bytes() -> str:
    """Size in all of the pictures whose bytes Redis keeps; expires with the last of them."""
    return f"{PREFIX}artifact_bytes"


def live(job_id: str) -> str:
    """Hash of a job's current execution and, once it has ended, its terminal event; expires with the result."""
    return f"{PREFIX}live:{job_id}"


def cancel(job_id: str) -> str:
    """Set while somebody wants this job stopped; workers poll it beside the faster pub/sub. Expires."""
    return f"{PREFIX}cancel:{job_id}"


def events(front_end: str) -> str:
    """Stream of lifecycle events of one front-end; trimmed by length, expires when nobody uses it."""
    return f"{PREFIX}events:{front_end}"


def doorbell(kind: str) -> str:
    """Pub/sub channel that rings when text of any job of this kind grew."""
    return f"{PREFIX}bell:{kind}"


def crashes(job_id: str) -> str:
    """How often this job was in flight when an engine died, and how far it had come; expires after a day."""
    return f"{PREFIX}crashes:{job_id}"


def rejected() -> str:
    """List of job ids whose payload was refused, kept for inspection; bounded by length."""
    return f"{PREFIX}rejected"


def workers() -> str:
    """Hash of running workers and what they run; entries are dropped when their heartbeat is old."""
    return f"{PREFIX}workers"


def speed(kind: str) -> str:
    """Measured throughput of a kind, for the ETA; expires when no worker reports."""
    return f"{PREFIX}speed:{kind}"


def conversation(tenant: str, name: str) -> str:
    """History of one conversation; expires after the configured retention, deletable at once."""
    return f"{PREFIX}conversation:{tenant}:{name}"


def posted(front_end: str, job_id: str) -> str:
    """Which messages of a job a front-end has posted; expires days after the last change."""
    return f"{PREFIX}posted:{front_end}:{job_id}"


def promises(front_end: str) -> str:
    """Sorted set of jobs whose final message is still owed, by the end of their lease; emptied by delivery."""
    return f"{PREFIX}promises:{front_end}"


def promise(front_end: str, job_id: str) -> str:
    """Where that message belongs and which process delivers it; deleted by delivery, expires in days without one."""
    return f"{PREFIX}promise:{front_end}:{job_id}"


def message_job(tenant: str, channel: str, message: str) -> str:
    """The job that a front-end's message belongs to; expires as conversations do."""
    return f"{PREFIX}message_job:{tenant}:{channel}:{message}"


def request_record(job_id: str) -> str:
    """What somebody asked to see, so that buttons work long after the job has expired; expires with its retention."""
    return f"{PREFIX}request:{job_id}"


def recent(platform: str, user: str) -> str:
    """Sorted set of one person's latest jobs by time; bounded by length, expires with its retention."""
    return f"{PREFIX}recent:{platform}:{user}"


#: After so long a front-end registers its commands again in any case.
COMMANDS_TTL_S = 30 * 86_400


def commands(application: str) -> str:
    """Digest of the commands that a platform's application has registered; expires."""
    return f"{PREFIX}commands:{application}"


def conversations_of(author: str) -> str:
    """Set of the conversations in which a person has written; expires after the configured retention."""
    return f"{PREFIX}conversations_of:{author}"


def first_contact(platform: str, user: str) -> str:
    """The job with which a person talked to a front-end for the first time; expires after half a year of silence."""
    return f"{PREFIX}first_contact:{platform}:{user}"


def personal_usage(platform: str, user: str, day: str) -> str:
    """Hash of what a person has used on a day, wherever that was; expires after weeks."""
    return f"{PREFIX}personal_usage:{platform}:{user}:{day}"


def offer(user: str, job_id: str) -> str:
    """The smaller request that a user was offered when this job was refused; expires within the hour."""
    return f"{PREFIX}offer:{user}:{job_id}"


def tenant_config(tenant: str) -> str:
    """What a tenant's administrators have set, as JSON; one key a tenant, kept until it is reset."""
    return f"{PREFIX}config:{tenant}"

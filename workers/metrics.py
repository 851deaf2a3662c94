"""What a process counts, for Prometheus: every metric in one place, by the floor and the part that it belongs to.

Each process has its own counts and answers for itself alone: nothing is summed across processes here. What happens
often is counted where it is settled, many at a time, never per token; gauges are read when somebody asks for them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

#: Tenants beyond so many are counted together: a label must not grow with the number of guilds.
TENANTS_NAMED = 50
OTHER_TENANTS = "other"

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

# Workers

SLOTS = Gauge(
    "palaver_batch_slots", "Jobs that the engine takes at once; 0 while it loads.", ["kind"], registry=REGISTRY
)
IN_FLIGHT = Gauge("palaver_batch_in_flight", "Jobs in the running batch.", ["kind"], registry=REGISTRY)
JOBS = Counter(
    "palaver_jobs",
    "Executions by how they ended: finished, failed, refused, cancelled, retried, given_back or quarantined.",
    ["kind", "end"],
    registry=REGISTRY,
)
QUEUE_WAIT = Histogram(
    "palaver_queue_wait_seconds", "From enqueued to started.", ["kind"], buckets=_SECONDS, registry=REGISTRY
)
FIRST_TOKEN = Histogram(
    "palaver_first_token_seconds",
    "From enqueued to the first token, of finished answers.",
    ["kind"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
JOB_LATENCY = Histogram(
    "palaver_job_seconds", "From accepted to finished.", ["kind"], buckets=_SECONDS, registry=REGISTRY
)
TOKENS = Counter(
    "palaver_tokens", "Tokens of finished answers: prompt, cached or completion.", ["kind", "part"], registry=REGISTRY
)
IMAGE_STEPS = Counter("palaver_image_steps", "Denoising steps of finished pictures.", registry=REGISTRY)
GPU_SECONDS = Counter(
    "palaver_tenant_gpu_seconds",
    "GPU-seconds of finished jobs, of the first tenants by name and of all others together.",
    ["kind", "tenant"],
    registry=REGISTRY,
)
ENGINE_RESTARTS = Counter(
    "palaver_engine_restarts", "Engines that died and were started again.", ["kind"], registry=REGISTRY
)
LEASES_LOST = Counter(
    "palaver_leases_lost", "Jobs that became another worker's while this one had them.", ["kind"], registry=REGISTRY
)
REDIS_OUTAGES = Counter("palaver_redis_outages", "Times that Redis was away.", ["kind"], registry=REGISTRY)
WORKER_RESTARTS = Counter(
    "palaver_worker_restarts", "Worker processes that a supervisor started again.", ["kind"], registry=REGISTRY
)

# Front-ends and workers

VERDICTS = Counter(
    "palaver_moderation_verdicts",
    "What moderation acted upon, by category and action: in front-ends its rules, in workers its models as well.",
    ["category", "action"],
    registry=REGISTRY,
)

# Front-ends

ADMISSIONS = Counter(
    "palaver_admissions",
    "Requests by what admission said: admitted, duplicate, or the limit or budget that refused.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
DELIVERIES = Gauge("palaver_deliveries", "Answers that this process is showing.", registry=REGISTRY)
DELIVERY_LAG = Histogram(
    "palaver_delivery_lag_seconds", "From a job's end to its final message.", buckets=_SECONDS, registry=REGISTRY
)
EDITS = Counter(
    "palaver_edits",
    "Messages and edits: sent, failed, refused by the platform's limits, or dropped: overtaken by newer text.",
    ["result"],
    registry=REGISTRY,
)
PLATFORM_REFUSALS = Counter(
    "palaver_platform_429", "Answers 429 of the chat platform.", ["platform"], registry=REGISTRY
)


class TenantLabels:
    """Names for the tenants that come first, one for all others.

    Args:
        most: How many are named.
    """

    def __init__(self, most: int = TENANTS_NAMED) -> None:
        self._most = most
        self._named: set[str] = set()

    def of(self, tenant: str) -> str:
        """The label of a tenant."""
        if tenant not in self._named:
            if len(self._named) >= self._most:
                return OTHER_TENANTS
            self._named.add(tenant)
        return tenant


TENANTS = TenantLabels()

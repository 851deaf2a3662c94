"""Sections of the settings that the queue's floor reads. The command line builds them and passes them down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from workers.contract import ModelName


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(_Section):
    """Which Redis or Valkey (>= 7) to use; without a URL the embedded server is started or joined.

    Attributes:
        url: ``redis://``, ``rediss://`` (TLS), ``unix://`` or ``sentinel://host1:26379,host2:26379/service/db``.
        password: Overrides one in the URL; also for Sentinel's master.
        sentinel_password: For the sentinels themselves, where they want one.
        ca_file: Certificate authority for TLS; the system's otherwise.
        durability: The embedded server's ``appendfsync``: with ``everysec`` its death may undo up to about 2 s of
            confirmed writes, which clients and workers then repeat; ``always`` loses none, and is slower.
    """

    url: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    sentinel_password: SecretStr | None = None
    ca_file: Path | None = None
    durability: Literal["everysec", "always"] = "everysec"
    connect_timeout_s: float = Field(default=5.0, gt=0)


class Rate(_Section):
    """A limit: ``per_minute`` requests on average, up to ``burst`` at once. A burst of 0 switches it off."""

    per_minute: float = Field(gt=0)
    burst: int = Field(ge=0)


class LimitSettings(_Section):
    """Limits of one kind of request; a job costs 1 of each."""

    tenant: Rate = Rate(per_minute=120, burst=60)
    channel: Rate = Rate(per_minute=60, burst=30)
    user: Rate = Rate(per_minute=20, burst=10)
    tenant_in_flight: int = Field(default=64, ge=1)
    user_in_flight: int = Field(default=8, ge=1)


class BudgetSettings(_Section):
    """Most GPU time that may be used in a day and in a month (UTC), of all kinds together; 0 sets no budget."""

    tenant_day_gpu_s: float = Field(default=0.0, ge=0, le=1e9)
    tenant_month_gpu_s: float = Field(default=0.0, ge=0, le=1e9)
    user_day_gpu_s: float = Field(default=0.0, ge=0, le=1e9)
    user_month_gpu_s: float = Field(default=0.0, ge=0, le=1e9)


class TierSettings(_Section):
    """What members of a tier may use, in place of the general limits of a user; what is left out stays general.

    Attributes:
        per_minute: Requests a minute of each kind, on average.
        burst: How many at once.
        day_gpu_s: Most GPU time in a day; 0 for no budget.
        month_gpu_s: And in a month.
    """

    per_minute: float | None = Field(default=None, gt=0, le=1e6)
    burst: int = Field(default=10, ge=1, le=1_000_000)
    day_gpu_s: float | None = Field(default=None, ge=0, le=1e9)
    month_gpu_s: float | None = Field(default=None, ge=0, le=1e9)


class ChatModelSettings(_Section):
    """Which chat model a worker runs, and how. Passed to ``generation.chat.factory.build`` as plain JSON.

    Attributes:
        backend: ``transformers`` runs the model here; ``openai`` forwards to a server with that API.
        model: Catalogue name, hub id (``org/name`` or ``org/name@revision``) or directory.
        more_models: Models that people may choose instead, each run by worker processes of its own.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` takes bf16 only where the device computes in it.
        quantization: ``auto`` takes what is measured to help on this device without harming answers.
        slots: Most answers in flight; 0 derives it from free memory.
        context_tokens: Longest prompt plus answer; 0 takes the model's own, within memory.
        memory_share: Share of the device's free memory this engine may take.
        threads: CPU threads; 0 takes the number of physical cores this process may use.
        adapter_memory_bytes: Most memory of tenants' adapters that are kept loaded; 0 switches adapters off.
        allow_pickle: Whether weights other than safetensors may be loaded.
        text_watermark_key: Sampled answers carry a statistical mark that depends on it; none by default.
    """

    backend: Literal["transformers", "openai"] = "transformers"
    model: str = "smollm2-135m-instruct"
    more_models: tuple[ModelName, ...] = Field(default=(), max_length=16)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["auto", "none"] = "auto"
    slots: int = Field(default=0, ge=0, le=1024)
    context_tokens: int = Field(default=0, ge=0)
    prefill_chunk_tokens: int = Field(default=256, ge=16)
    prefix_cache_tokens: int = Field(default=16_384, ge=0)
    memory_share: float = Field(default=0.8, gt=0, le=1)
    threads: int = Field(default=0, ge=0)
    adapter_memory_bytes: int = Field(default=256 * 2**20, ge=0)
    allow_pickle: bool = False
    text_watermark_key: SecretStr | None = None
    api_base_url: str | None = None
    api_key: SecretStr | None = None
    api_timeout_s: float = Field(default=120.0, gt=0)


class ImageModelSettings(_Section):
    """Which image model a worker runs, and how. Passed to ``generation.image.factory.build`` as plain JSON.

    Attributes:
        model: ``palaver-icons`` (the embedded model), catalogue name, hub id (``org/name`` or ``org/name@revision``) or
            directory in diffusers' layout.
        more_models: Models that people may choose instead, each run by worker processes of its own.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` takes float32 for the embedded model, and for others bf16 only where the device computes in it.
        rows: Most pictures denoised at once; 0 derives it from device and free memory.
        memory_share: Share of the device's free memory this engine may take. A chat engine on the same device takes
            its own share of what is free when it starts.
        threads: CPU threads; 0 takes the number of physical cores this process may use.
        preview_px: Longer side of a preview.
        loras: LoRA files (safetensors), each ``path`` or ``path:scale``.
        allow_pickle: Whether weights other than safetensors may be loaded.
    """

    model: str = Field(default="palaver-icons", min_length=1)
    more_models: tuple[ModelName, ...] = Field(default=(), max_length=16)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    rows: int = Field(default=0, ge=0, le=256)
    memory_share: float = Field(default=0.5, gt=0, le=1)
    threads: int = Field(default=0, ge=0)
    preview_px: int = Field(default=256, ge=32, le=1024)
    loras: tuple[str, ...] = ()
    allow_pickle: bool = False


class KnowledgeSettings(_Section):
    """What questions are answered from. Passed to ``generation.answers.factory.build`` as plain JSON.

    Attributes:
        url: SQLAlchemy's, of the store: SQLite or PostgreSQL with pgvector; a file in the data directory by default.
        model: Embedding model of a new store: ``use-v3``, or one of the hub by name, or a directory.
        reranker: Cross-encoder of the hub by name, or a directory, that judges the best passages once more.
        networks: Private networks whose sites may be read all the same, such as ``10.1.0.0/16``.
    """

    url: str | None = None
    model: str = "use-v3"
    reranker: str = ""
    networks: tuple[str, ...] = ()


class ArtifactSettings(_Section):
    """Where pictures are kept between a worker and the front-ends; the same for all of them.

    Attributes:
        store: ``redis`` keeps them beside the queue, ``disk`` in the data directory, for one machine, ``s3`` in a
            bucket.
        ttl_s: How long a picture can be had.
        max_bytes: Largest picture.
        redis_total_bytes: With ``redis``, size of all pictures; beyond it the oldest go first.
        s3_bucket: With ``s3``, its name; the bucket must exist.
        s3_prefix: What the names of all objects begin with.
        s3_endpoint: URL of a server other than Amazon's.
        s3_region: The bucket's.
        s3_access_key_id: Without one, the machine's own role or environment is used.
    """

    store: Literal["redis", "disk", "s3"] = "redis"
    ttl_s: int = Field(default=86_400, ge=60)
    max_bytes: int = Field(default=32 * 2**20, ge=1024)
    redis_total_bytes: int = Field(default=256 * 2**20, ge=1024)
    s3_bucket: str = ""
    s3_prefix: str = "palaver"
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> ArtifactSettings:
        if self.store == "s3" and not self.s3_bucket:
            raise ValueError("s3 needs s3_bucket")
        return self


class ModerationSettings(_Section):
    """What filters prompts, answers and pictures. Passed to ``generation.moderation.factory`` as plain JSON.

    Attributes:
        strictness: What holds for tenants without a policy of their own.
        text_model: ``jigsaw-bilstm`` (English), ``none``, or a guard model: hub id or directory.
        chat_judge: Whether the chat model judges Chinese texts as well, where ``text_model`` is no guard model.
        injection_model: ``nanoguard`` or ``none``.
        image_model: ``nsfwjs-mobilenet-v2``, ``none``, or a Stable Diffusion safety checker: hub id or directory.
        record_url: SQLAlchemy URL of the record of decisions; SQLite in the data directory by default, ``none`` for
            no record.
        secret: What users' names are hashed with and kept texts encrypted with; by default a key in the data directory.
            Processes on several machines need the same one.
    """

    strictness: Literal["relaxed", "balanced", "strict"] = "balanced"
    text_model: str = "jigsaw-bilstm"
    chat_judge: bool = False
    injection_model: Literal["nanoguard", "none"] = "nanoguard"
    image_model: str = "nsfwjs-mobilenet-v2"
    record_url: SecretStr | None = None
    secret: SecretStr | None = None


class ProvenanceSettings(_Section):
    """How pictures say that a machine drew them. Passed to ``generation.provenance.engine`` as plain JSON.

    Attributes:
        watermark: Whether the invisible mark is put in.
        key: Its key; by default one that is known to everybody, so that everybody can tell.
        visible_label: Text of the visible label, for example ``AI``; empty for none.
        label_font: Font file of that text, for letters other than Latin ones.
        certificate_file: PEM chain that signs C2PA content credentials; none are made without.
        key_file: PEM private key of that certificate.
        algorithm: ``es256``, ``es384``, ``ps256`` or ``ed25519``, as that key is.
        producer: Who the metadata says runs the service.
    """

    watermark: bool = True
    key: SecretStr | None = None
    visible_label: str = Field(default="", max_length=40)
    label_font: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    algorithm: Literal["es256", "es384", "ps256", "ed25519"] = "es256"
    producer: str = Field(default="Palaver", min_length=1, max_length=80)


class MetricsSettings(_Section):
    """Where a process answers ``/metrics``, ``/healthz`` and ``/readyz``.

    Attributes:
        address: Of this machine; ``0.0.0.0`` for all of them, for a private network only.
        port: The first free one from here on; 0 takes any, None answers nowhere.
    """

    address: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=0, le=65_000)


class TracingSettings(_Section):
    """Traces for OpenTelemetry.

    Attributes:
        endpoint: Where a collector takes OTLP over HTTP, for example ``http://127.0.0.1:4318/v1/traces``; None traces
            nothing.
        share: Of jobs that are traced, from 0 to 1.
    """

    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    share: float = Field(default=1.0, ge=0, le=1)


class WorkerSettings(_Section):
    """How a worker takes and keeps jobs.

    Attributes:
        lease_s: A worker that has not renewed a job's lease for this long has lost it.
        drain_s: After SIGTERM, running answers may finish for this long; then they are given back.
        max_attempts: Runs of one job that failed or lost their worker; an engine's death is counted apart.
        quarantine_crashes: A job that has killed the engine this often is not run again.
        result_ttl_s: How long a finished answer can be read again.
        flush_ms: How often growing text is written.
        engine_silence_s: An engine that is busy and answers nothing for this long is killed and started again.
    """

    lease_s: float = Field(default=15.0, ge=1)
    heartbeat_s: float = Field(default=4.0, ge=0.2)
    drain_s: float = Field(default=30.0, ge=0)
    max_attempts: int = Field(default=3, ge=1)
    quarantine_crashes: int = Field(default=2, ge=1)
    result_ttl_s: int = Field(default=86_400, ge=60)
    flush_ms: int = Field(default=100, ge=10)
    engine_silence_s: float = Field(default=120.0, gt=0)

"""Every error that the queue's floor raises, as one tree.

    WorkersError
    +-- ContractError             a payload is malformed or of an unknown version
    |   +-- NewerContractError    of a version that a newer release speaks
    +-- RefusedError              admission says no: which limit, and when to come back
    +-- JobNotFoundError          no such job, or it has expired
    +-- NotAllowedError           somebody else's job or picture
    +-- ArtifactError             a picture cannot be taken as it is
    |   +-- ArtifactNotFoundError it was never stored, was deleted, or has expired
    +-- ArtifactStoreError        the store of pictures failed
    +-- RedisError
    |   +-- RedisUnavailableError cannot be reached, or stopped answering
    |   +-- RedisUnsuitableError  too old, evicting, read-only or without persistence where it is required
    +-- SettingsError             a setting is wrong or unknown
    +-- EngineDiedError           the engine process ended in the middle of jobs
    +-- EngineStartError          the engine process could not load its model

Messages are written for the person who can act on them and never contain prompts, answers or secrets.
"""


class WorkersError(Exception):
    """Root of every error raised by ``workers``.

    Attributes:
        code: Stable machine-readable name, carried in events and shown by scripts.
        exit_code: What the command line exits with (after sysexits.h).
    """

    code = "internal"
    exit_code = 70


class ContractError(WorkersError):
    """A payload is malformed or of an unknown version."""

    code = "bad_contract"
    exit_code = 65


class NewerContractError(ContractError):
    """A payload is of a version that a newer release speaks: nothing is wrong with it, another process can read it."""


class RefusedError(WorkersError):
    """Admission said no.

    Args:
        limit: Which limit, for example ``user`` or ``tenant``.
        retry_after_s: Seconds after which the same request would be admitted; infinite if never.
        message: For the user.
        left_gpu_s: What a budget has left, so that a smaller job can be offered; None where no budget said no.
    """

    code = "rate_limited"
    exit_code = 75

    def __init__(self, limit: str, retry_after_s: float, message: str, left_gpu_s: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.left_gpu_s = left_gpu_s


class JobNotFoundError(WorkersError):
    """No such job, or it has expired."""

    code = "job_not_found"
    exit_code = 66


class NotAllowedError(WorkersError):
    """The job or picture belongs to somebody else."""

    code = "not_allowed"
    exit_code = 77


class ArtifactError(WorkersError):
    """A picture cannot be taken as it is."""

    code = "bad_picture"
    exit_code = 65


class ArtifactNotFoundError(ArtifactError):
    """A picture was never stored, was deleted, or has expired."""

    code = "picture_expired"
    exit_code = 66


class ArtifactStoreError(WorkersError):
    """The store of pictures failed."""

    code = "artifact_store"
    exit_code = 74


class RedisError(WorkersError):
    """Redis cannot be used."""

    code = "redis"
    exit_code = 69


class RedisUnavailableError(RedisError):
    """Redis cannot be reached or stopped answering."""

    code = "redis_unavailable"


class RedisUnsuitableError(RedisError):
    """Redis is too old, evicts keys, is read-only, or does not persist where that is required."""

    code = "redis_unsuitable"


class SettingsError(WorkersError):
    """A setting is wrong or unknown."""

    code = "settings"
    exit_code = 78


class EngineDiedError(WorkersError):
    """The engine process ended in the middle of jobs."""

    code = "engine_died"


class EngineStartError(WorkersError):
    """The engine process could not load its model.

    Args:
        message: The engine's own one-line account.
        code: That of the error it met.
        permanent: Whether starting again cannot help until somebody changes something.
    """

    code = "engine_start"

    def __init__(self, message: str, code: str = "engine_start", permanent: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent

"""Every error that the models' floor raises, as one tree.

    GenerationError
    +-- InvalidRequestError      the request cannot be served as it is; retrying does not help
    |   +-- PromptTooLongError   one message is longer than the model's context
    |   +-- RefusedContentError  moderation does not allow it
    |   |   +-- FinalRefusalError  and there is no appeal
    +-- PolicyError              a moderation policy is wrong
    +-- ModerationUnavailableError   a filter cannot be loaded or has crashed: nothing unmoderated is shown
    +-- ModelError               the model cannot be had or used
    |   +-- ModelNotFoundError   no such model in the catalogue, in the cache, on the hub or on disk
    |   +-- ModelCorruptError    a file is broken or its hash is not the pinned one
    |   +-- DiskFullError        not enough room to download or convert
|   +-- AdapterError         an adapter of a chat model is broken, missing or of another model
|   +-- TuningError          a chat model cannot be tuned with what there is
    +-- KnowledgeError           the store of what is known cannot be used
    |   +-- UnreadableDocumentError   a document cannot be read, and nothing of it was stored
    +-- BackendError             a remote engine failed
    |   +-- BackendUnavailableError   it cannot be reached or answered 5xx
    +-- OutOfMemoryError         one request does not fit, even alone
    +-- DeadlineExceededError    the request was not done in the time it had

Messages are written for the person who can act on them and never contain prompts, answers or secrets.
"""


class GenerationError(Exception):
    """Root of every error raised by ``generation``.

    Attributes:
        code: Stable machine-readable name, carried in events and shown by scripts.
        retryable: Whether the same request may succeed when it is tried again.
        exit_code: What the command line exits with (after sysexits.h).
    """

    code = "generation_error"
    retryable = False
    exit_code = 70


class InvalidRequestError(GenerationError):
    """The request cannot be served as it is."""

    code = "invalid_request"
    exit_code = 65


class PromptTooLongError(InvalidRequestError):
    """One message alone is longer than the model's context allows.

    Args:
        prompt_tokens: Tokens the shortest acceptable prompt would need.
        limit_tokens: Tokens that are available for a prompt.
    """

    code = "prompt_too_long"

    def __init__(self, prompt_tokens: int, limit_tokens: int) -> None:
        super().__init__(
            f"The message is too long: it needs {prompt_tokens} tokens and this model accepts {limit_tokens}. "
            "Shorten it or split it into parts."
        )
        self.prompt_tokens = prompt_tokens
        self.limit_tokens = limit_tokens


class RefusedContentError(InvalidRequestError):
    """Moderation does not allow it; the message names the category and how to appeal."""

    code = "refused"


class FinalRefusalError(RefusedContentError):
    """Moderation does not allow it, and nobody can be asked to look at it again."""

    code = "refused_finally"


class PolicyError(GenerationError):
    """A moderation policy is wrong; the message names the line and the key."""

    code = "policy"
    exit_code = 78


class ModerationUnavailableError(GenerationError):
    """A filter cannot be loaded or has crashed: nothing unmoderated is shown."""

    code = "moderation_unavailable"
    retryable = True
    exit_code = 69


class ModelError(GenerationError):
    """A model cannot be had or used."""

    code = "model_error"
    exit_code = 69


class ModelNotFoundError(ModelError):
    """No such model in the catalogue, in the cache, on the hub or on disk."""

    code = "model_not_found"
    exit_code = 66


class ModelCorruptError(ModelError):
    """A model file is broken or its hash is not the pinned one."""

    code = "model_corrupt"
    exit_code = 65


class DiskFullError(ModelError):
    """There is not enough room to download or convert a model."""

    code = "disk_full"
    exit_code = 74


class AdapterError(ModelError):
    """An adapter of a chat model is broken, missing or of another model."""

    code = "adapter"
    exit_code = 65


class TuningError(ModelError):
    """A chat model cannot be tuned with what there is."""

    code = "tuning"
    exit_code = 65


class KnowledgeError(GenerationError):
    """The store of what is known cannot be used."""

    code = "knowledge"
    exit_code = 74


class UnreadableDocumentError(KnowledgeError):
    """A document is broken, too large, encrypted or of no known format; nothing of it was stored."""

    code = "unreadable_document"
    exit_code = 65


class BackendError(GenerationError):
    """A remote engine failed."""

    code = "backend_error"
    exit_code = 69


class BackendUnavailableError(BackendError):
    """A remote engine cannot be reached, timed out or answered 5xx."""

    code = "backend_unavailable"
    retryable = True


class OutOfMemoryError(GenerationError):
    """One request does not fit into memory, even alone."""

    code = "out_of_memory"


class DeadlineExceededError(GenerationError):
    """The request was not done in the time it had."""

    code = "deadline_exceeded"
    retryable = True

"""What a tenant knows: documents are added, kept in step, removed and searched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from generation.errors import GenerationError, InvalidRequestError, UnreadableDocumentError
from generation.retrieval import ranking, templates
from generation.retrieval.chunking import Chunk, ParsedDocument, Section, chunks_of
from generation.retrieval.embedding import Embedder, load_embedder
from generation.retrieval.formats.confinement import ConfinedParser
from generation.retrieval.formats.reading import require_size
from generation.retrieval.geometry import SAMPLE_VECTORS, Common, common_of
from generation.retrieval.language import language_of
from generation.retrieval.ranking import Features
from generation.retrieval.records import Candidate, Embedded, Model
from generation.retrieval.reranking import Reranker, reranked
from generation.retrieval.store import Store, TenantRows
from generation.retrieval.templates import Template
from generation.retrieval.tenant_search import TenantSearch
from generation.retrieval.tokens import terms_of
from generation.retrieval.types import Document, Filters, Hit, Upload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STORE_FILE = "knowledge.sqlite"
#: How many vectors the quantised first pass hands to the exact second.
FIRST_PASS = 384
#: How many of the chunks with the greatest exact cosines are read and ranked.
SECOND_PASS = 100
#: Most chunks that the rarest terms of a question may bring in.
LEXICAL_CHUNKS = 256
MAX_QUESTION_CHARS = 2000


def default_url(data_dir: Path) -> str:
    """The embedded store of a data directory."""
    return f"sqlite:///{data_dir / STORE_FILE}"


class Knowledge:
    """Everything that is known, by tenant.

    Args:
        url: SQLAlchemy's; see `default_url`.
        embedder: The model for a new store. A store that has vectors is searched with the model that made them, until
            `reembed` has made others.
        load: Finds an embedder by name, for a store that was made with another one.
        reranker: Judges the best passages once more, see `reranking`; none by default.
    """

    def __init__(
        self,
        url: str,
        embedder: Embedder,
        load: Callable[[str], Embedder] = load_embedder,
        reranker: Reranker | None = None,
    ) -> None:
        self.store = Store(url)
        self._embedders = {embedder.name: embedder}
        self._embedder = embedder
        self._load = load
        self._loading: set[str] = set()
        self.parser = ConfinedParser()
        self.reranker = reranker
        self._common: dict[tuple[str, int], tuple[int, Common | None]] = {}

    def tenant(self, tenant_id: str) -> TenantKnowledge:
        """What one tenant knows: nothing of any other tenant can be reached through it.

        Raises:
            InvalidRequestError: The name is empty, too long or has control characters.
        """
        return TenantKnowledge(self, self.store.tenant(tenant_id))

    def embedder(self, model: Model) -> Embedder:
        """The embedder that made a model's vectors."""
        if model.name not in self._embedders:
            self._embedders[model.name] = self._load(model.name)
        return self._embedders[model.name]

    def models(self) -> list[Model]:
        """Models whose vectors are kept up, the active one among them."""
        found = self.store.models()
        if not any(model.active for model in found):
            self.store.ensure_model(self._embedder.name, self._embedder.dimensions)
            found = self.store.models()
        return found

    def active_model(self) -> Model:
        """The model that is searched; one that will be soon is loaded beside, so that no question waits for it."""
        found = self.models()
        for model in found:
            if not model.active and model.name not in self._embedders and model.name not in self._loading:
                self._loading.add(model.name)
                threading.Thread(target=self._prepare, args=(model,), daemon=True).start()
        return next(model for model in found if model.active)

    def _prepare(self, model: Model) -> None:
        with contextlib.suppress(GenerationError):  # if it is searched one day, the question tells
            self.embedder(model)

    def reembed(self, embedder: Embedder, progress: Callable[[int, int], None] = lambda *_: None) -> bool:
        """Have everything embedded and searched with another model, see `reembedding`; whether it was another."""
        from generation.retrieval.reembedding import reembed

        self._embedders[embedder.name] = embedder
        return reembed(self.store, embedder, progress)

    def common(self, tenant: str, search: TenantSearch, model: Model, chunk_count: int) -> Common | None:
        """What a tenant's vectors have in common; found anew when a tenth of the chunks are others."""
        known = self._common.get((tenant, model.row))
        if known is None or abs(known[0] - chunk_count) > 0.1 * known[0]:
            known = (chunk_count, common_of(search.sample(model, SAMPLE_VECTORS)))
            self._common[tenant, model.row] = known
        return known[1]

    def close(self) -> None:
        """Close the store."""
        self.parser.close()
        self.store.close()


@dataclass(frozen=True, slots=True)
class _Scored:
    candidate: Candidate
    features: Features
    score: float


class TenantKnowledge:
    """What one tenant knows.

    Args:
        knowledge: The store and its embedders.
        rows: What the tenant has in it.
    """

    def __init__(self, knowledge: Knowledge, rows: TenantRows) -> None:
        self._knowledge = knowledge
        self._rows = rows

    @property
    def tenant_id(self) -> str:
        """Whose knowledge it is."""
        return self._rows.name

    def add(self, source: str | Path | Upload, tags: tuple[str, ...] = ()) -> Document:
        """Add a document, or replace it where its content is another now: all of it or nothing.

        Args:
            source: A file's path, or a document given as bytes.
            tags: What it is filed under, besides the tags that it has.

        Raises:
            UnreadableDocumentError: It cannot be read; the message says why in one line.
            KnowledgeError: The store cannot be used.
        """
        if isinstance(source, Upload):
            known_as, upload = f"{source.origin}:{source.address or source.name}", source
        else:
            known_as, upload = from_file(Path(source))
        return self.put(known_as, replace(upload, tags=(*upload.tags, *tags)))

    def put(self, source: str, upload: Upload, collection: str | None = None) -> Document:
        """Add or replace the document that is known by a source; see `add`."""
        require_size(len(upload.content))
        digest = hashlib.sha256(upload.content).hexdigest()
        document_id = self._document_id(source)
        known = self._rows.document(document_id)
        if known is not None and known.sha256 == digest and (known.collection, known.tags) == (collection, upload.tags):
            return known
        parsed = self._parsed(upload)
        return self._store_document(source, upload, parsed, digest, collection)

    def list(self, collection: str | None = None) -> list[Document]:
        """The tenant's documents, oldest first."""
        return self._rows.documents(collection)

    def remove(self, document_id: str) -> bool:
        """Remove a document, its passages, vectors and terms; whether it was there."""
        return self._rows.remove(document_id)

    def add_pair(self, question: str, answer: str, approved_by: str, pair_id: str) -> Document:
        """Add an approved question and its answer, or replace that of the same id; used by the next search.

        Raises:
            InvalidRequestError: Question or answer is empty.
        """
        if not question.strip() or not answer.strip():
            raise InvalidRequestError("A question-and-answer pair needs both.")
        parsed = ParsedDocument(question, (Section((question,), (answer,)),))
        upload = Upload(f"{pair_id}.pair", f"{question}\0{answer}\0{approved_by}".encode(), None, question, "pair")
        digest = hashlib.sha256(upload.content).hexdigest()
        return self._store_document(f"pair:{pair_id}", upload, parsed, digest, None, approved_by)

    def remove_pair(self, pair_id: str) -> bool:
        """Remove an approved pair; whether it was there."""
        return self._rows.remove(self._document_id(f"pair:{pair_id}"))

    def search(self, query: str, limit: int = 5, filters: Filters | None = None) -> Sequence[Hit]:
        """The passages that most probably answer a question, best first, one for each section.

        Args:
            query: In any language of the embedder.
            limit: Most hits, 1 to 100.
            filters: What to search in; everything by default.
        """
        query = query.strip()[:MAX_QUESTION_CHARS]
        if not query:
            return []
        model = self._knowledge.active_model()
        vector = self._knowledge.embedder(model).encode([query])[0]
        with self._rows.searching() as search:
            if search is None:
                return []
            scored = self._ranked(search, model, query, vector, filters or Filters())
        hits = [_hit(found) for found in _one_a_section(scored)]
        if self._knowledge.reranker is not None:
            hits = reranked(self._knowledge.reranker, query, hits)
        return hits[: max(1, min(limit, 100))]

    def resemblance(self, question: str, sentences: Sequence[str]) -> Sequence[float]:
        """Cosine of a question and each of some sentences, -1 to 1."""
        embedder = self._knowledge.embedder(self._knowledge.active_model())
        vectors = embedder.encode([question[:MAX_QUESTION_CHARS], *sentences])
        found: list[float] = (vectors[1:] @ vectors[0]).tolist()
        return found

    def document(self, document_id: str) -> Document | None:
        """One document; None if there is none."""
        return self._rows.document(document_id)

    def add_template(self, template: Template, approved_by: str) -> Document:
        """Have an approved answer given word for word from now on, or replace that of the same id."""
        sections = tuple(Section((question,), (template.text,)) for question in template.questions)
        written = templates.to_metadata(template)
        content = json.dumps(written, sort_keys=True).encode()
        upload = Upload(template.template_id, content, None, template.template_id, "pair", written)
        digest = hashlib.sha256(content).hexdigest()
        parsed = ParsedDocument(template.template_id, sections)
        return self._store_document(f"template:{template.template_id}", upload, parsed, digest, None, approved_by)

    def remove_template(self, template_id: str) -> bool:
        """Remove a template; whether it was there."""
        return self._rows.remove(self._document_id(f"template:{template_id}"))

    def templates(self) -> Sequence[Template]:
        """The tenant's templates, oldest first."""
        read = (templates.from_metadata(document.metadata) for document in self._rows.documents())
        return [template for template in read if template is not None]

    def features(self, query: str) -> Sequence[tuple[Hit, Features]]:
        """What a question and each candidate have in common, best first: for calibration."""
        model = self._knowledge.active_model()
        vector = self._knowledge.embedder(model).encode([query])[0]
        with self._rows.searching() as search:
            scored = [] if search is None else self._ranked(search, model, query, vector, Filters())
        return [(_hit(found), found.features) for found in _one_a_section(scored)]

    def thresholds(self) -> tuple[float | None, float | None]:
        """Calibrated scores from which there is an answer, and a suggestion; None where nobody has calibrated."""
        return self._rows.thresholds()

    def set_thresholds(self, answer: float | None, suggest: float | None) -> None:
        """Keep thresholds calibrated on the tenant's own questions; None for the defaults."""
        self._rows.set_thresholds(answer, suggest)

    def _ranked(
        self, search: TenantSearch, model: Model, query: str, vector: NDArray[np.float32], filters: Filters
    ) -> Sequence[_Scored]:
        """Candidates of both rankers, each with the features of both, best first."""
        chunk_count, term_count = search.size()
        frequencies = search.frequencies(list(dict.fromkeys(terms_of(query))))
        weights = ranking.information(frequencies, chunk_count)
        near = search.nearest_chunks(model, vector, FIRST_PASS, filters)
        named = search.chunks_containing(_rarest(frequencies), LEXICAL_CHUNKS)
        common = self._knowledge.common(self._rows.name, search, model, chunk_count)
        cosines, level = _cosines(search, model, vector, sorted({*near, *named}), common)
        nearest = sorted(cosines, key=lambda row: -max(cosines[row].values()))[:SECOND_PASS]
        candidates = search.candidates(sorted({*nearest, *named}), filters)
        calibration = ranking.PLAIN if common is None else ranking.WITHOUT_COMMON
        scored = []
        for candidate in candidates:
            found = ranking.features(
                cosines.get(candidate.row, {}), weights, candidate.terms, term_count / max(chunk_count, 1), level
            )
            scored.append(_Scored(candidate, found, ranking.relevance(found, calibration)))
        return sorted(scored, key=lambda found: (-found.score, found.candidate.row))

    def _store_document(  # what a document is made of, and who vouches for it
        self,
        source: str,
        upload: Upload,
        parsed: ParsedDocument,
        digest: str,
        collection: str | None,
        approved_by: str | None = None,
    ) -> Document:
        document_id = self._document_id(source)
        title = upload.title or parsed.title or upload.name
        pieces = chunks_of(document_id, parsed, title)
        document = Document(
            document_id=document_id,
            source=source,
            origin=upload.origin,
            title=title,
            address=upload.address,
            language=parsed.language or language_of(" ".join(piece.text for piece in pieces[:5])),
            sha256=digest,
            chunks=len(pieces),
            added_s=time.time(),
            collection=collection,
            metadata=upload.metadata,
            approved_by=approved_by,
            tags=upload.tags,
            etag=upload.etag,
            modified=upload.modified,
        )
        self._rows.put(document, pieces, self._embedded(pieces))
        return document

    def _embedded(self, pieces: Sequence[Chunk]) -> Sequence[Embedded]:
        texts = [text for piece in pieces for _, text in piece.embedded]
        return [Embedded(model, self._knowledge.embedder(model).encode(texts)) for model in self._knowledge.models()]

    def _parsed(self, upload: Upload) -> ParsedDocument:
        try:
            return self._knowledge.parser.parse(upload.name, upload.content)
        except UnreadableDocumentError as error:
            raise UnreadableDocumentError(f"{upload.name}: {error}.") from error

    def _document_id(self, source: str) -> str:
        return hashlib.sha256(f"{self.tenant_id}\0{source}".encode()).hexdigest()[:16]


def from_file(path: Path) -> tuple[str, Upload]:
    """A file's source and its document.

    Raises:
        UnreadableDocumentError: It is not there, or is too large.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise UnreadableDocumentError(f"{path.name}: there is no such file.")
    try:
        require_size(path.stat().st_size)
    except UnreadableDocumentError as error:
        raise UnreadableDocumentError(f"{path.name}: {error}.") from None
    return str(path), Upload(path.name, path.read_bytes(), path.as_uri(), origin="file")


def _cosines(
    search: TenantSearch, model: Model, vector: NDArray[np.float32], rows: Sequence[int], common: Common | None
) -> tuple[dict[int, dict[str, float]], float]:
    """Exact cosines: for each chunk row, the best of each kind of vector; and the greatest as stored."""
    owners, matrix = search.vectors(model, rows)
    plain = (matrix @ vector).tolist()
    level = max((cosine for (_, kind), cosine in zip(owners, plain, strict=True) if kind != "passage"), default=0.0)
    if common is not None:
        vector, matrix = common.without(vector[None])[0], common.without(matrix)
    best: dict[int, dict[str, float]] = {}
    for (row, kind), cosine in zip(owners, (matrix @ vector).tolist(), strict=True):
        kinds = best.setdefault(row, {})
        kinds[kind] = max(kinds.get(kind, -1.0), cosine)
    return best, level


def _rarest(frequencies: dict[str, int]) -> list[str]:
    """The rarest terms that occur, as many as bring in a bounded number of chunks."""
    chosen: list[str] = []
    brought = 0
    for term, count in sorted(frequencies.items(), key=lambda entry: entry[1]):
        brought += count
        if count and brought <= LEXICAL_CHUNKS:
            chosen.append(term)
    return chosen


def _one_a_section(scored: Sequence[_Scored]) -> list[_Scored]:
    """The best chunk of each section."""
    best: dict[tuple[str, tuple[str, ...], int | None], _Scored] = {}
    for found in scored:
        hit = found.candidate.hit
        best.setdefault((hit.document_id, hit.heading_path, hit.page), found)
    return list(best.values())


def _hit(found: _Scored) -> Hit:
    return replace(found.candidate.hit, score=round(found.score, 4))

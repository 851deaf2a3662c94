"""Another embedding model without downtime: its vectors are made beside the old ones, and then they are searched.

Documents that are added meanwhile get vectors of both. Each document is stored by itself, so that what was interrupted
goes on where it was. The switch is one transaction; after it the old vectors are removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby

import numpy as np
from sqlalchemy import delete, func, select, update

from generation.retrieval.chunking import embedded_texts
from generation.retrieval.embedding import Embedder
from generation.retrieval.records import Embedded, Model
from generation.retrieval.schema import chunks, documents, embeddings, models
from generation.retrieval.store import Store, change, insert_vectors, inserted

_DELETED_AT_ONCE = 2000


def reembed(store: Store, embedder: Embedder, progress: Callable[[int, int], None] = lambda *_: None) -> bool:
    """Have all that is known, of all tenants, embedded and searched with another model.

    Args:
        store: The store.
        embedder: The model.
        progress: Told how many documents have its vectors, and how many there are.

    Returns:
        Whether there was anything to do.
    """
    active = store.ensure_model(embedder.name, embedder.dimensions)
    if active.name == embedder.name:
        return False
    model = _begun(store, embedder)
    _fill(store, embedder, model, progress)
    _switch(store, model)
    # Whoever was storing a document when this began may not have known of the model.
    _fill(store, embedder, model, progress)
    _clean(store)
    return True


def _fill(store: Store, embedder: Embedder, model: Model, progress: Callable[[int, int], None]) -> None:
    while missing := _missing(store, model):
        total = _count(store)
        for number, document in enumerate(missing, 1):
            _embed(store, embedder, model, document)
            progress(total - len(missing) + number, total)


def _begun(store: Store, embedder: Embedder) -> Model:
    """The model, made if it is not there: from now on documents that are added get its vectors as well."""
    with store.writing() as connection:
        row = connection.execute(select(models.c.id).where(models.c.name == embedder.name)).scalar()
        if row is None:
            values = {"name": embedder.name, "dimensions": embedder.dimensions, "state": "filling"}
            row = inserted(connection, models, values)
        else:  # it was the model of an earlier time, or this was interrupted
            connection.execute(update(models).where(models.c.id == row).values(state="filling"))
        store.index.create(connection, row, embedder.dimensions)
    return Model(row, embedder.name, embedder.dimensions, active=False)


def _missing(store: Store, model: Model) -> list[int]:
    """Rows of documents with a chunk that has no vectors of the model."""
    has = select(embeddings.c.id).where(
        embeddings.c.tenant_id == chunks.c.tenant_id,
        embeddings.c.model == model.row,
        embeddings.c.chunk == chunks.c.id,
    )
    with store.reading() as connection:
        return list(connection.execute(select(chunks.c.document).where(~has.exists()).distinct()).scalars())


def _count(store: Store) -> int:
    with store.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(documents)).scalar_one())


def _embed(store: Store, embedder: Embedder, model: Model, document: int) -> None:
    """Give a document vectors of the model; nothing happens if it has changed or gone meanwhile."""
    of_document = (
        select(chunks.c.id, chunks.c.heading_path, chunks.c.text, chunks.c.tenant_id, documents.c.title)
        .join(documents, documents.c.id == chunks.c.document)
        .where(chunks.c.document == document)
        .order_by(chunks.c.id)
    )
    with store.reading() as connection:
        rows = connection.execute(of_document).all()
    pieces = []
    # The first chunk below a heading stands for the heading itself as well.
    for headings, below in groupby(rows, key=lambda row: tuple(json.loads(row.heading_path))):
        for number, row in enumerate(below):
            texts = embedded_texts(headings or (row.title,), row.text.split("\n\n"), first=number == 0)
            pieces.append((row, list(texts)))
    if not pieces:
        return
    made = embedder.encode([text for _, texts in pieces for _, text in texts])
    with store.writing() as connection:
        tenant = rows[0].tenant_id
        change(connection, store.index, tenant)
        if connection.execute(of_document).all() != rows:
            return
        connection.execute(
            delete(embeddings).where(
                embeddings.c.tenant_id == tenant,
                embeddings.c.model == model.row,
                embeddings.c.chunk.in_([row.id for row, _ in pieces]),
            )
        )
        kinds = [(row.id, [kind for kind, _ in texts]) for row, texts in pieces]
        insert_vectors(connection, store.index, tenant, document, kinds, Embedded(model, np.asarray(made)))


def _switch(store: Store, model: Model) -> None:
    with store.writing() as connection:
        connection.execute(update(models).where(models.c.state == "active").values(state="retired"))
        connection.execute(update(models).where(models.c.id == model.row).values(state="active"))


def _clean(store: Store) -> None:
    """Remove the vectors of models that are no longer searched, some at a time: whoever writes waits for none long."""
    with store.reading() as connection:
        retired = list(connection.execute(select(models.c.id).where(models.c.state == "retired")).scalars())
    for row in retired:
        removed = _DELETED_AT_ONCE
        while removed == _DELETED_AT_ONCE:
            with store.writing() as connection:
                some = select(embeddings.c.id).where(embeddings.c.model == row).limit(_DELETED_AT_ONCE)
                removed = connection.execute(delete(embeddings).where(embeddings.c.id.in_(some))).rowcount
        with store.writing() as connection:
            store.index.drop(connection, row)
            connection.execute(delete(models).where(models.c.id == row))

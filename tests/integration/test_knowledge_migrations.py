"""A store of the first schema is opened by this release: it is brought up, once, and what it knew is found."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from sqlalchemy import create_engine, inspect, text

from generation.errors import KnowledgeError
from generation.retrieval.knowledge import Knowledge
from generation.retrieval.migrations.running import HEAD, VERSION_TABLE, upgrade
from generation.retrieval.schema import metadata


class Fixed:
    """An embedder of a few dimensions: the same text gets the same vector."""

    name = "fixed"
    dimensions = 8

    def encode(self, texts):
        made = np.array([np.random.default_rng(len(each)).normal(size=8) for each in texts], np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def first_schema(url: str, *, versioned: bool) -> None:
    """A store as the first schema had it, with one document."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        from pysqlite3 import dbapi2

        engine = create_engine(url, module=dbapi2)
    with engine.begin() as connection:
        upgrade(connection, "0001")
        if not versioned:
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        connection.execute(text("INSERT INTO tenants(name) VALUES ('shop')"))
        connection.execute(text("INSERT INTO models(name, dimensions, state) VALUES ('fixed', 8, 'active')"))
        connection.execute(
            text(
                "INSERT INTO documents(tenant_id, document_id, source, origin, title, language, sha256, chunks, "
                "added_s, metadata) VALUES (1, 'd', 'upload:old.txt', 'upload', 'Old', 'en', 'x', 1, 0, :metadata)"
            ),
            {"metadata": '{"year": "2024"}'},
        )
        connection.execute(
            text(
                "INSERT INTO chunks(tenant_id, document, chunk_id, heading_path, language, text, terms) "
                "VALUES (1, 1, 'c', '[]', 'en', 'The zebrafish sleeps.', 'zebrafish sleep')"
            )
        )
        connection.execute(
            text("INSERT INTO vectors(tenant_id, chunk, model, kind, vector) VALUES (1, 1, 1, 'lead', :vector)"),
            {"vector": Fixed().encode(["x"])[0].astype(np.float16).tobytes()},
        )
    engine.dispose()


@pytest.mark.parametrize("versioned", [True, False], ids=["versioned", "from-before-versions"])
def test_the_first_schema_is_brought_up_with_what_it_holds(knowledge_url: str, versioned: bool) -> None:
    url = f"{knowledge_url}{versioned}" if knowledge_url.startswith("sqlite") else knowledge_url
    if url == knowledge_url and not versioned:
        pytest.skip("PostgreSQL has had versions from its first day")
    first_schema(url, versioned=versioned)
    knowledge = Knowledge(url, Fixed())
    found = knowledge.tenant("shop").search("zebrafish")
    assert [hit.text for hit in found] == ["The zebrafish sleeps."]
    assert knowledge.tenant("shop").list()[0].metadata == {"year": "2024"}
    with knowledge.store.reading() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == HEAD
        tables = inspect(connection)
        for table in metadata.sorted_tables:  # migrations and schema.py agree
            assert {column["name"] for column in tables.get_columns(table.name)} == {c.name for c in table.columns}
    knowledge.tenant("shop").remove("d")
    assert knowledge.tenant("shop").search("zebrafish") == []
    knowledge.close()


def test_a_newer_schema_is_left_alone(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'k.sqlite'}"
    knowledge = Knowledge(url, Fixed())
    with knowledge.store.writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    knowledge.close()
    with pytest.raises(KnowledgeError, match="newer release"):
        Knowledge(url, Fixed())


def _open(url: str) -> None:
    Knowledge(url, Fixed()).close()


def test_processes_that_open_a_new_store_at_once_make_it_once(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'k.sqlite'}"
    spawn = multiprocessing.get_context("fork")
    processes = [spawn.Process(target=_open, args=(url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]

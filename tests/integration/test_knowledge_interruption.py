"""Adding many documents: killed in the middle it goes on where it was, and whoever asks meanwhile does not wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from generation.retrieval.embedding import load_embedder
from generation.retrieval.knowledge import Knowledge, default_url

PAGES = 80
DEADLINE_S = 120


@pytest.mark.kill
def test_adding_is_killed_and_goes_on_and_answers_meanwhile(tmp_path: Path) -> None:
    folder, data_dir = tmp_path / "pages", tmp_path / "data"
    folder.mkdir()
    for number in range(PAGES):
        text = f"# Page {number}\n\nThe number of this page is {number}.\n\n" + f"More of page {number}. " * 20
        (folder / f"{number:03}.md").write_text(text)
    environment = os.environ | {"PALAVER_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "bots.cli", "knowledge", "add", str(folder), "--tenant", "shop"]
    knowledge = Knowledge(default_url(data_dir), load_embedder())
    shop = knowledge.tenant("shop")
    assert shop.search("is the model there?") == []  # loaded, so that the killing does not come too late
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # It tells how far it is; once some are there, somebody asks, while it writes on.
    assert process.stdout.readline().startswith(f"[1/{PAGES}] ")
    assert shop.search("number of the page")
    deadline = time.monotonic() + DEADLINE_S
    while len(shop.list()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = {document.document_id: document.added_s for document in shop.list()}
    assert 5 <= len(before) < PAGES
    # Nothing is half there: each document that is listed has all its passages.
    assert all(document.chunks > 0 and shop.search(document.title, 1) for document in shop.list()[:5])

    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert len([json.loads(line) for line in again.stdout.splitlines()]) == PAGES
    after = {document.document_id: document.added_s for document in shop.list()}
    assert len(after) == PAGES
    assert {name: after[name] for name in before} == before  # what was there was not made again
    assert "number of this page is 79" in shop.search("what is on page 79")[0].text
    knowledge.close()

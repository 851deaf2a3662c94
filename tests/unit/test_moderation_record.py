from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from generation.errors import GenerationError, InvalidRequestError
from generation.moderation.config import ModerationConfig
from generation.moderation.decided import Decided
from generation.moderation.policy import EffectivePolicy, Policy, default_policy
from generation.moderation.record import KEY_FILE, NoRecord, Record, open_record
from generation.moderation.types import Category, Finding
from generation.types import Origin

TEXT = "a very private sentence"


def decided(
    job: str = "1", score: float = 0.99, policy: EffectivePolicy | None = None, tenant: str = "guild", user: str = "ann"
) -> Decided:
    policy = policy or default_policy()
    decision = policy.decide("prompt", [Finding(Category.HATE, score, "model:test", "7")])
    return Decided(Origin(f"{tenant}__{job}", tenant, user, policy), decision, TEXT, policy)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    opened = open_record(ModerationConfig(data_dir=tmp_path))
    assert isinstance(opened, Record)
    return opened


def test_every_decision_is_counted_and_no_text_or_name_is_stored(record: Record, tmp_path: Path) -> None:
    shadow = Policy(shadow=True).at()
    record.decided([decided("1"), decided("2", 0.01), decided("3", policy=shadow), decided("4", tenant="other")])
    record.flush()
    told = record.report()
    assert (told.decisions, told.jobs, told.stopped_jobs) == (4, 4, 2)
    assert told.stopped_share == 0.5
    assert {(count.category, count.action, count.shadow, count.count) for count in told.counts} == {
        ("hate", "refuse", False, 2),
        ("hate", "refuse", True, 1),
        ("", "allow", False, 1),
    }
    assert record.report("guild").jobs == 3
    record.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert TEXT.encode() not in everything
    with sqlite3.connect(tmp_path / "moderation.sqlite3") as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
        row = database.execute(
            "select score, threshold, decided_by, version, user_hash from moderation_decisions"
        ).fetchone()
    assert row[:4] == (0.99, 0.5, "model:test", "7")
    assert row[4] != "ann"


def test_texts_are_kept_only_where_the_tenant_wants_it_and_encrypted(record: Record, tmp_path: Path) -> None:
    record.decided([decided("1", policy=Policy(keep_texts=True).at()), decided("2")])
    record.flush()
    assert record.appeal("guild__1", "guild", "ann").appeal.text == TEXT
    assert record.appeal("guild__2", "guild", "ann").appeal.text is None
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert TEXT.encode() not in everything


def test_the_key_is_the_owners_alone_and_stays(record: Record, tmp_path: Path) -> None:
    key = tmp_path / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = open_record(ModerationConfig(data_dir=tmp_path))
    assert isinstance(again, Record)
    assert again.user_hash("guild", "ann") == record.user_hash("guild", "ann")
    assert again.user_hash("guild", "ann") != again.user_hash("other", "ann")


def test_an_appeal_goes_to_the_moderators_and_its_outcome_stays(record: Record) -> None:
    record.decided([decided("1"), decided("2", 0.01)])
    record.flush()
    with pytest.raises(InvalidRequestError, match="no refused request of yours"):
        record.appeal("guild__2", "guild", "ann")
    with pytest.raises(InvalidRequestError, match="no refused request of yours"):
        record.appeal("guild__1", "guild", "bob")
    appeal = record.appeal("guild__1", "guild", "ann").appeal
    assert (appeal.status, appeal.category) == ("open", "hate")
    assert record.appeal("guild__1", "guild", "ann").appeal == appeal
    assert record.appeals("guild", "open") == [appeal]
    with pytest.raises(InvalidRequestError, match="no open appeal"):
        record.resolve(appeal.appeal_id, "other", "mod", approve=True)
    assert record.resolve(appeal.appeal_id, "guild", "mod", approve=True).status == "approved"
    with pytest.raises(InvalidRequestError, match="no open appeal"):
        record.resolve(appeal.appeal_id, "guild", "mod", approve=False)
    assert record.appeals("guild", "open") == []
    assert record.report("guild").appeals == {"approved": 1}


def test_what_outlives_its_retention_is_deleted(record: Record) -> None:
    record.decided([decided("1", policy=Policy(retention_days=1, keep_texts=True).at()), decided("2")])
    record.flush()
    import time

    assert record.purge(time.time() + 2 * 86_400) == 1
    assert record.report().jobs == 1


def test_a_user_can_be_forgotten(record: Record, tmp_path: Path) -> None:
    keep = Policy(keep_texts=True).at()
    record.decided([decided("1", policy=keep), decided("2", policy=keep, user="bob")])
    record.flush()
    record.appeal("guild__1", "guild", "ann")
    assert record.forget_user("guild", "ann") == 1
    assert record.appeals() == []
    with sqlite3.connect(tmp_path / "moderation.sqlite3") as database:
        assert database.execute("select count(*) from moderation_texts").fetchone() == (1,)
        assert database.execute("select count(*) from moderation_decisions where user_hash = ''").fetchone() == (1,)
    assert record.report().decisions == 2


def test_the_record_can_be_switched_off_and_a_wrong_url_is_an_error(tmp_path: Path) -> None:
    assert isinstance(open_record(ModerationConfig(record_url="none", data_dir=tmp_path)), NoRecord)
    with pytest.raises(GenerationError, match="cannot be opened"):
        open_record(ModerationConfig(record_url="sqlite:////nowhere/at/all.db", data_dir=tmp_path))


def palaver(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bots.cli", "moderation", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PALAVER_DATA_DIR": str(tmp_path)},
    )


def test_the_command_shows_counts_and_answers_appeals(record: Record, tmp_path: Path) -> None:
    record.decided([decided("1"), decided("2", 0.01)])
    record.flush()
    record.appeal("guild__1", "guild", "ann")
    shown = palaver(tmp_path, "report").stdout
    assert "2 decisions on 2 requests" in shown
    assert "1 requests were stopped (50.00%)" in shown
    assert "hate  refuse" in shown
    assert "Appeals: 1 open." in shown
    assert "guild__1" in palaver(tmp_path, "appeals").stdout
    assert "denied" in palaver(tmp_path, "deny", "1").stdout
    again = palaver(tmp_path, "approve", "1")
    assert again.returncode == 65
    assert "no open appeal 1" in again.stderr


def test_the_command_checks_a_policy(tmp_path: Path) -> None:
    file = tmp_path / "guild.toml"
    file.write_text('strictness = "strict"\n[[lists]]\nwords = ["a", "b"]\n')
    assert "is right: strict, 2 words" in palaver(tmp_path, "check", str(file)).stdout
    file.write_text("[categories.hate]\nthreshold = 2\n")
    wrong = palaver(tmp_path, "check", str(file))
    assert wrong.returncode == 78
    assert f"{file}:2: categories.hate.threshold: a threshold is a number from 0 to 1, not 2." in wrong.stderr

"""What scenario tests of the Slack front-end ask for, and when an answer is complete."""

from __future__ import annotations

import json

from tests.engines import answer
from tests.fake_workspace.content import Message
from tests.fake_workspace.server import FakeWorkspace


def asked(tokens: int = 5, **orders: object) -> str:
    """A question to the engine of ``tests.engines``."""
    return json.dumps({"tokens": tokens, **orders})


def right(question: str) -> str:
    """Its one right answer."""
    return answer(question, json.loads(question)["tokens"]).strip()


def is_complete(message: Message) -> bool:
    return not message.streaming and not any(":stop:" in action_id for action_id in message.buttons)


async def answers(fake: FakeWorkspace, channel: str, thread: str | None, count: int = 1) -> list[Message]:
    """What stands in a thread once so many messages there are complete."""

    def there() -> list[Message]:
        found = fake.thread(channel, thread)
        return found if sum(map(is_complete, found)) >= count else []

    found: list[Message] = await fake.wait(there, f"{count} answers in {channel}")
    return found


async def exactly(fake: FakeWorkspace, channel: str, thread: str | None, text: str) -> Message:
    """The one message that stands there, once it is complete and says this."""

    def there() -> bool:
        found = fake.thread(channel, thread)
        return bool(found) and all(map(is_complete, found)) and found[-1].body == text

    await fake.wait(there, f"the right answer in {channel}")
    (only,) = fake.thread(channel, thread)
    return only


async def begun(fake: FakeWorkspace, channel: str, thread: str | None, chars: int = 20) -> Message:
    """The message of an answer once it has so many characters."""
    found: list[Message] = await fake.wait(
        lambda: [each for each in fake.thread(channel, thread) if len(each.body) >= chars], f"words in {channel}"
    )
    return found[0]


async def quiet(fake: FakeWorkspace) -> None:
    """Until the bot has had time for whatever it might do: it has when it has answered something newer."""
    ts = await fake.say("U999", "D999", asked(2))
    await answers(fake, "D999", ts)

"""Requests as front-ends make them."""

from __future__ import annotations

import time

from workers.contract import ChatBody, ChatMessage, ReplyTo, Request


def chat_request(key: str = "k1", tenant: str = "t1", prompt: str = "hello", **changes: object) -> Request:
    fields: dict[str, object] = {
        "platform": "terminal",
        "tenant": tenant,
        "channel": "c1",
        "user": "u1",
        "idempotency_key": key,
        "reply": ReplyTo(front_end="term", handle={"message": "7"}),
        "body": ChatBody(messages=(ChatMessage(role="user", content=prompt),)),
        "created_at_s": time.time(),
    }
    return Request.model_validate(fields | changes)

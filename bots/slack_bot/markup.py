"""Between the platform's markup and plain text: what people write is read, and what a model writes never pings.

Untrusted text goes out in ``markdown`` blocks and streams, where entities would show as such inside code. So a control
sequence is broken by an invisible character instead of being escaped. In ``mrkdwn`` text, entities are the rule.
"""

from __future__ import annotations

import html
import re

#: Zero width space: invisible, and no part of any control sequence.
_BREAK = "\u200b"
_CONTROL = re.compile(r"<(?=[!@#])")
_NAME = re.compile(r"(?<![\w.])@(?=(?:channel|here|everyone)\b)", re.IGNORECASE)
#: ``<@U1|name>``, ``<#C1|general>``, ``<!here>``, ``<!subteam^S1|@team>``, ``<https://a.example|label>``.
_ENTITY = re.compile(r"<(?P<sign>[@#!]?)(?P<target>[^<>|]+)(?:\|(?P<label>[^<>]*))?>")


def defused(text: str) -> str:
    """Markdown that pings nobody, whatever a model or a person wrote into it."""
    return _NAME.sub("@" + _BREAK, _CONTROL.sub("<" + _BREAK, text))


def measure(text: str) -> int:
    """Length of a text once it is ``defused``, counted from above and additive over characters."""
    return len(text) + text.count("<") + text.count("@")


def escaped(text: str) -> str:
    """Text for ``mrkdwn``: shown as it is, and pinging nobody."""
    return _NAME.sub("@" + _BREAK, html.escape(text, quote=False))


def plain(text: str, bot_user: str = "") -> str:
    """What a person meant by a message's text.

    Args:
        text: As the platform sends it: links and mentions in angle brackets, the rest in entities.
        bot_user: Mentions of this user are left out.
    """
    read = html.unescape(_ENTITY.sub(lambda match: _read(match, bot_user), text)).strip()
    return read.encode("utf-8", "replace").decode("utf-8")  # half a character cannot be carried


def mentions(text: str, user: str) -> bool:
    """Whether a message's text mentions a user."""
    return any(match["sign"] == "@" and match["target"] == user for match in _ENTITY.finditer(text))


def _read(match: re.Match[str], bot_user: str) -> str:
    sign, target, label = match["sign"], match["target"], match["label"]
    if sign == "@":
        return "" if target == bot_user else f"@{label or target}"
    if sign == "#":
        return f"#{label or target}"
    if sign == "!":
        return label if label and label.startswith("@") else f"@{label or target.partition('^')[0]}"
    if target.startswith(("mailto:", "tel:")):
        return label or target.partition(":")[2]
    return f"{label} ({target})" if label and label not in target else target

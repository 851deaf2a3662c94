"""What the Slack front-end says of its own; what every front-end says alike is in ``bots.delivery.wording``."""

from __future__ import annotations

from bots.delivery import wording

ON_IT = "On it: the answer appears in this channel."
DRAWING = "Drawing: the pictures appear in this channel."
ASK_SOMETHING = "Write what you want to know, for example: `{command} Why is the sky blue?`"
MENTIONED = "You mentioned me without a question. Write it beside the mention, and I answer in a thread."
NO_KNOWLEDGE = "No knowledge base is connected, so the model answers from what it has learned: check what matters."
NOT_HERE = "I cannot write in that conversation, so the answer comes to you alone. Invite me there to share it."
TOO_LATE = "That took too long for Slack to open a window. Please press the button again."
PRESS_AGAIN = "Slack did not take that right now. Please press the button again in a moment."
REFUSED = "Slack did not take that; the operator finds the reason in the log."
UNREADABLE = "Not read: {files}."
NO_RECORD = "What was asked here is no longer on record. Please ask again with /imagine."
NOT_YOURS = "Only the person who asked, or an admin of the workspace, can do that."
OTHER_WORKSPACE = "This belongs to another workspace."
ENDED = "It has ended already."
UNKNOWN_BUTTON = "This button belongs to an older version and does nothing any more."
HELP = (
    "*Ask me anything.* Mention me in a channel and I answer in a thread, where you go on without mentioning me; or "
    "write to me directly.\n"
    "`/chat` asks a question here, `/imagine` draws pictures, `/ask` asks the knowledge base, `/usage` shows what you "
    "have used, `/forget` deletes what I remember of this conversation, `/privacy` tells what is kept."
)
NOTHING_TO_FORGET = "Nothing that you have said in this channel is remembered."
FORGOTTEN = "{count} of your questions in this channel and their answers are forgotten."
DELETED = (
    "{turns} of your questions with their answers and {records} of your image prompts are deleted, and your usage."
)
EXPORT_CUT = "There is more than fits here; ask the operator for the rest."
LOOKING = "One moment…"
PRIVACY_TITLE = "What is kept about you"
PRIVACY = (
    "*What is kept*: what you ask and what is answered, for each thread, so that it can go on; your image prompts, so "
    "that their buttons work; and how much you have used. It lies in the operator's own Redis; nothing is sent to "
    "anybody else or used for training. A conversation is forgotten {days} days after its last message."
)
CONFIGURE = (
    "*This workspace* (admins only): persona, model, languages, limits, budgets, tiers, channels, pictures, "
    "moderation, hand-over."
)
NOT_SAVED = "What you have just sent was not taken:"
NOT_AN_ADMIN = "Only an admin of the workspace can decide this."
FLAGS = (
    "Flags: `--ar 16:9` width to height, `--n 4` how many, `--seed 7`, `--steps 20`, `--style name`, "
    "`--model name`, `--guidance 5`, `--negative what it does not show`."
)
COVERED = "A picture is not shown: its content may be sensitive, and Slack has no cover for pictures."
MACHINE = "Answers and pictures are made by a machine and can be wrong."

#: Under the first message of the agent's view: title -> what is asked.
SUGGESTED_PROMPTS = (
    ("Explain something", "Explain in three sentences how vaccines work."),
    ("Write a draft", "Write a friendly reminder that the report is due on Friday."),
    ("Make a plan", "Make a plan for a two-hour workshop on giving feedback."),
    ("Write code", "Write a Python function that merges overlapping intervals."),
)


def status(line: str) -> str:
    """A waiting line as the platform shows it, behind the bot's name."""
    if line == wording.BEGINNING:
        return "is thinking…"
    return f"is waiting: {line[:1].lower()}{line[1:].rstrip('.')}"


def quoted(text: str, most_chars: int = 60) -> str:
    """The beginning of somebody's words, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most_chars else line[: most_chars - 1] + "…"

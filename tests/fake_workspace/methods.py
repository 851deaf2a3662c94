"""The methods of the Web API as the platform answers them, with its errors and sizes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.fake_workspace import content
from tests.fake_workspace.content import ApiError, Message
from tests.fake_workspace.workspace import Team, Upload

if TYPE_CHECKING:
    from tests.fake_workspace.web_api import WebApi

Method = Callable[["WebApi", Team, dict[str, Any]], dict[str, Any]]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    def register(function: Method) -> Method:
        METHODS[name] = function
        return function

    return register


@method("unknown")
def _refused(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    raise ApiError(args["error"])


def _needed(args: dict[str, Any], *names: str) -> None:
    for name in names:
        if not args.get(name):
            raise ApiError("invalid_arguments", why=name)


@method("auth.test")
def _auth(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    known = {"url": "https://fake/", "team": team.id, "user": "palaver", "team_id": team.id, "user_id": team.bot_user}
    if team.org_install:
        known |= {"is_enterprise_install": True, "team_id": team.id}
    return known | {"bot_id": team.bot_id, "enterprise_id": team.enterprise, "app_id": "A0FAKE"}


@method("chat.postMessage")
def _post(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel")
    workspace = api.workspace
    if args["channel"] not in workspace.channels:
        raise ApiError("channel_not_found")
    blocks = args.get("blocks") or []
    if args.get("markdown_text"):
        if args.get("text") or blocks:
            raise ApiError("markdown_text_conflict")
        blocks = [{"type": "markdown", "text": args["markdown_text"]}]
    content.check_message(args.get("text", ""), blocks, content.MAX_POST_TEXT)
    _check_pictures(api, blocks)
    thread_ts = args.get("thread_ts")
    if thread_ts and not workspace.find(args["channel"], thread_ts):
        raise ApiError("thread_not_found")
    message = Message(args["channel"], workspace.ts(), team.bot_user, args.get("text", ""), blocks, thread_ts)
    message.bot_id, message.team, message.metadata = team.bot_id, team.id, args.get("metadata")
    workspace.add(message, args)
    api.echo({**message.public(), "channel": message.channel}, team)
    return {"channel": message.channel, "ts": message.ts, "message": message.public()}


@method("chat.postEphemeral")
def _ephemeral(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel", "user")
    if args["channel"] not in api.workspace.channels:
        raise ApiError("channel_not_found")
    content.check_message(args.get("text", ""), args.get("blocks") or [], content.MAX_POST_TEXT)
    message = Message(
        args["channel"], api.workspace.ts(), team.bot_user, args.get("text", ""), args.get("blocks") or []
    )
    message.bot_id, message.ephemeral_for, message.thread_ts = team.bot_id, args["user"], args.get("thread_ts")
    api.workspace.add(message, args)
    return {"message_ts": message.ts}


def _check_pictures(api: WebApi, blocks: list[dict[str, Any]]) -> None:
    for block in blocks:
        if block.get("type") == "markdown" and not api.workspace.rules.markdown:
            raise ApiError("invalid_blocks", why="markdown")
        if "slack_file" in block:
            file = api.workspace.uploads.get(block["slack_file"].get("id", ""))
            if file is None or not file.done:
                raise ApiError("invalid_blocks", why="a file that is not there")


def _own(api: WebApi, team: Team, args: dict[str, Any], error: str) -> Message:
    _needed(args, "channel", "ts")
    message = api.workspace.find(args["channel"], args["ts"])
    if message is None or message.deleted or message.ephemeral_for:
        raise ApiError("message_not_found")
    if message.bot_id != team.bot_id:
        raise ApiError(error)
    return message


@method("chat.update")
def _update(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    message = _own(api, team, args, "cant_update_message")
    if message.streaming:
        raise ApiError("streaming_state_conflict")
    blocks = args.get("blocks")
    if args.get("markdown_text"):
        blocks = [{"type": "markdown", "text": args["markdown_text"]}]
    content.check_message(args.get("text", ""), blocks or [], content.MAX_UPDATE_TEXT)
    _check_pictures(api, blocks or [])
    message.text, message.blocks = args.get("text", ""), blocks if blocks is not None else message.blocks
    message.metadata = args.get("metadata") or message.metadata
    message.edits += 1
    message.record()
    api.workspace.note_pings(message, args)
    api.echo({"type": "message", "subtype": "message_changed", "channel": message.channel,
              "message": message.public(), "ts": api.workspace.ts(), "hidden": True}, team)  # fmt: skip
    return {"channel": message.channel, "ts": message.ts, "text": message.text}


@method("chat.delete")
def _delete(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    message = _own(api, team, args, "cant_delete_message")
    message.deleted = True
    api.echo({"type": "message", "subtype": "message_deleted", "channel": message.channel,
              "deleted_ts": message.ts, "ts": api.workspace.ts(), "hidden": True}, team)  # fmt: skip
    return {"channel": message.channel, "ts": message.ts}


def _streamed(args: dict[str, Any]) -> str:
    text = args.get("markdown_text") or ""
    for chunk in args.get("chunks") or []:
        if chunk.get("type") == "markdown_text":
            text += chunk["text"]
    if len(text) > content.MAX_MARKDOWN:
        raise ApiError("msg_too_long")
    return text


@method("chat.startStream")
def _start(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel", "thread_ts")
    workspace = api.workspace
    if not workspace.rules.streaming:
        raise ApiError("feature_not_enabled")
    channel = workspace.channels.get(args["channel"])
    if channel is None:
        raise ApiError("channel_not_found")
    if channel.kind != "im" and not args.get("recipient_team_id"):
        raise ApiError("missing_recipient_team_id")
    if channel.kind != "im" and not args.get("recipient_user_id"):
        raise ApiError("missing_recipient_user_id")
    if not workspace.find(args["channel"], args["thread_ts"]):
        raise ApiError("thread_not_found")
    text = _streamed(args)
    message = Message(args["channel"], workspace.ts(), team.bot_user, "", [{"type": "markdown", "text": text}])
    message.thread_ts, message.bot_id, message.team = args["thread_ts"], team.bot_id, team.id
    message.streaming, message.stream_began_s = True, time.monotonic()
    workspace.add(message, args)
    return {"channel": message.channel, "ts": message.ts}


def _open_stream(api: WebApi, team: Team, args: dict[str, Any]) -> Message:
    message = _own(api, team, args, "message_not_owned_by_app")
    if message.stopped_by_user:
        raise ApiError("stopped_by_user")
    if not message.streaming:
        raise ApiError("message_not_in_streaming_state")
    return message


def _append_to(api: WebApi, message: Message, args: dict[str, Any]) -> None:
    text = message.blocks[0]["text"] + _streamed(args)
    if len(text) > content.MAX_MARKDOWN:
        raise ApiError("msg_too_long")
    message.blocks = [{"type": "markdown", "text": text}]
    message.record()
    api.workspace.note_pings(message, args)


@method("chat.appendStream")
def _append(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    message = _open_stream(api, team, args)
    _append_to(api, message, args)
    return {"channel": message.channel, "ts": message.ts}


@method("chat.stopStream")
def _stop(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    message = _open_stream(api, team, args)
    content.check_blocks(args.get("blocks") or [], content.MAX_BLOCKS)
    _append_to(api, message, args)
    message.blocks += args.get("blocks") or []
    message.metadata = args.get("metadata") or message.metadata
    message.streaming = False
    if args.get("session_status"):
        _status(
            api, team, {"channel_id": message.channel, "thread_ts": message.thread_ts, "status": args["session_status"]}
        )
    return {"channel": message.channel, "ts": message.ts, "message": message.public()}


@method("agents.sessions.setStatus")
def _status(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel_id", "status")
    if not api.workspace.rules.agent:
        raise ApiError("not_allowed_for_non_agent_app")
    if args["status"] not in {"processing", "active", "suspended", "closed"}:
        raise ApiError("invalid_status")
    session = api.workspace.sessions.setdefault((args["channel_id"], args.get("thread_ts", "")), {"seen": []})
    session["status"] = args["status"]
    session["title"] = session.get("title") or args.get("title")
    session["seen"].append(args["status"])
    warning = {} if api.workspace.rules.agent_stop else {"warning": "missing_agent_session_stopped_event_subscription"}
    return {"agent_status": args["status"], **warning}


@method("assistant.threads.setStatus")
def _thread_status(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel_id", "thread_ts")
    if not api.workspace.rules.agent:
        raise ApiError("missing_scope")
    session = api.workspace.sessions.setdefault((args["channel_id"], args["thread_ts"]), {"seen": []})
    session.setdefault("texts", []).append(args.get("status", ""))
    return {}


@method("assistant.threads.setTitle")
def _title(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel_id", "thread_ts", "title")
    session = api.workspace.sessions.setdefault((args["channel_id"], args["thread_ts"]), {"seen": []})
    session["title"] = args["title"]
    return {}


@method("assistant.threads.setSuggestedPrompts")
def _prompts(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel_id", "prompts")
    if len(args["prompts"]) > 4:
        raise ApiError("invalid_arguments")
    api.workspace.prompts[args["channel_id"]] = args["prompts"]
    return {}


@method("conversations.open")
def _open(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "users")
    channel = api.workspace.channel("D" + args["users"].removeprefix("U"), team.id)
    return {"channel": {"id": channel.id, "is_im": True}}


@method("conversations.info")
def _info(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    channel = api.workspace.channels.get(args.get("channel", ""))
    if channel is None:
        raise ApiError("channel_not_found")
    return {"channel": {"id": channel.id, "name": channel.id.lower(), "is_im": channel.kind == "im"}}


@method("conversations.replies")
def _replies(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel", "ts")
    return {"messages": _listed(api, args, lambda each: args["ts"] in (each.ts, each.thread_ts)), "has_more": False}


@method("conversations.history")
def _history(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel")
    found = _listed(api, args, lambda each: each.thread_ts in (None, each.ts))
    return {"messages": found[::-1][: int(args.get("limit", 100))], "has_more": False}


@method("chat.getPermalink")
def _permalink(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "channel", "message_ts")
    if not any((each.channel, each.ts) == (args["channel"], args["message_ts"]) for each in api.workspace.messages):
        raise ApiError("message_not_found")
    place = f"{args['channel']}/p{args['message_ts'].replace('.', '')}"
    return {"channel": args["channel"], "permalink": f"https://{team.id.lower()}.slack.example/archives/{place}"}


def _listed(api: WebApi, args: dict[str, Any], wanted: Callable[[Message], bool]) -> list[dict[str, Any]]:
    if args["channel"] not in api.workspace.channels:
        raise ApiError("channel_not_found")
    with_metadata = str(args.get("include_all_metadata", "")).lower() in {"1", "true"}
    found = []
    for each in api.workspace.messages:
        visible = not each.deleted and not each.ephemeral_for and each.channel == args["channel"]
        if visible and wanted(each) and args.get("oldest", "0") <= each.ts:
            shown = each.public()
            if not with_metadata:
                shown.pop("metadata", None)
            found.append(shown)
    return found


@method("users.info")
def _user(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "user")
    admin = args["user"] in api.workspace.admins
    return {"user": {"id": args["user"], "name": args["user"].lower(), "is_admin": admin, "is_owner": False,
                     "is_bot": args["user"] in api.workspace.bots, "tz": "UTC"}}  # fmt: skip


@method("files.getUploadURLExternal")
def _upload_url(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "filename", "length")
    file = Upload("F" + secrets.token_hex(5).upper(), args["filename"], int(args["length"]), args.get("alt_txt", ""))
    api.workspace.uploads[file.id] = file
    return {"file_id": file.id, "upload_url": f"{api.base_url}/upload/{file.id}"}


@method("files.completeUploadExternal")
def _complete(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "files")
    files = []
    for wanted in args["files"]:
        file = api.workspace.uploads.get(wanted["id"])
        if file is None or file.data is None:
            raise ApiError("file_not_found")
        file.done = True
        files.append({"id": file.id, "title": wanted.get("title", file.name), "name": file.name,
                      "url_private": f"{api.base_url}/files/{file.id}"})  # fmt: skip
    if args.get("channel_id"):
        if args["channel_id"] not in api.workspace.channels:
            raise ApiError("channel_not_found")
        message = Message(args["channel_id"], api.workspace.ts(), team.bot_user, args.get("initial_comment", ""))
        message.blocks = args.get("blocks") or []
        message.bot_id, message.thread_ts, message.files = team.bot_id, args.get("thread_ts"), files
        api.workspace.add(message, args)
        for each in files:
            each["shares"] = {"public": {message.channel: [{"ts": message.ts}]}}
        api.echo({**message.public(), "subtype": "file_share", "channel": message.channel}, team)
    return {"files": files}


@method("files.info")
def _file(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    file = api.workspace.uploads.get(args.get("file", ""))
    if file is None:
        raise ApiError("file_not_found")
    shares = [each for each in api.workspace.messages if any(part["id"] == file.id for part in each.files)]
    public = {each.channel: [{"ts": each.ts}] for each in shares}
    return {"file": {"id": file.id, "name": file.name, "shares": {"public": public}}}


@method("files.delete")
def _file_delete(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    if api.workspace.uploads.pop(args.get("file", ""), None) is None:
        raise ApiError("file_not_found")
    for each in api.workspace.messages:
        if any(part["id"] == args["file"] for part in each.files):
            each.files = [part for part in each.files if part["id"] != args["file"]]
            each.deleted = each.deleted or not (each.files or each.text or each.blocks)
    return {}


def _triggered(api: WebApi, args: dict[str, Any]) -> str:
    trigger = api.workspace.triggers.get(args.get("trigger_id", ""))
    if trigger is None:
        raise ApiError("invalid_trigger_id")
    if trigger.used:
        raise ApiError("exchanged_trigger_id")
    if time.monotonic() - trigger.made_s > api.workspace.rules.trigger_life_s:
        raise ApiError("expired_trigger_id")
    trigger.used = True
    return trigger.user


def _kept(api: WebApi, view: dict[str, Any], user: str, view_id: str | None = None) -> dict[str, Any]:
    content.check_view(view)
    kept = {**view, "id": view_id or "V" + secrets.token_hex(5).upper(), "hash": secrets.token_hex(4), "user": user}
    api.workspace.views[kept["id"]] = kept
    return {"view": kept}


@method("views.open")
def _view_open(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "view")
    return _kept(api, args["view"], _triggered(api, args))


@method("views.push")
def _view_push(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    return _view_open(api, team, args)


@method("views.update")
def _view_update(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "view", "view_id")
    known = api.workspace.views.get(args["view_id"])
    if known is None:
        raise ApiError("view_not_found")
    if args.get("hash") and args["hash"] != known["hash"]:
        raise ApiError("hash_conflict")
    return _kept(api, args["view"], known["user"], args["view_id"])


@method("views.publish")
def _view_publish(api: WebApi, team: Team, args: dict[str, Any]) -> dict[str, Any]:
    _needed(args, "view", "user_id")
    kept = _kept(api, args["view"], args["user_id"])
    api.workspace.homes[args["user_id"]] = kept["view"]
    return kept

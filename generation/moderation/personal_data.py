"""Personal data and secrets in a text: found by their form, and by their check digits where they have some."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from generation.moderation.expressions import compiled_pattern
from generation.moderation.types import Category, Span

_DIGITS_BEFORE = re.compile(r"[0-9][ -]?$")
_DIGITS_AFTER = re.compile(r"[ -]?[0-9]")
_CHINESE_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _always(_: str) -> bool:
    return True


#: First digits and lengths of the issuers' numbers. Without them one in ten of a chat platform's own ids, which have
#: 17 to 19 digits, would pass for a card.
_CARD = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14}(?:\d{3})?"
)


def card(text: str) -> bool:
    """Whether it is the number of a payment card: an issuer's digits and a right check digit.

    Source: ISO/IEC 7812-1, annex B.
    """
    compact = "".join(filter(str.isdigit, text))
    if _CARD.fullmatch(compact) is None:
        return False
    digits = [int(character) for character in compact]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban(text: str) -> bool:
    """Whether an IBAN has right check digits. Source: ISO 13616, ISO 7064 (mod 97-10)."""
    compact = "".join(filter(str.isalnum, text)).upper()
    if not 15 <= len(compact) <= 34:
        return False
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def chinese_id(text: str) -> bool:
    """Whether a Chinese identity number has a right date and check digit. Source: GB 11643-1999."""
    text = "".join(text.split())
    year, month, day = int(text[6:10]), int(text[10:12]), int(text[12:14])
    if not (1900 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= 31):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], _CHINESE_ID_WEIGHTS, strict=True))
    return "10x98765432"[total % 11] == text[17].lower()


def social_security_number(text: str) -> bool:
    """Whether it can be a number of the United States' social security. Source: SSA, "SSN Randomization" (2011)."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def ip_address(text: str) -> bool:
    """Whether it is an address that tells something: not a private, a loopback or a documentation one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of datum.

    Args:
        name: What its mask says.
        category: What it counts as.
        pattern: RE2; a group named ``datum`` is the part that is hidden, else all of it.
        holds: Whether a match is one.
        hint: Characters of which one must be in the text, so that most texts cost nothing.
        alone: Whether groups of digits beside it make it part of some other number.
    """

    name: str
    category: Category
    pattern: str
    holds: Callable[[str], bool] = _always
    hint: str = "0123456789"
    alone: bool = False


_KINDS = (
    _Kind("private key", Category.SECRETS, r"-----begin [a-z ]*private key-----[^-]*(?:-----end[^-]*-----)?", hint="-"),
    _Kind(
        "API key",
        Category.SECRETS,
        r"\b(?:a[ks]ia[0-9a-z]{16}|gh[pousr]_[0-9a-z]{36,}|github_pat_[0-9a-z_]{22,}|glpat-[0-9a-z_-]{20,}"
        r"|xox[abeprs]-[0-9a-z-]{10,}|xapp-[0-9]-[0-9a-z-]{10,}|sk-(?:proj-|ant-|or-)?[0-9a-z_-]{20,}"
        r"|aiza[0-9a-z_-]{35}|hf_[a-z]{30,}|npm_[0-9a-z]{36}|pypi-[0-9a-z_-]{50,}|[rs]k_live_[0-9a-z]{20,}"
        r"|sg\.[0-9a-z_-]{16,}\.[0-9a-z_-]{30,}|ya29\.[0-9a-z_-]{20,}|do[oprt]_v1_[0-9a-f]{64}|[0-9]{8,10}:aa[0-9a-z_-]{32,}"
        r"|[mno][0-9a-z_-]{23,27}\.[0-9a-z_-]{6}\.[0-9a-z_-]{27,})",
        hint="_-.0123456789aA",
    ),
    _Kind(
        "webhook",
        Category.SECRETS,
        r"(?:discord(?:app)?\.com/api/webhooks|hooks\.slack\.com/(?:services|workflows|triggers))/(?P<datum>[0-9a-z_/-]{20,})",
        hint="/",
    ),
    _Kind("token", Category.SECRETS, r"\bbearer +(?P<datum>[0-9a-z._~+/-]{20,}=*)", hint="b"),
    # What stands before the @ of an address with a password.
    _Kind(
        "password", Category.SECRETS, r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,80}:(?P<datum>[^\s/@]{1,200})@", hint="@"
    ),
    _Kind("token", Category.SECRETS, r"\beyj[0-9a-z_-]{8,}\.eyj[0-9a-z_-]{8,}\.[0-9a-z_-]{8,}", hint="."),
    _Kind(  # in folded letters: what looks Latin in the last of these names is
        "password",
        Category.SECRETS,
        r"(?:\b(?:[a-z]+_)?(?:password|passwd|passphrase|pwd|passwort|kennwort|contrasena|mot de passe|senha"
        r"|api[_-]?key|account[_-]?key|secret[_-]?(?:access[_-]?)?key|access[_-]?token|client[_-]?secret)|密码|口令|ぱすわーど|пapoлb)"
        r"\s*(?:is|ist|es|est|=|:|：|是|为)\s*[\"'`]?"
        r"(?P<datum>[^\s\"'`,;]*[0-9][^\s\"'`,;]{3,}|[^\s\"'`,;]{4,}[0-9][^\s\"'`,;]*)",
        hint="=:：是为st",
    ),
    _Kind(
        "e-mail",
        Category.PERSONAL_DATA,
        r"[a-z0-9._%+-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.)+[a-z]{2,24}",
        hint="@",
    ),
    _Kind(
        "e-mail",
        Category.PERSONAL_DATA,
        r"\b[a-z0-9._%+-]{1,64} ?[\[({] ?at ?[\])}] ?[a-z0-9-]{1,63}(?: ?(?:\.|[\[({] ?dot ?[\])}]) ?[a-z0-9-]{2,63})+",
        hint="[({",
    ),
    _Kind(
        "IBAN", Category.PERSONAL_DATA, r"\b[a-z]{2}[0-9]{2}(?:[ -]?[0-9a-z]{4}){2,7}(?:[ -]?[0-9a-z]{1,4})?\b", iban
    ),
    _Kind(
        "ID number",
        Category.PERSONAL_DATA,
        r"(?:^|[^0-9])(?P<datum>[1-9][0-9]{5} ?[0-9]{8} ?[0-9]{3}[0-9x])(?:$|[^0-9a-z])",
        chinese_id,
    ),
    _Kind(
        "ID number",
        Category.PERSONAL_DATA,
        r"(?:^|[^0-9a-z-])(?P<datum>[0-8][0-9]{2}-[0-9]{2}-[0-9]{4})(?:$|[^0-9a-z-])",
        social_security_number,
        hint="-",
    ),
    _Kind(
        "card number",
        Category.PERSONAL_DATA,
        r"(?:^|[^0-9.+])(?P<datum>[0-9](?:[ -]?[0-9]){12,18}|[0-9]{4}(?:\.[0-9]{4}){3})(?:$|[^0-9])",
        card,
    ),
    _Kind(
        "phone number",
        Category.PERSONAL_DATA,
        r"(?:^|[^0-9a-z.+])(?P<datum>(?:\+?86[ -]?)?1[3-9][0-9](?:[ -]?[0-9]{4}){2}"
        r"|\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,5}\)?){2,6}"
        r"|(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
        r"|0[0-9]{2,4}[ -][0-9]{3,4}[ -]?[0-9]{3,4}|0[0-9]{2,5}/[0-9]{4,9}|0[1-9](?:[ .-][0-9]{2}){4})(?:$|[^0-9a-z])",
        lambda text: 8 <= sum(map(str.isdigit, text)) <= 15,
        alone=True,
    ),
    _Kind(
        "IP address",
        Category.PERSONAL_DATA,
        r"(?:^|[^0-9a-z.])(?P<datum>(?:[0-9]{1,3}\.){3}[0-9]{1,3})(?:$|[^0-9.]|\.$|\.\s)",
        ip_address,
    ),
    _Kind(
        "IP address",
        Category.PERSONAL_DATA,
        r"(?:^|[^0-9a-f:.])(?P<datum>(?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4}){1,6})(?:$|[^0-9a-f:])",
        ip_address,
        hint=":",
    ),
)


def find(text: str) -> Iterator[tuple[Category, str, Span]]:
    """Personal data and secrets.

    Args:
        text: Folded, see ``spelling.fold``.

    Yields:
        Category, kind, and where it is in that text with what is shown instead.
    """
    taken: list[Span] = []
    for kind in _KINDS:
        if not any(character in text for character in kind.hint):
            continue
        for span in _places(kind, text):
            if not any(span.start < other.end and other.start < span.end for other in taken):
                taken.append(span)
                yield kind.category, kind.name, span


def _places(kind: _Kind, text: str) -> Iterator[Span]:
    pattern = compiled_pattern(kind.pattern)
    group = 1 if "(?P<datum>" in kind.pattern else 0
    at = 0
    # Matches may share the character between them: two numbers with one space.
    while match := pattern.search(text, at):
        start, end = match.span(group)
        datum = text[start:end].rstrip(" .-")
        end = start + len(datum)
        part_of_more = kind.alone and (_DIGITS_BEFORE.search(text[:start]) or _DIGITS_AFTER.match(text[end:]))
        if kind.holds(datum) and not part_of_more:
            yield Span(start, end, f"[{kind.name}]")
        at = max(end, match.start() + 1)

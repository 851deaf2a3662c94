"""What no policy can allow, by rules: sexual content about minors, and weapons of mass harm.

Rules see only what is said outright. They are the floor under the models and not a replacement for one.
"""

from __future__ import annotations

from collections.abc import Iterator

from generation.moderation.expressions import compiled_pattern
from generation.moderation.types import Category

_MINOR = (
    r"(?:child|children|kid|kids|kiddie|minors?|toddlers?|pre-?teens?|under-?age|infants?|bab(?:y|ies)"
    r"|schoolgirls?|schoolboys?|lolis?|lolita|shotas?|little (?:girls?|boys?)|young(?:er)? (?:girls?|boys?)"
    r"|(?:[1-9]|1[0-7]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
    r"|seventeen)[ -]?(?:yo|y/o|yrs?(?: old)?|years?[ -]old))"
)
_SEXUAL = (
    r"(?:porn\w*|hentai|nudes?|naked|undress\w*|topless|sexy|sexual(?:ly|ized|ised)?|erotic\w*|nsfw|horny|lewd|"
    r"(?:having|have|has|had) sex"
    r"|sex (?:with|scene|tape|slave|doll)|fuck\w*|blow ?jobs?|masturbat\w*|orgasm\w*|lingerie|seduc\w+|molest\w*)"
)
_NEAR = r"\W+(?:\w+\W+){0,4}?"
_AGAINST_IT = (
    r"\b(?:prevent\w*|protect\w*|report(?:ing|ed)?|against|education|safety|safeguard\w*|awareness|law|laws|illegal|crime"
    r"|victims?|survivors?|abuse (?:help|hotline)|hotline|statistics|research|charity|arrest\w*|convicted|news)\b"
)
_MASS_WEAPON = (
    r"(?:nerve agents?|nerve gas|sarin|vx gas|novichok|soman|tabun|mustard gas|phosgene|ricin|anthrax|botulinum toxin|"
    r"weaponi[sz]ed? (?:virus|smallpox|pathogen)\w*|smallpox|bio-?weapons?|biological weapons?|chemical weapons?"
    r"|dirty bombs?|nuclear (?:bombs?|weapons?|warheads?|devices?))"
)
_MAKING = (
    r"(?:how (?:to|do i|can i|could i|would i|do you|would you)|instructions?|recipe|steps?|guide|tutorial|help me)"
    r"\W+(?:\w+\W+){0,6}?"
    r"(?:make|making|build|building|produce|producing|synthesi[sz]e|synthesi[sz]ing|create|creating|cook|weaponi[sz]e|"
    r"weaponi[sz]ing|acquire|enrich|culture|disperse|construct|assemble)"
)

_RULES: tuple[tuple[Category, str, str], ...] = (
    (
        Category.MINORS,
        rf"\b{_MINOR}{_NEAR}{_SEXUAL}\b|\b{_SEXUAL}{_NEAR}{_MINOR}\b"
        r"|(?:儿童|幼女|幼童|小学生|初中生|未成年(?:人)?|萝莉|正太|[一二三四五六七八九十]{1,2}岁(?:女孩|男孩)?)[^。！？\n]{0,8}"
        r"(?:色情|裸体|裸照|全裸|性交|做爱|性感|淫|情色|脱光)"
        r"|(?:色情|裸体|裸照|全裸|性交|做爱|淫|情色)[^。！？\n]{0,8}(?:儿童|幼女|幼童|小学生|初中生|未成年|萝莉|正太)",
        _AGAINST_IT + r"|保护|预防|举报|打击|教育|违法|犯罪|受害",
    ),
    (
        Category.MASS_HARM,
        rf"\b{_MAKING}\W+(?:\w+\W+){{0,6}}?{_MASS_WEAPON}\b"
        r"|(?:如何|怎么|怎样|教我|步骤)[^。！？\n]{0,8}(?:制造|制作|合成|生产|提炼)[^。！？\n]{0,8}"
        r"(?:沙林|神经毒剂|芥子气|蓖麻毒素|炭疽|生物武器|化学武器|核弹|核武器|脏弹)",
        "",
    ),
)


def find(text: str) -> Iterator[tuple[Category, int, int]]:
    """Category, start and end of what is never allowed.

    Args:
        text: Folded, see ``spelling.fold``.
    """
    for category, pattern, unless in _RULES:
        match = compiled_pattern(pattern).search(text)
        if match and not (unless and compiled_pattern(unless).search(text)):
            yield category, match.start(), match.end()

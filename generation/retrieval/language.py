"""Which language a passage is in, by its script and its commonest words."""

from __future__ import annotations

import re
from collections import Counter

UNDETERMINED = "und"
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
_WORD = re.compile(r"[^\W\d_]+")
_COMMON = {
    "en": "the of and to in is that it for you are with on this be as have not by or from your",
    "fr": "le la les des et est une un pour que qui dans vous sur avec pas par ne au du ce",
    "de": "der die das und ist nicht ein eine zu den von mit sie auf für dem im sich des werden",
    "es": "el los las que es una para por con del se no su al como más lo esta",
    "it": "il di che è la per una con non sono del della si gli le alla nel",
    "pt": "o os que é uma para com não do da em se no na por mais dos das",
    "nl": "de het een en van is dat op te niet voor met zijn die aan door",
    "pl": "w nie na się jest do to z że jak o po dla przez",
    "tr": "bir ve bu için ile da de olarak çok daha ne mi",
}
_COMMON_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}


def language_of(text: str) -> str:
    """ISO 639-1 code of a text's language, ``und`` where nothing tells."""
    sample = text[:2000]
    letters = sum(character.isalpha() for character in sample)
    if not letters:
        return UNDETERMINED
    for language, letter in _SCRIPTS:
        # A Han character weighs as much as a short word, and a Japanese text needs only some kana.
        if len(letter.findall(sample)) >= 0.1 * letters:
            return language
    words = _WORD.findall(sample.lower())
    counts = Counter({language: sum(word in common for word in words) for language, common in _COMMON_WORDS.items()})
    language, count = counts.most_common(1)[0]
    return language if count else UNDETERMINED

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.moderation.innocent import INNOCENT
from generation.moderation.policy import EffectivePolicy, LinkRules, Policy, WordList, default_policy
from generation.moderation.rules import check_attachments, check_text
from generation.moderation.spelling import fold, look_alikes
from generation.moderation.types import Action, Category

OFFENSIVE = ("fuck", "shit", "cunt", "ass", "dick", "cock", "cum", "rape", "anal", "tit", "penis", "sex", "nude")
BLOCKED = WordList(words=(*OFFENSIVE, "kill yourself", "毒品", "赌博网站", "法轮功"))
POLICY = Policy(lists=(BLOCKED,)).at()


def hit(text: str, policy: EffectivePolicy = POLICY) -> list[str]:
    """What a blocked word was found in, as it was written."""
    return [
        text[span.start : span.end]
        for verdict in check_text(text, policy).verdicts
        if verdict.decided_by == "rule:blocked"
        for span in verdict.spans
    ]


EVASIONS = {
    "plain": "what the fuck is it",
    "upper case": "FUCK",
    "inflected": "fucking shitty",
    "leetspeak": "sh1t",
    "symbols": "$h!t",
    "digits first": "5h1t",
    "at sign": "you @ss",
    "dollars": "a$$",
    "starred": "f*ck off",
    "twice starred": "f**k",
    "spaced letters": "f u c k you",
    "dotted": "f.u.c.k",
    "dashed": "f-u-c-k",
    "underscored": "f_u_c_k",
    "split in two": "fu ck",
    "split at a word": "sh it",
    "stretched": "fuuuuuck",
    "doubled": "fuuck",
    "accents": "fück",
    "combining marks": "f\u0336u\u0336c\u0336k\u0336",
    "full width": "ｆｕｃｋ",
    "mathematical": "𝖋𝖚𝖈𝖐",
    "boxed": "🅵🅤🅒🅚",
    "flags": "🇫\u200b🇺\u200b🇨\u200b🇰",
    "zero width": "f\u200bu\u200cc\u200dk",
    "soft hyphen": "f\u00adu\u00adck",
    "direction marks": "f\u202eu\u202cck",
    "cyrillic": "ѕhіt",
    "greek": "fυck",
    "cyrillic and leet": "ѕh1t",
    "barred": "f|u|c|k",
    "in bold": "f**u**ck",
    "behind spoiler marks": "||f||uck",
    "a mark for a letter": "f-ck it",
    "a question mark for a letter": "sh?t",
    "a hash for a letter": "f#ck",
    "with a number": "fuck123",
    "small capitals": "ꜰᴜᴄᴋ",
    "hooked": "ƒuck",
    "cent": "fu¢k",
    "shown backwards": "\u202ekcuf\u202c",
    "phrase": "KILL   your  self",
    "phrase in one": "killyourself",
    "phrase in leet": "k1ll y0urself",
    "chinese": "卖毒品",
    "chinese, spaced": "毒 品",
    "chinese, starred": "毒*品",
    "chinese, zero width": "毒\u200b品",
    "homophone": "独品",
    "pinyin": "dupin",
    "pinyin, spaced": "du pin",
    "half pinyin": "毒pin",
    "other half": "du品",
    "pinyin with tones": "dú pǐn",
    "pinyin with numbers": "du2 pin3",
    "a letter between": "法x轮x功",
    "split character": "法车仑功",
    "radical and half": "氵去轮功",
    "long homophone": "发轮工",
    "split in a long word": "贝者博网站",
}


@pytest.mark.parametrize("text", EVASIONS.values(), ids=EVASIONS.keys())
def test_a_blocked_word_is_found_however_it_is_written(text: str) -> None:
    assert hit(text)
    assert check_text(text, POLICY).action is Action.REFUSE


HARMLESS = [
    "Scunthorpe is near Penistone in Essex",
    "she graduated magna cum laude",
    "Moby Dick by Herman Melville, not Dickens",
    "this is Lucas's hit single",
    "is it as simple as shown",
    "push it, hit it, that is it",
    "455 Main Street costs $5 or 5$",
    "a class analysis by the therapist on the grass",
    "the pen is mine and the cockpit is closed, cocktail?",
    "tit for tat, a blue tit",
    "the title of the constitution",
    "Good God, what an assassin in the bass class",
    "document, circumstances, cucumber and cumin",
    "我在读博士，研究儿童教育",
    "我喜欢独自品茶",
    "这个网站的博士生很多",
    "你好，请帮我写一封信",
    "they were on the bus to Sussex, as so often",
    "s h e said hi",
    "a rapper rapped about my friend's ex",
    "消毒品牌和食品种类",
    "出口交易、人口交流、十字路口交通、支援交通",
    "他是火箭人",
    "2 4 6 8",
]


OTHER_LANGUAGES = WordList(words=("хуй", "puta", "scheiße", "くそ", "씨발", "كلب", "dick", "con"))


@pytest.mark.parametrize(
    "text",
    ["ХУЙ", "х.у.й", "xyй", "pu.ta", "P.U.T.A", "5CHEISSE", "ｽｸﾞｸｿ く そ", "クソ", "씨 발", "씨1발", "كـلـب", "ك ل ب"],
)
def test_words_of_other_languages_are_found_in_their_disguises(text: str) -> None:
    assert hit(text, Policy(lists=(OTHER_LANGUAGES,)).at())


@pytest.mark.parametrize(
    "text",
    ["una disputa en la computadora", "ein Dickicht im Nebel", "contre le conseil", "くそう", "художник",
     "十字路口交通很堵，我在门口交给你", "人口交流会", "消毒品牌", "下一轮奸商", "安慰自己"],
)  # fmt: skip
def test_innocent_words_of_other_languages_are_let_through(text: str) -> None:
    assert check_text(text, Policy(lists=(OTHER_LANGUAGES,)).at()).action is Action.ALLOW


@pytest.mark.parametrize(
    ("word", "found", "innocent"),
    [
        ("死ね", "おまえ死ねよ", "生死の問題"),  # a word of two scripts is not its Chinese characters alone
        ("加V信", "快加v信吧", "加强信心"),
        ("ばかやろう", "このばかやろうめ", "ばらのはな"),
        ("カス", "この カス", "ガス"),  # a mark makes another sound
        ("くそ", "くそ！", "やくそく"),
        ("चूतिया", "तू चूतिया है", "चाय तैयार है"),
        ("เหี้ย", "ไอ้เหี้ยนี่", "สวัสดีครับ"),
    ],
)
def test_writing_without_spaces_and_with_marks(word: str, found: str, innocent: str) -> None:
    policy = Policy(lists=(WordList(words=(word,)),)).at()
    assert hit(found, policy)
    assert not hit(innocent, policy)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("хуй", "ну хуй"),
        ("niñ[oa]s?", "los niños"),
        ("クソ", "クソ！"),
        ("毒.?品", "毒x品"),
        ("f+uck", "ＦＦｕｃｋ"),
        ("ß", "Straße"),
    ],
)
def test_expressions_in_any_script_match_what_is_written_in_it(pattern: str, text: str) -> None:
    assert hit(text, Policy(lists=(WordList(patterns=(pattern,)),)).at())


@pytest.mark.parametrize("text", HARMLESS)
def test_innocent_texts_are_let_through(text: str) -> None:
    assert hit(text) == []
    assert check_text(text, POLICY).action is Action.ALLOW


@pytest.mark.parametrize("word", sorted(INNOCENT))
def test_no_scunthorpe_word_is_caught_even_by_wildcards(word: str) -> None:
    wild = Policy(lists=(WordList(words=tuple(f"*{each}*" for each in OFFENSIVE)),)).at()
    assert hit(f"The {word.title()} of {word}.", wild) == []


def test_a_wildcard_matches_inside_words_and_plain_words_do_not() -> None:
    assert hit("motherfucker", Policy(lists=(WordList(words=("*fuck*",)),)).at())
    assert hit("motherfuuuucker", Policy(lists=(WordList(words=("*fuck*",)),)).at())
    assert not hit("motherfucker", Policy(lists=(WordList(words=("fuck",)),)).at())
    assert not hit("unfuck", Policy(lists=(WordList(words=("fuck*",)),)).at())


def test_a_tenants_own_exceptions_hold() -> None:
    assert not hit("Dick van Dyke and dick", Policy(lists=(WordList(words=("dick",), allowed=("dick",)),)).at())


LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7+"}
SEPARATORS = st.sampled_from(["", " ", ".", "-", "_", "\u200b", "\u00ad", " . "])


@given(word=st.sampled_from(["fuck", "shit", "cunt", "dick", "penis"]), data=st.data())
def test_any_mixture_of_disguises_is_caught(word: str, data: st.DataObject) -> None:
    foreign: dict[str, list[str]] = {}
    for character, letter in look_alikes().items():
        foreign.setdefault(letter, []).append(character)
    letters = []
    for letter in word:
        kind = data.draw(st.sampled_from(["plain", "upper", "leet", "foreign", "wide"]))
        options = {
            "plain": letter,
            "upper": letter.upper(),
            "leet": LEET.get(letter, letter)[0] if letter != word[0] else letter,
            "foreign": data.draw(st.sampled_from(sorted(foreign[letter]))) if letter in foreign else letter,
            "wide": chr(ord(letter) + 0xFEE0),
        }
        letters.append(options[kind])
    separator = data.draw(SEPARATORS)
    text = f"oh, {separator.join(letters)} then"
    assert hit(text), text


@given(st.text(max_size=200))
def test_any_text_is_folded_with_its_places_kept(text: str) -> None:
    folded = fold(text)
    for index in range(len(folded.text)):
        start, end = folded.span(index, index + 1)
        assert 0 <= start < end <= len(text)


@given(st.text(max_size=300))
def test_any_text_is_judged_and_can_be_masked(text: str) -> None:
    check_text(text, POLICY).masked(text)


PERSONAL = [
    ("write to joe.doe@example.com now", "write to [e-mail] now"),
    ("or ｊｏｅ@example.com", "or [e-mail]"),
    ("call +1 (555) 234-5678.", "call [phone number]."),
    ("call +44 20 7946 0958 today", "call [phone number] today"),
    ("电话13812345678谢谢", "电话[phone number]谢谢"),
    ("my card 4111 1111 1111 1111 ok", "my card [card number] ok"),
    ("pay DE89 3704 0044 0532 0130 00", "pay [IBAN]"),
    ("身份证11010519491231002X", "身份证[ID number]"),
    ("from 8.8.8.8, really", "from [IP address], really"),
    ("at 2001:4860:4860::8888 now", "at [IP address] now"),
    ("password: hunter22", "password: [password]"),
    ("我的密码是abc12345", "我的密码是[password]"),
    ("AKIAIOSFODNN7EXAMPLE", "[API key]"),
    ("ghp_" + "a1B2" * 9, "[API key]"),
    ("sk-proj-" + "a1B2" * 9, "[API key]"),
    ("xoxb-1234567890-abcdef", "[API key]"),
    ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM", "[token]"),
    ("joe(at)example.com", "[e-mail]"),
    ("DE89-3704-0044-0532-0130-00", "[IBAN]"),
    ("4111.1111.1111.1111", "[card number]"),
    ("+4915112345678", "[phone number]"),
    ("089/1234567 or 06 12 34 56 78", "[phone number] or [phone number]"),
    ("身份证110105 19491231 002X", "身份证[ID number]"),
    ("my number is 123-45-6789.", "my number is [ID number]."),
    (
        "Passwort: geheim123, пароль: qwerty12, パスワード：abc12345",
        "Passwort: [password], пароль: [password], パスワード：[password]",
    ),
    ("postgres://admin:hunter2@db.example.com/x", "postgres://admin:[password]@db.example.com/x"),
    ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz", "Authorization: Bearer [token]"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG1", "aws_secret_access_key = [password]"),
    ("https://discord.com/api/webhooks/123/abcdefghijklmnopqrst", "https://discord.com/api/webhooks/[webhook]"),
    ("https://hooks.slack.com/services/T0/B0/XXXXXXXXXXXXXXXX", "https://hooks.slack.com/services/[webhook]"),
    ("123456789:AAabcdefghijklmnopqrstuvwxyz012345678", "[API key]"),
    ("a@b.co and c@d.org", "[e-mail] and [e-mail]"),
]


@pytest.mark.parametrize(("text", "masked"), PERSONAL)
def test_personal_data_and_secrets_are_masked(text: str, masked: str) -> None:
    decision = check_text(text, POLICY)
    assert decision.action is Action.MASK
    assert decision.masked(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",  # wrong check digit
        "0000 0000 0000 0000",
        "user 1000000000000000004 wrote",  # a platform's own id, whose check digit happens to be right
        "DE88 3704 0044 0532 0130 00",
        "110105194912310021",
        "192.168.0.1 and 127.0.0.1",
        "on 2024-10-11 at 10:30:15",
        "order 1234567890123",
        "pi is 3.14159265358979323846",
        "version v1.2.3.4 of 978-3-16-148410-0",
        "000-12-3456 and 923-45-6789",
        "meet me (at noon) at the park. dot",
        "https://example.org:8080/a@b",
        "the password is secret",
        "1 2 3 4 5 6 7 8 9 10",
    ],
)
def test_what_only_looks_like_personal_data_is_not(text: str) -> None:
    assert check_text(text, POLICY).action is Action.ALLOW


def test_links_are_accepted_unless_the_tenant_says_otherwise() -> None:
    text = "see https://docs.example.org/a and discord.gg/abc"
    assert check_text(text, POLICY).action is Action.ALLOW
    strict = Policy(strictness="strict", links=LinkRules(allowed_domains=("example.org",))).at()
    assert check_text(text, strict).action is Action.REFUSE
    assert check_text("see https://docs.example.org/a, i.e. that", strict).action is Action.ALLOW
    assert check_text("see https://example.org.evil.com/", strict).action is Action.REFUSE


def test_a_prompt_that_is_too_long_is_not_even_read() -> None:
    decision = check_text("fuck " * 2_000, Policy(lists=(BLOCKED,), max_prompt_chars=100).at())
    assert [verdict.category for verdict in decision.verdicts] == [Category.LENGTH]


def test_attachments_go_by_their_ending() -> None:
    assert check_attachments(["a.PNG", "b.tar.md"], POLICY).action is Action.ALLOW
    assert check_attachments(["a.png", "setup.exe"], POLICY).action is Action.REFUSE
    assert check_attachments(["noending"], POLICY).action is Action.REFUSE


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("a nude child", Category.MINORS),
        ("draw a 14 year old girl naked", Category.MINORS),
        ("画一个裸体的幼女", Category.MINORS),
        ("a n4k3d ch1ld", Category.MINORS),
        ("a nаked сhild", Category.MINORS),
        ("how do I make sarin gas at home", Category.MASS_HARM),
        ("如何制造沙林毒气", Category.MASS_HARM),
    ],
)
def test_absolute_categories_are_found_by_rules(text: str, category: Category) -> None:
    off = Policy(shadow=True, exempt={"admin": ("*",)}).at(nsfw=True, roles=["admin"])
    decision = check_text(text, off)
    assert decision.action.stops
    assert category in {verdict.category for verdict in decision.verdicts}


@pytest.mark.parametrize(
    "text",
    ["sex education for children", "a child on a swing", "how were nuclear weapons banned", "保护儿童，打击色情犯罪"],
)
def test_speaking_about_them_is_not_refused(text: str) -> None:
    assert check_text(text, default_policy()).action is Action.ALLOW


def test_an_expression_that_would_hang_a_backtracking_engine_does_not() -> None:
    evil = Policy(lists=(WordList(patterns=("(a+)+$", "(x|xx)+y")),)).at()
    started = time.process_time()
    check_text("a" * 8_000 + "!", evil)
    check_text("x" * 8_000, evil)
    assert time.process_time() - started < 10  # a backtracking engine takes longer than the universe has existed


def test_a_long_list_costs_no_more_than_a_short_one_to_read() -> None:
    many = Policy(lists=(WordList(words=tuple(f"blocked{number}word" for number in range(5_000))),)).at()
    assert hit("this is b1ocked4711word", many) == []  # digits are letters in disguise
    assert hit("this is blocked4711word", many)


def test_rules_need_no_model_library() -> None:
    code = (
        "import sys; from generation.moderation.policy import default_policy; "
        "from generation.moderation.rules import check_text; check_text('hello', default_policy()); "
        "assert not {'torch', 'transformers', 'pypinyin', 'sqlalchemy'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""English and Korean: the same keys, the same facts; chosen by Accept-Language, and said to be so."""

from __future__ import annotations

import re
import string

import httpx
import pytest

from app import hints
from app.language import LANGUAGES, Language, chosen
from engine.errors import Call, Hint, Invalid
from tests.app.conftest import FakeService

TABLES = ("hints", "notes")
ENGLISH, KOREAN = LANGUAGES["en"], LANGUAGES["ko"]


# Calls, options, query parameters, operations in a namespace, JSON fields.
_LITERAL = re.compile(
    r"(?:GET|POST|DELETE) /v1[a-z/{}?=.]*|--[a-z-]+|[?][a-z_]+=|(?:linalg|nn|optim|autograd)[.][a-z_.]+|\"[a-z_]+\":"
)


def sentences(language: Language) -> dict[str, str]:
    return {f"{name}: {key}": text for name in TABLES for key, text in getattr(language, name).items()}


def facts(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_both_languages_have_the_same_keys() -> None:
    assert list(sentences(ENGLISH)) == list(sentences(KOREAN))  # in the same order too, so that they can be compared
    assert ENGLISH.words.keys() == KOREAN.words.keys()


@pytest.mark.parametrize("key", sentences(ENGLISH))
def test_both_languages_say_the_same_facts(key: str) -> None:
    english, korean = sentences(ENGLISH)[key].split(" :: "), sentences(KOREAN)[key].split(" :: ")
    assert [facts(form) for form in english] == [facts(form) for form in korean]


@pytest.mark.parametrize("key", sentences(KOREAN))
def test_korean_is_korean_and_names_what_english_names(key: str) -> None:
    """Calls, parameters, media types and options are the same words in every language."""
    english, korean = sentences(ENGLISH)[key], sentences(KOREAN)[key]
    assert re.search("[가-힣]", korean)
    assert not re.search("[가-힣]", english)

    def named(text: str) -> list[str]:
        return sorted({found.rstrip(".") for found in _LITERAL.findall(text)})

    assert named(english) == named(korean)


def test_no_particle_follows_a_fact_whose_sound_decides_it() -> None:
    """을 or 를, 은 or 는, 이 or 가, 과 or 와 depend on the last sound of the word before, which a fact may end in."""
    wrong = re.compile(r"\{\w+\}(?:을|를|은|는|과|이\s|가\s)")
    shapes = re.compile(r"\{(?:a|b|shape|have|input)\}")  # they end in a bracket, which is read as nothing
    found = [text for text in sentences(KOREAN).values() if wrong.search(shapes.sub("[]", text))]
    assert found == []


# ---------------------------------------------------------------- which one


@pytest.mark.parametrize(
    "header, tag",
    [
        (None, "en"),
        ("", "en"),
        ("ko", "ko"),
        ("ko-KR", "ko"),
        ("KO-kr", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("en;q=0.5, ko;q=0.6", "ko"),
        ("en;q=0.6, ko;q=0.6", "en"),
        ("fr, ko;q=0.1", "ko"),
        ("fr, de", "en"),
        ("*", "en"),
        ("ko;q=0", "en"),
        ("*, en;q=0", "ko"),
        ("en;q=0, ko;q=0", "en"),
        ("ko;q=1.000", "ko"),
        ("ko;q=2, en;q=0.1", "en"),
        ("ko;q=x", "en"),
        ("ko;level=1", "en"),
        ("korean", "en"),
        (",;q=1,,", "en"),
        ("ko;q=0.1, en;q=0." + "9" * 400, "en"),
        ("ko, " * 10_000, "ko"),
        ("é, \x00, ko;q=١", "en"),
    ],
)
def test_the_header_chooses(header: str | None, tag: str) -> None:
    assert chosen(header).tag == tag


def test_a_problem_has_its_hint_in_the_language_asked_for(client: httpx.Client, fake: FakeService) -> None:
    call = Call("to", {"input": "x", "dtype": "float32"})
    fake.answer = Invalid("mean(): could not infer output dtype.", hint=Hint("mean-dtype", call, have="int64"))
    english = client.post("/v1/ops/add", json={})
    korean = client.post("/v1/ops/add", json={}, headers={"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.1"})
    assert english.json()["hint"] == (
        "the mean of int64 is no int64; say in which dtype it is computed: "
        'POST /v1/ops/to {"input": "x", "dtype": "float32"}'
    )
    assert korean.json()["hint"] == (
        "int64 값의 평균은 int64 타입이 아닙니다. 어떤 dtype으로 계산할지 정하세요: "
        'POST /v1/ops/to {"input": "x", "dtype": "float32"}'
    )
    assert korean.json()["detail"] == english.json()["detail"] == "mean(): could not infer output dtype."
    assert (english.headers["content-language"], korean.headers["content-language"]) == ("en", "ko")
    for response in (english, korean):
        assert "Accept-Language" in response.headers["vary"].split(", ")


def test_where_nothing_is_spoken_no_language_is_named(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = Invalid("no", hint=None)
    assert "content-language" not in client.post("/v1/ops/add", json={}, headers={"Accept-Language": "ko"}).headers
    fake.answer = {"results": {"r": None}}
    answer = client.post("/v1/ops/add", json={}, headers={"Accept-Language": "ko"})
    assert "content-language" not in answer.headers
    assert "Accept-Language" in answer.headers["vary"]


def test_what_the_guard_refuses_is_spoken_too(client: httpx.Client) -> None:
    response = client.get("/v1/info", headers={"Host": "elsewhere.org", "Accept-Language": "ko"})
    assert response.json()["hint"] == (
        "elsewhere.org 이름이 이 서버의 것이라면 서버를 --allowed-host elsewhere.org 옵션으로 시작하세요"
    )


@pytest.mark.parametrize(
    "hint, text",
    [
        (
            Hint("free-memory", whose="session"),
            (
                "세션 메모리에서 더 필요 없는 텐서를 지우세요: DELETE /v1/tensors/{id}, 또는 "
                'DELETE /v1/tensors?unnamed=true. 프로그램에서는 "no_grad": true를 주면 계산 기록이 남지 않습니다'
            ),
        ),
        (
            Hint("dim-range", low=-2, high=1),
            "여기서 dim은 -2부터 1까지입니다. 음수는 뒤에서부터 셉니다",
        ),
        (Hint("near-names", near=["matmul", "mul"]), "혹시 이것을 찾으셨나요? matmul, mul"),
        (
            Hint("backward-scalar", shape=[2]),
            'shape가 [2]입니다. 먼저 숫자 하나로 합치거나, 같은 shape의 "gradient"를 주세요',
        ),
    ],
    ids=lambda value: value.key if isinstance(value, Hint) else "",
)
def test_korean_hints(hint: Hint, text: str) -> None:
    assert hints.sentence(hint, KOREAN) == text

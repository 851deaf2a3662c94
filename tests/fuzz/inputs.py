"""What is thrown at the product: arbitrary JSON, valid payloads with something wrong in them, bytes and text."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: How many times as many examples the long form runs.
LONG = 100


def examples(count: int) -> settings:
    """So many examples in the short form.

    Args:
        count: Each may take as long as it needs: machines are busy, and a hang ends by pytest's timeout.
    """
    long = os.environ.get("PALAVER_FUZZ") == "long"
    return settings(
        max_examples=count * LONG if long else count,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


#: Numbers that break readers: beyond what floats and 64 bits hold, negative zero, not a number.
numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, -1, 1, True, False, 2**31, 2**63, 2**64, 1e308, -0.0, 10**400])
)
texts = st.text(max_size=80) | st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "a" * 5_000,
        "__",
        "t1__k1",
        "../../etc/passwd",
        "{{7*7}}",
        "%s%n",
        "\u202e",
        "💥" * 50,
        "-" * 999,
    ]
)
scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=20
)


def deep(levels: int) -> str:
    """JSON nested so deeply that careless readers run out of stack."""
    return "[" * levels + "]" * levels


def encoded(value: Any) -> bytes:
    """As JSON; half characters stay as they are escaped."""
    return json.dumps(value).encode()


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """A valid object in which up to three things are replaced, removed or added, at any depth."""
    changed = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = changed
        while True:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not names:
                break
            name = draw(st.sampled_from(names))
            if isinstance(place[name], dict | list) and place[name] and draw(st.booleans()):
                place = place[name]
                continue
            match draw(st.sampled_from(["replace", "remove", "add"])):
                case "replace":
                    place[name] = draw(json_values)
                case "remove":
                    del place[name]
                case _ if isinstance(place, dict):
                    place[draw(texts)] = draw(json_values)
                case _:
                    place.append(draw(json_values))
            break
    return changed


garbage = (
    st.binary(max_size=200) | json_values.map(encoded) | st.sampled_from([deep(100_000).encode(), b"", b"\xff\xfe"])
)

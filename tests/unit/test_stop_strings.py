"""However text is cut into pieces, no stop string and no part of one that ended the answer is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generation.chat.stop_strings import StopFilter

short = st.text("ab\n", min_size=1, max_size=4)


@given(pieces=st.lists(st.text("ab\n", max_size=5), max_size=12), stop=st.lists(short, max_size=3))
def test_what_is_shown_is_the_text_up_to_a_stop_string(pieces, stop):
    kept = StopFilter(tuple(stop))
    shown = "".join(kept.add(piece) for piece in pieces) + kept.flush()
    text = "".join(pieces)
    assert text.startswith(shown)
    assert not any(string in shown for string in stop)
    assert kept.stopped == any(string in text for string in stop)
    if kept.stopped:
        assert any(text.startswith(string, len(shown)) for string in stop), "cut right before a stop string"
    else:
        assert shown == text

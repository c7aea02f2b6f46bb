"""The ledger of a dataset: what is written comes back, damage is refused, groups join."""

from __future__ import annotations

import pytest

from cvdm.errors import DatasetError
from cvdm.ledger import LEDGER_NAME, Ledger, joined, load_ledger, write_ledger


def test_what_is_written_comes_back(tmp_path):
    """A round trip; the same ledger gives the same bytes whatever its order; none is an empty one."""
    assert load_ledger(tmp_path) == Ledger()
    ledger = Ledger({"b": "two", "a": "one"}, (("f2", "f1"), ("f3", "f9")))
    write_ledger(tmp_path, ledger)
    assert load_ledger(tmp_path) == ledger
    first = (tmp_path / LEDGER_NAME).read_bytes()
    write_ledger(tmp_path, Ledger({"a": "one", "b": "two"}, ledger.scenes))
    assert (tmp_path / LEDGER_NAME).read_bytes() == first


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"sessions": {}}',
        '{"sessions": {}, "scenes": [], "more": 1}',
        '{"sessions": {"a": 1}, "scenes": []}',
        '{"sessions": [], "scenes": []}',
        '{"sessions": {}, "scenes": [["a"]]}',
        '{"sessions": {}, "scenes": [["a", 2]]}',
        '{"sessions": {}, "scenes": "ab"}',
    ],
)
def test_damage_is_refused_with_a_remedy(tmp_path, content):
    """Half a file, another key or another type never passes for an empty ledger."""
    (tmp_path / LEDGER_NAME).write_text(content)
    with pytest.raises(DatasetError, match="ledger") as caught:
        load_ledger(tmp_path)
    assert "checkout" in caught.value.remedy


def test_groups_that_touch_become_one_that_keeps_the_first_leader():
    """The first field of the first group decides on the split, so later groups never take it over."""
    assert joined([("b", "c"), ("x", "y"), ("c", "a")]) == (("b", "c", "a"), ("x", "y"))
    assert joined([("a", "b"), ("c", "d"), ("d", "b", "e")]) == (("a", "b", "c", "d", "e"),)
    assert joined([]) == ()

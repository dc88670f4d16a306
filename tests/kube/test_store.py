import pytest

from kube.resources import Object
from kube.store import Change, ChangeKind, Store


def pod(name: str, version: int, *, uid: str = "u1", node: str = "n1") -> Object:
    return {
        "metadata": {"namespace": "demo", "name": name, "uid": uid, "resourceVersion": str(version)},
        "node": node,
    }


def store() -> Store[str]:
    return Store(lambda obj: obj["node"] or None, {"by_node": lambda node: [node]})


def kinds(changes: list[Change[str]]) -> list[str]:
    return [change.kind.value for change in changes]


def test_a_new_object_is_added_and_found_by_name_and_by_index() -> None:
    held = store()
    assert held.put(pod("a", 1)) == [Change(ChangeKind.ADDED, "demo", "a", None, "n1")]
    assert held.get(("demo", "a")) == "n1"
    assert held.by("by_node", "n1") == ["n1"]
    assert held.by("by_node", "n2") == []


def test_a_change_that_the_projection_does_not_show_is_not_reported() -> None:
    held = store()
    held.put(pod("a", 1))
    assert held.put(pod("a", 2)) == []
    assert held.holds_version(("demo", "a"), "2")


def test_a_change_moves_the_object_in_the_index() -> None:
    held = store()
    held.put(pod("a", 1))
    assert kinds(held.put(pod("a", 2, node="n2"))) == ["modified"]
    assert held.by("by_node", "n1") == []
    assert held.by("by_node", "n2") == ["n2"]


def test_an_object_made_again_under_its_name_is_a_deletion_and_an_addition() -> None:
    held = store()
    held.put(pod("a", 1))
    assert kinds(held.put(pod("a", 5, uid="u2"))) == ["deleted", "added"]


def test_an_object_that_is_no_longer_kept_is_reported_as_deleted() -> None:
    held = store()
    held.put(pod("a", 1))
    assert kinds(held.put(pod("a", 2, node=""))) == ["deleted"]
    assert held.put(pod("a", 3, node="")) == []
    assert len(held) == 0


def test_what_a_complete_list_does_not_show_is_dropped_with_its_last_value() -> None:
    held = store()
    held.put(pod("a", 1))
    held.put(pod("b", 2, node="n2"))
    assert held.drop_all_but({("demo", "a")}) == [Change(ChangeKind.DELETED, "demo", "b", "n2", None)]
    assert held.by("by_node", "n2") == []


def test_a_value_that_an_index_cannot_read_changes_nothing_and_can_be_dropped() -> None:
    held: Store[str] = Store(lambda obj: obj["node"], {"by_node": lambda node: [node], "by_number": lambda n: [n[1]]})
    held.put(pod("a", 1))
    for name in ("a", "b"):
        with pytest.raises(IndexError):
            held.put(pod(name, 2, node="?"))
    assert (held.items(), held.by("by_node", "?"), held.by("by_number", "1")) == (["n1"], [], ["n1"])
    assert kinds(held.drop(("demo", "a"))) == ["deleted"]
    assert held.drop(("demo", "b")) == []
    assert held.by("by_number", "1") == []

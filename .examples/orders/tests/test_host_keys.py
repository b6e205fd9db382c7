from __future__ import annotations

from sandbox.host.keys import Keys


def test_each_host_has_keys_of_its_own_and_prints_them() -> None:
    one, other = Keys(), Keys()
    assert len({one.function, one.master, one.system, other.function, other.master, other.system}) == 6
    assert one.lines().splitlines() == [
        f"key: function {one.function}",
        f"key: master {one.master}",
        f"key: system {one.system}",
    ]


def test_a_key_is_in_no_repr() -> None:
    keys = Keys()
    assert not any(key in repr(keys) for key in (keys.function, keys.master, keys.system))

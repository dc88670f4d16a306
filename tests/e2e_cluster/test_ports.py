"""Free ports."""

from __future__ import annotations

import socket

import pytest

from e2e import ports


def test_ports_are_chosen_once_each_and_none_on_which_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    free = ports.free_ports(5)
    monkeypatch.setattr(ports, "PORTS", free)
    with socket.create_server(("127.0.0.1", free[0])):
        assert sorted(ports.free_ports(4)) == sorted(free[1:])
        with pytest.raises(OSError, match="4 of 5 ports"):
            ports.free_ports(5)


def test_a_port_is_held_until_all_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free_port()
    monkeypatch.setattr(ports, "PORTS", [port, port])
    with pytest.raises(OSError, match="1 of 2 ports"):
        ports.free_ports(2)


def test_a_chosen_port_can_be_listened_on_at_once() -> None:
    for port in ports.free_ports(3):
        socket.create_server(("127.0.0.1", port)).close()

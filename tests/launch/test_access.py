"""Who may ask the manager for what: by uid, by groups, and by method."""

from __future__ import annotations

import os

import pytest

from sockmgr.api import varlink
from sockmgr.config.manager_keys import Control
from sockmgr.errors import ConfigError
from sockmgr.launch.access import Access, resolve

OPS, EYES, NEITHER = 65501, 65502, 65503
SOMEBODY = 65504  # who has no name
METHODS = {method.verb: method for method in varlink.METHODS.values()}
LOOKING = {"status", "health", "plan", "logs", "events", "history", "get-info",
           "get-interface-description"}  # fmt: skip


def allowed(access: Access, *gids: int, uid: int = SOMEBODY) -> set[str]:
    return {verb for verb, method in METHODS.items() if access.may_call(method, uid, gids)}


BOTH = Access(group=OPS, readers=EYES, methods=("reload", "restart-worker"))


@pytest.mark.parametrize(
    ("gids", "verbs"),
    [
        ((EYES,), LOOKING),
        ((NEITHER, EYES), LOOKING),
        ((OPS,), LOOKING | {"reload", "restart-worker"}),
        ((EYES, OPS), LOOKING | {"reload", "restart-worker"}),
        ((NEITHER,), set()),
        ((), set()),
    ],
)
def test_a_client_may_do_what_its_groups_may(gids: tuple[int, ...], verbs: set[str]) -> None:
    assert allowed(BOTH, *gids) == verbs


def test_without_methods_a_group_may_do_everything_and_an_empty_list_means_none() -> None:
    assert allowed(Access(group=OPS), OPS) == METHODS.keys()
    assert allowed(Access(group=OPS, methods=()), OPS) == LOOKING


def test_root_and_the_managers_own_user_may_do_everything() -> None:
    assert allowed(BOTH, uid=0) == allowed(BOTH, uid=os.geteuid()) == METHODS.keys()


@pytest.mark.parametrize(
    ("control", "mode"),
    [
        (Control(), 0o600),
        (Control(group=str(OPS)), 0o660),
        (Control(readers=str(EYES)), 0o660),
        (Control(group=str(OPS), readers=str(EYES)), 0o666),
        (Control(group=str(OPS), mode=0o620), 0o620),
    ],
)
def test_the_socket_lets_those_connect_who_are_named(control: Control, mode: int) -> None:
    assert resolve(control).mode == mode


@pytest.mark.parametrize("key", ["group", "readers"])
def test_a_group_that_does_not_exist_is_an_error(key: str) -> None:
    with pytest.raises(ConfigError, match=f"control.{key} = nobody-s: there is no such group"):
        resolve(Control(**{key: "nobody-s"}))

"""What a canary of the config can be, and one that somebody asks for once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sockmgr.config.canary_keys import once, shares
from sockmgr.config.config import parse
from sockmgr.config.spec import Accept, Address, Canary, Listen, Rollout, Scheme, Spec, Surge
from sockmgr.errors import ConfigError

TCP = Listen(name="http", address=Address(scheme=Scheme.TCP, host="127.0.0.1", port=80))
UNIX = Listen(name="http", address=Address(scheme=Scheme.UNIX, path="/run/shop.sock"))
SPEC = Spec(
    service="web", argv=("x",), executable="/x", cwd="/", listen=(TCP,), workers=4,
    rollout=Rollout(canary=Canary(shares=(5,), check=("./smoke.sh",), executable="/smoke.sh")),
)  # fmt: skip


def parsed(canary: str) -> Canary | None:
    text = f"""
[listen]
http = "tcp://127.0.0.1:80"
[service.web]
command = ["x"]
rollout = {{ canary = {canary} }}
"""
    (service,) = parse(text.encode(), file="shop.toml").services
    return service.rollout.canary


def test_a_canary_has_one_share_or_several_steps() -> None:
    assert parsed('{ share = "10%" }') == Canary(shares=(10,))
    wanted = Canary(shares=(5, 25), seconds=60.0, hold=True, check=("./smoke.sh", "-v"))
    text = '{ share = ["5%", "25%"], for = "1m", hold = true, check = ["./smoke.sh", "-v"] }'
    assert parsed(text) == wanted
    assert str(wanted) == "5%, 25% for 60 s each, the last one until somebody decides"


def test_a_service_without_a_listener_has_no_share_to_give() -> None:
    text = b"""
[service.job]
command = ["x"]
rollout = { canary = { share = "10%" } }
"""
    with pytest.raises(ConfigError, match="the service has no listener"):
        parse(text, file="shop.toml")


@pytest.mark.parametrize("texts", [[], ["0%"], ["100%"], ["5"], ["5%", "5%"], ["9%", "5%"]])
def test_what_is_no_share_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="1%"):
        shares(texts)


def test_what_nobody_asks_for_once_is_as_the_config_has_it() -> None:
    assert once(SPEC, None, None, None) is SPEC
    held = once(SPEC, (10, 50), None, True).rollout.canary
    assert held == Canary(shares=(10, 50), hold=True, check=("./smoke.sh",), executable="/smoke.sh")
    shorter = once(SPEC, None, 5.0, None).rollout.canary
    assert shorter == Canary(
        shares=(5,), seconds=5.0, check=("./smoke.sh",), executable="/smoke.sh"
    )


@pytest.mark.parametrize(
    ("spec", "steps", "why"),
    [
        (SPEC.trusted(), None, "no canary that could be changed"),
        (SPEC, (), "cannot have the shares"),
        (SPEC, (50, 10), "cannot have the shares"),
        (replace(SPEC, listen=()), (10,), "has no listener"),
        (replace(SPEC, listen=(UNIX,)), (10,), "one unix socket"),
        (replace(SPEC, rollout=Rollout(exclusive=True)), (10,), "exclusive forbids"),
        (replace(SPEC, rollout=Rollout(surge=Surge(amount=1))), (30,), "30 % .* 1 of 4 workers"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    spec: Spec, steps: tuple[int, ...] | None, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        once(spec, steps, 5.0, None)


def test_a_unix_socket_can_have_a_canary_if_its_connections_are_dispatched() -> None:
    spec = replace(SPEC, listen=(UNIX,), accept=Accept.DISPATCH)
    assert once(spec, (10,), None, None).rollout.canary

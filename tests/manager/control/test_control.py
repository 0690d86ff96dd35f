"""The control socket speaks Varlink, as a client finds that we did not write."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import asyncvarlink
import asyncvarlink.serviceerrors
import asyncvarlink.serviceinterface
import msgspec
import pytest

from sockmgr.api import types
from sockmgr.client.client import Client
from sockmgr.errors import ConfigError, ControlError, ListenError, SockmgrError, SpawnError
from tests.helpers import foreign_manager
from tests.helpers.fake_manager import ABORTED, FakeManager, a_status, served, serving
from tests.helpers.raw_client import MANAGER, SERVICE, Raw, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


# --- A client that we did not write --------------------------------------------------------------


async def foreign(path: Path) -> tuple[Any, asyncvarlink.VarlinkClientProtocol]:
    return await asyncvarlink.connect_unix_varlink(asyncvarlink.VarlinkClientProtocol, path)


def as_told(value: object) -> object:
    """Return `value` as it is in JSON."""
    return json.loads(msgspec.json.encode(value))


def test_a_foreign_client_reads_the_status_into_its_own_types(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            transport, protocol = await foreign(path)
            found = await protocol.make_proxy(foreign_manager.ManagerInterface).Status()
            transport.close()
        assert found["manager"] == foreign_manager.Manager(
            pid=812, version="0.1.0", started=1.5e9, refused=2
        )
        assert found["services"]["web"].counts.crashed == 3
        assert found["listeners"]["http"].cutover == "steered"
        assert found["listeners"]["http"].choice == "one queue"
        assert found["services"]["web"].rollout is None
        assert found["services"]["job"].rollout.deadline == 20.0
        assert [worker.age for worker in found["services"]["web"].workers] == [3.5] * 7

    run(scenario)


def test_a_foreign_client_scales_and_plans(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            transport, protocol = await foreign(path)
            proxy = protocol.make_proxy(foreign_manager.ManagerInterface)
            assert await proxy.Scale(service="web", workers=3) == {"workers": 3}
            assert await proxy.Scale(service="web", workers=-1, relative=True) == {"workers": 3}
            told = await proxy.Plan(text="x = 1", file="/shop.toml")
            assert [change.text for change in told["changes"]] == [
                change.text for change in manager.answer.changes
            ]
            assert [change.old for change in told["changes"]] == ["4", None]
            assert told["applies"] is True
            assert manager.planned == [("x = 1", "/shop.toml")]
            transport.close()
        assert manager.scaled == [("web", 3, False), ("web", -1, True)]

    run(scenario)


def test_a_foreign_client_that_asks_for_more_gets_progress_and_then_the_verdicts(
    path: Path,
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            transport, protocol = await foreign(path)
            call = asyncvarlink.VarlinkMethodCall(
                f"{MANAGER}.Reload", {"services": ["web"]}, more=True
            )
            replies = [reply async for reply, _ in protocol.call_more(call)]
            transport.close()
        *news, last = [as_told(reply.parameters) for reply in replies]
        assert [reply.continues for reply in replies] == [True] * 5 + [False]
        assert news == [as_told({"progress": one}) for one in manager.news]
        assert last == as_told({"verdicts": manager.verdicts})
        assert manager.reloads == [("web",)]

    run(scenario)


def test_a_reload_without_more_answers_once(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            client = await Raw.connect(path)
            reply = await client.ask(f"{MANAGER}.Reload")
            assert list(reply) == ["parameters"]
            assert list(reply["parameters"]) == ["verdicts"]
            # What comes next answers the next call, so nothing was left over.
            assert "changes" in (await client.ask(f"{MANAGER}.Plan"))["parameters"]
            await client.close()

    run(scenario)


def test_a_foreign_client_can_ask_what_is_spoken_here(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            transport, protocol = await foreign(path)
            proxy = protocol.make_proxy(asyncvarlink.serviceinterface.VarlinkServiceInterface)
            info = await proxy.GetInfo()
            assert info["product"] == "sockmgr"
            assert sorted(info["interfaces"]) == [MANAGER, SERVICE]
            for name in info["interfaces"]:
                found = await proxy.GetInterfaceDescription(interface=name)
                assert f"interface {name}\n" in found["description"]
            with pytest.raises(asyncvarlink.serviceerrors.InterfaceNotFound):
                await proxy.GetInterfaceDescription(interface="io.sockmgr.Nothing")
            transport.close()

    run(scenario)


# --- Calls that the protocol turns down ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "parameters", "error", "told"),
    [
        (f"{MANAGER}.Restart", {}, "MethodNotFound", {"method": f"{MANAGER}.Restart"}),
        (f"{SERVICE}.Get", {}, "MethodNotFound", {"method": f"{SERVICE}.Get"}),
        ("io.systemd.Journal.Rotate", {}, "InterfaceNotFound", {"interface": "io.systemd.Journal"}),
        ("Status", {}, "InterfaceNotFound", {"interface": ""}),
        (f"{MANAGER}.Scale", {"service": "w", "workers": "4"}, "InvalidParameter", "workers"),
        (f"{MANAGER}.Scale", {"service": "w", "workers": 1.5}, "InvalidParameter", "workers"),
        (f"{MANAGER}.Scale", {"service": "w", "workers": 2**70}, "InvalidParameter", "workers"),
        (f"{MANAGER}.Scale", {"service": "w", "workers": True}, "InvalidParameter", "workers"),
        (f"{MANAGER}.Scale", {"workers": 4}, "InvalidParameter", "service"),
        (f"{MANAGER}.Reload", {"services": "web"}, "InvalidParameter", "services"),
        (f"{MANAGER}.Reload", {"services": ["web", 1]}, "InvalidParameter", "services"),
        (f"{MANAGER}.Stop", {"nwo": True}, "InvalidParameter", "nwo"),
        (f"{MANAGER}.Stop", [1], "InvalidParameter", "parameters"),
        (f"{MANAGER}.Stop", "now", "InvalidParameter", "parameters"),
    ],
)
def test_a_call_that_cannot_be_is_answered_as_varlink_says(
    path: Path, method: str, parameters: object, error: str, told: object
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            client = await Raw.connect(path)
            reply = await client.ask(method, parameters)
            expected = told if isinstance(told, dict) else {"parameter": told}
            assert reply == {"error": f"{SERVICE}.{error}", "parameters": expected}
            assert "parameters" in await client.ask(f"{MANAGER}.Status")
            await client.close()
        assert not manager.scaled
        assert not manager.stopped
        assert not manager.reloads

    run(scenario)


def test_parameters_may_be_left_out_or_null(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            client = await Raw.connect(path)
            client.writer.write(b'{"method":"io.sockmgr.Manager.Status"}\0')
            assert "parameters" in await client.reply()
            client.writer.write(b'{"method":"io.sockmgr.Manager.Status","parameters":null}\0')
            assert "parameters" in await client.reply()
            assert "error" not in await client.ask(f"{MANAGER}.Reload", {"services": None})
            await client.close()
        assert manager.reloads == [()]

    run(scenario)


def test_a_oneway_call_is_done_and_never_answered(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            client = await Raw.connect(path)
            client.call(f"{MANAGER}.Reload", {"services": ["web"]}, oneway=True, more=True)
            client.call(f"{MANAGER}.Nothing", oneway=True)
            client.call(f"{MANAGER}.Status", oneway=True)
            reply = await client.ask(f"{MANAGER}.Plan")
            assert reply["parameters"] == json.loads(msgspec.json.encode(manager.answer))
            await manager.began.acquire()
            await client.close()
        assert manager.reloads == [("web",)]

    run(scenario)


def test_calls_sent_without_waiting_are_answered_in_order(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            client = await Raw.connect(path)
            for number in range(500):
                client.call(f"{MANAGER}.Scale", {"service": "web", "workers": number})
            for number in range(500):
                assert (await client.reply())["parameters"] == {"workers": number}
            await client.close()

    run(scenario)


def test_many_clients_at_once_each_get_their_own_answers(path: Path) -> None:
    async def one(number: int) -> None:
        client = await Raw.connect(path)
        for step in range(20):
            wanted = number * 100 + step
            reply = await client.ask(f"{MANAGER}.Scale", {"service": "web", "workers": wanted})
            assert reply["parameters"] == {"workers": wanted}
        await client.close()

    async def scenario() -> None:
        async with served(path, FakeManager()):
            await asyncio.gather(*(one(number) for number in range(50)))

    run(scenario)


# --- What the handler says -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ConfigError, ListenError, SpawnError, ControlError, SockmgrError])
def test_an_error_of_the_manager_reaches_the_caller_as_it_was_raised(
    path: Path, kind: type[SockmgrError]
) -> None:
    with serving(path, error=kind("what", means="means", do="do")):
        for ask in (Client(path).status, Client(path).plan, lambda: Client(path).reload(())):
            with pytest.raises(SockmgrError) as caught:
                ask()
            assert type(caught.value) is kind
            assert (caught.value.what, caught.value.means, caught.value.do) == (
                "what",
                "means",
                "do",
            )


@pytest.mark.parametrize("error", [ValueError("oops"), ConnectionError("x"), TimeoutError("x")])
def test_a_bug_in_the_manager_is_told_and_logged_and_the_next_client_is_answered(
    path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(path, error=error) as manager:
        with pytest.raises(SockmgrError, match="could not answer"):
            Client(path).status()
        with pytest.raises(SockmgrError, match="could not answer"):
            Client(path).reload(())
        manager.error = None
        assert Client(path).status() == a_status()
    assert "control request failed" in caplog.text
    assert "fake_manager.py" in caplog.text


def test_the_client_reports_progress_and_returns_the_verdicts(path: Path) -> None:
    news: list[types.Progress] = []
    with serving(path, verdicts=[ABORTED]) as manager:
        assert Client(path).reload(("web", "job"), news.append) == [ABORTED]
        assert news == manager.news
        assert manager.reloads == [("web", "job")]


def test_a_text_that_is_no_utf_8_is_told_as_far_as_it_can_be(path: Path) -> None:
    strange = os.fsdecode(b"/srv/\xff")
    missing = ConfigError(f"{strange} is missing")
    with serving(path, error=missing), pytest.raises(ConfigError, match=r"^/srv/\? is missing$"):
        Client(path).status()
    with serving(path, verdicts=[msgspec.structs.replace(ABORTED, reason=strange)]):
        (verdict,) = Client(path).reload(())
        assert verdict.reason == "/srv/?"

"""The judge against servers that misbehave on purpose: every class of failure is told apart."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sockmgr.torture.load.response import Malformed, reader_of_any
from sockmgr.torture.load.result import Outcome, Row, percentile
from tests.helpers.load import Load, Result, Target, load_for, parse_mode
from tests.torture.planted import (
    ANSWER,
    BODY,
    CHUNKED,
    Peer,
    good,
    judge,
    judge_target,
    outcomes,
    says,
    serving,
    target,
    tcp,
)


@pytest.mark.parametrize(
    "mode",
    [
        "short:rate=60",
        "ka:conns=2,rate=60",
        "kat:conns=2",
        "slow:s=0.01",
        "slow:s=0.01,rate=40",
        "half:rate=40,s=0.03",
    ],
)
def test_a_server_that_answers_is_ok_in_every_mode(mode: str) -> None:
    result = judge(good, mode)
    assert outcomes(result) == {Outcome.OK}
    assert not result.failed
    assert {(row.pid, row.version) for row in result.rows} == {(7, "1")}


def test_an_upload_comes_in_pieces_and_its_answer_must_have_its_size() -> None:
    heads: list[bytes] = []

    async def handler(peer: Peer) -> None:
        got = b""
        while not got.endswith(b"\r\n\r\n" + b"u" * 65536):
            got += await asyncio.get_running_loop().sock_recv(peer.sock, 65536)
        heads.append(got)
        body = b'{"pid": 7, "version": "1", "received": %d}' % (65536 if len(heads) % 2 else 65535)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    assert outcomes(judge(handler, "upload:rate=40,s=0.02")) == {Outcome.OK, Outcome.BAD_BODY}
    assert heads[0].startswith(b"POST /upload ")


def test_any_body_will_do_for_a_server_of_others_as_long_as_it_holds_what_is_expected() -> None:
    read = reader_of_any(b"shop")
    assert read(b"<h1>shop</h1>", b"}") == (0, "")
    assert read(b'{"shop": 1, "pid": 7, "version": 2}', b"}") == (7, "2")
    for body, end in ((b"sorry", b"}"), (b"shop", b"END")):
        with pytest.raises(Malformed, match="the body does not"):
            read(body, end)


def test_kept_connections_are_used_again() -> None:
    result = judge(good, "ka:conns=2,rate=100")
    assert sum(row.fresh for row in result.rows) <= 2
    assert len(result.rows) > 5


FATES = {
    "RST before a byte": (says(reset=True), Outcome.RESET0),
    "FIN before a byte": (says(), Outcome.EMPTY),
    "RST in the body": (says(ANSWER[:-9], reset=True), Outcome.RESET_MID),
    "RST in the head": (says(ANSWER[:25], reset=True), Outcome.RESET_MID),
    "FIN in the body": (says(ANSWER[:-9]), Outcome.TRUNC_MID),
    "FIN in the head": (says(ANSWER[:25]), Outcome.TRUNC_MID),
    "FIN among chunks": (says(CHUNKED, b"5\r\nhello\r\n"), Outcome.TRUNC_MID),
    "500": (says(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), Outcome.HTTP_5XX),
    "503 up to the close": (says(b"HTTP/1.1 503 Oops\r\n\r\nsorry"), Outcome.HTTP_5XX),
    "404": (says(b"HTTP/1.1 404 Oops\r\nContent-Length: 0\r\n\r\n"), Outcome.HTTP_4XX),
    "301": (says(b"HTTP/1.1 301 Oops\r\nContent-Length: 0\r\n\r\n"), Outcome.BAD_BODY),
    "not JSON": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), Outcome.BAD_BODY),
    "no pid": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Outcome.BAD_BODY),
    "more than Content-Length": (says(ANSWER + b"more"), Outcome.BAD_BODY),
    "a broken chunk": (says(CHUNKED, b"nonsense\r\n"), Outcome.BAD_BODY),
    "not HTTP": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), Outcome.BAD_BODY),
}


@pytest.mark.parametrize("fate", FATES)
def test_what_a_server_does_to_a_fresh_connection_is_told_apart(fate: str) -> None:
    handler, outcome = FATES[fate]
    assert outcomes(judge(handler, "short:rate=40")) == {outcome}


def test_a_response_in_small_pieces_is_ok() -> None:
    pieces = [ANSWER[i : i + 3] for i in range(0, len(ANSWER), 3)]
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert outcomes(judge(says(interim, *pieces), "short:rate=40")) == {Outcome.OK}


def test_a_body_up_to_the_close_is_ok() -> None:
    assert outcomes(judge(says(b"HTTP/1.0 200 OK\r\n\r\n", BODY), "short:rate=40")) == {Outcome.OK}


STREAM = [b"1b\r\n" + BODY + b"\n\r\n", b"5\r\ntick\n\r\n", b"4\r\nEND\n\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        (STREAM, Outcome.OK),
        (STREAM[:1] + STREAM[3:], Outcome.BAD_BODY),  # well framed, but no END
        (STREAM[:3], Outcome.TRUNC_MID),  # END, but the frame is open
    ],
    ids=["whole", "no END", "no last chunk"],
)
def test_a_stream_must_finish_with_its_end(pieces: list[bytes], outcome: Outcome) -> None:
    assert outcomes(judge(says(CHUNKED, *pieces), "stream:conns=1,s=1")) == {outcome}


@pytest.mark.parametrize(
    ("reset", "outcome"), [(True, Outcome.KA_LOST_RST), (False, Outcome.KA_LOST_FIN)]
)
def test_a_kept_connection_closed_after_the_request_is_a_lost_request(
    reset: bool, outcome: Outcome
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ANSWER)
        await peer.request()
        if reset:
            peer.reset()

    result = judge(handler, "ka:conns=1,rate=60")
    assert outcomes(result) == {Outcome.OK, outcome}
    assert result.races == result.failed
    assert not result.lost


def test_an_idle_close_costs_no_request() -> None:
    result = judge(says(ANSWER), "ka:conns=1,rate=30")
    assert outcomes(result) == {Outcome.OK}
    assert all(row.fresh for row in result.rows)


def test_connection_close_is_obeyed() -> None:
    closing = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    result = judge(says(closing), "ka:conns=1,rate=30")
    assert outcomes(result) == {Outcome.OK}


def test_a_server_that_never_answers_is_a_timeout() -> None:
    async def handler(peer: Peer) -> None:
        while await peer.request():
            pass

    assert outcomes(judge(handler, "short:rate=20,timeout=0.1")) == {Outcome.TIMEOUT}


def test_what_is_open_when_the_judge_must_end_is_unfinished() -> None:
    async def handler(peer: Peer) -> None:
        while await peer.request():
            pass

    result = judge(handler, "ka:rate=20,conns=1", drain=0.1)
    assert outcomes(result) == {Outcome.UNFINISHED}


def test_a_port_nobody_listens_on_is_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for mode in ("short:rate=40", "ka:rate=40,conns=2", "slow:conns=1"):
            assert outcomes(judge_target(target(bound), mode)) == {Outcome.REFUSED}


def test_a_full_accept_queue_is_a_connect_timeout() -> None:
    with tcp(backlog=0) as listener, socket.create_connection(listener.getsockname()):
        result = judge_target(target(listener), "short:rate=20,connect_timeout=0.1,timeout=0.2")
    assert Outcome.CONNECT_TIMEOUT in outcomes(result)


def test_a_unix_path_that_is_not_there_is_noent(tmp_path: Path) -> None:
    aim = Target.at_path(str(tmp_path / "none.sock"))
    assert outcomes(judge_target(aim, "short:rate=40")) == {Outcome.NOENT}


def test_a_unix_path_nobody_listens_on_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "stale.sock")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        assert outcomes(judge_target(Target.at_path(path), "short:rate=40")) == {Outcome.REFUSED}


def test_a_full_unix_backlog_is_told_from_a_slow_server(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        result = judge_target(Target.at_path(path), "short:rate=40,timeout=0.3")
    assert outcomes(result) == {Outcome.TIMEOUT, Outcome.BACKLOG_FULL}


def test_a_unix_peer_that_closes_unread_requests_is_a_failure(tmp_path: Path) -> None:
    path = str(tmp_path / "closing.sock")

    async def close_at_once(_: Peer) -> None:
        return

    async def run() -> Result:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            async with serving(close_at_once, listener):
                modes = [parse_mode("short:rate=40")]
                return await load_for(0.15, Target.at_path(path), modes)

    assert outcomes(asyncio.run(run())) <= {Outcome.RESET0, Outcome.EMPTY}


def test_only_this_machine_is_ever_loaded() -> None:
    for url in ("http://192.0.2.1:80", "http://[2001:db8::1]:80", "http://example.org:80"):
        with pytest.raises(ValueError, match=r"only ever|not a name"):
            Target.at_url(url)
    assert Target.at_url("http://localhost:80").address == ("127.0.0.1", 80)


@pytest.mark.parametrize("text", ["fast", "short:rate=1000000", "ka:conns=0", "short:speed=1"])
def test_an_unknown_or_unbounded_mode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mode|at most"):
        parse_mode(text)


def test_a_load_in_a_thread_can_be_watched_and_stopped() -> None:
    with tcp() as listener:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            pass_fds=[listener.fileno()],
            env={"FD": str(listener.fileno())},
        )
        try:
            with Load(target(listener), ["short:rate=100", "kat:conns=2"]) as load:
                while not any(row.outcome is Outcome.OK for row in load.result.rows):
                    pass
            assert not load.result.failed
        finally:
            server.kill()
            server.wait()


SERVER = """
import os, socket, threading
def serve(client):
    with client:
        while client.recv(65536):
            client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 26\\r\\n\\r\\n'
                           b'{"pid": 7, "version": "1"}')
listener = socket.socket(fileno=int(os.environ["FD"]))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def command(*arguments: str, prefix: str = "exec") -> subprocess.CompletedProcess[str]:
    line = f'{prefix} "$@"'
    argv = ["sh", "-c", line, "sh", sys.executable, "-m", "tests.torture", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_the_command_exits_with_1_when_a_request_failed_and_says_how() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        done = command("--url", url, "--mode", "short:rate=30", "--duration", "0.2", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["failed"] == found["requests"] == found["modes"]["short"]["outcomes"]["refused"]


def test_the_command_refuses_another_machine_with_2() -> None:
    assert command("--url", "http://192.0.2.1:80").returncode == 2


def test_running_out_of_descriptors_is_the_judges_own_failure() -> None:
    with tcp() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        mode = "short:rate=100,timeout=1"
        done = command(
            "--url", url, "--mode", mode, "--duration", "0.5", prefix="ulimit -n 16; exec"
        )
    assert done.returncode == 1
    assert "local_limit" in done.stdout


def row(at: float, version: str, *, fresh: bool = True, took: float = 0.5) -> Row:
    return Row(mode="short", scheduled=at, began=at, ended=at + took, version=version, fresh=fresh,
               outcome=Outcome.OK)  # fmt: skip


def test_the_last_old_answer_counts_new_connections_begun_after_the_instant_only() -> None:
    rows = [
        row(9.9, "1"),  # begun before, answered after: the old generation may finish it
        row(10.2, "1"),
        row(10.4, "2"),
        row(11.0, "1", fresh=False),  # a kept connection belongs to its worker
    ]
    result = Result(rows=rows)
    assert result.last_old("2", since=10) == pytest.approx(0.2)
    assert result.first_new("2", since=10) == pytest.approx(0.9)
    assert math.isnan(result.last_old("2", since=10.3))


def test_versions_mix_when_a_new_connection_meets_an_older_one_after_a_newer() -> None:
    clean = [row(1, "1"), row(2, "2"), row(2.1, "1", fresh=False), row(3, "3")]
    assert Result(rows=clean).mixed() == 0
    late = [*clean, row(2.3, "1"), row(3.1, "2")]
    assert Result(rows=late).mixed() == pytest.approx(0.3)


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert math.isnan(percentile([], 0.5))

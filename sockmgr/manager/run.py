"""Make this process a manager, and run it: what has to be done before there is an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
from pathlib import Path

from msgspec.structs import replace

from sockmgr.api.records import EventKind
from sockmgr.client.finding import check_control, check_length, default_control
from sockmgr.config.manager_keys import Format, Logs
from sockmgr.errors import ControlError, ListenError, SockmgrError
from sockmgr.kernel.open_files import close_on_exec_all
from sockmgr.kernel.process import become_subreaper, reset_signals, withhold_bpf
from sockmgr.kernel.selector import FewEvents
from sockmgr.log import Log
from sockmgr.manager import crash_points
from sockmgr.manager.embedding import Companion
from sockmgr.manager.logs.events import EventLog
from sockmgr.manager.logs.journal import open_sink
from sockmgr.manager.logs.sink import RecordHandler
from sockmgr.manager.manager import Manager
from sockmgr.manager.services import Source
from sockmgr.manager.signals import ASKED_BY
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.upgrade import inherited
from sockmgr.systemd.passed import START_DIRECTLY, passed_descriptors, passed_to_another

log = Log("sockmgr")


def run(
    source: Source,
    *,
    control: Path | None,
    as_json: bool = False,
    timeout: float | None = None,
    companion: Companion | None = None,
    file: str = "",
) -> int:
    """Run until stopped; return the exit code. `source` reads the config, again at each reload.

    `file` is the file that it reads, if there is one. Without a path for the `control` socket, the
    name of the manager decides where the socket is. `as_json` makes every line on stderr a JSON
    object. If not all services serve within `timeout` seconds, everything is stopped and the exit
    code is 1. With a `companion`, no worker or socket outlives this manager.
    """
    sink, flaw = (companion.sink, "") if companion else open_sink(_logs(source, as_json=as_json))
    history = EventLog()
    logging.basicConfig(level=logging.INFO, handlers=[RecordHandler(sink), history], force=True)
    if flaw:
        log.warning(EventKind.JOURNAL_NOT_USED, because=flaw)
    if astray := passed_to_another():
        log.warning("systemd's sockets are not used", because=astray, do=START_DIRECTLY)
    # Whatever our parent left open must not reach the workers (PEP 446 is about our own only).
    close_on_exec_all()
    reset_signals(blocked=ASKED_BY)
    # Orphans of workers become our children then, which we can find and end: prctl(2).
    become_subreaper()
    withhold_bpf()
    try:
        crash_points.check()
        # Before any descriptor of our own could pass for one of systemd's.
        upgraded = inherited()
        if upgraded:
            crash_points.reached(crash_points.Point.NEW_CODE)
        passed = upgraded or passed_descriptors()
        if control:
            _check_control(control, serves=bool(upgraded))
        path = control or default_control(_name(source, passed), _log_refused)
        check_length(path)  # a clear error here, not EINVAL from bind(2) later
        manager = Manager(source, path, sink, history, timeout, companion)
        manager.config_file = file
        # What was imported is never garbage, and to walk it takes longer than any turn of the loop.
        gc.freeze()
        loop = functools.partial(asyncio.SelectorEventLoop, FewEvents())
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(manager.run(passed))
    except ListenError as error:
        if not astray:
            raise
        # Who holds the address is systemd, and holds it for us.
        do = f"{START_DIRECTLY}; or else: {error.do}"
        raise ListenError(error.what, means=astray, do=do) from error
    finally:
        sink.close()


def _logs(source: Source, *, as_json: bool) -> Logs:
    found = Logs()
    with contextlib.suppress(SockmgrError):  # it is told when the config is needed
        found = source().logs
    return replace(found, format=Format.JSON) if as_json else found


def _check_control(control: Path, *, serves: bool) -> None:
    try:
        check_control(control)
    except ControlError as error:
        if not serves:
            raise
        # A version that did not mind was upgraded in place: its services are not to pay for it.
        log.error("control socket is not ours alone", because=error.what,
                  means="the next start is refused", do=error.do)  # fmt: skip


def _log_refused(place: Path, why: str) -> None:
    log.warning("directory not used", path=place, because=why)


def _name(source: Source, passed: dict[str, list[int]]) -> str:
    """Return our name, which is our predecessor's if the config cannot be read any more."""
    try:
        return source().name
    except SockmgrError:
        # The workers of a manager are found by its name: a broken config must not cost their lives.
        state = Predecessor.of(passed).state
        if state is None:
            raise
        return state.config.name

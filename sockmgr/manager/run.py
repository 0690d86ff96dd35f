"""Make this process a manager, and run it: what has to be done before there is an event loop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.client.client import check_control, check_length, default_control
from sockmgr.errors import ControlError, ListenError, SockmgrError
from sockmgr.kernel.open_files import close_on_exec_all
from sockmgr.kernel.process import become_subreaper, reset_signals, withhold_bpf
from sockmgr.log import Log
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

    It reads it from `file`, if there is one.

    Without a path for the `control` socket it is where that of a manager of our name is.
    `as_json` makes every line on stderr a JSON object. When not all services serve within
    `timeout` seconds, everything is stopped and the exit code is 1. With a `companion` nothing is
    kept for another manager: it sees to it that nothing outlives us.
    """
    sink, flaw = (companion.sink, "") if companion else open_sink(as_json=as_json)
    history = EventLog()
    logging.basicConfig(level=logging.INFO, handlers=[RecordHandler(sink), history], force=True)
    if flaw:
        log.warning(EventKind.JOURNAL_NOT_USED, because=flaw)
    if astray := passed_to_another():
        log.warning("systemd's sockets are not used", because=astray, do=START_DIRECTLY)
    close_on_exec_all()
    reset_signals(blocked=ASKED_BY)
    become_subreaper()
    withhold_bpf()
    try:
        # Before any descriptor of our own could pass for one of systemd's.
        upgraded = inherited()
        passed = upgraded or passed_descriptors()
        if control:
            _check_control(control, serves=bool(upgraded))
        path = control or default_control(_name(source, passed), _tell_refused)
        check_length(path)
        manager = Manager(source, path, sink, history, timeout, companion)
        manager.config_file = file
        return asyncio.run(manager.run(passed))
    except ListenError as error:
        if not astray:
            raise
        # Who holds the address is systemd, and holds it for us.
        do = f"{START_DIRECTLY}; or else: {error.do}"
        raise ListenError(error.what, means=astray, do=do) from error
    finally:
        sink.close()


def _check_control(control: Path, *, serves: bool) -> None:
    try:
        check_control(control)
    except ControlError as error:
        if not serves:
            raise
        # A version that did not mind was upgraded in place: its services are not to pay for it.
        log.error("control socket is not ours alone", because=error.what,
                  means="the next start is refused", do=error.do)  # fmt: skip


def _tell_refused(place: Path, why: str) -> None:
    log.warning("directory not used", path=place, because=why)


def _name(source: Source, passed: dict[str, list[int]]) -> str:
    """Return our name, which is our predecessor's if the config cannot be read any more."""
    try:
        return source().name
    except SockmgrError:
        state = Predecessor.of(passed).state
        if state is None:
            raise
        return state.config.name

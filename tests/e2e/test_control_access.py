"""Members of groups talk to a manager under load: each may do what [control] says, and no more."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered
from tests.helpers.load import Load
from tests.helpers.others import ask

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.executable.startswith("/root"),
    reason="only root can be several users, who have to run our Python",
)
SOMEBODY, OPS, EYES, NEITHER = 65534, 65501, 65502, 65503
CONTROL = f'[control]\ngroup = "{OPS}"\nreaders = "{EYES}"\nmethods = ["reload"]\n'
REFUSED, DENIED = "io.sockmgr.Manager.Refused", "org.varlink.service.PermissionDenied"


def outcomes(manager: Manager, gid: int, *methods: str) -> list[str]:
    """Return the error of each call, or "", of a process that has `gid` as a further group."""
    replies = ask(manager.control, SOMEBODY, (SOMEBODY, gid), *methods)
    return [reply.get("error", "") for reply in replies]


def test_who_only_reads_cannot_stop_and_who_deploys_can_reload(tmp_path: Path) -> None:
    config = Release(tmp_path).config("workers = 2")
    with Manager(tmp_path, config + CONTROL) as manager:
        tmp_path.chmod(0o711)
        with Load(manager.target(), LIGHT) as load:
            looks = ("Status", "Events", "Logs", "History", "Plan")
            assert outcomes(manager, EYES, *looks, "Stop", "Reload") == [""] * 5 + [REFUSED] * 2
            own = "Plan " + json.dumps({"text": 'env_file = "/etc/shadow"', "file": "x"})
            assert outcomes(manager, EYES, own, "Status") == [DENIED, ""]
            assert outcomes(manager, OPS, own) == ["io.sockmgr.Manager.InvalidConfig"]
            assert outcomes(manager, OPS, "Status", "Stop", "Reload") == ["", REFUSED, ""]
            assert outcomes(manager, NEITHER, "Status") == [DENIED]
            answered(load, count=3)
            # The next manager lets the same people in, and after a reload others.
            manager.kill9()
            manager.start()
            manager.wait_serving()
            assert outcomes(manager, EYES, "Status", "Stop") == ["", REFUSED]
            manager.config.write_text(config + CONTROL.replace(str(EYES), str(NEITHER)))
            assert manager.reload().code == 0
            assert outcomes(manager, EYES, "Status") == [DENIED]
            assert outcomes(manager, NEITHER, "Status", "Upgrade") == ["", REFUSED]
            manager.config.write_text(config + CONTROL.replace(str(OPS), "no-group-of-that-name"))
            assert manager.reload().code == 2
            assert outcomes(manager, OPS, "Status") == [""]
        assert not load.result.failed, load.result.failures()
        stops = manager.events("control call refused", method="stop")
        assert {event["fields"]["uid"] for event in stops} == {str(SOMEBODY)}
        assert len(stops) == 3
        assert manager.events("control client refused", uid=str(SOMEBODY))


def test_a_socket_that_was_removed_comes_back_for_its_group_alone(tmp_path: Path) -> None:
    config = Release(tmp_path).config(f'[control]\nreaders = "{EYES}"')
    with Manager(tmp_path, config) as manager:
        tmp_path.chmod(0o711)
        assert outcomes(manager, EYES, "Health") == [""]
        manager.control.unlink()
        wait_for(manager.control.exists, "the socket to come back")
        wait_for(lambda: manager.control.stat().st_mode & 0o777 == 0o660, "its mode")
        assert manager.control.stat().st_gid == EYES
        assert outcomes(manager, EYES, "Health") == [""]
        with pytest.raises(PermissionError):  # the kernel's own
            outcomes(manager, NEITHER, "Health")

"""`python -m tests.bench.torture [NAME…]`: `sockmgr torture` for each server, bare and managed.

Writes docs/torture-report.html and the table in docs/torture.md after each server, so that what was
measured stays if the run is ended.
"""

from __future__ import annotations

import html
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from sockmgr.torture import report
from sockmgr.torture.page import page, style
from sockmgr.torture.plan import Plan
from sockmgr.torture.run import Run, Trial, torture
from tests.bench.report import narrate, table
from tests.e2e.apps import ROOT
from tests.e2e.harness import BIN

DOCS = ROOT / "docs"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
SECONDS = float(os.environ.get("SECONDS_EACH", "4"))
TIMEOUT = 15.0  # a busy machine is slow, and a slow answer is no lost one
JOBS = int(os.environ.get("JOBS", "1"))  # servers at a time
FIRST_PORT = 18710  # below ip_local_port_range, ip(7)
HUP = "kill -HUP {pid}"
UVICORN = "uvicorn --no-access-log --log-level warning"
PATIENT = f"{UVICORN} --timeout-worker-healthcheck 60"  # 5 s are short on a busy machine
GTHREAD = "gunicorn -k gthread --threads 8 --no-control-socket"
GRANIAN = "granian --interface asgi --no-access-log --log-level warning"
UWSGI = (
    "uwsgi --master --threads 8 --need-app -w app:wsgi --disable-logging "
    "--hook-master-start 'unix_signal:15 gracefully_kill_them_all'"
)
CIRCUS = """[circus]
endpoint = ipc://{dir}/circus.sock
pubsub_endpoint = ipc://{dir}/pubsub.sock
[socket:http]
host = 127.0.0.1
port = {port}
[watcher:web]
cmd = uvicorn --no-access-log --log-level warning --fd $(circus.sockets.http) app:app
working_dir = {dir}
numprocesses = 4
use_sockets = True
copy_env = True
"""
OWN = """[listen]
http = "tcp://127.0.0.1:{port}"
[service.web]
app = "app:app"
workers = 4
cwd = "{dir}"
accept = "per-worker"
"""
# Puma's application, in place of app.py: the same answers, the same version.py.
RACK = """
sleep 0.5
VERSION = File.read("version.py")[/VERSION = "(.+)"/, 1] || raise("a broken version")
def said(more = "") = %({"pid": #{Process.pid}, "version": "#{VERSION}"#{more}})
run lambda { |env|
  seconds = env["QUERY_STRING"][/s=([\\d.]+)/, 1].to_f
  body = said
  case env["PATH_INFO"]
  when "/slow" then sleep seconds
  when "/upload" then body = said(%(, "received": #{env["rack.input"].read.bytesize}))
  when "/stream"
    body = Enumerator.new do |out|
      out << said + "\\n"
      (seconds / 0.2).round.times { sleep 0.2; out << "tick\\n" }
      out << "END\\n"
    end
    next [200, {"Content-Type" => "text/plain"}, body]
  end
  [200, {"Content-Type" => "application/json", "Content-Length" => body.bytesize.to_s}, [body]]
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One row of the table: a line that starts a server, and how it reloads."""

    name: str
    line: str
    reload: str = HUP
    waits: bool = False
    needs: str = ""
    files: tuple[tuple[str, str], ...] = ()

    def plan(self, port: int) -> Plan:
        """Return what is tortured; the files are written into {dir} before the line is run."""
        writes = "".join(f"cat > {{dir}}/{name} <<'EOT'\n{text}EOT\n" for name, text in self.files)
        return Plan(
            command=("sh", "-c", f"{writes}exec {self.line}"), port=port, own_app=True,
            reload=self.reload, waits=self.waits, seconds=SECONDS, timeout=TIMEOUT,
            start_timeout=60,
        )  # fmt: skip


Files = tuple[tuple[str, str], ...]


def managed(name: str, line: str, needs: str = "", files: Files = ()) -> Server:
    """Return a server whose workers sockmgr runs."""
    run = (
        "sockmgr run --listen http=tcp://127.0.0.1:{port} --control {dir}/control.sock --workers 4"
    )
    return Server(
        name=f"sockmgr, {name}", line=f"{run} -- {line}", needs=needs, files=files, waits=True,
        reload="sockmgr reload --control {dir}/control.sock",
    )  # fmt: skip


RACKUP = (("config.ru", RACK),)
SERVERS = (
    Server(name="uvicorn", line=f"{PATIENT} --workers 4 --port {{port}} app:app"),
    managed("uvicorn", f"{UVICORN} --fd '{{http}}' app:app"),
    Server(name="Gunicorn gthread", line=f"{GTHREAD} -w 4 -b 127.0.0.1:{{port}} app:wsgi"),
    managed("Gunicorn gthread", f"{GTHREAD} app:wsgi"),
    Server(name="granian", line=f"{GRANIAN} --workers 4 --port {{port}} app:app"),
    managed("granian", f"{GRANIAN} app:app"),
    Server(name="hypercorn", line="hypercorn -w 4 -b 127.0.0.1:{port} app:app"),
    managed("hypercorn", "hypercorn -w 0 --bind 'fd://{http}' app:app"),
    Server(
        name="uWSGI",
        line=f"{UWSGI} -p 4 --http-socket 127.0.0.1:{{port}} --binary-path $(command -v python)",
    ),
    managed("uWSGI", f"{UWSGI} --protocol http"),
    Server(
        name="puma", needs="puma", files=RACKUP, reload="kill -USR1 {pid}",
        line="puma -w 4 -t 8:8 -b tcp://127.0.0.1:{port} config.ru",
    ),
    managed("puma", "puma -t 8:8 config.ru", needs="puma", files=RACKUP),
    Server(
        name="circus, uvicorn", files=(("circus.ini", CIRCUS),), needs="circusd",
        line="python -m circus.circusd {dir}/circus.ini", waits=True,
        reload="python -m circus.circusctl --timeout 60 --endpoint "
        "ipc://{dir}/circus.sock reload web --waiting",
    ),
    Server(
        name="sockmgr, its own runtime", files=(("sockmgr.toml", OWN),), waits=True,
        line="sockmgr run -c {dir}/sockmgr.toml --control {dir}/control.sock",
        reload="sockmgr reload --control {dir}/control.sock",
    ),
)  # fmt: skip


def main(names: Sequence[str]) -> int:
    """Torture all servers, or those that are named."""
    os.environ["PATH"] = f"{BIN}:{os.environ.get('PATH', '')}"
    chosen = [each for each in SERVERS if not names or each.name in names]
    missing = [each.name for each in chosen if each.needs and not shutil.which(each.needs)]
    chosen = [each for each in chosen if each.name not in missing]
    runs: list[Run] = []
    with ThreadPoolExecutor(JOBS) as pool:
        for run in pool.map(measure, chosen):
            runs.append(run)
            write(runs, missing)
    return 0


def measure(server: Server) -> Run:
    """Torture one server, at a port that no client is given as its own."""
    narrate(f"{server.name} …")
    run = torture(server.plan(FIRST_PORT + SERVERS.index(server)), title=server.name)
    narrate(f"{server.name}: {report.total(run)}")
    return run


def matrix(runs: Sequence[Run]) -> Iterator[str]:
    names = [trial.name for trial in runs[0].trials]
    yield "<p>Requests that were lost and need not have been, by server and scenario. "
    yield "! is something else that was wrong, - was not played.</p>"
    yield "<div class=wide><table class=matrix><tr><th>"
    yield "".join(f"<th>{html.escape(name)}" for name in names)
    for number, run in enumerate(runs):
        yield f"<tr><td><a href=#run{number}>{html.escape(run.title)}</a>"
        for trial in run.trials:
            yield f'<td class="{style(trial)}" title="{html.escape(report.verdict(trial))}">'
            yield cell(trial)
    yield "</table></div>"


def cell(trial: Trial) -> str:
    """Return a trial as one number: what it lost, with `!` if something else was wrong."""
    if trial.skipped:
        return "-"
    return f"{trial.lost}{'!' if trial.seen.problems else ''}"


def write(runs: Sequence[Run], missing: Sequence[str]) -> None:
    """Put the page and the table in place."""
    about = _about(missing)
    text = page(runs, above=f"<p>{html.escape(about)}</p>{''.join(matrix(runs))}")
    (DOCS / "torture-report.html").write_text(text)
    head = ("", *(trial.name for trial in runs[0].trials))
    rows = [(run.title, *map(cell, run.trials)) for run in runs]
    file = DOCS / "torture.md"
    before, _, rest = file.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n{table(head, rows)}\n\n{about}\n\n{END}{after}")


def _about(missing: Sequence[str]) -> str:
    tools = ("uvicorn", "gunicorn", "granian", "hypercorn", "pyuwsgi", "circus")
    versions = [f"{tool} {found}" for tool in tools if (found := _version(tool))]
    if puma := shutil.which("puma"):
        said = subprocess.run([puma, "--version"], capture_output=True, text=True, check=False)
        versions.append(said.stdout.strip())
    absent = f" Not installed here: {', '.join(missing)}." if missing else ""
    return (
        f"Made by `python -m tests.bench.torture` on {datetime.now(tz=UTC):%Y-%m-%d}, "
        f"{SECONDS:g} s a scenario, servers at a time: {JOBS}. {', '.join(versions)}; "
        f"CPython {platform.python_version()}, Linux {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} cores, load average "
        f"{os.getloadavg()[1]:.0f}.{absent}"
    )


def _version(tool: str) -> str:
    try:
        return version(tool)
    except ModuleNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

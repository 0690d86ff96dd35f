"""The one table of what settings of all formats mean here: a key, a listener, or why it is left."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

from sockmgr.init.foreign.form import Computed, Found, Process, Setting
from sockmgr.terminal.format import span

COMPUTED = "it is computed there, and nothing is run here: write the value yourself"
_OURS = "sockmgr has a control socket and pids of its own: docs/control.md"
_HTTP = "keys under [service.NAME.http], or a proxy's: docs/configuration.md"


def carry(found: Found, process: Process, settings: Iterable[Setting]) -> None:
    """Put settings into a process; those that cannot be are left in `found`."""
    for one in settings:
        if why := _carry(process, one):
            found.left.append((one, why))


def _carry(process: Process, setting: Setting) -> str:
    for names, carrier in _KEYS:
        if re.fullmatch(names, setting.name):
            if isinstance(setting.value, Computed):
                return COMPUTED
            try:
                return carrier(process, setting) or ""
            except (ValueError, LookupError, OverflowError):
                return "its value is not one that sockmgr could use"
    unknown = "sockmgr has nothing of this name"
    return next((why for names, why in _LEFT if re.match(names, setting.name)), unknown)


# --- Carriers: each puts a setting into a process, and returns why it cannot ---------------------


def _key(key: str, convert: Callable[[str], object] = str) -> Callable[[Process, Setting], str]:
    def carrier(process: Process, setting: Setting) -> str:
        most = [one.value for one in setting.inner if one.name == "max"]  # of NGINX Unit
        process.keys[key] = convert(str(most[0] if most else setting.value).strip())
        process.origin[key] = setting
        return ""

    return carrier


def _span(text: str) -> str:
    """Return a time span as a duration: systemd.time(7), or a number of seconds."""
    if (seconds := span(text)) is None:
        raise ValueError(text)
    return f"{seconds:.15g}s"


def _memory(text: str) -> str:
    """Return a number of bytes, or one with a unit such as 300M, as the config has it."""
    return f"{int(text) >> 20}M" if text.isdecimal() else text.upper()


def _command(process: Process, setting: Setting) -> str:
    if process.text:
        return "a worker is one command"
    process.text, process.line = str(setting.value).lstrip("-@:+!|"), setting.line
    return ""


def _variables(process: Process, setting: Setting) -> str:
    """Set the variables of an object, or of a text such as `A="1",B=2 C=3`."""
    pairs = [(one.name, one.value) for one in setting.inner]
    if isinstance(setting.value, str):
        words = shlex.shlex(setting.value[:65536], posix=True)
        words.whitespace, words.whitespace_split, words.commenters = " \t\n,", True, ""
        pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
    computed = [name for name, value in pairs if isinstance(value, Computed) or "${" in str(value)]
    process.env |= {name: str(value) for name, value in pairs if name not in computed}
    return f"{', '.join(computed)}: {COMPUTED}" if computed else ""


def _limit(process: Process, setting: Setting) -> str:
    soft, colon, hard = str(setting.value).replace("infinity", "unlimited").partition(":")
    limits = process.keys.setdefault("limits", {})
    assert isinstance(limits, dict)  # noqa: S101 - nothing else sets it
    limits[re.sub("rlimit_|Limit", "", setting.name).lower()] = [soft, hard] if colon else soft
    process.origin["limits"] = setting
    return ""


def _before(process: Process, setting: Setting) -> str:
    if "hooks" in process.keys:
        return "the hook `before` is one command"
    return _key("hooks", lambda text: {"before": ["sh", "-c", text.lstrip("-@:+!|")]})(
        process, setting
    )


def _hear(process: Process, setting: Setting) -> str:
    given = setting.value if isinstance(setting.value, tuple) else (setting.value,)
    return next(filter(None, [process.hear(str(one)) for one in given]), "")


def _of_socket(*keys: str) -> Callable[[Process, Setting], str]:
    def carrier(process: Process, setting: Setting) -> str:
        unix = [one for one in process.listen.values() if str(one["address"])[:5] == "unix:"]
        for listener in unix:
            listener.update(zip(keys, str(setting.value).split(":"), strict=False))
        return "" if unix else "it has no path of a socket"

    return carrier


def _backlog(process: Process, setting: Setting) -> str:
    for listener in process.listen.values():
        listener["backlog"] = int(str(setting.value))
    return ""


def _autostart(process: Process, setting: Setting) -> str:
    if str(setting.value).lower() not in ("1", "true", "yes", "on"):
        process.todo.append("it did not start by itself: leave it out if it is not to")
    return ""


def _type(process: Process, setting: Setting) -> str:
    if setting.value == "forking":
        process.todo.append("it leaves the foreground: tell it to stay there")
    return "" if setting.value in ("simple", "exec") else "a worker is ready when it accepts: ready"


def _path(process: Process, setting: Setting) -> str:
    paths = setting.value if isinstance(setting.value, tuple) else (setting.value,)
    process.env["PYTHONPATH"] = ":".join(map(str, paths))
    return _key("cwd")(process, setting._replace(value=(*paths, ".")[0]))


def _home(process: Process, setting: Setting) -> str:
    process.todo.append(f"install sockmgr[asgi] in {setting.value}, whose Python runs it")
    return _key("python", lambda text: f"{text}/bin/python")(process, setting)


_KEYS: tuple[tuple[str, Callable[[Process, Setting], str]], ...] = (
    ("command|cmd|ExecStart", _command),
    ("directory|working_dir|working_directory|chdir|cwd", _key("cwd")),
    ("WorkingDirectory", _key("cwd", lambda text: text.lstrip("-"))),
    ("environment|env|Environment", _variables),
    ("EnvironmentFile", _key("env_file", lambda t: f"{t[1:]}?" if t[0] == "-" else t)),
    ("user|uid|User", _key("user")),
    ("group|gid|Group", _key("group")),
    ("umask|UMask", _key("umask")),
    ("numprocs|numprocesses|processes|workers|instances", _key("workers", int)),
    ("stopsignal|stop_signal|KillSignal",
     _key("stop_signal", lambda text: int(text) if text.isdecimal() else text)),
    ("stopwaitsecs|graceful_timeout|TimeoutStopSec", _key("drain_timeout", _span)),
    ("kill_timeout", _key("drain_timeout", lambda text: _span(f"{text}ms"))),
    ("TimeoutStartSec", _key("ready_timeout", _span)),
    ("listen_timeout", _key("ready_timeout", lambda text: _span(f"{text}ms"))),
    ("startsecs", _key("ready", lambda text: {"delay": _span(text)})),
    ("max_age|RuntimeMaxSec", _key("max_age", _span)),
    ("max_memory(?:_restart)?", _key("max_rss", _memory)),
    ("reload-on-rss", _key("max_rss", lambda text: f"{int(text)}M")),
    ("copy_env", _key("inherit_env", lambda text: text.lower() in ("1", "true", "yes"))),
    ("protocol", _key("interface")),
    ("rlimit_.*|Limit.*", _limit),
    ("ExecStartPre|release", _before),
    ("bind|socket|uwsgi-socket|http|http-socket", _hear),
    ("socket_mode|chmod-socket", _of_socket("mode")),
    ("socket_owner|chown-socket", _of_socket("user", "group")),
    ("backlog|socket_backlog|listen", _backlog),
    ("autostart", _autostart),
    ("Type", _type),
    ("path", _path),
    ("home", _home),
)  # fmt: skip
_LEFT = (
    # These were read already, or say what is always so.
    (r"(?:name|script|args|(?:exec_)?interpreter(?:_args)?|node_args|exec_mode|use_sockets|shell"
     r"|type|module|callable|factory|executable|arguments|pass|die-on-term|master|Description"
     r"|Documentation|WantedBy)$", ""),
    (r"std(?:out|err)|redirect_std|close_child_std|(?:sys)?log|Syslog|Standard|(?:out|error)_file"
     r"|access_log|output|error$|(?:merge|combine)_logs|time$",
     "`sockmgr logs` has what workers print"),
    (r"auto_?restart|exitcodes|startretries|max_re|min_uptime|restart_delay|exp_backoff|respawn"
     r"|Restart|StartLimit", "a worker that ends is replaced, after a while if it fails again"),
    (r"priority|After|Before|Wants|Requires|PartOf|BindsTo",
     "the key `after` names the services that are to serve before it"),
    (r"watch|ignore_watch|touch-|py-autoreload", "`sockmgr dev` reloads when files change"),
    (r"max_memory|reload-on|limits|cron_restart",
     "sockmgr replaces workers by max_rss, max_age and such: docs/rollout.md"),
    (r"stopasgroup|killasgroup|stop_children|KillMode|SendSIG|treekill",
     "what a worker has started is ended with it"),
    (r"Exec|hooks\.|warmup|wait_ready|Notify|Watchdog",
     "ready, hooks, hang_timeout and `sockmgr reload` are for that: docs/configuration.md"),
    (r"singleton|send_hup|shutdown_with|cheaper",
     "a reload starts new workers, as many as `workers` says, and stops the old"),
    (r"threads", "`app` has a pool of threads for WSGI: docs/worker.md"),
    (r"pid|PIDFile|serverurl|process_name|numprocs_start|stats|master-fifo|supervisorctl"
     r"|unix_http|inet_http|rpcinterface", _OURS),
    (r"include|ini$", "call `sockmgr init --from` for these files, too"),
    (r"group", "`sockmgr reload --together` changes all services over as one"),
    (r"eventlistener|plugin", "sockmgr has events and hooks: docs/control.md"),
    (r"Sockets", "name its addresses in [listen]"),
    (r"deploy", "a tool that deploys calls `sockmgr reload`"),
    (r"env_|env:", "it is for --env: write into env what counts"),
    (r"tls|forwarded|client_ip|prefix|routes|upstreams|settings", _HTTP),
    (r"targets", "each target is a service with an `app` of its own"),
    (r".*(?:mule|cron|attach-daemon|spooler|emperor)", "each worker would run it: a service can"),
    (r"vacuum", "the manager removes the paths of its sockets"),
    (r"supervisord|circus", "the manager's own settings: docs/configuration.md"),
    (r"[A-Z]", "the unit of sockmgr has that: `sockmgr units` writes one, docs/systemd.md"),
)  # fmt: skip

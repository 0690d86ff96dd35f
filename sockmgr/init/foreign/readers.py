"""Read the config of each other manager and server into the one form."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable

from sockmgr.config import placeholder
from sockmgr.config.servers import KNOWN, Duty
from sockmgr.errors import SockmgrError
from sockmgr.init import application, procfile
from sockmgr.init.foreign import literal
from sockmgr.init.foreign.form import SLOT, Computed, Found, Process, Setting, Source, ini
from sockmgr.init.foreign.table import carry

_SOCKET = re.compile(r"(?:\$\(|\(\()\s*circus\.sockets\.(\w+)\s*\)+", re.IGNORECASE)
_INTERPRETERS = {".js": "node", ".cjs": "node", ".mjs": "node", ".py": "python3", ".sh": "bash"}


def _sections(found: Found, settings: list[Setting], *kinds: str) -> dict[str, list[Setting]]:
    """Return the settings by section; sections of other kinds than these are left."""
    sections: dict[str, list[Setting]] = {}
    for one in settings:
        if one.section.partition(":")[0] in kinds:
            inside = sections.setdefault(one.section, [])
            inside += [one] if one.name else []
        elif not one.name:
            carry(found, Process(name=""), [one._replace(name=one.section)])
    return sections


def _supervisord(source: Source) -> Found:
    """Read http://supervisord.org/configuration.html."""
    found, shared = Found(), Process(name="")
    settings = list(ini(source.text, indents=True, inline=";#"))
    of_all = [s for s in settings if (s.section, s.name) == ("supervisord", "environment")]
    carry(found, shared, of_all)
    for section, inside in _sections(found, settings, "program", "fcgi-program").items():
        name = section.partition(":")[2].strip()
        process = Process(name=name, env=dict(shared.env))
        for one in inside:
            text = _filled(one, name, posixpath.dirname(source.name) or ".")
            carry(found, process, [one._replace(name=one.name.lower(), value=text)])
        if "${" in str(process.keys.get("cwd", "")):
            process.todo.append("take one $ out of `$${` in cwd: it is the manager's variable")
        if "%(" in process.text:
            process.todo.append("write what %(...) is into the command")
        if SLOT in process.text or SLOT in "".join(process.env.values()):
            process.todo.append("{slot} counts from 1, with no zeros before it: see what it makes")
        for listener in process.listen:  # FastCGI has it as descriptor 0
            process.argv = ("sh", "-c", f"exec {process.text} <&{{{listener}}}")
        found.processes.append(process)
    return found


def _filled(setting: Setting, name: str, here: str) -> str:
    """Return a value with what supervisord puts in for `%(...)`, as far as that is known here."""
    text = re.sub(r"%\(ENV_(\w+)\)s", r"${\1}", str(setting.value)).replace("%%", "%")
    if setting.name.lower() in ("command", "environment"):
        text = re.sub(r"%\(process_num\)\d*[ds]", SLOT, text)
    return text.replace("%(program_name)s", name).replace("%(here)s", here)


def _circus(source: Source) -> Found:
    """Read https://circus.readthedocs.io/en/latest/for-ops/configuration/."""
    found = Found()
    sections = _sections(found, list(ini(source.text, indents=True)), "watcher", "socket", "env")
    env: dict[str, dict[str, str]] = {"*": {}}
    for section, inside in sections.items():
        for name in re.split(r"[\s,]+", section[4:] if section[:4] == "env:" else ""):
            env.setdefault(name, {}).update((one.name, str(one.value)) for one in inside)
    for section, inside in sections.items():
        kind, _, name = section.partition(":")
        process = Process(name=name, env={**env["*"], **env.get(name, {})})
        if kind != "watcher":
            continue
        carry(found, process, inside)
        process.text += "".join(f" {one.value}" for one in inside if one.name == "args")
        for socket in _SOCKET.findall(process.text)[:1]:
            keys = {one.name: str(one.value) for one in sections.get(f"socket:{socket}", ())}
            at = f"{keys.get('host', '127.0.0.1')}:{keys.get('port', '')}"
            process.hear(keys.get("path", at), "127.0.0.1")
            carry(found, process, (
                one._replace(name=f"socket_{one.name}")
                for one in sections.get(f"socket:{socket}", ())
                if one.name not in ("host", "port", "path")
            ))  # fmt: skip
            words = placeholder.literal(_SOCKET.sub("\0", process.text)).split()
            process.argv = tuple(word.replace("\0", f"{{{name}}}") for word in words)
        found.processes.append(process)
    return found


def _systemd(source: Source) -> Found:
    """Read systemd.service(5), systemd.exec(5), systemd.kill(5)."""
    name = posixpath.basename(source.name).removesuffix(".service").rstrip("@")
    found, process = Found(), Process(name=name)
    carry(found, process, (one for one in ini(source.text) if one.name))
    if re.search(r"%[a-zA-Z]", process.text):
        process.todo.append("write what the specifiers of systemd in its command are (%i, %h)")
    if ".socket" in source.text:
        process.todo.append("name the addresses of its .socket in [listen]")
    found.processes += [process] if process.text else []
    return found


def _pm2(source: Source) -> Found:
    """Read https://pm2.keymetrics.io/docs/usage/application-declaration/."""
    found, whole = Found(), literal.braces(source)
    apps = next((one.value for one in whole.inner if one.name == "apps"), whole.value)
    carry(found, Process(name=""), (one for one in whole.inner if one.name == "deploy"))
    for app in apps if isinstance(apps, tuple) else (apps,):
        settings = Setting(1, "", "", app).inner
        given = {one.name: one.value for one in settings}
        process = Process(name=str(given.get("name", "web")), text=_script(given))
        process.line = settings[0].line if settings else 1
        computed = [one for one in settings if isinstance(one.value, Computed)]
        process.todo += (
            f"`{one.name}` is computed there: {one.value}"
            for one in computed if one.name in ("script", "args")
        )  # fmt: skip
        carry(found, process, settings)
        found.processes += [process] if given.get("script") else []
    return found


def _script(given: dict[str, object]) -> str:
    """Return the command as a shell's line: interpreter, its arguments, script, arguments."""
    given |= {name: name.upper() for name in given if isinstance(given[name], Computed)}
    script = str(given.get("script", ""))
    by_name = _INTERPRETERS.get(posixpath.splitext(script)[1], "none")
    interpreter = str(given.get("interpreter") or given.get("exec_interpreter") or by_name)
    own = [given.get("node_args") or given.get("interpreter_args") or "", given.get("args", "")]
    before, after = (shlex.join(map(str, v)) if isinstance(v, tuple) else str(v) for v in own)
    words = [shlex.quote(script), after]
    return " ".join(filter(None, words if interpreter == "none" else [interpreter, before, *words]))


def _procfile(source: Source) -> Found:
    """Read all lines of a Procfile; `release` is the hook of `web`, or of the first."""
    folder, release = posixpath.dirname(source.name) or ".", list[Setting]()
    # Whatever runs a Procfile takes this file in, if it is there.
    found = Found(keys={"env_file": posixpath.normpath(f"{folder}/.env?")})
    for number, name, text in procfile.processes(source.text):
        if name == "release":
            release.append(Setting(number, "", name, text))
        else:
            process = Process(name=name, line=number, text=text, serves=name == "web")
            process.keys["cwd"] = folder
            found.processes.append(process)
    found.processes.sort(key=lambda one: not one.serves)
    carry(found, next(iter(found.processes), Process(name="")), release)
    return found


def _gunicorn(source: Source) -> Found:
    """Read https://docs.gunicorn.org/en/stable/settings.html.

    Gunicorn goes on reading the file, so what is not the manager's stays where it is.
    """
    found, process = Found(), Process(name="web")
    settings = list(literal.python(source))
    names = {one.name for one in settings}
    word, missing = source.project.call("gunicorn", "")
    process.argv = (*word, "-c", source.name, *(("-w", "1") if "workers" in names else ()))
    process.todo += missing
    if "wsgi_app" not in names:
        app = application.guess(source.project)
        process.argv += (app.command[-1] if app else "MODULE:APPLICATION",)
        process.todo += () if app else ("write the application into the command",)
    process.keys |= {"workers": 2} if "workers" in names else {}
    ours = ("bind", "workers", "graceful_timeout", "backlog")
    for one in settings:
        if one.name == "graceful_timeout" and isinstance(one.value, int):
            carry(found, process, [one._replace(value=one.value + 1)])  # it is to end by itself
        elif one.name in ours:
            carry(found, process, [one])
        duty = KNOWN["gunicorn"].settings.get(one.name, Duty.STOP)
        if one.value and one.name not in ours and duty:
            process.todo.append(f"take `{one.name}` out of {source.name}, line {one.line}: {duty}")
    return _alone(found, process)


def _uwsgi(source: Source) -> Found:
    """Read https://uwsgi-docs.readthedocs.io/en/latest/Options.html, as options of its command."""
    found, process = Found(), Process(name="web")
    word, missing = source.project.call("uwsgi", "")
    process.argv, process.todo = word, list(missing)
    settings = [one for one in ini(source.text) if one.section == "uwsgi" and one.name]
    for one in sorted(settings, key=lambda one: one.name[:2] == "ch"):  # a socket, then its owner
        name, value = one.name, str(one.value)
        logic = re.match(r"(?:if|for|end|set)-|endif|endfor", name) or f"%({name})" in source.text
        if logic or re.search(r"%[a-zA-Z(]|\$\(|@\(", value):
            found.left.append((one, "it is for uWSGI's own config files: write what it makes"))
        elif re.search(_OF_UWSGI, name):
            carry(found, process, [one])
            process.argv += ("--protocol", "uwsgi") if name in ("socket", "uwsgi-socket") else ()
        elif name in KNOWN["uwsgi"].settings:
            found.left.append((one, KNOWN["uwsgi"].settings[name]))
        elif value not in ("false", "no", "off"):
            option = f"--{name}" if value in ("true", "yes", "on") else f"--{name}={value}"
            process.argv += (placeholder.literal(option),)
    return _alone(found, process)


_OF_UWSGI = (
    r"^(?:socket|uwsgi-socket|http|http-socket|processes|workers|chdir|uid|gid|umask|env|listen"
    r"|ch(?:mod|own)-socket|ini|die-on-term|vacuum|logto|cheaper|touch-.*|.*fifo)$"
    r"|mule|cron|attach-daemon|spooler|emperor|reload-on"
)


def _alone(found: Found, process: Process) -> Found:
    """Return what a server's config says, which listens somewhere even if it does not say where."""
    if not process.listen:
        process.hear("127.0.0.1:8000")
    found.processes.append(process)
    return found


def _unit(source: Source) -> Found:
    """Read https://unit.nginx.org/configuration/."""
    found, made = Found(), dict[str, Process]()
    top = {one.name: one for one in literal.braces(source).inner}
    carry(
        found,
        Process(name=""),
        (top[name] for name in top if name not in ("applications", "listeners")),
    )
    for one in top["applications"].inner if "applications" in top else ():
        if process := _application(found, one):
            made[one.name] = process
    for one in top["listeners"].inner if "listeners" in top else ():
        to = set(_passes(one))
        if "routes" in top and any(name.startswith("routes") for name in to):
            of = {f"routes/{each.name}": each for each in top["routes"].inner}
            to = {name for each in to for name in _passes(of.get(each, top["routes"]))}
        behind = {name.split("/")[1] for name in to if name.startswith("applications/")}
        to_one = made.get("".join(behind)) if len(behind) == 1 else None
        why = to_one.hear(one.name) if to_one else "not one application here is behind it"
        found.left += [(one, why)] if why else []
        if to_one and not why:
            carry(found, to_one, one.inner)
    found.processes += made.values()
    return found


def _application(found: Found, setting: Setting) -> Process | None:
    given = {each.name: each.value for each in setting.inner}
    process = Process(name=setting.name, line=setting.line, serves=True)
    language = str(given.get("type", "")).split(" ")[0]
    if language == "python":
        target = f"{given.get('module', 'wsgi')}:{given.get('callable', 'application')}"
        process.keys["app"] = f"{target}()" if given.get("factory") is True else target
    elif language == "external":
        arguments = given.get("arguments")
        words = arguments if isinstance(arguments, tuple) else ()
        process.text = shlex.join(map(str, (given.get("executable", ""), *words)))
        process.todo.append("have it take LISTEN_FDS, in the place of Unit's own library")
    else:
        found.left.append((setting, "its server is a service of its own: docs/servers.md"))
        return None
    # The directory to start in wins over the path to import from.
    carry(found, process, sorted(setting.inner, key=lambda one: one.name == "working_directory"))
    return process


def _passes(value: object) -> list[str]:
    if isinstance(value, Setting):
        return [str(value.value)] if value.name == "pass" else _passes(value.value)
    return (
        [one for each in value for one in _passes(each)] if isinstance(value, tuple | list) else []
    )


_KINDS: tuple[tuple[str, str, Callable[[Source], Found]], ...] = (
    (r"(?:.*/)?Procfile[^/]*", r"^[\w-]+[ \t]*:", _procfile),
    (r".*\.service", r"^\[Service\]", _systemd),
    (r".*\.py", "", _gunicorn),
    (r".*\.[cm]?js", r"\bapps\b", _pm2),
    (r".*\.json", r'"(?:applications|listeners)"', _unit),
    (r".*\.json", r'"(?:apps|script)"', _pm2),
    (r".*", r"^\[uwsgi\]", _uwsgi),
    (r".*", r"^\[(?:watcher:|circus\])", _circus),
    (r".*", r"^\[(?:program:|fcgi-program:|supervisord\])", _supervisord),
)  # fmt: skip
KNOWN_FILES = (
    "supervisord.conf, circus.ini, gunicorn.conf.py, uwsgi.ini, PM2's ecosystem.config.js, a "
    "config of NGINX Unit, a Procfile, or a .service file of systemd"
)


def read(source: Source) -> Found:
    """Return what a file says; raise SockmgrError if it is none that is known, or says nothing."""
    for name, mark, reader in _KINDS:
        if re.fullmatch(name, source.name) and re.search(mark, source.text, re.MULTILINE):
            found = reader(source)
            if not found.processes:
                break
            return found
    raise SockmgrError(
        f"{source.name} has no process that sockmgr could run", means="nothing was written",
        do=f"name one of {KNOWN_FILES}",
    )  # fmt: skip

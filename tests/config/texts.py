"""Texts of configs, right and wrong."""

from __future__ import annotations

FULL = """\
name = "shop"

[listen]
http  = "tcp://127.0.0.1:8000"
admin = { address = "unix:///run/shop/admin.sock", mode = "0660", backlog = 128 }

[service.web]
command = ["uvicorn", "--fd", "{http}", "shop.main:app"]
listen  = ["http"]
workers = 4
cwd     = "/srv/shop/current"
env     = { LOG_LEVEL = "info" }
inherit_env = false
umask   = "022"
user    = "shop"
group   = "1000"
limits  = { nofile = 65536, core = [0, "unlimited"], as = "2G" }
listen_pid = false
ready   = "accepting"
ready_timeout = "1m30s"
stop_signal   = "SIGQUIT"
drain_timeout = 30
accept  = "shared"
max_age = "24h"
preset  = "none"

[service.web.rollout]
surge = "25%"
probation = "500ms"
max_failed_starts = 5
start_concurrency = 1
max_draining = 3
exclusive = true

[service.back]
command = ["./back"]
listen = ["admin"]

[dev]
watch = ["shop", "templates"]
ignore = ["*.log"]
include = ["*.html"]
"""


# An edit of FULL, where the error must point, and words that it must have.
MISTAKES = {
    "unknown key at the top": ('name = "shop"', 'nmae = "shop"', "1:1", 'nmae .* "name"'),
    "unknown key of a listener": ("backlog = 128", "bakclog = 1", "5:67", '"backlog"'),
    "unknown key of a service": ("workers = 4", "worker = 4", "10:1", '"workers"'),
    "unknown key of a rollout": ("probation", "probaton", "29:1", '"probation"'),
    "unknown key of dev": ("include =", "includes =", "42:1", '"include"'),
    "unknown limit": ("nofile = 65536", "nofiles = 1", "17:13", '"nofile"'),
    "key far from any": ("workers = 4", "zzz = 4", "10:1", "known: accept, after, app, command,"),
    "workers as a word": ("workers = 4", 'workers = "all"', "10:11", 'or "auto"'),
    "not a number": ("workers = 4", 'workers = "4"', "10:11", 'workers = "4" .* whole number'),
    "negative": ("workers = 4", "workers = -4", "10:11", "-4 .* from 1"),
    "zero": ("workers = 4", "workers = 0", "10:11", "= 0 .* from 1"),
    "boolean for a number": ("workers = 4", "workers = true", "10:11", "= true"),
    "not a boolean": ("listen_pid = false", "listen_pid = 0", "18:14", "true or false"),
    "not a text": ('user    = "shop"', "user = 7", "15:8", "in quotes"),
    "empty command": ('command = ["./back"]', "command = []", "36:11", "the program"),
    "command as a text": ('command = ["./back"]', 'command = "./back"', "36:11", "an array"),
    "number in a command": ('["./back"]', '["./back", 7]', "36:22", r"command\[1\] = 7"),
    "no command": ('command = ["./back"]\n', "", "35:1", "service.back has no command"),
    "listener not known": ('listen  = ["http"]', 'listen = ["htp"]', "9:11", r"\(http, admin\)"),
    "listener twice": ('["http"]', '["http", "http"]', "9:20", "once"),
    "placeholder not known": ("{http}", "{htp}", "8:31", r"\{htp\}.*\(http\).*\{\{NAME\}\}"),
    "placeholder of another": ("{http}", "{admin}", "8:31", r"a listener of this service \(http"),
    "listener of two services": ('["admin"]', '["http"]', "37:1", r"http, which service\.web has"),
    "listener of nobody": ('["admin"]', "[]", "5:1", r"listen\.admin is used by no service"),
    "listeners not said": ('listen = ["admin"]\n', "", "35:1", r"add listen = \["),
    "one address twice": (
        '{ address = "unix:///run/shop/admin.sock", mode = "0660", backlog = 128 }',
        '"tcp://127.0.0.1:8000"', "5:1", r"listen\.http has",
    ),
    "address without port": ("127.0.0.1:8000", "127.0.0.1", "4:9", "HOST:PORT"),
    "address without host": ("127.0.0.1:8000", ":8000", "4:9", r"0\.0\.0\.0.*\[::\]"),
    "port too high": (":8000", ":80000", "4:9", "65535"),
    "bad IPv6": ("127.0.0.1:8000", "[::zz]:80", "4:9", "::zz.*is not an IPv6"),
    "scheme not known": ("tcp://", "http://", "4:9", "unix-abstract:NAME"),
    "scheme to come": ("tcp://127.0.0.1:8000", "vsock://2:80", "4:9", "this version"),
    "relative unix path": ("unix:///run", "unix://run", "5:21", "three slashes"),
    "long unix path": ("/run/shop/", f"/run/{'x' * 99}/", "5:21", "107 bytes"),
    "option not known": ("admin.sock", "admin.sock?moode=1", "5:21", "mode=0660"),
    "option twice": ("admin.sock", "admin.sock?mode=1", "5:21", "once"),
    "mode as a number": ('mode = "0660"', "mode = 660", "5:59", "660 .* octal"),
    "on_stop of unix": ("backlog = 128", 'on_stop = "drop"', "5:67", "only tcp://"),
    "on_stop unknown": (
        '"tcp://127.0.0.1:8000"', '{ address = "tcp://h:1", on_stop = "x" }', "4:44", '"drop"',
    ),
    "stop_delay negative": ('name = "shop"', "stop_delay = -1", "1:14", "-1"),
    "ready_file relative": ('name = "shop"', 'ready_file = "up"', "1:14", "an absolute path"),
    "when_down of zero": ("drain_timeout = 30", "when_down = 0", "22:13", "above 0"),
    "mode not octal": ("0660", "0680", "5:59", "0680.* octal"),
    "mode of tcp": (
        '"tcp://127.0.0.1:8000"', '{ address = "tcp://h:1", mode = "0600" }', "4:34", "unix://",
    ),
    "listener without address": ('address = "unix:///run/shop/admin.sock", ', "", "5:1", "address"),
    "listener of all slots": ("admin =", "slot =", "5:1", "number of a worker's slot"),
    "listener's name": ("admin =", '"ad:min" =', "5:1", r'"ad:min" is not a name'),
    "service's name": ("[service.back]", '[service."a b"]', "35:1", '"a b"'),
    "name of all": ('name = "shop"', 'name = "a/b"', "1:8", '"a/b"'),
    "duration": ('"1m30s"', '"1m 30s"', "20:17", '"1m 30s" .* "1m30s"'),
    "duration infinite": ("drain_timeout = 30", "drain_timeout = inf", "22:17", "duration"),
    "duration nan": ("drain_timeout = 30", "drain_timeout = nan", "22:17", "duration"),
    "duration negative": ("drain_timeout = 30", "drain_timeout = -1", "22:17", "duration"),
    "no time to get ready": ('"1m30s"', "0", "20:17", "above 0"),
    "size": ('as = "2G"', 'as = "2GB"', "17:59", '"512M"'),
    "limit upside down": ('[0, "unlimited"]', "[2, 1]", "17:36", "soft limit not above"),
    "limit unlimited above": ('[0, "unlimited"]', '["unlimited", 1]', "17:36", "soft limit"),
    "signal": ("SIGQUIT", "SIGQUIET", "21:17", "HUP, INT, QUIT"),
    "signal that cannot drain": ("SIGQUIT", "KILL", "21:17", "drain_timeout of 0"),
    "surge": ('"25%"', '"25 %"', "28:9", '"25 %" .* "all"'),
    "no surge": ('"25%"', "0", "28:9", "exclusive = true"),
    "surge above all": ('"25%"', '"101%"', "28:9", '"100%"'),
    "ready": ('ready   = "accepting"', 'ready = "http"', "19:9", '"notify"'),
    "ready without a path": ('= "accepting"', '= { http = "x" }', "19:20", "a path"),
    "ready by both": ('= "accepting"', '= { http = "/", tcp = true }', "19:11", "exec"),
    "ready by no TCP": ('= "accepting"', "= { tcp = false }", "19:19", "allowed: true"),
    "status": ('= "accepting"', '= { http = "/", expect = 20 }', "19:34", '"2xx"'),
    "header": ('= "accepting"', '= { http = "/", headers.a = "\\n" }', "19:37", "breaks"),
    "header of ours": ('= "accepting"', '= { http = "/", headers.Host = "" }', "19:25", "host"),
    "expect beside tcp": ('= "accepting"', "= { tcp = true, expect = 200 }", "19:25", "beside tcp"),
    "probe of another": ('= "accepting"', '= { http = "/", listener = "b" }', "19:36", "http"),
    "healthy whom": ('accept  = "shared"', 'healthy = { http = "/" }', "23:1", "nobody to replace"),
    "healthy by a command": ('accept  = "shared"', 'healthy.exec = ["a"]', "23:1", "ready only"),
    "healthy as a text": ('accept  = "shared"', 'healthy = "/up"', "23:11", "tcp = true"),
    "failures of it": ('= "accepting"', '= { tcp = true, failures = 2 }', "19:25", "for healthy"),
    "accepting alone": ('= "accepting"', '= { delay = 1, accepting = true }', "19:24", "exec only"),
    "healthy how": ('accept  = "shared"', "healthy = { failures = 2 }", "23:11", "tcp = true"),
    "warm-up by no path": ("exclusive = true", 'warmup = ["x"]', "33:11", "a path"),
    "ready twofold": ('ready   = "accepting"', "ready = {}", "19:9", "exec"),
    "accept": ('accept  = "shared"', 'accept = "each"', "23:10", '"shared", "per-worker"'),
    "policy alone": ('accept  = "shared"', 'policy = "least-connections"', "23:1", "no meaning"),
    "limit alone": ('accept  = "shared"', "max_connections = 9", "23:1", "no meaning here"),
    "policy": ('accept  = "shared"', 'policy = "random"', "23:10", '"least-connections"'),
    "app and command": ("workers = 4", 'app = "a:b"', "10:1", "app stands beside command"),
    "interface beside command": ("workers = 4", 'interface = "asgi"', "10:1", "no meaning beside"),
    "http beside command": ("workers = 4", "http = {}", "10:1", "http has no meaning beside"),
    "max_rss in bytes": ('"24h"', '"24h"\nmax_rss = 512', "25:11", "at least 1M"),
    "max_rss as nothing": ('"24h"', '"24h"\nmax_rss = "0M"', "25:11", "at least 1M"),
    "max_rss without end": ('"24h"', '"24h"\nmax_rss = "unlimited"', "25:11", "at least 1M"),
    "max_requests beside command": ('"24h"', '"24h"\nmax_requests = 9', "25:1", "beside command"),
    "max_cpu_time": ('"24h"', '"24h"\nmax_cpu_time = 0', "25:16", "duration"),
    "canary without a share": ("exclusive = true", "canary = {}", "33:1", "canary has no share"),
    "canary as a text": ("exclusive = true", 'canary = "10%"', "33:10", "for = "),
    "canary's share": ("exclusive = true", 'canary = { share = "100%" }', "33:20", '"99%"'),
    "canary's share falls": (
        "exclusive = true", 'canary = { share = ["9%", "5%"] }', "33:20", "above the one before",
    ),
    "canary's step without time": (
        "exclusive = true", 'canary = { share = "9%", for = 0 }', "33:32", "above 0",
    ),
    "canary beside exclusive": (
        "exclusive = true", 'exclusive = true\ncanary = { share = "9%" }', "34:1", "forbids",
    ),
    "canary of a large share for few workers": (
        "exclusive = true", 'canary = { share = "50%" }', "33:1", "50 % .* 1 of 4 workers",
    ),
    "canary on a unix socket": (
        'command = ["./back"]', 'command = ["./back"]\nrollout = { canary = { share = "9%" } }',
        "37:13", "one unix socket",
    ),
    "preset": ('preset  = "none"', 'preset = "apache"', "25:10", '"gunicorn"'),
    "two directories of metrics": (
        'env     = { LOG_LEVEL = "info" }',
        'env = { PROMETHEUS_MULTIPROC_DIR = "/m" }\nprometheus_multiproc = true',
        "13:1", "stands in env, too",
    ),
    "variable that is ours": ("LOG_LEVEL =", "LISTEN_FDS =", "12:13", "sockmgr itself"),
    "variable of who it is": ("LOG_LEVEL =", "SOCKMGR_SLOT =", "12:13", "sockmgr itself"),
    "number in env": ('LOG_LEVEL = "info"', "PORT = 80", "12:20", 'PORT = "80"'),
    "variable without name": ("LOG_LEVEL =", '"" =', "12:13", "not a name"),
    "NUL": ('"./back"', '"./back\\u0000"', "36:12", "u0000"),
    "service without a name": ("[service.back]", "[service]", "36:1", r"\[service.NAME\]"),
    "release elsewhere": (
        "workers = 4", 'release = { file = "/srv/REVISION" }', "10:20", "without \\.\\.",
    ),
    "release above": ("workers = 4", 'release = { file = "../REV" }', "10:20", "below the dir"),
    "release of both": (
        "workers = 4", 'release = { file = "a", exec = "b" }', "10:11", "file = \"REVISION\"",
    ),
    "release as a text": ("workers = 4", 'release = "v1"', "10:11", "file = \"REVISION\""),
    "release of nothing": ("workers = 4", "release = []", "10:11", "the program, then"),
    "after nobody": (
        'listen = ["admin"]', 'listen = ["admin"]\nafter = ["wep"]', "38:10", 'did you mean "web"',
    ),
    "after itself": (
        'listen = ["admin"]', 'listen = ["admin"]\nafter = ["back"]', "38:1", "back -> back",
    ),
    "after as a text": (
        'listen = ["admin"]', 'listen = ["admin"]\nafter = "web"', "38:9", "an array of names",
    ),
    "together with exclusive": (
        'include = ["*.html"]', 'include = ["*.html"]\n[rollout]\ntogether = true', "44:1",
        r"service\.web is exclusive: its old .* reload --together SERVICE",
    ),
    "format of logs": ("[dev]", '[logs]\nformat = "text"\n[dev]', "40:10", '"prefix", "raw"'),
    "split beside raw": (
        "[dev]", '[logs]\nformat = "raw"\nsplit = true\n[dev]', "41:1", "raw never joins",
    ),
    "unknown key of control": ("[dev]", "[control]\ngruop = 1", "40:1", '"group"'),
    "methods that only look": (
        "[dev]", '[control]\ngroup = "ops"\nmethods = ["status"]\n[dev]', "41:12", "may look",
    ),
    "methods of nobody": ("[dev]", '[control]\nmethods = ["reload"]\n[dev]', "40:1", "add group"),
    "readers are the group": (
        "[dev]", '[control]\ngroup = "ops"\nreaders = "ops"\n[dev]', "41:1", "remove one",
    ),
    "mode against the group": (
        "[dev]", '[control]\nmode = "0640"\ngroup = "ops"\n[dev]', "40:8", '"0660"',
    ),
    "mode against the readers": (
        "[dev]", '[control]\nmode = "0660"\ngroup = "a"\nreaders = "b"\n[dev]', "40:8", '"0662"',
    ),
    "dev": ('watch = ["shop", "templates"]', 'watch = "shop"', "40:9", "array"),
    "syntax": ("workers = 4", "workers = four", "10:11", "not TOML"),
    "key twice": ("workers = 4", "workers = 4\nworkers = 5", "11:12", "not TOML"),
}  # fmt: skip

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
    "key far from any": ("workers = 4", "zzz = 4", "10:1", "known: accept, app, command,"),
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
    "placeholder not known": ("{http}", "{htp}", "8:31", r"\{htp\}.*\(http\).*\{\{htp\}\}"),
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
    "bad IPv6": ("127.0.0.1:8000", "[::zz]:80", "4:9", "::zz is not an IPv6"),
    "scheme not known": ("tcp://", "http://", "4:9", "unix-abstract:NAME"),
    "scheme to come": ("tcp://127.0.0.1:8000", "vsock://2:80", "4:9", "this version"),
    "relative unix path": ("unix:///run", "unix://run", "5:21", "three slashes"),
    "long unix path": ("/run/shop/", f"/run/{'x' * 99}/", "5:21", "107 bytes"),
    "option not known": ("admin.sock", "admin.sock?moode=1", "5:21", "mode=0660"),
    "option twice": ("admin.sock", "admin.sock?mode=1", "5:21", "once"),
    "mode as a number": ('mode = "0660"', "mode = 660", "5:59", "660 .* octal"),
    "mode not octal": ("0660", "0680", "5:59", "0680.* octal"),
    "mode of tcp": (
        '"tcp://127.0.0.1:8000"', '{ address = "tcp://h:1", mode = "0600" }', "4:34", "unix://",
    ),
    "listener without address": ('address = "unix:///run/shop/admin.sock", ', "", "5:1", "address"),
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
    "ready to come": ('ready   = "accepting"', 'ready = { http = "/" }', "19:11", "this version"),
    "ready twofold": ('ready   = "accepting"', "ready = {}", "19:9", "exec"),
    "accept": ('accept  = "shared"', 'accept = "each"', "23:10", '"shared", "per-worker"'),
    "policy alone": ('accept  = "shared"', 'policy = "least-connections"', "23:1", "no meaning"),
    "limit alone": ('accept  = "shared"', "max_connections = 9", "23:1", "no meaning here"),
    "policy": ('accept  = "shared"', 'policy = "random"', "23:10", '"least-connections"'),
    "app and command": ("workers = 4", 'app = "a:b"', "10:1", "app stands beside command"),
    "interface beside command": ("workers = 4", 'interface = "asgi"', "10:1", "no meaning beside"),
    "http beside command": ("workers = 4", "http = {}", "10:1", "http has no meaning beside"),
    "max_rss": ("max_age = ", "max_rss = ", "24:1", "max_rss is not in this version"),
    "canary": ("exclusive = true", "canary = {}", "33:1", "canary is not in this version"),
    "preset": ('preset  = "none"', 'preset = "apache"', "25:10", '"gunicorn"'),
    "variable that is ours": ("LOG_LEVEL =", "LISTEN_FDS =", "12:13", "sockmgr itself"),
    "number in env": ('LOG_LEVEL = "info"', "PORT = 80", "12:20", 'PORT = "80"'),
    "variable without name": ("LOG_LEVEL =", '"" =', "12:13", "not a name"),
    "NUL": ('"./back"', '"./back\\u0000"', "36:12", "u0000"),
    "service without a name": ("[service.back]", "[service]", "36:1", r"\[service.NAME\]"),
    "dev": ('watch = ["shop", "templates"]', 'watch = "shop"', "40:9", "array"),
    "syntax": ("workers = 4", "workers = four", "10:11", "not TOML"),
    "key twice": ("workers = 4", "workers = 4\nworkers = 5", "11:12", "not TOML"),
}  # fmt: skip

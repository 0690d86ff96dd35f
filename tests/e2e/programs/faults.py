"""Configs that cannot be used, and what is said of each: at the start and at a reload alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A config, with `{directory}` for a directory of the test, and texts that its error has."""

    config: str | bytes
    says: tuple[str, ...]

    def data(self, directory: str) -> bytes:
        """Return the bytes of the file."""
        if isinstance(self.config, bytes):
            return self.config
        return self.config.replace("{directory}", directory).encode()


def service(line: str = "", *, listen: str = 'http = "tcp://127.0.0.1:0"') -> str:
    """Return the config of one service, with one more line at its end: the sixth of the file."""
    return f'[listen]\n{listen}\n\n[service.web]\ncommand = ["sleep", "1000"]\n{line}\n'


FAULTS = {
    "not UTF-8": Fault(
        config=b'[listen]\nhttp = "tcp://127.0.0.1:0"\nname = "\xff"\n',
        says=(":3:9: byte 0xff is not UTF-8", "save the file in that encoding"),
    ),
    "not TOML": Fault(
        config=service("workers = = 2"),
        says=(":6:11: this is not TOML: ", "texts need quotes"),
    ),
    "empty": Fault(config="", says=("it has no service", "add a table [service.NAME]")),
    "unknown key": Fault(
        config=service("worker = 2"),
        says=(":6:1: service.web.worker is not a known key", 'did you mean "workers"?'),
    ),
    "wrong type": Fault(
        config=service('workers = "many"'),
        says=(
            ':6:11: service.web.workers = "many" cannot be used',
            "allowed: a whole number from 1 to 10000",
        ),
    ),
    "negative workers": Fault(
        config=service("workers = -1"),
        says=(":6:11: service.web.workers = -1 cannot be used", "allowed: a whole number from 1"),
    ),
    "unknown listener": Fault(
        config=service('listen = ["htpp"]'),
        says=(':6:11: service.web.listen[0] = "htpp" cannot be used', "a listener (http)"),
    ),
    "two listeners on one address": Fault(
        config=service(listen='http = "tcp://127.0.0.1:7"\nmore = "tcp://127.0.0.1:7"'),
        says=(
            ":3:1: listen.more has the address tcp://127.0.0.1:7, which listen.http has",
            "give it an address of its own",
        ),
    ),
    "two listeners on port 0 of one host": Fault(
        config=service(listen='http = "tcp://127.0.0.1:0"\nmore = "tcp://127.0.0.1:0"'),
        says=(
            ":3:1: listen.more has the address tcp://127.0.0.1:0, which listen.http has",
            "give it an address of its own",
        ),
    ),
    "bad address": Fault(
        config=service(listen='http = "tcp://127.0.0.1"'),
        says=(':2:8: listen.http = "tcp://127.0.0.1" cannot be used', "port"),
    ),
    "unix path too long": Fault(
        config=service(listen=f'http = "unix:///{"x" * 120}"'),
        says=(":2:8: listen.http", "a unix path has at most 107 bytes"),
    ),
    "bad duration": Fault(
        config=service('drain_timeout = "30 seconds"'),
        says=(
            ':6:17: service.web.drain_timeout = "30 seconds" cannot be used',
            'allowed: a duration: seconds, or a text like "1m30s" or "500ms"',
        ),
    ),
    "no command": Fault(
        config="[service.web]\nworkers = 1\n",
        says=(":1:1: service.web has no command", 'add command = ["PROGRAM", "ARGUMENT", ...]'),
    ),
    "cwd missing": Fault(
        config=service('cwd = "{directory}/nowhere"'),
        says=("service.web.cwd = {directory}/nowhere: there is no {directory}/nowhere", "create"),
    ),
    "cwd is a file": Fault(
        config=service('cwd = "{directory}/file"'),
        says=("service.web.cwd = {directory}/file", "is not a directory", "correct cwd"),
    ),
    "unknown user": Fault(
        config=service('user = "nobody-of-that-name"'),
        says=("service.web.user = nobody-of-that-name: there is no such user", "add the user"),
    ),
    "unknown group": Fault(
        config=service('group = "no-group-of-that-name"'),
        says=("service.web.group = no-group-of-that-name: there is no such group", "add the group"),
    ),
    "unknown group of clients": Fault(
        config=service('[control]\ngroup = "no-group-of-that-name"'),
        says=("control.group = no-group-of-that-name: there is no such group", "add the group"),
    ),
}

# What is right by itself, and cannot be started as things stand: exit code 1.
UNSTARTABLE = {
    "command not found": Fault(
        config='[service.web]\ncommand = ["no-such-program"]\n',
        says=(
            "service.web.command = no-such-program: no-such-program is not in the PATH of the",
            "install it, give its full path, or set PATH in env",
        ),
    ),
    "readiness command not found": Fault(
        config='[service.web]\ncommand = ["sleep", "9"]\nready = { exec = ["no-such"] }\n',
        says=(
            "service.web.ready.exec = no-such: no-such is not in the PATH of the workers",
            "install it, give its full path, or set PATH in env",
        ),
    ),
    "path not found": Fault(
        config='[service.web]\ncommand = ["{directory}/nowhere"]\n',
        says=("{directory}/nowhere does not exist", "correct the command"),
    ),
    "not executable": Fault(
        config='[service.web]\ncommand = ["{directory}/file"]\n',
        says=("{directory}/file is not executable", "chmod +x {directory}/file"),
    ),
    "a directory": Fault(
        config='[service.web]\ncommand = ["{directory}"]\n',
        says=("{directory} is a directory", "name a program"),
    ),
    "interpreter missing": Fault(
        config='[service.web]\ncommand = ["{directory}/script"]\n',
        says=("the first line of {directory}/script names /no/such/python", "correct that line"),
    ),
}


def explained(fault: Fault, directory: str, error: str) -> bool:
    """Tell whether an error has all that it is to have."""
    return all(text.replace("{directory}", directory) in error for text in fault.says)

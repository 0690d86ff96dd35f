"""A file of variables: what all readers of such files agree on, and what is an error."""

from __future__ import annotations

import re

import pytest

from sockmgr.config import env_file
from sockmgr.config.config import Config, parse
from sockmgr.config.outside import Outside
from sockmgr.errors import ConfigError

SMALL = '[service.web]\ncommand = ["server"]\n'


def test_quotes_comments_and_export_are_read_as_everywhere() -> None:
    text = """
# a comment
  # another
A=1
export B=two words \t
 C='single # "quoted" $HOME'
D="double \\"quoted\\" # \\\\ 'x'"
E=
F="two
lines"\t
G={"a": "b"}
H=a#b=`c`
A=last
I=ä"""
    assert env_file.parse(text.replace("\n", "\r\n").encode(), "x") == {
        "A": "last", "B": "two words", "C": 'single # "quoted" $HOME',
        "D": "double \"quoted\" # \\ 'x'", "E": "", "F": "two\nlines", "G": '{"a": "b"}',
        "H": "a#b=`c`", "I": "ä",
    }  # fmt: skip
    assert env_file.parse(b"", "x") == {}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("A=1\nB C=secret", "2:1", "no variable"),
        ("A", "1:1", "no variable"),
        ("export A", "1:1", "no variable"),
        ("; A=1", "1:1", "no variable"),
        ("A =secret", "1:1", "no variable"),
        ("1A=secret", "1:1", "no variable"),
        ("\ufeffA=secret", "1:1", "byte order mark"),
        ("A= secret", "1:3", "A begins with a blank"),
        ("A=secret # x", "1:3", "a comment for some"),
        ("A=#secret", "1:3", "a comment for some"),
        ("A=sec\\ret", "1:3", "a backslash"),
        ("A=$secret", "1:3", "single quotes"),
        ("\nA='secret", "2:3", "no second quote"),
        ("A='sec\\'ret'", "1:3", "a backslash before a quote"),
        ('A="sec\\nret"', "1:3", "no second quote"),
        ('A="$secret"', "1:3", "before it"),
        ("A='x' # secret", "1:3", "behind its quotes"),
        ("A=\"x\"'secret'", "1:3", "behind its quotes"),
        ("A=1\nA=${A}:secret", "2:3", r"of A has a backslash or a \$"),
        ("A='${A}:secret'", "1:3", r"of A has a NUL, or a \$\{ that some replace"),
        ("A=sec\0ret", "1:3", "NUL"),
        ("LISTEN_FDS=secret", "1:1", "sockmgr itself"),
        ("export SOCKMGR_SLOT=secret", "1:8", "sockmgr itself"),
    ],
)
def test_what_readers_take_differently_is_an_error_with_its_place_and_without_the_value(
    text: str, place: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        env_file.parse(text.encode(), "/run/env")
    assert caught.value.what.startswith(f"/run/env:{place}: ")
    assert re.search(words, str(caught.value)), str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.do


def test_bytes_that_are_no_text_are_named_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"^/run/env:2:4: a byte is not UTF-8"):
        env_file.parse(b"A=1\nB=x\xff", "/run/env")


# --- The key -------------------------------------------------------------------------------------


def read(text: str, files: dict[str, bytes | OSError]) -> Config:
    def content(path: str) -> bytes:
        found = files.get(path, FileNotFoundError(2, "No such file or directory"))
        if isinstance(found, OSError):
            raise found
        return found

    return parse(text.encode(), file="/srv/shop.toml", outside=Outside({}, content))


def test_variables_of_files_are_as_if_they_stood_in_env_which_counts_more() -> None:
    text = f"""
env_file = "all.env"
{SMALL}
env_file = ["/etc/web", "late", "none?"]
env = {{ D = "config" }}
[service.job]
command = ["job"]
"""
    files: dict[str, bytes | OSError] = {
        "/srv/all.env": b"A=all\nB=all\nC=all\nD=all", "/etc/web": b"B=web\nC=web\nD=web",
        "/srv/late": b"C=late\nD=late",
    }  # fmt: skip
    web, job = read(text, files).services
    assert dict(web.env) == {"A": "all", "B": "web", "C": "late", "D": "config"}
    assert dict(job.env) == dict.fromkeys("ABCD", "all")


DENIED = PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("written", "error", "words"),
    [
        ('".env"', FileNotFoundError(2, "No such file"), r"No such file.*a \? behind its name"),
        (
            '[".env"]',
            DENIED,
            r"read: Permission denied.*chgrp GROUP /srv/\.env; chmod 640 /srv/\.env",
        ),
        ('".env?"', DENIED, "cannot be read: Permission denied.*the manager's user"),
        ('".env?"', OSError(22, "it is no regular file"), "it is no regular file"),
        ('".env"', OSError(27, "File too large"), "File too large.*1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_its_place(
    written: str, error: OSError, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"{SMALL}env_file = {written}\n", {"/srv/.env": error})
    assert caught.value.what.startswith("/srv/shop.toml:3:1: service.web.env_file names /srv/.env")
    assert re.search(words, str(caught.value), re.DOTALL), str(caught.value)


def test_a_file_that_cannot_be_understood_is_an_error_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^/srv/\.env:1:3: the value of A begins"):
        read(f"{SMALL}env_file = '.env'\n", {"/srv/.env": b"A= 1"})


def test_a_file_is_read_once_whoever_names_it() -> None:
    read: list[str] = []

    def content(path: str) -> bytes:
        read.append(path)
        return b"A=1"

    services = [
        f'[service.s{number}]\ncommand = ["a"]\nenv_file = ["a.env", "b.env"]'
        for number in range(3)
    ]
    text = "\n".join(['env_file = ["a.env", "a.env"]', *services])
    found = parse(text.encode(), file="/srv/shop.toml", outside=Outside({}, content))
    assert {service.env for service in found.services} == {(("A", "1"),)}
    assert read == ["/srv/a.env", "/srv/b.env"]


@pytest.mark.parametrize("wrong", ["7", '""', '["a", 7]', '"?"', '"a?b"', str(["a"] * 17)])
def test_what_names_no_file_is_a_mistake_in_the_config(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"shop\.toml:3:1[0-9].*\n.*a path"):
        read(f"{SMALL}env_file = {wrong}\n", {})


def test_an_env_that_is_no_table_is_still_a_mistake() -> None:
    with pytest.raises(ConfigError, match="a table"):
        read(f"{SMALL}env_file = '.env'\nenv = 7\n", {"/srv/.env": b"A=1"})

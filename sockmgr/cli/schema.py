"""`sockmgr schema`: prints the JSON Schema of sockmgr.toml, for editors."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of sockmgr.toml, with which editors complete and check the file.

    \b
    sockmgr schema > sockmgr.schema.json
    and as the first line of sockmgr.toml: #:schema ./sockmgr.schema.json
    """
    from sockmgr.config.schema import schema

    click.echo(json.dumps(schema(), indent=2, ensure_ascii=False))

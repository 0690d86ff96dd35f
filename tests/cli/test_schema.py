"""`sockmgr schema`: what it prints is the schema, and nothing else."""

from __future__ import annotations

import json

from sockmgr.config.schema import schema
from tests.helpers.command_line import sockmgr


def test_the_schema_is_printed_as_json_that_a_file_can_hold() -> None:
    result = sockmgr("schema")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == schema()
    assert result.stdout.endswith("}\n")

"""The version that the server answers with: edit it, then reload."""

VERSION = "1"

"""The version that the application answers with: edit it, then reload."""

VERSION = "1"

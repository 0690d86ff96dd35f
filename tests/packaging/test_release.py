"""`make release` refuses whatever is not ready, says all of it, and tags only what is."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.pages import ROOT

TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()
CHANGELOG = f"# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - {TODAY}\n\n### Added\n\n- A thing.\n"
MAKEFILE = """\
.PHONY: lint test man docs dist
lint test man:
	@test ! -e .git/red-$@ && echo $@ >>.git/made
docs:
	@test ! -e .git/red-$@ && echo $@ >>.git/made
dist:
	@test ! -e .git/red-$@ && echo $@ >>.git/made
	@rm -rf dist && mkdir -p dist
	@cd dist && touch sockmgr-1.2.3-py3-none-any.whl sockmgr-1.2.3.tar.gz sockmgr-1.2.3.cdx.json
	@for each in dist/*; do echo x >$$each; done; echo x >dist/SHA256SUMS
"""


class Project:
    """A small one that is ready to be released."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        files = {
            "sockmgr/__init__.py": '__version__ = "1.2.3"\n', "CHANGELOG.md": CHANGELOG,
            "Makefile": MAKEFILE, ".gitignore": "dist/\n",
            "pyproject.toml": '[project.urls]\nSource = "https://example.org/sockmgr"\n',
        }  # fmt: skip
        for name, text in files.items():
            self.write(name, text)
        (directory / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "release", directory / ".ci")
        self.git("init", "-q", "-b", "main")
        self.commit()

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *words], cwd=self.directory, capture_output=True, text=True, check=True
        ).stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "Change it")

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def release(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [".ci/release"], cwd=self.directory, capture_output=True, text=True, check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TZ": "UTC"},
        )  # fmt: skip

    @property
    def made(self) -> list[str]:
        """Return what was made."""
        log = self.directory / ".git" / "made"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_is_ready_is_tagged_and_the_rest_is_left_to_a_person(project: Project) -> None:
    done = project.release()
    assert done.returncode == 0, done.stderr
    assert project.git("tag").split() == ["v1.2.3"]
    assert project.made == ["lint", "test", "man", "docs", "dist"]
    assert "git push origin main v1.2.3" in done.stdout


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("sockmgr/__init__.py", '__version__ = "1.2.4"\n', "and not '## [1.2.4] - "),
        ("CHANGELOG.md", CHANGELOG.replace(TODAY, "2020-01-01"), f"and not '## [1.2.3] - {TODAY}'"),
        ("CHANGELOG.md", CHANGELOG.replace("]\n", "]\n\n- More.\n", 1), "lines under Unreleased"),
        ("pyproject.toml", "[project]\n", "has no [project.urls]"),
    ],
    ids=["version", "date", "unreleased", "address"],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_made(
    project: Project, file: str, text: str, says: str
) -> None:
    project.write(file, text)
    project.commit()
    refused(project, says)
    assert project.made == []


def test_changes_that_are_not_committed_another_branch_and_an_old_tag_are_told_at_once(
    project: Project,
) -> None:
    project.git("tag", "v1.2.3")
    project.git("switch", "-q", "-c", "topic")
    project.write("new.py", "")
    refused(project, "not committed", "this is topic, and not main", "a tag v1.2.3 already")


@pytest.mark.parametrize("target", ["lint", "test", "man", "docs", "dist"])
def test_whatever_is_red_ends_it(project: Project, target: str) -> None:
    project.write(f".git/red-{target}", "")
    refused(project, f"not released: make {target}\n")


def test_a_file_that_was_not_made_or_a_tree_that_was_changed_ends_it(project: Project) -> None:
    project.write("Makefile", MAKEFILE.replace(".cdx.json", ".sbom"))
    project.commit()
    refused(project, "did not make dist/sockmgr-1.2.3.cdx.json")
    project.write("Makefile", MAKEFILE.replace("SHA256SUMS", "SHA256SUMS; echo x >left"))
    project.commit()
    refused(project, "the build has changed the tree")


def refused(project: Project, *says: str) -> None:
    before = project.git("tag")
    done = project.release()
    assert done.returncode == 1
    for each in says:
        assert each in done.stderr
    assert project.git("tag") == before

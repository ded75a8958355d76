"""`rakuten COMMAND`: everything that is not a stage of the pipeline."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

COMMANDS = {  # name -> module, description
    "sample": ("rakuten.commands.sample", "write the synthetic sample catalogue to data/raw"),
    "summary": ("rakuten.commands.summary", "print a short table of the results of the last `dvc repro`"),
    "doctor": ("rakuten.commands.doctor", "check Python, packages, .env, tracking server, DVC remote and data"),
    "remote": ("rakuten.commands.remote", "set the DVC remote and its keys"),
    "score": ("rakuten.commands.score", "classify the products in a CSV or Parquet file"),
    "serve": ("rakuten.commands.serve", "serve the API and its page"),
    "review": ("rakuten.commands.review", "products that wait for a person, and what people decided"),
    "keys": ("rakuten.commands.keys", "create an API key"),
    "sign": ("rakuten.commands.sign", "sign a registered model, or create a signing key"),
    "monitor": ("rakuten.commands.monitor", "compare live traffic with the training data"),
    "trace": ("rakuten.commands.trace", "find the code and data behind a prediction, a run or a version"),
    "sync": ("rakuten.commands.sync", "send the runs that could not be sent to the tracking server"),
}
# The first line of a command whose imports take seconds.
FIRST_LINES = {"serve": "INFO serving: loading the model, which takes some seconds"}
# The extra of pyproject.toml that a command needs besides the library's own dependencies.
EXTRAS = {"score": "pipeline", "review": "pipeline", "serve": "serve", "keys": "serve", "monitor": "monitor"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the code of the checkout that contains the current folder.

    Returns:
        The exit code of the command; 2 if there is no such command, 1 if the extra that it needs is not installed
        or the current folder was deleted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        return _print(_help())
    name = arguments[0]
    if name not in COMMANDS:
        sys.stderr.write(f"rakuten: no command {name!r}; `rakuten --help` lists them\n")
        return 2
    try:
        folder = Path.cwd()
    except FileNotFoundError:
        sys.stderr.write("rakuten: the current folder has been deleted: change to another\n")
        return 1
    if name in FIRST_LINES and not {"-h", "--help"} & set(arguments):
        sys.stderr.write(f"{FIRST_LINES[name]}\n")
    _use_code_of(_find_checkout(folder))
    try:
        command = import_module(COMMANDS[name][0])
    except KeyboardInterrupt:
        return 130  # as after Ctrl-C in the command itself
    except ModuleNotFoundError as error:
        if name not in EXTRAS or str(error.name).partition(".")[0] == "rakuten":
            raise
        sys.stderr.write(f"rakuten {name}: no module {error.name!r}: `pip install -e '.[{EXTRAS[name]}]'`\n")
        return 1
    return int(command.main(arguments[1:]))


def _print(text: str) -> int:
    """Write to standard output; returns the exit code."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f"rakuten: standard output: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        return 1
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join(["usage: rakuten COMMAND [--help]", "", *lines, ""])


def _find_checkout(folder: Path) -> Path | None:
    """The checkout of this project that contains a folder; None if there is none."""
    for candidate in (folder, *folder.parents):
        if (candidate / "dvc.yaml").is_file() and (candidate / "src" / "rakuten" / "__init__.py").is_file():
            return candidate
    return None


def _use_code_of(checkout: Path | None) -> None:
    """Import `rakuten` from a checkout, here and in the processes started by this one, whichever tree is installed.

    Several checkouts may share one environment: clones, Git worktrees, the copy that `dvc exp run --temp` makes.
    """
    if checkout is None:
        return
    source = str(checkout / "src")
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    if Path(__file__).resolve().parents[1] != Path(source).resolve():
        for name in [name for name in sys.modules if name.partition(".")[0] == "rakuten"]:
            del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())

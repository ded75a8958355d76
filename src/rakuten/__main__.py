"""`rakuten COMMAND`: everything that is not a stage of the pipeline."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

COMMANDS = {  # name -> module, what it does
    "sample": ("rakuten.commands.sample", "write the synthetic sample catalogue to data/raw"),
    "summary": ("rakuten.commands.summary", "what the last `dvc repro` gave, in a short table"),
    "doctor": ("rakuten.commands.doctor", "check Python, lock, .env, tracking server, DVC remote and data"),
    "remote": ("rakuten.commands.remote", "set the DVC remote and its keys"),
    "score": ("rakuten.commands.score", "classify the products of a CSV or Parquet file"),
    "serve": ("rakuten.commands.serve", "the API and its page"),
    "keys": ("rakuten.commands.keys", "make a key to the API"),
    "monitor": ("rakuten.commands.monitor", "compare live traffic with what the model was trained on"),
    "trace": ("rakuten.commands.trace", "from a prediction, a run or a version back to code and data"),
    "sync": ("rakuten.commands.sync", "send the runs that the tracking server was away for"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the checkout that the current folder is in; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if arguments[0] not in COMMANDS:
        sys.stderr.write(f"rakuten: no command {arguments[0]!r}; `rakuten --help` lists them\n")
        return 2
    _use_code_of(_checkout(Path.cwd()))
    module, _ = COMMANDS[arguments[0]]
    return int(import_module(module).main(arguments[1:]))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {does}" for name, (_, does) in COMMANDS.items()]
    return "\n".join(["usage: rakuten COMMAND [--help]", "", *lines, ""])


def _checkout(folder: Path) -> Path | None:
    """The checkout of this project that a folder is in."""
    for candidate in (folder, *folder.parents):
        if (candidate / "dvc.yaml").is_file() and (candidate / "src" / "rakuten" / "__init__.py").is_file():
            return candidate
    return None


def _use_code_of(checkout: Path | None) -> None:
    """Import `rakuten` from a checkout, also in the processes that are started, whichever tree is installed.

    Two clones, a Git worktree or the copy that `dvc exp run --temp` makes may share one environment.
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

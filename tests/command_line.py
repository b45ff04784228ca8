"""The `alexnet` command in this process, as tests call it."""

import json

from typer.testing import CliRunner

from alexnet_np.cli.app import app


def run(*arguments, code=0, **options):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="alexnet", **options)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


def run_json(*arguments, code=0, **options):
    return json.loads(run(*arguments, "--json", code=code, **options).stdout)


def fails(*arguments):
    """The one line on standard error with which a command fails."""
    result = run(*arguments, code=1)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("alexnet: ")
    return result.stderr.removeprefix("alexnet: ").strip()

"""The README shows what happens."""

from e2e_recording import record, recorded, told_apart

from e2e_server import Server


def test_the_recording_in_the_readme_is_what_its_commands_print(server: Server) -> None:
    assert told_apart(recorded()) == told_apart(record(server)), "run `make recording`"

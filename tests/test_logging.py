import logging
from pathlib import Path

from gitdist.logging import logging_to


def test_messages_of_libraries_go_to_a_file_that_is_named_once(tmp_path, capfd):
    file, shown = tmp_path / "libraries.log", []
    printing = logging.StreamHandler()  # as Ray installs it
    ray = logging.getLogger("ray")
    ray.addHandler(printing)
    handlers = list(ray.handlers)
    try:
        with logging_to(file, shown.append):
            logging.getLogger("ray.tune.tune").error("Trials did not complete")
            logging.getLogger("sqlalchemy.pool").warning("a connection was lost")
            logging.getLogger("gitdist.outage").warning("the ledger cannot be used")
            logging.getLogger("ray").info("not worth a line")
        assert ray.handlers == handlers
    finally:
        ray.removeHandler(printing)
    assert shown == [f"ray reports an error; details: {file}", "the ledger cannot be used"]
    assert [line.split(maxsplit=2)[2] for line in file.read_text().splitlines()] == [
        "ERROR ray.tune.tune: Trials did not complete",
        "WARNING sqlalchemy.pool: a connection was lost",
    ]
    assert capfd.readouterr() == ("", "")


def test_no_message_leaves_no_file(tmp_path):
    with logging_to(tmp_path / "libraries.log", print):
        logging.getLogger("ray").debug("nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_costs_nothing_but_the_messages(capfd):
    with logging_to(Path("/dev/full"), lambda line: None):
        logging.getLogger("ray").error("lost")
    with logging_to(Path("/proc/libraries.log"), lambda line: None):
        logging.getLogger("ray").error("lost")
    assert capfd.readouterr() == ("", "")

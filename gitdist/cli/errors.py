"""Error messages of the command line."""

from gitdist.errors import GitdistError, Remedy

_LONGEST = 1500  # characters of a message; a longer one has a value that the user knows
_FORK = (
    "--fork NAME (for a campaign: --set name=NAME) starts another study that reuses the data set, the generator and "
    "all other artifacts that both need"
)
_REMEDIES: dict[Remedy, str] = {
    "other_disk": "free space there, or move the results to another disk and pass it with --results DIR; then run the "
    "same command again",
    "other_results": "choose another directory with --results DIR",
    "find_study": "`gitdist run` starts one, --results selects another directory",
    "change_field": "restore the old value there, and change fields with --set FIELD=VALUE instead",
    "fork": _FORK,
    "fork_stored": "to start a new study from it: gitdist run {spec} --fork NAME --results {results} (status, report "
    "and ui still show the old one)",
    "fork_or_find": "name the right one with --results, or give this study another name with --fork NAME",
    "rename": "give it another name with --set name=NAME",
    "retry": "fix the cause, then: gitdist retry {name} --failed --results {results}",
    "quote": "quote it",
    "quote_override": "quote it, within the quotes of the shell: --set 'FIELD=\"VALUE\"'",
    "choose_trial": "with --trial N",
    "take_over": "or take over the study with --take-over",
    "submit": "pass HOST:6379 on such a node, or submit the study from here: ray job submit --address http://HOST:8265 "
    "--working-dir . -- gitdist run ...",
}


def error_message(error: GitdistError) -> str:
    """Return an error's message with what the user can do about it, as one line of plain text."""
    message = f"{error}; {remedy_text(error.remedy, **error.facts)}" if error.remedy else str(error)
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
    return "".join(part if part.isprintable() else repr(part)[1:-1] for part in message)


def remedy_text(remedy: Remedy, **facts: object) -> str:
    """Return what the user can do, as text; ``facts`` are those of ``GitdistError``."""
    return _REMEDIES[remedy].format(**facts)

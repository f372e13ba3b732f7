"""Error messages of the command line."""

from gitdist.errors import GitdistError, Remedy

_REMEDIES: dict[Remedy, str] = {
    "other_disk": "free space there, or move the results to another disk and pass it with --results DIR; then run the "
    "same command again",
    "other_results": "choose another directory with --results DIR",
}


def error_message(error: GitdistError) -> str:
    """Return an error's message with what the user can do about it."""
    return f"{error}; {_REMEDIES[error.remedy]}" if error.remedy else str(error)

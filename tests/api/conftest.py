from tests.study.conftest import undisturbed  # noqa: F401

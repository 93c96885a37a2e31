"""Errors that users meet: one sentence on what is wrong, with the value, and one on what to do."""


class CraftError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    problem : str
        One sentence on what is wrong, with the value.
    remedy : str
        One sentence on what to do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy


class InputError(CraftError, ValueError):
    """A file, an array or an option that cannot be used."""


class CheckFailed(CraftError):
    """A numerical proof, a hash or a self-test that did not hold."""

    exit_code = 1


class UnsupportedOperator(CraftError):
    """An operator of the model that cannot be converted or handled."""

    exit_code = 3


class ProviderUnavailable(CraftError):
    """An execution provider that was asked for but would not run."""

    exit_code = 4


class MissingExtra(CraftError, ImportError):
    """An optional dependency that this call needs."""


class NotFittedError(CraftError, ValueError, AttributeError):
    """A fitted result asked for before ``fit``."""


class CraftWarning(UserWarning):
    """Something was left out or done differently, and the result still stands."""

"""The rules of a split as data, and as the sentence that stands beside every number."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

Method = Literal["temporal", "leave-n-out", "leave-one-out", "users"]
Target = Literal["last", "first", "all"]
UserOrder = Literal["random", "joined"]

_CUTS_HELP = "give quantiles between 0 and 1, ISO dates ('2015-06-01') or epoch seconds"


@dataclass(frozen=True)
class SplitProtocol:
    """How events are split; fields that its method does not use are ignored.

    Attributes:
        method: "temporal" cuts at two times for all users; "leave-n-out" holds out the last events of
            every user; "leave-one-out" is that with one event each, as most papers do; "users" holds out
            whole users.
        cuts: temporal: the times at which validation and test begin. A number between 0 and 1 is a quantile
            of the event times, a larger one epoch seconds, a text an ISO 8601 date or time (UTC where it
            names no zone). An event at a cut belongs to the later part.
        target: temporal: which event of a user's window is asked for: the "last", the "first" or "all".
        n_test: leave-n-out, users: how many last events of a user are test targets (users: also validation
            targets, of the validation users), at least 1.
        n_valid: leave-n-out: how many events before those are validation targets, at least 0.
        fractions: users: shares of users in train, validation and test, summing to 1.
        by: users: "random" users, or those who "joined" first into train and those who joined last into test.
        seed: users at random: which random users, at least 0.
        min_history: temporal, users: a target needs this many earlier events of its user, at least 0.
    """

    method: Method = "temporal"
    cuts: tuple[float | str, float | str] = (0.8, 0.9)
    target: Target = "last"
    n_test: int = 1
    n_valid: int = 1
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    by: UserOrder = "random"
    seed: int = 0
    min_history: int = 1

    def __post_init__(self) -> None:
        check_choice("method", self.method, get_args(Method))
        check_choice("target", self.target, get_args(Target))
        check_choice("by", self.by, get_args(UserOrder))
        check_least("n_test", self.n_test, 1)
        check_least("n_valid", self.n_valid, 0)
        check_least("seed", self.seed, 0)
        check_least("min_history", self.min_history, 0)
        if len(self.cuts) != 2:
            raise ValueError(f"cuts is {self.cuts}; give two: where validation and where test begins")
        for cut in self.cuts:
            parse_cut(cut)
        shares = tuple(self.fractions)
        if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"fractions is {shares}; give the shares of train, validation and test, sum 1")
        if self.method == "leave-one-out" and (self.n_test, self.n_valid) != (1, 1):
            raise ValueError(
                f"n_test is {self.n_test} and n_valid {self.n_valid}, but leave-one-out holds out one event "
                "each; use method='leave-n-out'"
            )

    def describe(self) -> str:
        """The split in one line, for the protocol printed beside every number."""
        history = f"targets with at least {_count(self.min_history, 'earlier event')}"
        if self.method == "temporal":
            first, second = (describe_cut(cut) for cut in self.cuts)
            which = {
                "last": "each user's last event of the window is the target",
                "first": "each user's first event of the window is the target",
                "all": "every event of the window is a target",
            }[self.target]
            return f"global temporal split, validation from {first}, test from {second}, {which}, {history}"
        if self.method == "users":
            shares = " / ".join(f"{share:g}" for share in self.fractions)
            order = f"at random (seed {self.seed})" if self.by == "random" else "by joining date"
            which = _which_last(self.n_test)
            return f"users held out {order}, {shares} train / validation / test, {which}, {history}"
        name = "leave-one-out" if (self.n_test, self.n_valid) == (1, 1) else "leave-n-out"
        before = f", the {_count(self.n_valid, 'event')} before for validation" if self.n_valid else ""
        least = self.n_test + self.n_valid + 1
        return f"{name}, {_which_last(self.n_test)}{before}, users with at least {_count(least, 'event')}"


def parse_cut(cut: object) -> float:
    """A cut as a number: a quantile when below 1, else epoch seconds.

    >>> parse_cut(0.8), parse_cut("1970-01-02"), parse_cut("1970-01-01T01:00:00+01:00")
    (0.8, 86400.0, 0.0)
    """
    if isinstance(cut, str):
        try:
            when = datetime.fromisoformat(cut.strip())
        except ValueError:
            raise ValueError(f"cuts holds {cut!r}; {_CUTS_HELP}") from None
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if isinstance(cut, bool) or not isinstance(cut, (int, float)) or not 0 < cut < float("inf"):
        raise ValueError(f"cuts holds {cut!r}; {_CUTS_HELP}")
    return float(cut)


def is_quantile(cut: float | str) -> bool:
    """Whether a cut is a share of the events rather than a time."""
    return not isinstance(cut, str) and cut < 1


def check_choice(argument: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise the ValueError for a value outside the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{argument} is {value!r}; allowed are {', '.join(map(repr, allowed))}")


def check_least(argument: str, value: object, least: int) -> None:
    """Raise the ValueError for a count that is no whole number or too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{argument} is {value!r}; give a whole number, at least {least}")


def describe_cut(cut: float | str) -> str:
    """A cut in words."""
    if is_quantile(cut):
        return f"the {cut:g} quantile of event times" if isinstance(cut, (int, float)) else cut
    return datetime.fromtimestamp(parse_cut(cut), UTC).isoformat().replace("+00:00", "Z")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _which_last(number: int) -> str:
    return "last event is the target" if number == 1 else f"last {number} events are targets"

"""Events whose next item has a known distribution, given the history, its times and the request's time.

Items belong to themes; a request picks a theme and then one of its items that the user has not taken yet, by
fixed shares. What is planted lies in the choice of the theme (`theme_shares`), and all of it can be read off
the visible events and times: there is no hidden state. When events come does not depend on which they are.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY, HOUR = 86_400, 3_600  # seconds
ORIGIN = 1_704_067_200  # Monday, 1 January 2024, 00:00 UTC: the first day of a log
WAKING = 6  # the hour from which there are events; none between midnight and then
SESSION = 1_800  # seconds: a shorter gap continues a session
STAY = 0.45  # probability that an event is followed by another one of its session
SILENCE = (3.0, 1.0)  # days between sessions: median and sigma of a log-normal distribution
JOINING = 0.5  # share of the log in which users join
SURGE = (0.7, 1.0)  # shares of the log at which the sudden event begins and ends
PRIOR_EVENTS = 2.0  # how many events of its own outweigh what a user shares with everybody
NEVER = -(10**15)  # time of the last event of a user who has none


@dataclasses.dataclass(frozen=True)
class Strengths:
    """How strong each planted structure is; 0 switches it off.

    Attributes:
        burst: probability, 0 to 1, that an event within a session takes the theme after the last one's.
        daily: how sharply a theme keeps to its hours: the concentration of a von Mises distribution.
        weekly: logarithm of how much more a theme of the weekend is taken then, and one of weekdays on those.
        interest: share of the other choices, 0 to 1, that follow the themes of the user's own past.
        drift: rate, per day, at which past events lose their weight in that.
        surge: probability, 0 to 1, that a choice during the sudden event falls on its theme.
    """

    burst: float = 0.9
    daily: float = 8.0
    weekly: float = 1.5
    interest: float = 0.5
    drift: float = 0.05
    surge: float = 0.1


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a log is.

    Attributes:
        users: users.
        items: items, a multiple of `themes`.
        themes: themes, at least 2.
        days: length of the log.
    """

    users: int = 5_000
    items: int = 1_000
    themes: int = 20
    days: int = 120

    def __post_init__(self) -> None:
        if self.themes < 2 or self.items % self.themes:
            raise ValueError(
                f"items is {self.items}: it must be a multiple of themes, {self.themes}, 2 or more"
            )


class State(NamedTuple):
    """What the next choice of some users depends on, beside its time.

    Attributes:
        last: (...) time of the last event; NEVER for none.
        current: (...) theme of it.
        interests: (..., G) events of each theme, with the weights that they have at the time of the last.
    """

    last: Ints
    current: Ints
    interests: Floats


class World(NamedTuple):
    """The fixed facts.

    Attributes:
        sizes, strengths: what it was built from.
        theme_of: (V,) theme of each item.
        share_of: (V,) share of each item within its theme.
        members: (G, V / G) items of each theme.
        follower: (G,) theme that follows within a session; one cycle through all of them.
        clock: (2, 24, G) shares of the themes by weekday or weekend, and hour.
        surge_theme: theme of the sudden event.
    """

    sizes: Sizes
    strengths: Strengths
    theme_of: Ints
    share_of: Floats
    members: Ints
    follower: Ints
    clock: Floats
    surge_theme: int


def build_world(sizes: Sizes, strengths: Strengths, random: np.random.Generator) -> World:
    """Draw the facts of a world; item numbers tell nothing."""
    themes = sizes.themes
    members = random.permutation(sizes.items).reshape(themes, -1)
    zipf = 1 / np.arange(1, members.shape[1] + 1)
    theme_of, share_of = np.empty(sizes.items, dtype=np.int64), np.empty(sizes.items)
    theme_of[members] = np.arange(themes)[:, None]
    share_of[members] = zipf / zipf.sum()
    cycle = random.permutation(themes)
    follower = np.empty(themes, dtype=np.int64)
    follower[cycle] = np.roll(cycle, -1)
    # Neighbours on the dial differ in their part of the week.
    dial = random.permutation(themes)
    angle = 2 * np.pi * (np.arange(24)[:, None] - WAKING) / (24 - WAKING) - 2 * np.pi * dial / themes
    side = np.where(dial % 2, 1.0, -1.0)
    weekend = np.array([-1.0, 1.0])[:, None, None]
    affinity = np.exp(strengths.daily * (np.cos(angle) - 1) + strengths.weekly * weekend * side)
    clock = affinity / affinity.sum(-1, keepdims=True)
    return World(sizes, strengths, theme_of, share_of, members, follower, clock, int(random.integers(themes)))


def initial_state(world: World, shape: tuple[int, ...]) -> State:
    """Give the state of users without events."""
    return State(
        np.full(shape, NEVER), np.zeros(shape, dtype=np.int64), np.zeros((*shape, world.sizes.themes))
    )


def theme_shares(world: World, state: State, now: Ints) -> Floats:
    """Give the distribution over themes of requests at `now` (...), (..., G): everything that is planted."""
    strengths, themes = world.strengths, np.arange(world.sizes.themes)
    interests = _aged(world, state, now)
    events = interests.sum(-1, keepdims=True)
    followed = strengths.interest * events / (events + PRIOR_EVENTS)
    weekend, hour = read_clock(now)
    shares = (1 - followed) * world.clock[weekend, hour]
    shares += strengths.interest * interests / (events + PRIOR_EVENTS)
    burst = np.where(now - state.last < SESSION, strengths.burst, 0.0)[..., None]
    shares = (1 - burst) * shares + burst * (themes == world.follower[state.current][..., None])
    begin, end = (ORIGIN + share * world.sizes.days * DAY for share in SURGE)
    surge = np.where((now >= begin) & (now < end), strengths.surge, 0.0)[..., None]
    return (1 - surge) * shares + surge * (themes == world.surge_theme)


def observe(world: World, state: State, now: Ints, theme: Ints) -> State:
    """Give the state after events of some themes (...) at `now` (...)."""
    interests = _aged(world, state, now) + (np.arange(world.sizes.themes) == theme[..., None])
    return State(now, np.broadcast_to(theme, now.shape), interests)


def _aged(world: World, state: State, now: Ints) -> Floats:
    days = np.where(state.last == NEVER, 0, now - state.last) / DAY
    return state.interests * np.exp(-world.strengths.drift * days)[..., None]


def read_clock(now: Ints) -> tuple[Ints, Ints]:
    """Give whether it is the weekend, 0 or 1, and the hour of the day, in UTC."""
    weekday = (now // DAY + 3) % 7  # day 0 of the epoch was a Thursday, Monday is 0
    return (weekday >= 5).astype(np.int64), now // HOUR % 24


def draw_first(world: World, shape: tuple[int, ...], random: np.random.Generator) -> Ints:
    """Draw the times at which users join."""
    days = random.integers(max(1, int(JOINING * world.sizes.days)), size=shape)
    return ORIGIN + days * DAY + _draw_hours(shape, random)


def draw_next(last: Ints, random: np.random.Generator) -> Ints:
    """Draw the times of the next events: soon, or on a later day at an hour that depends on nothing."""
    soon = last + 20 + np.minimum(random.exponential(120, last.shape), SESSION - 60).astype(np.int64)
    median, sigma = SILENCE
    silence = 1 + (median * np.exp(sigma * random.standard_normal(last.shape))).astype(np.int64)
    later = (last // DAY + silence) * DAY + _draw_hours(last.shape, random)
    return np.where(random.random(last.shape) < STAY, soon, later)


def _draw_hours(shape: tuple[int, ...], random: np.random.Generator) -> Ints:
    """Draw seconds of the day: three of four uniform from waking to midnight, the rest in the evening."""
    evening = random.random(shape) < 0.25
    return random.integers(np.where(evening, 18, WAKING) * HOUR, DAY)

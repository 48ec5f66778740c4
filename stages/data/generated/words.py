"""Words of the grammar that writes rows of ViGGO's shape: the values of each attribute, and the phrases for them.

All of it is made up for this project: no title, studio or sentence is taken from the corpus.
"""

from __future__ import annotations

from itertools import combinations

INSTRUCTION = "Write the meaning of this sentence as function(attribute[value])."

# The order in which the corpus writes attributes, whatever the sentence's.
ATTRIBUTES = (
    "name", "exp_release_date", "release_year", "developer", "esrb", "rating", "genres", "player_perspective",
    "has_multiplayer", "platforms", "available_on_steam", "has_linux_release", "has_mac_release", "specifier",
)  # fmt: skip

_FACTS = frozenset(ATTRIBUTES) - {"name", "exp_release_date", "rating", "specifier"}

# function: attributes it always has, attributes it may have, how many of those at least and at most, its weight.
FUNCTIONS: dict[str, tuple[tuple[str, ...], frozenset[str], int, int, float]] = {
    "inform": (("name",), _FACTS | {"exp_release_date", "rating"}, 1, 6, 4.0),
    "request": (("specifier",), _FACTS, 0, 1, 1.0),
    "give_opinion": (("name", "rating"), _FACTS, 1, 2, 2.0),
    "confirm": (("name",), _FACTS | {"exp_release_date"}, 1, 2, 1.0),
    "verify_attribute": (("name", "rating"), _FACTS, 1, 2, 2.0),
    "suggest": (("name",), _FACTS, 1, 2, 1.0),
    "request_explanation": (("rating",), _FACTS, 1, 2, 1.0),
    "recommend": (("name",), _FACTS, 1, 2, 1.0),
    "request_attribute": ((), _FACTS, 1, 1, 0.5),
}

_TITLE_FIRST = (
    "Ember", "Hollow", "Velvet", "Copper", "Northern", "Silent", "Paper", "Crooked", "Golden", "Frozen", "Neon",
    "Wandering", "Scarlet", "Distant", "Broken", "Midnight", "Marble", "Salt", "Thunder", "Glass", "Amber", "Feral",
    "Lunar", "Rusty",
)  # fmt: skip
_TITLE_SECOND = (
    "Harbor", "Orchard", "Meridian", "Compass", "Lighthouse", "Caravan", "Kingdom", "Circuit", "Bakery", "Valley",
    "Sparrow", "Engine", "Archive", "Voyage", "Garden", "Frontier", "Signal", "Carnival", "Fortress", "Relay",
    "Monastery", "Gambit", "Canyon", "Parade",
)  # fmt: skip
NAMES = tuple(
    f"{first} {second}{sequel}"
    for index, first in enumerate(_TITLE_FIRST)
    for place, second in enumerate(_TITLE_SECOND)
    for sequel in (("",) if (index + place) % 3 else ("", f" {2 + (index + place) % 4}"))
)

DEVELOPERS = tuple(
    f"{name} {kind}"
    for name in (
        "Tall Heron", "Lanternfish", "Kettle Bay", "Owlgate", "Brass Button", "Juniper Lane", "Pocket Comet",
        "Redwater", "Quiet Storm", "Moss & Iron", "Windmill Nine", "Saltbox", "Two Foxes", "Harrow Street",
        "Cobalt Yard", "Papercrane",
    )
    for kind in ("Studios", "Games", "Interactive")
)  # fmt: skip

YEARS = tuple(str(year) for year in range(1993, 2020))
DATES = tuple(
    f"{month} {day}, {year}"
    for month in ("January", "March", "April", "June", "August", "October", "November")
    for day in (3, 9, 14, 18, 26, 30)
    for year in (2027, 2028)
)
DATE_YEARS = ("2027", "2028", "2029")

ESRB = {
    "E (for Everyone)": ("E-rated", "rated E (for Everyone)", "rated E"),
    "E 10+ (for Everyone 10 and Older)": ("E 10+ rated", "rated E 10+ (for Everyone 10 and Older)", "rated E 10+"),
    "T (for Teen)": ("T-rated", "rated T (for Teen)", "rated T"),
    "M (for Mature)": ("M-rated", "rated M (for Mature)", "rated M"),
}

RATINGS = {
    "excellent": ("excellent", "superb", "fantastic", "brilliant"),
    "good": ("good", "enjoyable", "likable", "solid"),
    "average": ("average", "middling", "so-so", "ordinary"),
    "poor": ("poor", "bad", "dreadful", "weak"),
}
RATING_VERBS = {
    "excellent": ("love", "adore"),
    "good": ("like", "enjoy"),
    "average": ("shrug at", "feel lukewarm about"),
    "poor": ("dislike", "loathe"),
}

# genre: the ways to say it before "game"
GENRES = {
    "action": ("action",), "action-adventure": ("action-adventure",), "adventure": ("adventure",),
    "arcade": ("arcade",), "driving/racing": ("racing", "driving"), "fighting": ("fighting",),
    "hack-and-slash": ("hack-and-slash",), "indie": ("indie",), "MMORPG": ("MMORPG",), "music": ("music",),
    "platformer": ("platformer", "platforming"), "point-and-click": ("point-and-click",), "puzzle": ("puzzle",),
    "real-time strategy": ("real-time strategy",), "role-playing": ("role-playing", "RPG"),
    "shooter": ("shooter", "shooting"), "simulation": ("simulation", "simulator"), "sport": ("sport", "sports"),
    "strategy": ("strategy",), "tactical": ("tactical",), "text adventure": ("text adventure",), "trivia": ("trivia",),
    "turn-based strategy": ("turn-based strategy",), "vehicular combat": ("vehicular combat",),
}  # fmt: skip
# "action" with "adventure" would read like "action-adventure"; a strategy of one kind is not named as another too.
_CLASHES = (
    {"action", "adventure", "action-adventure", "text adventure"},
    {"strategy", "real-time strategy", "turn-based strategy"},
)
GENRE_SETS = tuple(
    chosen
    for size in (1, 2, 3)
    for number, chosen in enumerate(combinations(GENRES, size))
    if (size < 3 or number % 15 == 0) and all(len(clash & set(chosen)) < 2 for clash in _CLASHES)
)

PERSPECTIVES = {"bird view": "bird-view", "first person": "first-person", "side view": "side-view",
                "third person": "third-person"}  # fmt: skip
PERSPECTIVE_SETS = (
    ("bird view",), ("first person",), ("side view",), ("third person",),
    ("first person", "third person"), ("bird view", "third person"), ("bird view", "side view"),
)  # fmt: skip

_PLATFORMS = ("PlayStation", "Xbox", "Nintendo", "Nintendo Switch", "PC")
PLATFORM_SETS = tuple(
    chosen
    for size in (1, 2, 3)
    for chosen in combinations(_PLATFORMS, size)
    if not {"Nintendo", "Nintendo Switch"} <= set(chosen)
)

# attribute: phrases for yes, phrases for no; each as (before "game", after "game", after "it")
YES_NO: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]] = {
    "has_multiplayer": (
        (
            ("multiplayer",),
            ("with multiplayer", "with a multiplayer mode"),
            ("has multiplayer", "supports multiplayer"),
        ),
        (("single-player",), ("without multiplayer",), ("has no multiplayer", "is for one player only")),
    ),
    "available_on_steam": (
        ((), ("sold on Steam", "available on Steam"), ("is sold on Steam", "can be found on Steam")),
        ((), ("missing from Steam", "not sold on Steam"), ("is missing from Steam", "is not sold on Steam")),
    ),
    "has_linux_release": (
        ((), ("with a Linux version", "with Linux support"), ("runs on Linux", "has a Linux version")),
        ((), ("without a Linux version", "without Linux support"), ("does not run on Linux", "has no Linux version")),
    ),
    "has_mac_release": (
        ((), ("with a Mac version", "with Mac support"), ("runs on Mac", "has a Mac version")),
        ((), ("without a Mac version", "without Mac support"), ("does not run on Mac", "has no Mac version")),
    ),
}

SPECIFIERS = (
    "relaxing", "clever", "tense", "charming", "confusing", "moving", "inventive", "repetitive", "stylish", "brutal",
    "colorful", "eerie", "replayable", "cozy", "grim", "witty", "hypnotic", "ambitious", "forgettable", "expensive",
    "polished", "buggy", "immersive", "strange", "heartwarming", "frustrating", "educational", "atmospheric",
)  # fmt: skip
SUPERLATIVES = (
    "hardest", "longest", "newest", "silliest", "prettiest", "loudest", "calmest", "darkest", "easiest", "fastest",
)  # fmt: skip

# What request_attribute asks about: two ways to put it after "Does ... matter", two after "Do you favor ...".
ASKED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "release_year": (
        ("the release year", "the year of release"), ("a certain release year", "any one year of release")),
    "developer": (("the developer", "the studio behind it"), ("a certain developer", "any one studio")),
    "esrb": (("the ESRB rating", "the age rating"), ("a certain ESRB rating", "any one age rating")),
    "genres": (("the genre", "the kind of game it is"), ("a certain genre", "any one genre")),
    "player_perspective": (
        ("the player perspective", "the camera view"), ("a certain player perspective", "any one camera view")),
    "has_multiplayer": (
        ("a multiplayer mode", "playing with others"), ("multiplayer modes", "games to play with others")),
    "platforms": (("the platform", "the console it runs on"), ("a certain platform", "any one console")),
    "available_on_steam": (
        ("being sold on Steam", "a Steam release"), ("games from Steam", "the Steam store")),
    "has_linux_release": (
        ("a Linux version", "running on Linux"), ("games for Linux", "Linux as a system to play on")),
    "has_mac_release": (("a Mac version", "running on a Mac"), ("games for the Mac", "a Mac as a machine to play on")),
}  # fmt: skip

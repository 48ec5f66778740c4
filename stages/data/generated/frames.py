"""Sentences of the grammar, with places for the words that describe a game.

`{name}`: the title. `{game}`: a description such as "puzzle game for PC". `{a_game}`: the same with its article.
`{games}`: the same in the plural. `{rating}`: an adjective. `{verb}`: a verb that says the same as the rating.
`{specifier}`: an adjective or superlative. `{matter}`, `{favor}`: see `grammar_words.ASKED`.
"""

from __future__ import annotations

_OPENERS = ("", "Tell me, ", "By the way, ", "Out of curiosity, ", "Quick question: ", "Say, ", "Hmm, ")

# inform: how the first sentence names the game; what else there is to say follows as "It ...".
INFORM = (
    "{name} is {a_game}.", "There is {a_game} called {name}.", "{name} can be described as {a_game}.",
    "The title {name} is {a_game}.",
    "{name} happens to be {a_game}.", "A word on {name}: it is {a_game}.", "They describe {name} as {a_game}.",
    "By all accounts {name} is {a_game}.",
)  # fmt: skip
INFORM_CLAUSES = (
    "{name} {clauses}.", "The title {name} {clauses}.", "A word on {name}: it {clauses}.",
    "By all accounts {name} {clauses}.",
)  # fmt: skip
INFORM_MORE = ("It {clauses}.", "The game {clauses}.", "It also {clauses}.", "Besides, it {clauses}.")

_QUESTIONS = {
    "confirm": (
        "do I get it right that {name} is the {game}?", "is {name} the {game} we are on about?",
        "by {name}, do you have the {game} in mind?", "{name}, that would be the {game}, correct?",
        "we are on about {name}, the {game}, yes?", "am I right to take {name} for the {game}?",
        "so {name} is what the {game} is called, is it?",
    ),
    "suggest": (
        "do {games} in the vein of {name} appeal to you?", "would {games} along the lines of {name} be up your street?",
        "do you go for {games}, {name} for one?", "are {games} of the {name} sort to your taste?",
        "could {games}, with {name} among them, tempt you?", "is there room on your shelf for {games} like {name}?",
    ),
    "request_explanation": (
        "why do you {verb} {games}?", "what is the reason that you {verb} {games}?",
        "what has led you to {verb} {games}?", "what leaves you calling {games} {rating}?",
        "where does the view that {games} are {rating} come from?", "on what grounds are {games} {rating} to you?",
    ),
    "request_attribute": (
        "how much does {matter} count for you in a game?", "does {matter} weigh on your choice of games?",
        "do you look at {matter} before you buy a game?", "how much thought do you give to {matter}?",
        "would you call {matter} decisive when you pick a game?", "do you lean towards {favor}?",
        "have you a soft spot for {favor}?", "could you see yourself sticking with {favor}?",
        "where do you stand on {favor}?",
    ),
}  # fmt: skip

_STATEMENTS = {
    "give_opinion": (
        "I {verb} {name}, {a_game}.", "If you ask me, {name} is {rating}, being {a_game}.",
        "My verdict on {name}, {a_game}: {rating}.",
        "For my taste {name} is {rating} for {a_game}.", "Speaking for myself, I {verb} {name}; it is {a_game}.",
        "I call {name} {rating}, and it is {a_game}.", "As {a_game}, {name} strikes me as {rating}.",
        "I have played {name}, {a_game}, and it felt {rating} to me.",
    ),
    "verify_attribute": (
        "So you {verb} {name}. Is that how you see other {games}?",
        "You called {name} {rating}. Does that hold for {games} in general?",
        "From what you said you {verb} {name}. Are {games} the same to you?",
        "To you {name} is {rating}. Do other {games} leave you with that feeling?",
        "{name} came across as {rating} when we talked. Is it so with most {games}?",
        "Knowing that you {verb} {name}, do you expect the same of {games}?",
    ),
    "recommend": (
        "{name} could be one for you, {a_game}. Ring a bell?",
        "With your love of {games}, has {name} crossed your path?",
        "For {games} I would point you to {name}. Seen it?", "Here is a tip: {name}, {a_game}. Does it sound familiar?",
        "Anyone fond of {games} ought to meet {name}. Are you aware of it?", "How about {name}? It is {a_game}.",
        "May I point out {name}, {a_game}, in case you missed it?",
    ),
}  # fmt: skip

_REQUESTS = (
    "can you name {a_game} that counts as {specifier}?", "which {game} would you call {specifier}?",
    "what comes to mind when you hear {specifier} {games}?", "are there {specifier} {games} on your mind?",
    "which {game} is the most {specifier} in your view?", "have {specifier} {games} ever kept you up at night?",
)  # fmt: skip
_REQUESTS_SUPERLATIVE = (
    "which is the {specifier} {game} you own?", "what do you regard as the {specifier} {game} of all?",
    "can you name the {specifier} {game} so far?", "what would be the {specifier} {game} on your shelf?",
    "which {game} is the {specifier} of the lot?",
)  # fmt: skip


def _opened(question: str) -> tuple[str, ...]:
    """The question after each opener, with a capital where it begins the sentence."""
    capital = question[0].upper() + question[1:]
    return tuple(opener + question if opener else capital for opener in _OPENERS)


FRAMES: dict[str, tuple[str, ...]] = {
    **_STATEMENTS,
    **{name: tuple(text for question in asked for text in _opened(question)) for name, asked in _QUESTIONS.items()},
    "request": tuple(text for question in _REQUESTS for text in _opened(question)),
    "request/superlative": tuple(text for question in _REQUESTS_SUPERLATIVE for text in _opened(question)),
}

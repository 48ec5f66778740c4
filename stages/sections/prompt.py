"""How a row becomes messages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runner.recipe.schema import Section


class Prompt(Section):
    """How a row becomes messages, defined once for every training method, batch inference and serving.

    `{column}` is replaced by that column of the row; `{{` and `}}` stand for braces. `{data.question}` names a part of
    a nested column, `{input|}` one that may be missing or empty, whose line is then left out, `{x|default:TEXT}` one
    with a text for such rows. `{x|json}`, `{x|join}`, `{x|lines}`, `{x|strip}` and `{x|lower}` write a value so.
    """

    system: str | None = Field(
        None,
        description="System message; null leaves it to the model's chat template. Where it is empty for a row, the row "
        "has none.",
        examples=["You label tickets."],
    )
    user: str | None = Field(
        None, description="User message; null only with `conversations`.", examples=["{instruction}\n{input|}"]
    )
    assistant: str | None = Field(
        None,
        description="The answer to learn, and the reference to score against; null only with `conversations`.",
        examples=["{output}"],
    )
    conversations: str | None = Field(
        None,
        description="Instead of `user` and `assistant`: the column that holds a list of messages, each with role and "
        "content, or from and value, or the list as JSON text. The last one is the assistant's, and is the answer to "
        "learn and the reference. `system` then stands for rows without a system message.",
        examples=["messages"],
    )
    history: str | None = Field(
        None,
        description="The column of earlier turns, as alpaca has them: a list of pairs [question, answer], the oldest "
        "first, before `user`. `{history|}` is one that rows may lack.",
        examples=["{history|}"],
    )
    chosen: str | None = Field(
        None,
        description="The better answer of a preference pair; null: the column `chosen` or `preferred_output`.",
        examples=["{better}"],
    )
    rejected: str | None = Field(
        None,
        description="The worse answer; null: the column `rejected` or `non_preferred_output`.",
        examples=["{worse}"],
    )
    label: str | None = Field(
        None,
        description="KTO's label, true or false, 1 or 0; null: the column `kto_tag` or `label`.",
        examples=["{good}"],
    )
    text: str | None = Field(
        None, description="What pretraining learns; null: the column `text`.", examples=["{title}\n\n{body}"]
    )
    consecutive: Literal["refuse", "join"] = Field(
        "refuse", description="Messages of one role in a row: refuse the row, or make them one message."
    )
    systems: Literal["refuse", "join"] = Field(
        "refuse",
        description="Several system messages, or one after the first turn: refuse the row, or make them one at the "
        "start.",
    )
    assistant_first: Literal["refuse", "drop"] = Field(
        "refuse", description="A conversation that the assistant begins: refuse the row, or leave out its beginning."
    )
    unanswered: Literal["refuse", "drop"] = Field(
        "refuse", description="A conversation that ends with a question: refuse the row, or leave out its end."
    )

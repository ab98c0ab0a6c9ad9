"""``labelloop models``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, say

if TYPE_CHECKING:
    from labelloop.models.catalog import ModelInfo

WIDTH = 100


def models(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the models that can be trained, and the licences of their weights.

    Example: `labelloop models`
    """
    from labelloop.models.catalog import list_models

    found = list_models()
    if as_json:
        print_json(found)
        return
    column = max(len(model.name) for model in found) + 2
    say(f"{'model':<{column}}ready  parameters  licence of the weights")
    for model in found:
        say(*_lines(model, column))


def _lines(model: ModelInfo, column: int) -> list[str]:
    """A row of the table, and below it what does not fit into columns."""
    ready = "yes" if model.available else "no"
    parameters = "" if model.parameters_m is None else f"{model.parameters_m:.1f} M"
    weights = model.weights and f"weights: {model.weights}"
    texts = filter(None, (model.description, weights, model.note and f"note: {model.note}"))
    return [
        f"{model.name:<{column}}{ready:<7}{parameters:<12}{model.licence}".rstrip(),
        *(
            line
            for text in texts
            for line in textwrap.wrap(
                text, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
            )
        ),
    ]

"""``labelloop models``."""

from __future__ import annotations

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, print_table, to_stderr


def models(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List what can be trained, and the licence of its weights.

    Example: `labelloop models`
    """
    from labelloop.models.catalog import list_models

    found = list_models()
    if as_json:
        print_json(found)
        return
    rows = [
        [
            m.name,
            "yes" if m.available else "no",
            "" if m.parameters_m is None else f"{m.parameters_m:.1f} M",
            m.weights,
            m.licence,
            m.description,
        ]
        for m in found
    ]
    print_table(["model", "ready", "parameters", "weights", "licence", ""], rows)
    for model in found:
        if model.note:
            to_stderr().print(f"{model.name}: {model.note}", soft_wrap=True, markup=False)

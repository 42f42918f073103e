"""Changing one leaf of a JSON value at a time."""

import copy


def leaves(value, path=()):
    """Yield the path of each leaf, and of each key that is data, the key marked by a "~"."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if path and path[-1] in ("aggregates", "ciphertexts", "sums"):
                yield (*path, "~" + key)
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    elif value is not None:
        yield path


def mutants(leaf):
    """Return the leaf with its first, middle and last character or digit changed."""
    if isinstance(leaf, bool):
        return [not leaf]
    text = leaf if isinstance(leaf, str) else repr(leaf)
    changed = []
    for index in sorted({0, len(text) // 2, len(text) - 1}) if text else ():
        other = text[:index] + _other(text[index]) + text[index + 1 :]
        try:
            changed.append(other if isinstance(leaf, str) else type(leaf)(other))
        except ValueError:  # a sign or a point of a number
            continue
    return changed or ["x"]


def _other(character):
    if character in "0123456789":
        return "123456789"[int(character)] if character != "9" else "8"
    return {"a": "b", "f": "e", "x": "y", "A": "B", "=": "A"}.get(character, "a")


def tampered(value, path, mutant):
    """Return a deep copy of a JSON value with one leaf, or one key, changed."""
    value = copy.deepcopy(value)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    last = path[-1]
    if isinstance(last, str) and last.startswith("~"):
        inner[mutant] = inner.pop(last[1:])
    else:
        inner[last] = mutant
    return value


def leaf_at(value, path):
    for step in path:
        value = step[1:] if isinstance(step, str) and step.startswith("~") else value[step]
    return value

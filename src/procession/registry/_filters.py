"""What a listener, a subscription or a query is interested in: event types and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from procession.errors import ConfigError
from procession.events import Event

Label = str | tuple[str, str] | Mapping[str, str]
"""A label to look for: ``"key"``, ``("key", "value")``, or a mapping all of whose items must match."""

Term = str | tuple[str, str]
Types = type[Event] | Iterable[type[Event]]


def label_terms(label: Label | None) -> tuple[Term, ...]:
    """The terms of a label filter, all of which must hold.

    Raises:
        ConfigError: it has none of the three forms, or is an empty mapping.
    """
    if label is None:
        return ()
    if isinstance(label, str):
        return (label,)
    given: object = label  # what a caller without a type checker may have given
    terms: tuple[Any, ...] = ()
    if isinstance(given, Mapping):
        terms = tuple(given.items())
    elif isinstance(given, tuple) and len(given) == 2:
        terms = (given,)
    if not terms or not all(isinstance(part, str) for term in terms for part in term):
        raise ConfigError("label", label, 'give "key", ("key", "value") or {"key": "value"}')
    return terms


def has_labels(labels: Mapping[str, str], terms: tuple[Term, ...]) -> bool:
    """Whether ``labels`` fulfil all ``terms``."""
    return all((term in labels) if isinstance(term, str) else (labels.get(term[0]) == term[1]) for term in terms)


def event_types(types: Types) -> tuple[type[Event], ...]:
    """The classes asked for; none means all.

    Raises:
        ConfigError: something else than an event class is among them.
    """
    chosen = (types,) if isinstance(types, type) else tuple(types)
    given: tuple[object, ...] = chosen
    for kind in given:
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise ConfigError("types", kind, "classes of procession.events are needed")
    return chosen or (Event,)

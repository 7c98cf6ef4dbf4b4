"""The registry against a model that scans lists: whatever is done to it, in whatever order."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from procession._types import Containment, Exit, ProcessRef, ProcessState
from procession.abc import PROCESS_MOVES
from procession.command import Command
from procession.errors import ConfigError, InvalidTransition, NotFound
from procession.events import Event, FailureReported, Gap, ProcessExited, ProcessSpawned, StateChanged
from procession.registry import ProcessRegistry, Tier

S = ProcessState
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
NAMES = st.sampled_from(["web", "job"])
OWNERS = st.sampled_from(["", "pool", "units"])
LABELLINGS: list[dict[str, str]] = [
    {},
    {"zone": "x"},
    {"zone": "y"},
    {"app": "x"},
    {"zone": "x", "app": "x"},
    {"zone": "y", "app": "x"},
    {"zone": "x", "app": "y"},
]
LABELS = st.sampled_from(LABELLINGS)
LABEL_FILTERS = st.one_of(
    st.sampled_from(["zone", "app"]),
    st.tuples(st.sampled_from(["zone", "app"]), st.sampled_from(["x", "y"])),
    st.sampled_from(LABELLINGS[1:]),
)
TYPES = st.sampled_from([(), (ProcessSpawned,), (ProcessExited, StateChanged), (FailureReported,), (Event,)])
ENDED, JOURNAL = 4, 12


def maybe(strategy: Any) -> Any:
    return st.none() | strategy


class Handle:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ref = ProcessRef(pid, pid)
        self.containment = Containment.GROUP


class Model:
    """One process as the model sees it."""

    def __init__(self, entry: Any, id: str, name: str, owner: str, labels: dict[str, str]) -> None:
        self.entry, self.id, self.name, self.owner, self.labels = entry, id, name, owner, labels
        self.state = S.STARTING
        self.pid: int | None = None


def labelled(labels: dict[str, str], label: Any) -> bool:
    if label is None:
        return True
    if isinstance(label, str):
        return label in labels
    return all(labels.get(key) == value for key, value in ([label] if isinstance(label, tuple) else label.items()))


class Ear:
    """A listener or queue, and what the model says it must have heard."""

    def __init__(self, **filters: Any) -> None:
        self.filters = filters
        self.heard: list[int] = []
        self.expected: list[int] = []
        self.closer: Any = None

    def hear(self, event: Event) -> None:
        self.heard.append(event.seq)

    def wants(self, event: Event, labels: dict[str, str]) -> bool:
        f = self.filters
        return (
            (not f["types"] or isinstance(event, f["types"]))
            and (f["id"] is None or event.id == f["id"])
            and (f["owner"] is None or event.owner == f["owner"])
            and (f["label"] is None or (bool(labels) and labelled(labels, f["label"])))
        )


class RegistryMachine(RuleBasedStateMachine):
    ears = Bundle("ears")
    queues = Bundle("queues")

    def __init__(self) -> None:
        super().__init__()
        self.registry = ProcessRegistry(journal_size=JOURNAL, ended_size=ENDED)
        self.live: list[Model] = []
        self.ended: list[Model] = []
        self.all_ears: list[Ear] = []
        self.all_queues: list[tuple[Ear, Any, list[int]]] = []
        self.events: list[tuple[type[Event], str]] = []

    # ------------------------------------------------------------------------------------ helpers

    def known(self, id: str) -> Model | None:
        return next((model for model in self.live + self.ended if model.id == id), None)

    def expect(self, kind: type[Event], id: str, owner: str = "") -> None:
        """The registry must just have published such an event."""
        self.events.append((kind, id))
        seq = len(self.events)
        event = self.registry.history(limit=1)[0]
        assert (type(event), event.id, event.owner, event.seq) == (kind, id, owner, seq)
        model = self.known(id)
        labels = model.labels if model else {}
        for ear in self.all_ears:
            if ear.wants(event, labels):
                ear.expected.append(seq)

    def end(self, model: Model) -> None:
        self.live.remove(model)
        self.ended.append(model)

    # -------------------------------------------------------------------------------------- rules

    @rule(id=IDS, name=NAMES, owner=OWNERS, labels=LABELS)
    def register(self, id: str, name: str, owner: str, labels: dict[str, str]) -> None:
        command = Command("server", labels=labels)
        if any(model.id == id for model in self.live):
            with pytest.raises(ConfigError):
                self.registry.register(command, id=id, name=name, owner=owner)
            return
        self.ended = [model for model in self.ended if model.id != id]
        entry = self.registry.register(command, id=id, name=name, owner=owner)
        self.live.append(Model(entry, id, name, owner, labels))

    @rule(id=IDS, pid=st.integers(1, 4))
    def spawned(self, id: str, pid: int) -> None:
        model = self.known(id)
        if model is None:
            return
        if model.state is not S.STARTING:
            with pytest.raises(InvalidTransition):
                model.entry.spawned(Handle(pid), 0.0)
            return
        model.entry.spawned(Handle(pid), 0.0)
        model.state, model.pid = S.RUNNING, pid
        for other in self.live:
            if other is not model and other.pid == pid:
                other.pid = -1  # the number belongs to the newer process
        self.expect(ProcessSpawned, id, model.owner)

    @rule(id=IDS, new=st.sampled_from(list(S)))
    def move(self, id: str, new: ProcessState) -> None:
        model = self.known(id)
        if model is None:
            return
        if not PROCESS_MOVES.allows(model.state, new):
            with pytest.raises(InvalidTransition):
                model.entry.to(new)
        elif new.is_final or model.state is S.STARTING:
            with pytest.raises(ConfigError):
                model.entry.to(new)
        else:
            model.entry.to(new)
            model.state = new
            self.expect(StateChanged, id, model.owner)

    @rule(id=IDS, how=st.sampled_from(["exited", "failed"]))
    def ends(self, id: str, how: str) -> None:
        model = self.known(id)
        if model is None:
            return
        new = S.EXITED if how == "exited" else S.FAILED
        act = partial(model.entry.exited, Exit(0)) if how == "exited" else partial(model.entry.failed, "why")
        if not PROCESS_MOVES.allows(model.state, new):
            with pytest.raises(InvalidTransition):
                act()
            return
        act()
        model.state = new
        self.end(model)
        self.expect(ProcessExited if how == "exited" else StateChanged, id, model.owner)
        self.ended = self.ended[-ENDED:]

    @rule(id=IDS, owner=OWNERS)
    def publish(self, id: str, owner: str) -> None:
        self.registry.publish(FailureReported(id=id, owner=owner, kind="k"))
        self.expect(FailureReported, id, owner)

    @rule(
        target=ears,
        types=TYPES,
        id=maybe(IDS),
        owner=maybe(OWNERS),
        label=maybe(LABEL_FILTERS),
        tier=st.sampled_from(list(Tier)),
    )
    def listen(self, tier: Tier, **filters: Any) -> Ear:
        ear = Ear(**filters)
        ear.closer = self.registry.listen(ear.hear, tier=tier, **filters)
        self.all_ears.append(ear)
        return ear

    @rule(
        target=queues,
        types=TYPES,
        id=maybe(IDS),
        owner=maybe(OWNERS),
        label=maybe(LABEL_FILTERS),
        size=st.integers(1, 3),
    )
    def subscribe(self, size: int, types: Any, **filters: Any) -> Any:
        ear = Ear(types=types, **filters)
        queue = ear.closer = self.registry.subscribe(*types, max_queued=size, **filters)
        self.all_ears.append(ear)
        self.all_queues.append((ear, queue, []))
        return ear

    @rule(ear=st.one_of(consumes(ears), consumes(queues)))
    def close(self, ear: Ear) -> None:
        ear.closer.close()
        self.all_ears.remove(ear)
        self.all_queues = [item for item in self.all_queues if item[0] is not ear]

    @rule(ear=queues)
    def read(self, ear: Ear) -> None:
        """What a queue delivers and what it says it dropped is, in order, all it was to hear."""
        queue = ear.closer
        expected, ear.expected = ear.expected, []
        position = 0
        while (event := queue.next_nowait()) is not None:
            if isinstance(event, Gap):
                position += event.missed
                assert event.seq == expected[position - 1]
            else:
                assert event.seq == expected[position]
                position += 1
        assert position == len(expected)

    # --------------------------------------------------------------------------------- invariants

    @invariant()
    def listeners_heard_what_they_wanted(self) -> None:
        for ear in self.all_ears:
            if not any(item[0] is ear for item in self.all_queues):
                assert ear.heard == ear.expected
        assert self.registry.statistics().listeners == len(self.all_ears)

    @invariant()
    def queries_agree(self) -> None:
        registry = self.registry
        assert len(registry) == len(self.live)
        assert {record.id for record in registry} == {model.id for model in self.live}
        assert [record.id for record in registry.ended()] == [model.id for model in self.ended]
        for id in "abcdef":
            model = self.known(id)
            assert (id in registry) == (model is not None)
            if model is None:
                with pytest.raises(NotFound):
                    registry.get(id)
            else:
                record = registry.get(id)
                assert (record.state, record.name, record.owner) == (model.state, model.name, model.owner)
                assert (record.handle is not None) == (not model.state.is_final and model.state is not S.STARTING)
        for pid in range(1, 5):
            holder = next((model.id for model in self.live if model.pid == pid), None)
            found = registry.by_pid(pid)
            assert (found.id if found else None) == holder
        counts: dict[ProcessState, int] = {}
        for model in self.live:
            counts[model.state] = counts.get(model.state, 0) + 1
        assert registry.statistics().by_state == counts

    @rule(name=maybe(NAMES), state=maybe(st.sampled_from(list(S))), owner=maybe(OWNERS), label=maybe(LABEL_FILTERS))
    def find(self, name: Any, state: Any, owner: Any, label: Any) -> None:
        found = self.registry.find(name=name, state=state, owner=owner, label=label)
        pool = self.ended if state is not None and state.is_final else self.live
        expected = [
            model.id
            for model in pool
            if (name is None or model.name == name)
            and (state is None or model.state == state)
            and (owner is None or model.owner == owner)
            and labelled(model.labels, label)
        ]
        assert sorted(record.id for record in found) == sorted(expected)

    @invariant()
    def the_journal_is_the_end_of_what_happened(self) -> None:
        journal = self.registry.history()
        assert [(type(event), event.id) for event in journal] == self.events[-JOURNAL:]
        assert [event.seq for event in journal] == list(range(len(self.events) + 1))[-len(journal) :][: len(journal)]
        for id in "ab":
            assert self.registry.story(id) == [event for event in journal if event.id == id]

    @invariant()
    def no_empty_bucket_is_kept(self) -> None:
        index = self.registry._ledger.live
        for table in (index._names, index._owners, index._states, index._labels):
            assert all(table.values())
        assert all(channel.members for channel in self.registry._by_id.values())


RegistryMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestRegistry = RegistryMachine.TestCase

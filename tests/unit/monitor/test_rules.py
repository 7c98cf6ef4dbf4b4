"""When a condition becomes an alert, and when that is over."""

from __future__ import annotations

from typing import Any

import pytest

from procession.errors import ConfigError
from procession.monitor import AlertType, Rule, Severity, actions
from procession.monitor._rules import Patience, Phase, Standing, Verdict, decide, settled_by_hand

pytestmark = pytest.mark.row("MO5")


def run(answers, patience, standing=None, start=0.0):
    standing, verdicts = standing or Standing(), []
    for number, holds in enumerate(answers):
        standing, verdict = decide(standing, holds, start + number, patience)
        verdicts.append(verdict.value if verdict else "-")
    return standing, verdicts


T, F, N = True, False, None


@pytest.mark.parametrize(
    ("answers", "patience", "verdicts"),
    [
        ([F, T, T], Patience(), ["-", "raise", "-"]),
        ([T, T, T], Patience(for_samples=3), ["-", "-", "raise"]),
        ([T, T, F, T, T, T], Patience(for_samples=3), ["-", "-", "-", "-", "-", "raise"]),
        ([T, T, T], Patience(for_seconds=2.0), ["-", "-", "raise"]),
        ([T, T, T, T], Patience(for_samples=2, for_seconds=3.0), ["-", "-", "-", "raise"]),
        ([T, F, F], Patience(), ["raise", "-", "resolve"]),
        ([T, F, T, F, F], Patience(), ["raise", "-", "-", "-", "resolve"]),
        ([T, F], Patience(clear_samples=1), ["raise", "resolve"]),
        ([T, F, F, F, F], Patience(clear_samples=1, clear_seconds=3.0), ["raise", "-", "-", "-", "resolve"]),
        ([T, N, F, N, F], Patience(), ["raise", "-", "-", "-", "resolve"]),
        ([T, N, T], Patience(for_samples=2), ["-", "-", "raise"]),
        ([N, N, F], Patience(), ["-", "-", "-"]),
    ],
)
def test_what_answers_lead_to(answers, patience, verdicts):
    assert run(answers, patience)[1] == verdicts


def test_flapping_needs_ever_more_to_be_over():
    patience = Patience(clear_samples=1)
    standing, waits = Standing(), []
    now = 0.0
    for _ in range(8):
        standing, verdict = decide(standing, True, now, patience)
        assert verdict is Verdict.RAISE
        waited = 0
        while verdict is not Verdict.RESOLVE:
            now += 1.0
            waited += 1
            standing, verdict = decide(standing, False, now, patience)
        waits.append(waited)
        now += 1.0
    assert waits == [1, 2, 4, 8, 16, 32, 32, 32]


def test_what_stays_away_for_long_is_forgiven():
    patience = Patience(clear_samples=1, flap_window=10.0)
    standing, _ = run([T, F, T, F, F], patience)
    assert standing.flaps == 1
    standing, verdict = decide(standing, True, 100.0, patience)
    assert (verdict, standing.flaps) == (Verdict.RAISE, 0)


def test_resolved_by_hand_it_has_to_clear_before_it_counts_again():
    standing, _ = run([T, T], Patience())
    standing = settled_by_hand(standing, 2.0)
    assert standing.phase is Phase.SETTLED
    standing, verdicts = run([T, T, F, T, F, F, F, F], Patience(), standing, 3.0)
    assert verdicts == ["-"] * 8
    assert standing.phase is Phase.CLEAR
    assert run([T], Patience(), standing, 20.0)[1] == ["raise"]


def test_by_hand_means_nothing_where_nothing_is_raised():
    assert settled_by_hand(Standing(), 1.0) == Standing()
    assert not Standing().is_raised
    assert run([T, F], Patience())[0].is_raised


def always(_):
    return True


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "two words"}),
        ("name", {"name": 3}),
        ("when", {"when": "cpu > 5"}),
        ("clear_when", {"clear_when": 5}),
        ("for_samples", {"for_samples": 0}),
        ("for_samples", {"for_samples": True}),
        ("for_samples", {"for_samples": 1.5}),
        ("clear_samples", {"clear_samples": 0}),
        ("for_seconds", {"for_seconds": -1}),
        ("for_seconds", {"for_seconds": float("nan")}),
        ("clear_seconds", {"clear_seconds": "soon"}),
        ("severity", {"severity": "bad"}),
        ("message", {"message": 5}),
        ("type", {"type": "cpu"}),
        ("callbacks", {"callbacks": (5,)}),
        ("ids", {"ids": "web"}),
        ("ids", {"ids": 5}),
    ],
)
def test_a_bad_rule_names_its_field(field, options):
    given = {"name": "r", "when": always, **options}
    with pytest.raises(ConfigError) as error:
        Rule(**given)
    assert error.value.field == field


def test_a_rule_takes_words_for_values():
    made: Any = Rule
    rule = made("r", always, for_seconds="1m", severity="critical", type="idle", callbacks=[print], ids=["a"])
    assert (rule.for_seconds, rule.severity, rule.type) == (60.0, Severity.CRITICAL, AlertType.IDLE)
    assert (rule.callbacks, rule.ids) == ((print,), frozenset({"a"}))
    assert rule.patience == Patience(1, 60.0, 2, 0.0)
    assert Rule("r", always, callbacks=print).callbacks == (print,)
    assert len(Rule("r", always, callbacks=(actions.suspend(), print)).callbacks) == 2


def test_severities_are_ordered_by_how_bad_they_are():
    assert sorted(Severity, reverse=True)[::-1] == list(Severity)
    assert Severity.INFO < Severity.WARNING < Severity.CRITICAL < Severity.EMERGENCY
    assert Severity.CRITICAL >= "warning"
    assert Severity.INFO <= Severity.INFO
    assert Severity.EMERGENCY > "critical"
    assert max(Severity) is Severity.EMERGENCY
    assert f"{Severity.INFO}" == "info"

"""Configuration files: what is read, where everything stands, and all that is wrong with one at once."""

from __future__ import annotations

import builtins
import json
import os
import pickle
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from procession import Backoff, Command
from procession._core.config import Config, Seconds
from procession.config import _json, _toml, _yaml, load, loads
from procession.errors import ConfigError, ConfigFileError
from procession.pool import PoolConfig

pytestmark = pytest.mark.row("SY2")


class Unit(Config):
    command: Command
    backoff: Backoff | None = None
    pool: PoolConfig = PoolConfig()
    after: tuple[str, ...] = ()
    mode: Literal["fast", "safe"] = "safe"


class Stack(Config):
    units: dict[str, Unit] = Field(default_factory=dict)
    timeout: Seconds = 5.0
    password: str = ""
    size: int = 1


TOML = """
timeout = "1m30s"
size = 3
[units.api]
command = { argv = ["api", "--port", "80"], grace = 2 }
after = ["db"]
[units.db]
command.argv = ["db"]
backoff = { growth = "fixed", initial = 1, step = 0, cap = 1, jitter = false }
"""
YAML = """
timeout: 1m30s
size: 3
units:
  api:
    command: {argv: [api, --port, "80"], grace: 2}
    after: [db]
  db:
    command: {argv: [db]}
    backoff: {growth: fixed, initial: 1, step: 0, cap: 1, jitter: false}
"""
WANTED = Stack(
    timeout=90,
    size=3,
    units={
        "api": Unit(command=Command("api", "--port", "80", grace=2), after=("db",)),
        "db": Unit(command=Command("db"), backoff=Backoff.fixed(1)),
    },
)


def refused(text: str, **options: Any) -> ConfigFileError:
    with pytest.raises(ConfigFileError) as caught:
        loads(text, Stack, **options)
    return caught.value


@pytest.mark.parametrize("suffix", ["toml", "yaml", "yml", "json"])
def test_all_formats_say_the_same(suffix, tmp_path):
    text = {"toml": TOML, "json": json.dumps(_yaml.parse(YAML)[0])}.get(suffix, YAML)
    file = tmp_path / f"stack.{suffix}"
    file.write_text("\ufeff" + text, encoding="utf-8")  # as some editors write it
    assert load(file, Stack) == load(str(file), Stack) == WANTED
    assert loads(text, Stack, format=suffix) == WANTED


def test_nothing_is_an_empty_table():
    assert (
        loads("", Stack) == loads("# nothing\n", Stack, format="yaml") == loads("{}", Stack, format="json") == Stack()
    )


def test_all_complaints_come_at_once_in_the_order_of_the_file_each_with_its_line():
    text = """
size = "many"
timout = 4
[units.api]
command = { argv = ["api"], grace = "long",
}
backoff = { initial = -1, capp = 5 }
pool.min_size = -3
mode = "quick"
[units.db]
after = ["a", 5]
[[colours]]
name = "red"
""".replace('"long",\n}', '"long" }')
    error = refused(text, name="stack.toml")
    assert [(problem.line, problem.field) for problem in error.problems] == [
        (2, "size"),
        (3, "timout"),
        (5, "units.api.command.grace"),
        (6, "units.api.backoff.capp"),
        (7, "units.api.pool.min_size"),
        (8, "units.api.mode"),
        (9, "units.db.command"),
        (10, "units.db.after[1]"),
        (11, "colours"),
    ]
    hints = [problem.hint for problem in error.problems]
    assert hints[1] == "there is no such name; did you mean timeout?"
    assert hints[3] == "there is no such name; did you mean cap?"
    assert hints[6] == "it is needed and not there"
    assert hints[8] == "there is no such name; there are password, size, timeout, units"
    assert str(error).splitlines()[0].startswith("stack.toml:2:1: size: 'many' was refused: ")
    assert len(str(error).splitlines()) == len(error.problems)
    assert (error.field, error.value, error.path) == ("size", "'many'", "stack.toml")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, ConfigError)


def test_what_raises_inside_a_nested_description_is_told_with_its_whole_path():
    error = refused("[units.a]\ncommand.argv = ['a']\nbackoff.initial = -1\n")
    assert [problem.field for problem in error.problems] == ["units.a.backoff.initial"]
    assert error.problems[0].line == 3


@pytest.mark.parametrize(
    ("text", "format", "line", "column"),
    [
        ("size = 1\nsize = 2\n", "toml", 2, 9),
        ("size = \n", "toml", 1, 8),
        ("[units", "toml", 1, 7),
        ('{"size": 1,\n "size": 2}', "json", 2, 2),
        ('{"size": 1,\n"b" 2}', "json", 2, 5),
        ("size: 1\nsize: 2\n", "yaml", 2, 1),
        ("units: [1,\n", "yaml", 2, 1),
        ("- 1\n", "yaml", 1, 1),
        ("[1]", "json", 1, 1),
        ("[" * 100_000, "json", 1, 1),
        ("a = " + "[" * 100_000, "toml", 1, 1),
        ("a: \x00", "yaml", 1, 1),
        ("a: !!python/object:os.system {}", "yaml", 1, 4),
    ],
)
def test_what_is_not_of_its_format_says_where(text, format, line, column):
    error = refused(text, format=format)
    (problem,) = error.problems
    assert problem.line == line
    assert format == "toml" or problem.column == column
    assert problem.hint


def test_variables_are_put_in_and_never_shown():
    environ = {"NAME": "api", "SECRET": "hunter2", "EMPTY": ""}
    text = """
password = "${SECRET}"
[units.a]
command.argv = ["${NAME}-server", "$${NAME}", "${NOTHING:-some: default}", "${EMPTY:-filled}", "${EMPTY}"]
"""
    config = loads(text, Stack, environ=environ)
    assert config.units["a"].command.argv == ("api-server", "${NAME}", "some: default", "filled", "")
    assert config.password == "hunter2"
    error = refused('size = "${SECRET}"\ntimeout = "${SECRET}s"\nunits.a.mode = "${SECRET}"', environ=environ)
    assert [problem.value for problem in error.problems if problem.value] == [
        "'${SECRET}'",
        "'${SECRET}s'",
        "'${SECRET}'",
    ]
    assert "hunter2" not in str(error)
    assert loads('size = "${N}"', Stack, environ={"N": "7"}).size == 7


def test_variables_give_numbers_where_only_numbers_are_taken():
    text = """
[units.a]
command.argv = ["${N}", "${Y}"]
pool = { min_size = "${N}", patience = "${F}", autoscale = "${Y}" }
"""
    unit = loads(text, Stack, environ={"N": "2", "F": "0.5", "Y": "false"}).units["a"]
    assert unit.command.argv == ("2", "false")
    assert (unit.pool.min_size, unit.pool.patience, unit.pool.autoscale) == (2, 0.5, False)
    error = refused(text, environ={"N": "two", "F": "0.5", "Y": "false"})
    assert [(problem.field, problem.value) for problem in error.problems] == [("units.a.pool.min_size", "'${N}'")]


def test_secrets_that_stand_in_the_file_are_not_shown_either():
    error = refused('password = 5\nunits.a.command = { argv = ["a"], env = { TOKEN = 5 } }\nsize = "token=abc"')
    assert [problem.value for problem in error.problems] == ["***", "", "'token=***'"]


def test_a_variable_that_is_not_set_is_a_complaint_among_the_others():
    error = refused('size = "${NOWHERE}"\ntimeout = "${"\nunits.a.mode = "fast"\n', environ={})
    assert [(problem.line, problem.hint) for problem in error.problems] == [
        (1, "the variable NOWHERE is not set"),
        (2, "${NAME} or ${NAME:-default} is needed; $$ is a dollar sign"),
        (3, "it is needed and not there"),
    ]


def test_a_file_beside_it_stands_back_behind_the_environment(tmp_path):
    file = tmp_path / "stack.toml"
    file.write_text('password = "${WORD}"\nsize = "${SIZE}"\n', encoding="utf-8")
    with pytest.raises(ConfigFileError, match=r"the variable WORD is not set, and there is no \.env beside the file"):
        load(file, Stack, environ={"SIZE": "1"})
    (tmp_path / ".env").write_text("# secrets\nexport WORD='from file'\nSIZE=5\n", encoding="utf-8")
    before = dict(os.environ)
    config = load(file, Stack, environ={"SIZE": "1"})
    assert (config.password, config.size) == ("from file", 1)
    assert dict(os.environ) == before
    with pytest.raises(ConfigFileError, match=r"the variable WORD is not set$"):
        load(file, Stack, environ={"SIZE": "1"}, dotenv=False)
    (tmp_path / ".env").write_text("SIZE=5\n", encoding="utf-8")
    with pytest.raises(ConfigFileError, match=r"not set, nor in \.env"):
        load(file, Stack, environ={})


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name in ("yaml", "dotenv"):
            raise ImportError(name)
        return real(name, *args, **options)

    (tmp_path / ".env").write_text("SIZE=5\n", encoding="utf-8")
    file = tmp_path / "stack.toml"
    file.write_text('size = "${SIZE}"\n', encoding="utf-8")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigFileError, match=r"needs PyYAML: pip install 'procession\[config\]'"):
        loads("size: 1", Stack, format="yaml")
    with pytest.raises(ConfigFileError, match=r"needs python-dotenv: pip install 'procession\[config\]'"):
        load(file, Stack, environ={})
    assert load(file, Stack, environ={"SIZE": "4"}).size == 4


def test_what_cannot_be_read_is_told_by_its_name(tmp_path):
    for path, said in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path / "stack.ini", "TOML, YAML or JSON is needed"),
        (tmp_path, "TOML, YAML or JSON is needed"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(path, Stack)
    (tmp_path / "big.json").write_bytes(b" " * ((16 << 20) + 1))
    with pytest.raises(ConfigError, match="at most 16 MiB"):
        load(tmp_path / "big.json", Stack)
    (tmp_path / "latin.toml").write_bytes(b"size = 1\npassword = '\xe4'\n")
    with pytest.raises(ConfigFileError) as caught:
        load(tmp_path / "latin.toml", Stack)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (2, 13)
    with pytest.raises(ConfigError, match="TOML, YAML or JSON"):
        loads("", Stack, format="ini")


# ------------------------------------------------------------------------------------------------- places

EVERYTHING = '''# a comment with "quotes" and [brackets]
title = "a \\"quoted\\" # no comment"   # comment
multi = """
[not.a.table]
x = 1\\
""""
literal = \'\'\'
'no key' = 5\'\'\'\'
"quoted key".'literal key'.bare-key_1 = true
dates = [1979-05-27T07:32:00Z, 07:32:00]
numbers = [
  1, # one
  -2.5e3,
  [0xff, { deep = [inf] }],
]
inline = { a.b = "}", c = ["]", '}'], }
[table . "with spaces"]
x = 1
[[many]]
name = "first"
[[many.inner]]
y = 1
[[many.inner]]
y = 2
[many.inner.deep]
z = 1
[[many]]
name = "second"
[[many.inner]]
y = 3
'''.replace("'}'], }", "'}'] }")


def test_every_place_of_toml_is_found():
    data, positions = _toml.parse(EVERYTHING.replace("\n", "\r\n"))
    lines = EVERYTHING.splitlines()

    def at(*path: str | int) -> str:
        mark = positions.marks[path]
        return lines[mark.line - 1][mark.column - 1 :]

    assert at("title").startswith("title =")
    assert at("literal").startswith("literal")
    assert at("quoted key", "literal key", "bare-key_1") == "\"quoted key\".'literal key'.bare-key_1 = true"
    assert at("dates", 1) == "07:32:00]"
    assert at("numbers", 1) == "-2.5e3,"
    assert at("numbers", 2, 0).startswith("0xff")
    assert at("numbers", 2, 1, "deep", 0).startswith("inf")
    assert at("inline", "a", "b").startswith('a.b = "}"')
    assert at("inline", "c", 1).startswith("'}'")
    assert at("table", "with spaces", "x") == "x = 1"
    assert at("many", 0, "inner", 1, "y") == "y = 2"
    assert at("many", 0, "inner", 1, "deep", "z") == "z = 1"
    assert at("many", 1, "inner", 0, "y") == "y = 3"
    assert paths(data) <= set(positions.marks)


def paths(data: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every path in a document."""
    found = {path} if path else set()
    pairs: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in pairs:
        found |= paths(value, (*path, name))
    return found


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1, max_size=4)
VALUES = st.recursive(
    st.integers(-(2**31), 2**31)
    | st.booleans()
    | st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([None, 0, 2]))
def test_every_place_of_json_is_found(data, indent):
    text = json.dumps(data, indent=indent)
    parsed, positions = _json.parse(text)
    assert parsed == data
    assert paths(data) == set(positions.marks)
    lines = text.split("\n")
    for path, mark in positions.marks.items():
        here = lines[mark.line - 1][mark.column - 1 :]
        if isinstance(path[-1], str):
            assert here.startswith(json.dumps(path[-1]))
        else:
            value: Any = data
            for part in path:
                value = value[part]
            assert here.startswith(json.dumps(value)[:1])


def quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)} = {as_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + "".join(f"  {as_toml(one)}, # {index}\n" for index, one in enumerate(value)) + "]"
    return quoted(value)


def lines_of(data: dict[str, Any], prefix: str = "") -> str:
    text = "".join(f"{quoted(name)} = {as_toml(one)}\n" for name, one in data.items() if not isinstance(one, dict))
    for name, one in data.items():
        if isinstance(one, dict):
            text += f"[{prefix}{quoted(name)}]\n" + lines_of(one, f"{prefix}{quoted(name)}.")
    return text


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_place_of_what_toml_can_say_is_found(data):
    parsed, positions = _toml.parse(lines_of(data))
    assert parsed == data
    assert paths(data) <= set(positions.marks)


def test_a_pydantic_model_of_ones_own_will_do(tmp_path: Path):
    from pydantic import BaseModel

    class Mine(BaseModel):
        size: int = 1
        names: list[str] = []

    assert loads("size = 3", Mine).size == 3
    with pytest.raises(ConfigFileError) as caught:
        loads("names = ['a', 5]\nsize = 'x'", Mine)
    assert [problem.field for problem in caught.value.problems] == ["names[1]", "size"]

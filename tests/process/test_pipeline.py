"""Pipelines: the system's own pipes, every stage accounted for, all of them ended together."""

import asyncio
import os
import pickle
import signal
import sys
from pathlib import Path

import pytest

from procession import (
    Command,
    ConfigError,
    ExecutionTimeout,
    ExitError,
    Pipeline,
    ProcessRegistry,
    SignaledError,
    SpawnError,
    SpawnFailure,
)
from tests.programs import alive, eventually, program, sh

pytestmark = pytest.mark.row("PR8")
CAT = Command("cat")


async def test_the_output_of_the_last_and_the_codes_of_all():
    result = await (Command("printf", r"b\na\nb\n") | Command("sort") | Command("uniq", "-c") | sh("cat; exit 3")).run()
    assert result.text.split() == ["1", "a", "2", "b"]
    assert result.returncodes == (0, 0, 0, 3)
    assert result.returncode == 3
    assert result.failed is result.stages[3]
    assert not result.ok
    assert result.duration > 0
    assert [stage.command.program for stage in result.stages] == ["printf", "sort", "uniq", "sh"]


def _tells(fd):
    return f"x=$(readlink /proc/$$/fd/{fd}); echo $x >&2"


async def test_between_the_stages_are_the_systems_own_pipes():
    """What one stage writes to is what the next reads from, and we have no end of it."""
    result = await (sh(_tells(1)) | sh(_tells(0))).run()
    one, other = (stage.stderr for stage in result.stages)
    assert one == other
    assert one.startswith(b"pipe:")


async def test_we_keep_no_end_of_the_pipes_between():
    pipeline = sh(_tells(1) + "; exec sleep 1000") | CAT
    async with pipeline.stream() as stream:
        stderr = stream.processes[0].stderr
        assert stderr is not None
        name = (await stderr.read()).decode().strip()
        ours = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.exists()]
        assert name not in ours
        assert name.startswith("pipe:")


async def test_yes_head_ends_as_in_a_shell():
    result = await (Command("yes") | Command("head", "-n", "1")).run(timeout=20)
    assert result.text == "y\n"
    assert result.returncodes == (-signal.SIGPIPE, 0)
    assert result.ok
    assert result.returncode == 0


async def test_a_failing_middle_stage_is_the_one_reported():
    pipeline = Command("echo", "x") | sh("cat >/dev/null; echo why >&2; exit 4") | sh("cat; exit 5")
    result = await pipeline.run()
    assert result.returncodes == (0, 4, 5)
    assert result.returncode == 4
    with pytest.raises(ExitError) as caught:
        await pipeline.run(check=True)
    assert (caught.value.returncode, caught.value.stderr_tail) == (4, "why\n")


async def test_a_stage_ended_by_a_signal_is_reported():
    with pytest.raises(SignaledError) as caught:
        await (sh("kill -KILL $$") | CAT).run(check=True)
    assert caught.value.signal_name == "SIGKILL"
    with pytest.raises(SignaledError):
        await (CAT | sh("kill -PIPE $$")).run(check=True)


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_stage_that_cannot_start_stops_all(position):
    stages = [Command("sleep", "1000"), Command("sleep", "1000"), Command("sleep", "1000")]
    stages[position] = Command("no-such-program-anywhere")
    async with ProcessRegistry() as registry:
        with pytest.raises(SpawnError) as caught:
            await Pipeline(stages).run(registry=registry)
        assert caught.value.reason is SpawnFailure.NOT_FOUND
        assert caught.value.command.program == "no-such-program-anywhere"
        assert len(registry) == 0
        assert len(registry.find(state="exited")) == position


async def _agenerator():
    for _ in range(10):
        await asyncio.sleep(0)
        yield b"x" * 100_000


@pytest.mark.parametrize("kind", ["bytes", "str", "path", "file", "iterable", "async"])
async def test_input_of_every_kind(kind, tmp_path):
    data = b"x" * 1_000_000
    path = tmp_path / "x"
    path.write_bytes(data)
    pipeline = CAT | Command("cat") | Command("wc", "-c")
    with path.open("rb") as file:
        source = {
            "bytes": data,
            "str": data.decode(),
            "path": path,
            "file": file,
            "iterable": [data[:10], data[10:]],
            "async": _agenerator(),
        }[kind]
        result = await pipeline.run(input=source, check=True, timeout=30)
    assert int(result.stdout) == 1_000_000


async def test_without_input_the_first_stage_meets_the_end_of_the_file():
    assert (await (CAT | Command("wc", "-c")).run(timeout=20)).text.strip() == "0"


class Mine(Exception):
    pass


async def test_an_input_that_raises_stops_all_and_comes_back_unwrapped():
    async def raising():
        yield b"x"
        raise Mine

    async with ProcessRegistry() as registry:
        with pytest.raises(Mine):
            await (CAT | CAT).run(input=raising(), registry=registry)
        assert len(registry) == 0

        async def reads_to_the_end():
            async with (CAT | CAT).stream(input=raising(), registry=registry) as stream:
                assert b"".join([chunk async for chunk in stream.chunks()]) in (b"", b"x")

        with pytest.raises(Mine):
            await reads_to_the_end()
        assert len(registry) == 0


async def test_input_that_nobody_reads_is_no_error():
    result = await (Command("true") | CAT).run(input=b"x" * 1_000_000, timeout=20)
    assert result.ok


async def test_streaming_lines_and_chunks():
    pipeline = Command("seq", "100000") | Command("grep", "7")
    expected = [str(number) for number in range(1, 100_001) if "7" in str(number)]
    async with pipeline.stream() as stream:
        assert [line async for line in stream.lines()] == expected
        assert await stream.wait() == (0, 0)
        assert stream.returncodes == (0, 0)
    assert b"".join([chunk async for chunk in pipeline.stream()]).decode().split() == expected
    async with pipeline.stream() as stream:
        assert len(b"".join([chunk async for chunk in stream.chunks(limit=100)]).split()) == len(expected)


async def test_a_stream_left_early_ends_all():
    async with (Command("yes") | CAT | CAT).stream() as stream:
        async for line in stream.lines():
            assert line == "y"
            break
        pids = [process.pid for process in stream.processes]
    assert [alive(pid) for pid in pids] == [False] * 3


async def test_a_stream_left_by_an_exception_ends_all():
    pids: list[int] = []

    async def body():
        async with (program("ignore_term", grace=0.1) | CAT).stream() as stream:
            pids.extend(process.pid for process in stream.processes)
            await anext(stream.lines())
            raise Mine

    with pytest.raises(Mine):
        await body()
    assert [alive(pid) for pid in pids] == [False] * 2


@pytest.mark.parametrize("kind", ["pipe", "null", "stdout", "path"])
async def test_policies_for_stderr(kind, tmp_path):
    pipeline = sh("echo a >&2; echo b") | sh("cat; echo c >&2")
    policy = tmp_path / "errors" if kind == "path" else kind
    result = await pipeline.run(stderr=policy)
    if kind == "pipe":
        assert [stage.stderr for stage in result.stages] == [b"a\n", b"c\n"]
        assert result.stderr == b"a\nc\n"
    elif kind == "stdout":
        assert sorted(result.text.split()) == ["a", "b", "c"]
    else:
        assert result.stderr == b""
        assert result.text == "b\n"
    if kind == "path":
        assert sorted((tmp_path / "errors").read_text().split()) == ["a", "c"]


async def test_stderr_to_an_open_file(tmp_path):
    with (tmp_path / "errors").open("w") as file:
        await (sh("echo a >&2") | sh("cat; echo b >&2")).run(stderr=file.fileno())
    assert sorted((tmp_path / "errors").read_text().split()) == ["a", "b"]


async def test_much_stderr_of_a_middle_stage_does_not_block():
    pipeline = program("flood", "50000", "both") | CAT | CAT
    result = await pipeline.run(timeout=50)
    assert len(result.stdout) == len(result.stages[0].stderr) == 50_000 * 65
    async with pipeline.stream() as stream:
        count = 0
        async for _ in stream.lines():
            count += 1
        assert count == 50_000


async def test_the_end_of_the_file_arrives_because_nobody_else_holds_an_end():
    """Siblings started meanwhile must not hold the pipes."""
    pipeline = CAT | CAT | CAT
    results = await asyncio.gather(*(pipeline.run(input=b"x" * 1000, timeout=30) for _ in range(20)))
    assert all(result.stdout == b"x" * 1000 for result in results)


async def test_a_stage_that_ends_early_is_no_failure_of_those_before():
    result = await (Command("seq", "1000000") | CAT | Command("head", "-n", "2")).run(check=True, timeout=20)
    assert result.text == "1\n2\n"


async def test_a_timeout_stops_all():
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ExecutionTimeout) as caught:
        await (sh("echo x; exec sleep 1000") | program("ignore_term", grace=0.2) | CAT).run(timeout=0.3)
    assert loop.time() - began < 0.3 + 0.2 + 1 + 1
    assert caught.value.timeout == 0.3
    assert caught.value.report is not None
    assert pickle.loads(pickle.dumps(caught.value)).timeout == 0.3


async def test_a_cancelled_pipeline_leaves_nothing():
    async with ProcessRegistry() as registry:
        task = asyncio.create_task((Command("yes") | CAT | sh("exec cat >/dev/null")).run(registry=registry))
        await eventually(lambda: len(registry.find(state="running")) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(registry) == 0
        assert len(registry.ended()) == 3


async def test_stop_reports_every_stage():
    async with (Command("sleep", "1000") | program("ignore_term") | CAT).stream() as stream:
        reports = await stream.stop(0.2)
    assert len(reports) == 3
    assert all(report.is_clean for report in reports)


async def test_max_output_bounds_the_last_stage():
    result = await (Command("head", "-c", "1000000", "/dev/zero") | CAT).run(max_output=10)
    assert result.stdout == b"\0" * 10
    assert result.stages[-1].stdout_dropped == 999_990


async def test_registry_knows_every_stage_and_its_owner():
    async with ProcessRegistry() as registry:
        await (Command("echo", "x") | CAT).run(registry=registry, owner="me")
        assert [(record.name, record.owner) for record in registry.ended()] != []
        assert sorted(record.name for record in registry.ended(owner="me")) == ["cat", "echo"]


async def test_data_do_not_pass_through_python():
    """2 GB in a moment: our own processor time stays near nothing."""
    before = os.times()
    result = await (Command("head", "-c", "1G", "/dev/zero") | Command("wc", "-c")).run(timeout=50)
    after = os.times()
    assert int(result.stdout) == 2**30
    assert (after.user - before.user) + (after.system - before.system) < 0.3


def test_building_them():
    a, b, c = Command("a"), Command("b"), Command("c")
    assert (a | b | c).stages == (a | (b | c)).stages == (a, b, c)
    assert (a | b).then(c) == a | b | c
    assert hash(a | b) == hash(Pipeline([a, b]))
    assert repr(a | b) == "<Pipeline a | b>"
    with pytest.raises(TypeError):
        a | "b"  # type: ignore[operator]
    with pytest.raises(ConfigError):
        (a | b).then("c")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "stages"),
    [
        ("stages.0.stdout", (Command("a", stdout="null"), CAT)),
        ("stages.1.stdin", (CAT, Command("a", stdin="inherit"))),
        ("stages.0", (Command("a", pty=True), CAT)),
        ("stages.1", (CAT, Command("a", detach=True))),
        ("stages.1", (CAT, "wc")),
    ],
)
def test_a_stage_that_does_not_fit_is_refused(field, stages):
    with pytest.raises(ConfigError) as caught:
        Pipeline(stages)
    assert caught.value.field == field


@pytest.mark.parametrize("count", [0, 1])
def test_a_pipeline_has_two_stages_or_more(count):
    with pytest.raises(ConfigError):
        Pipeline([CAT] * count)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True])
async def test_a_bad_timeout_is_refused_before_anything_starts(timeout):
    async with ProcessRegistry() as registry:
        with pytest.raises(ConfigError) as caught:
            await (CAT | CAT).run(timeout=timeout, registry=registry)
        assert caught.value.field == "timeout"
        assert not registry.ended()


@pytest.mark.parametrize("limit", [-1, True, 1.5])
async def test_a_bad_max_output_is_refused_before_anything_starts(limit):
    async with ProcessRegistry() as registry:
        with pytest.raises(ConfigError) as caught:
            await (CAT | CAT).run(max_output=limit, registry=registry)
        assert caught.value.field == "max_output"
        assert not registry.ended()


def test_python_is_not_needed_between(tmp_path):
    assert asyncio.run((Command(sys.executable, "-I", "-S", "-c", "print(1)") | CAT).run()).stdout == b"1\n"

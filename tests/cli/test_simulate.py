"""`foretide simulate`: what it says, in which form, and what it says when it cannot."""

from __future__ import annotations

import gzip
import html
import io
import json
import os
import re
import sys
import tarfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cli import kept, simulation
from cli.errors import CliError
from cli.foretelling import chosen, foretold
from cli.main import app, main
from cli.prometheus import read_range
from cli.service_files import read_services
from cli.setting import ForecastBy, Load, Setting
from cli.simulate import unix_of
from forecasting.cost import Prices
from forecasting.counts import Counts
from forecasting.profile import LLAMA_8B_H100, profile_to_json
from forecasting.simulator.arrivals import SecondArrivals, lengths_around
from forecasting.simulator.autoscalers.foretold import OperatorForecasts
from forecasting.simulator.world import ColdStart, Slo

SERVICE = """
apiVersion: foretide.dev/v1alpha1
kind: SLA
metadata: {name: gold, namespace: demo}
spec: {priority: P1, targets: {ttft: 500ms, tpot: 40ms, percentile: 95}}
---
apiVersion: foretide.dev/v1alpha1
kind: InferenceService
metadata: {name: chat, namespace: demo}
spec:
  model: llama
  sla: gold
  accelerator: {gpu: {count: 1}}
  scaling: {policy: predictive, min: 1, max: 6, targetConcurrency: 60, scaleDownDelay: 1m}
"""
FIXED = SERVICE.replace(
    "scaling: {policy: predictive, min: 1, max: 6, targetConcurrency: 60, scaleDownDelay: 1m}", "replicas: 3"
)


def windows(listed: str) -> str:
    """The service with these in its schedule, from 08:00 to 18:00 where they say nothing else."""
    hours = {"start": "08:00", "end": "18:00"}
    schedule = json.dumps([hours | each for each in yaml.safe_load(f"[{listed}]")])
    return SERVICE.replace("max: 6", f"max: 6, schedule: {schedule}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "chat.yaml"
    path.write_text(SERVICE)
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Ten minutes, twice as much load in the second half."""
    random = np.random.default_rng(0)
    times = np.concatenate([random.uniform(0, 300, 1500), random.uniform(300, 600, 6000)])
    rows = [f"{at:.3f},{random.integers(50, 1500)},{random.integers(1, 200)}" for at in np.sort(times)]
    path = tmp_path / "load.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_text_fits_80_columns_and_compares_edits_side_by_side(service: Path, trace: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(FIXED)
    said = run("simulate", "-f", service, "-f", fixed, "--trace", trace, "--cold-start", 30)
    assert max(map(len, said.splitlines())) <= 80
    assert "chat (chat.yaml)" in said
    assert "chat (fixed.yaml)" in said
    assert "7,500 requests in 0.2 h, request by request" in " ".join(said.split())
    assert "(target 95%)" in said
    assert "(target 0.5 s at p95)" in said


def test_json_holds_outcome_cost_and_course_of_replicas(service: Path, trace: Path) -> None:
    said = json.loads(run("simulate", "-f", service, "--trace", trace, "-o", "json", "--price", 2, "--cold-start", 30))
    found = said["services"][0]
    assert found["exact"] is True
    assert found["slo"] == {"ttft_s": 0.5, "tpot_s": 0.04, "attainment": 0.95}
    assert found["outcome"]["requests"] == found["outcome"]["finished"] == 7500
    assert found["cost"] == pytest.approx(2 * found["outcome"]["gpu_hours"])
    assert max(found["course"]["wanted"]) == found["outcome"]["peak_replicas"] > 1
    assert said["profile"]["model"] == "Llama-3.1-8B"


def test_html_needs_nothing_else(service: Path, trace: Path) -> None:
    page = run("simulate", "-f", service, "--trace", trace, "-o", "html")
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 1
    assert "<script" not in page
    links = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert all(link.startswith("#") for link in links)


def test_a_measured_profile_takes_the_place_of_the_built_in_one(service: Path, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(profile_to_json(LLAMA_8B_H100).replace("Llama-3.1-8B", "mine"))
    assert "mine on H100" in run("simulate", "-f", service, "--trace", trace, "--profile", path)


def test_a_gzipped_trace_and_a_share_of_it_are_taken(service: Path, trace: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "load.csv.gz"
    zipped.write_bytes(gzip.compress(trace.read_bytes()))
    said = json.loads(run("simulate", "-f", service, "--trace", zipped, "--share", 0.5, "-o", "json"))
    assert said["trace"]["requests"] == pytest.approx(3750, rel=0.05)


def test_a_servegen_archive_draws_its_lengths_from_another_trace(service: Path, trace: Path, tmp_path: Path) -> None:
    window = tmp_path / "chunk-0-trace.csv"
    window.write_text("0,5.0,1.0,Gamma,1.0,0.2\n600,9.0,1.0,Weibull,1.0,0.1\n")
    archive = tmp_path / "model-traces.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.add(window, "data/chunk-0-trace.csv")
    said = json.loads(run("simulate", "-f", service, "--trace", archive, "--lengths", trace, "-o", "json"))
    assert said["trace"]["requests"] == 8400
    assert said["services"][0]["exact"] is False
    assert said["services"][0]["outcome"]["ttft_p99_s"] is None


@pytest.mark.parametrize("rows", ["", "\n", "0,0.0,1.0,Gamma,1.0,0.2\n"])
def test_a_servegen_folder_without_a_request_is_refused(rows: str, service: Path, trace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "chunk-0-trace.csv").write_text(rows)
    with pytest.raises(CliError, match=r"holds no request|holds a window"):
        run("simulate", "-f", service, "--trace", folder, "--lengths", trace)


def test_a_csv_of_a_spreadsheet_is_read(service: Path, trace: Path) -> None:
    trace.write_text(trace.read_text(), encoding="utf-8-sig")
    assert "7,500 requests" in run("simulate", "-f", service, "--trace", trace)


@pytest.mark.parametrize("name", [r"a$\foo$.yaml", "[bold]:smile:.yaml"])
def test_a_name_is_shown_as_it_is(name: str, service: Path, trace: Path) -> None:
    named = service.rename(service.with_name(name))
    assert named.name in run("simulate", "-f", named, "--trace", trace)
    assert named.name in html.unescape(run("simulate", "-f", named, "--trace", trace, "-o", "html"))


@pytest.mark.parametrize("form", ["json", "html"])
def test_what_programs_read_is_utf_8_whatever_the_locale(
    form: str, service: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, shown = service.rename(service.with_name("Größe.yaml")), io.BytesIO()
    monkeypatch.setattr("sys.argv", ["foretide", "simulate", "-f", str(named), "--trace", str(trace), "-o", form])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, "ascii"))
    with pytest.raises(SystemExit):
        main()
    sys.stdout.flush()
    assert "Größe.yaml" in shown.getvalue().decode()


def test_who_stops_before_a_state_is_kept_is_not_promised_one(
    service: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(simulation.Saver):
        def __call__(self, share: float) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "Saver", Stops)
    with pytest.raises(CliError, match="Stopped before a state was kept"):
        run("simulate", "-f", service, "--trace", trace)


def test_an_interrupted_run_goes_on_and_ends_the_same(
    service: Path, trace: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "-f", str(service), "--trace", str(trace), "-o", "json"]
    whole = run(*arguments)
    monkeypatch.setattr(kept, "SAVE_EVERY_S", 0.0)
    seen: list[float] = []

    class Stops(simulation.Saver):
        def __call__(self, share: float) -> None:
            super().__call__(share)
            seen.append(share)
            if share > 0.5:
                raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(simulation, "Saver", Stops)
        stopped.setattr("sys.argv", ["foretide", *arguments])
        with pytest.raises(SystemExit):
            main()
    assert "goes on" in capsys.readouterr().err
    assert list(cache.rglob("*.state"))
    assert run(*arguments) == whole
    assert not list(cache.rglob("*.state"))
    assert min(seen) < 0.5


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """A run that a person stops half-way, its state kept."""

    class Stops(simulation.Saver):
        def __call__(self, share: float) -> None:
            super().__call__(share)
            if share > 0.5:
                raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(kept, "SAVE_EVERY_S", 0.0)
        stopped.setattr(simulation, "Saver", Stops)
        with pytest.raises(CliError, match="Stopped"):
            run(*arguments)


def test_a_run_over_a_trace_of_other_answers_begins_anew(
    service: Path, trace: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["simulate", "-f", str(service), "--trace", str(trace), "-o", "json"]
    interrupted(monkeypatch, *arguments)
    assert len(list(cache.rglob("*.state"))) == 1
    head, *rows = trace.read_text().splitlines()
    trace.write_text("\n".join([head, *(f"{row.rpartition(',')[0]},9" for row in rows)]))
    assert run(*arguments) == run(*arguments, "--fresh")


def test_forecasts_of_a_load_with_another_past_or_other_answers_are_others() -> None:
    def place(step_s: float, outputs: float) -> Path:
        past = Counts(0.0, step_s, *(np.ones(9) for _ in range(4)))
        load = Load("x", SecondArrivals(np.ones(60), np.ones(60), lengths_around(100, outputs)), None, past)
        return kept.place_of("forecast", load)

    assert place(600.0, 50) == place(600.0, 50)
    assert len({place(600.0, 50), place(60.0, 50), place(600.0, 51)}) == 3


def test_a_cache_folder_that_cannot_be_used_costs_no_result(
    service: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    arguments = ["simulate", "-f", service, "--trace", trace, "--forecast", "operator", "-o", "json"]
    assert json.loads(run(*arguments))["services"] == json.loads(run(*arguments, "--fresh"))["services"]


def test_a_short_trace_gets_the_growth_forecast_and_all_three_forms_say_so(service: Path, trace: Path) -> None:
    text = " ".join(run("simulate", "-f", service, "--trace", trace).split())
    said = json.loads(run("simulate", "-f", service, "--trace", trace, "-o", "json"))
    page = run("simulate", "-f", service, "--trace", trace, "-o", "html")
    because = "0.1 h of history are known half-way through, less than the 24 h that one needs"
    assert f"not the operator's; {because}" in text
    assert because in html.unescape(page)
    assert said["forecast"] == {"by": "growth", "because": because}
    assert said["services"][0]["forecast"] == "growth"


def test_the_operators_forecast_can_be_asked_for_and_says_how_long_it_had_its_say(service: Path, trace: Path) -> None:
    asked = ["simulate", "-f", service, "--trace", trace, "--forecast", "operator"]
    assert "Forecast: the operator's; as --forecast operator asks." in " ".join(run(*asked).split())
    said = json.loads(run(*asked, "-o", "json"))
    assert said["forecast"]["by"] == said["services"][0]["forecast"] == "operator"
    assert said["forecast"]["shareOfTime"] == {"NoHistory": 1.0}, "ten minutes teach nothing"


def test_services_that_do_not_scale_by_a_forecast_are_given_none(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(FIXED + "---" + SERVICE.replace("predictive", "reactive").replace("name: chat", "name: other"))
    said = json.loads(run("simulate", "-f", path, "--trace", trace, "-o", "json", "--forecast", "operator"))
    assert said["forecast"] == {"by": None, "because": "no service here scales by a forecast"}
    assert [each["forecast"] for each in said["services"]] == [None, None]
    assert "Forecast: none; no service here" in run("simulate", "-f", path, "--trace", trace)


def test_the_operators_forecast_is_the_default_where_a_day_is_known_half_way_through(service: Path) -> None:
    subjects = read_services(service, Slo())

    def by(hours: float, past_steps: list[float] | None = None, asked: ForecastBy | None = None) -> ForecastBy | None:
        seconds = np.ones(int(hours * 3600))
        past = None if past_steps is None else Counts(0.0, 600.0, *[np.array(past_steps)] * 4)
        load = Load("x", SecondArrivals(seconds, seconds, lengths_around(100, 50)), None, past)
        return chosen(asked, subjects, load).by

    assert by(48) is ForecastBy.OPERATOR
    assert by(47.9) is ForecastBy.GROWTH
    assert by(99, asked=ForecastBy.GROWTH) is ForecastBy.GROWTH
    assert by(24, [np.nan] * 144) is ForecastBy.GROWTH
    assert by(24, [np.nan, *[1.0] * 72]) is ForecastBy.OPERATOR
    assert by(24, [*[np.nan] * 72, *[1.0] * 71]) is ForecastBy.GROWTH


def test_a_forecast_that_nobody_knows_is_refused_with_those_that_there_are(service: Path, trace: Path) -> None:
    wrong = ["simulate", "-f", str(service), "--trace", str(trace), "--forecast", "best"]
    result = CliRunner().invoke(app, wrong, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "'best' is not one of 'operator', 'growth'" in result.output


@pytest.mark.parametrize(
    "wrong",
    [
        *(("--hours", value) for value in ("nan", "inf", "-1", "0", "1e12")),
        *(("--cold-start", value) for value in ("nan", "-5", "inf")),
        *(("--price", value) for value in ("nan", "-1")),
        *(("--share", value) for value in ("nan", "0", "-1", "2")),
        ("--seed", "-1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_with_its_name(
    wrong: tuple[str, str], service: Path, trace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    load = ["--prometheus", "http://127.0.0.1:9"] if wrong[0] == "--hours" else ["--trace", str(trace)]
    monkeypatch.setattr("sys.argv", ["foretide", "simulate", "-f", str(service), *load, *wrong])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_a_beginning_with_a_zone_is_taken_at_its_word() -> None:
    assert unix_of("2026-03-02T05:00+05:00") == unix_of("2026-03-02T00:00") == unix_of("2026-03-02T00:00Z")


def test_a_folder_that_takes_no_state_does_not_end_the_run(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    saver = kept.Saver(tmp_path / "file" / "new.state", "state", lambda _: None)
    saver.save()
    saver.save()
    assert capsys.readouterr().err.count("cannot be kept") == 1


def test_a_run_that_is_stopped_after_the_forecasts_does_not_make_them_again(
    service: Path, trace: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["simulate", "-f", str(service), "--trace", str(trace), "--forecast", "operator", "-o", "json"]
    whole = run(*arguments)

    class Stops(simulation.Saver):
        def __call__(self, share: float) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(simulation, "Saver", Stops)
        with pytest.raises(CliError, match="goes on from the last state"):
            run(*arguments)
    assert list(cache.rglob("*.forecast"))
    monkeypatch.setattr(OperatorForecasts, "_look", lambda _: pytest.fail("a look was made again"))
    assert run(*arguments) == whole
    assert not list(cache.rglob("*.*"))


def test_a_service_that_cannot_be_simulated_is_refused_before_anything_is_forecast(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hasty.yaml"
    path.write_text(SERVICE.replace("ttft: 500ms", "ttft: 1ms"))
    monkeypatch.setattr(OperatorForecasts, "_look", lambda _: pytest.fail("it was forecast"))
    with pytest.raises(CliError, match="cannot meet TTFT"):
        run("simulate", "-f", path, "--trace", trace, "--forecast", "operator")


def test_states_that_nobody_came_back_for_are_thrown_away_after_a_week(tmp_path: Path) -> None:
    old, young = tmp_path / "old.forecast", tmp_path / "young.state"
    for path, days in ((old, 7.1), (young, 6.9)):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - days * 86_400,) * 2)
    kept.Saver(tmp_path / "new.state", "state", lambda _: None).save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.state", "young.state"]
    assert kept.restored(tmp_path / "new.state") == "state"
    assert kept.restored(old) is None


@pytest.mark.parametrize(
    ("file", "options", "says"),
    [
        (SERVICE, [], "Give either --trace FILE or --prometheus URL"),
        (SERVICE, ["--trace", "nothing.csv"], "no such file"),
        ("kind: Pod\n", ["--trace", "TRACE"], "holds Pod, but no InferenceService"),
        ("a: [", ["--trace", "TRACE"], "no YAML"),
        (SERVICE.replace("max: 6", "max: many"), ["--trace", "TRACE"], "spec.scaling.max"),
        (SERVICE.replace("min: 1", "min: 9"), ["--trace", "TRACE"], "Lower min or raise max"),
        (SERVICE.replace("max: 6", "max: 6, maxx: 9"), ["--trace", "TRACE"], "maxx is not known; did you mean 'max'?"),
        (SERVICE.replace("max: 6", "max: 6, windows: []"), ["--trace", "TRACE"], "scaling.windows is not known; there"),
        (SERVICE.replace("max: 6", "max: 6, idle_period: 1m"), ["--trace", "TRACE"], "did you mean 'idlePeriod'?"),
        (
            SERVICE.replace("count: 1", "counts: 1"),
            ["--trace", "TRACE"],
            "gpu.counts is not known; did you mean 'count'?",
        ),
        (
            SERVICE.replace("max: 6", "max: '6'"),
            ["--trace", "TRACE"],
            "spec.scaling.max: Input should be a valid integer",
        ),
        (SERVICE.replace("tpot", "tpott"), ["--trace", "TRACE"], "targets.tpott is not known; did you mean 'tpot'?"),
        (SERVICE.replace("500ms", "2s"), ["--trace", "TRACE"], "P1 means a first token within 1 s"),
        (SERVICE.replace("max: 6", "max: 6}\n  replicas: 3 #"), ["--trace", "TRACE"], "either replicas or scaling"),
        (SERVICE.replace("gpu: {count: 1}", ""), ["--trace", "TRACE"], "exactly one of cpu, gpu, mig and shared"),
        (windows("{name: a, min: 7}"), ["--trace", "TRACE"], "schedule 'a': 7 is beyond spec.scaling.max 6"),
        (windows("{name: a, min: 3, max: 2}"), ["--trace", "TRACE"], "min 3 is greater than max 2"),
        (windows("{name: a}"), ["--trace", "TRACE"], "a window sets min, max or both"),
        (windows("{name: a, end: '08:00', min: 2}"), ["--trace", "TRACE"], "start and end are both 08:00"),
        (windows("{name: a, min: 2}, {name: a, max: 2}"), ["--trace", "TRACE"], "two windows have the same name"),
        (windows("{name: a, minn: 2}"), ["--trace", "TRACE"], "schedule.0.minn is not known; did you mean 'min'?"),
        (SERVICE.replace("{name: chat, namespace: demo}", "chat"), ["--trace", "TRACE"], "metadata.name is needed"),
        (SERVICE.replace("ttft: 500ms", "ttft: 1ms"), ["--trace", "TRACE"], "cannot meet TTFT 0.001 s"),
        (SERVICE, ["--trace", "x" * 300], "File name too long"),
        (SERVICE, ["--trace", "TRACE", "--start", "soon"], "--start is 'soon'"),
        *(
            (windows("{name: a, min: 2}"), ["--trace", "TRACE", "--start", year], "a year from 1970 to 9900 is needed")
            for year in ("0001-01-01", "9999-12-31T23:59")
        ),
        (SERVICE, ["--trace", "TRACE", "--profile", "TRACE"], "not JSON"),
        (SERVICE, ["--trace", "TRACE", "--profile", "/dev/null"], "not JSON"),
        (SERVICE, ["--trace", "TRACE", "--profile", sys.executable], "can't decode byte"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_status_2(
    file: str,
    options: list[str],
    says: str,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(file)
    chosen = [str(trace) if each == "TRACE" else each for each in options]
    monkeypatch.setattr("sys.argv", ["foretide", "simulate", "-f", str(path), *chosen])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in said
    assert len(said.splitlines()) == 1
    assert said.startswith("foretide: ")


def test_nulls_and_clocks_without_quotes_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    schedule = "[{name: a, start: 08:00, end: 18:00, min: 2, max: null}]"
    path.write_text(SERVICE.replace("max: 6", f"max: 6, schedule: {schedule}"))
    (window,) = read_services(path, Slo())[0].spec.scaling.schedule  # type: ignore[union-attr]
    assert (window.start, window.end, window.max) == ("08:00", "18:00", None)


def test_the_sla_of_the_file_sets_the_targets_and_one_without_takes_the_defaults(service: Path) -> None:
    assert read_services(service, Slo())[0].slo == read_services(service, Slo())[0].promise == Slo(0.5, 0.04, 0.95)
    service.write_text(SERVICE.replace("sla: gold", ""))
    assert read_services(service, Slo())[0].slo == Slo()
    assert read_services(service, Slo())[0].promise is None, "without one, nothing steers the quantile"


@pytest.mark.parametrize(
    ("file", "because"),
    [
        (SERVICE.replace("sla: gold", ""), "it names no SLA"),
        (SERVICE.replace("sla: gold", "sla: golden"), "SLA 'demo/golden' is not in the file"),
        (SERVICE.replace("ttft: 500ms, tpot: 40ms", "e2e: 9s"), "SLA 'demo/gold' bounds neither TTFT nor TPOT"),
    ],
)
def test_targets_that_are_not_the_services_own_are_told_with_why(
    file: str, because: str, trace: Path, tmp_path: Path
) -> None:
    path = tmp_path / "chat.yaml"
    path.write_text(file)
    sentence = f"chat (chat.yaml): {because}, so the targets are TTFT 1 s and TPOT 50 ms for 99% of requests."
    assert sentence in " ".join(run("simulate", "-f", path, "--trace", trace).split())
    said = json.loads(run("simulate", "-f", path, "--trace", trace, "-o", "json"))
    assert said["services"][0]["sloDefaultBecause"] == because


def test_an_sla_without_tpot_sets_no_limit_of_it_as_in_the_operator(service: Path, trace: Path) -> None:
    service.write_text(SERVICE.replace(", tpot: 40ms", ""))
    assert "ms (no target)" in run("simulate", "-f", service, "--trace", trace)
    said = json.loads(run("simulate", "-f", service, "--trace", trace, "-o", "json"), parse_constant=pytest.fail)
    assert said["services"][0]["slo"] == {"ttft_s": 0.5, "tpot_s": None, "attainment": 0.95}
    assert said["services"][0]["sloDefaultBecause"] is None


def test_services_that_are_not_one_do_not_share_the_load_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(SERVICE + "---" + SERVICE.replace("name: chat", "name: other"))
    with pytest.raises(CliError, match="load of one service; -f names demo/chat, demo/other"):
        run("simulate", "-f", path, "--prometheus", "http://127.0.0.1:1")


class FakePrometheus:
    """Answers range queries with a constant increase a minute; nothing in minutes 3 and 4."""

    def __init__(self, each: dict[str, float]) -> None:
        self._each = each
        self.asked: list[str] = []

    def custom_query_range(self, query: str, start_time: datetime, end_time: datetime, step: str) -> Any:
        self.asked.append(query)
        value = next((value for name, value in self._each.items() if name in query), None)
        if value is None:
            return []
        times = np.arange(start_time.timestamp(), end_time.timestamp() + 1, float(step))
        return [{"metric": {}, "values": [[at, str(value)] for at in times if (at / 60) % 60 not in (3, 4)]}]


def test_a_range_of_prometheus_becomes_requests_with_its_counts_and_lengths() -> None:
    fake = FakePrometheus({"arrivals": 12, "completed": 10, "input": 5000, "output": 800})
    found = read_range(fake, "http://prometheus", "demo", "chat", 7200.0, 1.0)
    assert 'namespace="demo",service="chat"' in fake.asked[0]
    assert found.gaps == 2
    assert len(found.requests) == 12 * 58
    assert found.requests.duration_s == 3600
    assert found.requests.input_tokens.mean() == pytest.approx(500)
    assert found.requests.output_tokens.mean() == pytest.approx(80, rel=0.2)


def test_the_two_weeks_before_a_range_of_prometheus_are_read_in_the_operators_steps() -> None:
    fake = FakePrometheus({"arrivals": 120, "completed": 100, "input": 50_000, "output": 8000})
    now_s = 20 * 86_400.0 + 250.0
    past = read_range(fake, "http://prometheus", "demo", "chat", now_s, 1.0).past
    assert (past.start_s, past.end_s, past.step_s) == (now_s - 250 - 14 * 86_400 - 3000, now_s - 250 - 3000, 600.0)
    assert any(query.endswith("[600s]))") for query in fake.asked)
    assert (np.nansum(past.arrivals), np.nansum(past.output_tokens)) == (120 * 2016, 8000 * 2016)
    half = past.scaled(0.5)
    assert half.start_s == past.start_s
    assert np.nansum(half.arrivals) == 60 * 2016


def test_a_trace_goes_on_where_the_counts_before_it_end(service: Path, tmp_path: Path) -> None:
    past = Counts(0.0, 600.0, *(np.full(200, 600.0 * each) for each in (5, 5, 500, 250)))
    seconds = np.full(3600, 5.0)
    load = Load("x", SecondArrivals(seconds, 100 * seconds, lengths_around(100, 50)), None, past)
    foretelling = chosen(None, read_services(service, Slo()), load)
    setting = Setting(LLAMA_8B_H100, ColdStart(60.0), Prices(), 0, 1.0, 120_000.0, foretelling)
    forecasts = foretold(load, setting, lambda _: None, fresh=True).foretelling.forecasts
    assert forecasts is not None
    assert forecasts.shares() == {"Calibrated": 1.0}, "more than a day is known when the trace begins"
    said = forecasts.at(0.0)
    assert said is not None
    assert said.values[0][0] == pytest.approx(5 * 75, rel=0.05)


def test_a_service_that_prometheus_does_not_know_is_said_with_what_to_do() -> None:
    with pytest.raises(CliError, match="has no request of service 'demo/chat' in the last 1 h"):
        read_range(FakePrometheus({}), "http://prometheus", "demo", "chat", 7200.0, 1.0)

"""The deployments: one file that is right, forms that people can fill in, and mistakes that are said in one line."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.exceptions import ParameterTypeError
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_WORKER_WEBSERVER_HOST, PREFECT_WORKER_WEBSERVER_PORT, temporary_settings
from prefect.types._datetime import now
from prefect.utilities.callables import parameter_schema

from flows.cli.commands import deploy
from flows.scheduling import flows
from flows.scheduling.deployments import build, read_entries
from flows.session.errors import UserError

ROOT = Path(__file__).parents[3]
FLOWS = ("extract_archive", "train_model", "rescore_archive", "export_scores", "nightly")


def check_one_line(result, *words):
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("traitline: ")
    for word in words:
        assert word in line


def changed_copy(folder: Path, change) -> Path:
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    change({entry["name"]: entry for entry in tree["deployments"]})
    (folder / "prefect.yaml").write_text(yaml.safe_dump(tree))
    return folder / "prefect.yaml"


def test_the_file_at_the_root_is_the_one_that_is_installed():
    assert (ROOT / "prefect.yaml").resolve() == Path(str(files("flows.scheduling") / "prefect.yaml")).resolve()


def test_the_five_deployments_have_schedules_zones_limits_and_tags():
    entries = {entry.name: entry for entry in read_entries()}
    assert list(entries) == ["extract", "train", "rescore", "export", "nightly"]
    (schedule,) = entries["nightly"].schedules
    assert schedule == {"cron": "0 2 * * *", "timezone": "UTC", "active": True}
    assert entries["nightly"].concurrency_limit.collision_strategy.value == "CANCEL_NEW"
    assert all(entry.concurrency_limit and entry.tags == ("traitline",) for entry in entries.values())
    for entry in entries.values():
        assert build(entry).work_pool_name == "traitline"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati"])
def test_the_server_finds_the_times_of_a_cron_schedule(zone):
    """As its scheduler asks for them; Prefect 3.9.1 raised an exception below Python 3.13, and no schedule fired."""
    begin = now("UTC")
    times = asyncio.run(CronSchedule(cron="0 2 * * *", timezone=zone).get_dates(3, start=begin))
    local = [time.astimezone(ZoneInfo(zone)) for time in times]
    assert [(time.hour, time.minute) for time in local] == [(2, 0)] * 3
    assert len({time.date() for time in local}) == 3
    assert timedelta(0) < times[0] - begin < timedelta(hours=25)


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_of_a_form_has_a_type_and_a_sentence_of_help(name):
    properties = parameter_schema(getattr(flows, name)).model_dump()["properties"]
    assert {"settings", "store", "overrides"} <= set(properties)
    for field in properties.values():
        assert "type" in field or "anyOf" in field
        assert field["description"].endswith(".")


def test_a_form_refuses_a_word_that_is_no_choice():
    assert flows.nightly.validate_parameters({"weights": "random"})["weights"] == "random"
    with pytest.raises(ParameterTypeError):
        flows.nightly.validate_parameters({"weights": "best"})


def test_a_form_offers_choices_and_leaves_the_settings_alone_by_default():
    for flow in (flows.extract_archive, flows.train_model, flows.export_scores, flows.nightly):
        weights = flow.parameters.properties["weights"]
        assert (weights["type"], weights["default"]) == ("string", "as in the settings")
        assert weights["enum"] == ["as in the settings", "pretrained", "random"]


def test_runs_are_named_by_what_they_do_and_their_time():
    for name, flow in (("nightly", flows.nightly), ("train", flows.train_model)):
        assert re.fullmatch(rf"{name} 20\d\d-\d\d-\d\d \d\d:\d\d", flow.flow_run_name())


def test_a_mistake_is_told_in_the_words_of_the_form(tmp_path):
    (tmp_path / "run.yaml").write_text("weights: random\n")
    state = flows.extract_archive.fn(settings=tmp_path / "run.yaml", store=str(tmp_path / "store"))
    assert "give their folder with `videos`" in state.message
    state = flows.train_model.fn(settings=tmp_path / "run.yaml", store=str(tmp_path / "nowhere"))
    assert "give its folder with `store`, or create one with `traitline extract`" in state.message
    state = flows.extract_archive.fn(
        videos=tmp_path, store=str(tmp_path / "store"), weights="random", overrides={"train_as": "-"}
    )
    assert "(parameter overrides)" in state.message


def test_a_mistake_in_a_run_is_its_state_in_one_line(tmp_path):
    state = flows.export_scores.fn(store=str(tmp_path / "nowhere"))
    assert state.is_failed()
    assert str(tmp_path / "nowhere") in state.message
    assert "\n" not in state.message
    state = flows.extract_archive.fn(store=str(tmp_path / "store"), overrides={"extract.sard_size": 3})
    assert "extract.sard_size" in state.message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries["nightly"].update(schedules=[{"cron": "0 25 * * *"}]), "0 25 * * *"),
        (lambda entries: entries["nightly"].update(schedules=[{"cron": "0 2 * * *", "timezone": "Mars"}]), "Mars"),
        (
            lambda entries: entries["train"].update(entrypoint="flows.scheduling.flows.trian"),
            "flows.scheduling.flows.trian",
        ),
        (lambda entries: entries["train"].update(parameters={"weights": "best"}), "weights"),
        (lambda entries: entries["train"].update(parameters={"wieghts": "random"}), "wieghts"),
        (lambda entries: entries["train"].update(shedules=[]), "shedules"),
    ],
)
def test_a_mistake_in_a_deployments_file_is_named(change, words, tmp_path):
    path = changed_copy(tmp_path, change)
    with pytest.raises(UserError) as caught:
        _ = [build(entry) for entry in read_entries(path)]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deploy_without_a_server_says_how_to_get_one(traitline):
    check_one_line(traitline("deploy", PREFECT_API_URL=""), "PREFECT_API_URL", "prefect server start")
    address = "http://127.0.0.1:9/api"
    check_one_line(traitline("deploy", PREFECT_API_URL=address), address, "prefect server start")


def test_deploy_checks_the_settings_before_it_asks_any_server(traitline, tmp_path):
    (tmp_path / "run.yaml").write_text("vidoes: clips\n")
    check_one_line(traitline("deploy", "--config", tmp_path / "run.yaml"), "vidoes")
    check_one_line(traitline("serve", "--timezone", "Europe/Berlin"), "--cron")


def test_help_of_both_commands_has_an_example(traitline):
    for command in ("deploy", "serve"):
        done = traitline(command, "--help")
        assert f"Example: traitline {command} --config" in done.stdout


def test_a_pool_whose_package_is_missing_is_named(monkeypatch):
    from flows.scheduling.deployments import make_pool

    monkeypatch.setitem(sys.modules, "prefect_docker", None)
    from prefect.workers.base import BaseWorker

    monkeypatch.setattr(BaseWorker, "get_worker_class_from_type", staticmethod(lambda kind: None))
    with pytest.raises(UserError, match=r"pip install 'traitline\[docker\]'"):
        make_pool("traitline-docker", "docker")


def test_a_port_for_the_health_check_that_is_taken_is_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place = {PREFECT_WORKER_WEBSERVER_HOST: "127.0.0.1", PREFECT_WORKER_WEBSERVER_PORT: port}
        words = rf"^127\.0\.0\.1:{port} cannot be used for --healthcheck; .*PREFECT_WORKER_WEBSERVER_PORT"
        with temporary_settings(place), pytest.raises(UserError, match=words):
            deploy._check_health_port()
    with temporary_settings(place):
        deploy._check_health_port()

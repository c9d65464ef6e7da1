"""Passwords and keys in addresses are refused or masked; no message, log or settings file repeats them."""

from __future__ import annotations

import logging

import pytest
import yaml

from flows.config.load import dump_config, keep_settings, load_config
from flows.config.settings import StoreSettings
from flows.session import console
from flows.session.errors import UserError
from storage.errors import StoreError
from storage.files.paths import store_path

SECRET = "wJalr+XUtnFEMI"
WITH_SECRETS = [
    f"s3://AKIA:{SECRET}@bucket/store",
    f"s3://AKIA:{SECRET}/K7MDENG@bucket/store",  # keys of AWS hold slashes
    f"s3://{SECRET}@bucket",
    f"gs://user:{SECRET}@bucket/store",
    f"s3://bucket/store?secret_key={SECRET}",
    f"https://bucket.example/store?X-Amz-Signature={SECRET}",
    f"ftp://user:{SECRET}@host/store",
]


@pytest.mark.parametrize("address", WITH_SECRETS)
def test_an_address_of_a_store_with_a_secret_is_refused_without_it(address):
    for refused in (lambda: store_path(address), lambda: load_config(flags={"store.path": address})):
        with pytest.raises((StoreError, UserError)) as raised:
            refused()
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "address", [f"tcp://user:{SECRET}@host:8786", f"user:{SECRET}@host:1", f"tls://{SECRET}@host:1"]
)
def test_an_address_of_a_scheduler_with_a_secret_is_refused_without_it(address):
    with pytest.raises(UserError, match="tls://HOST:PORT") as raised:
        load_config(flags={"dask.address": address})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("address", ["s3://bucket/a@b", "s3://bucket/x/2026-11-27T01:27", "s3://bucket/a=b&c"])
def test_other_addresses_stay(address):
    assert str(store_path(address)) == address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"at postgresql+asyncpg://prefect:{SECRET}@host:5432/db now", "at postgresql+asyncpg://***@host:5432/db now"),
        (f"no folder s3:/AKIA:{SECRET}/K7@bucket/x", "no folder s3:/***@bucket/x"),
        (f"http://user:{SECRET}@[::1]:4200/api", "http://***@[::1]:4200/api"),
        (
            f"GET https://b.example/x?a=1&X-Amz-Signature={SECRET}&b=2",
            "GET https://b.example/x?a=1&X-Amz-Signature=***&b=2",
        ),
        ("http://127.0.0.1:9000/bucket/a@b.mp4", "http://127.0.0.1:9000/bucket/a@b.mp4"),
        (
            "clips/me:you@home.mp4, tcp://host:8786 and a@b.example",
            "clips/me:you@home.mp4, tcp://host:8786 and a@b.example",
        ),
    ],
)
def test_secrets_in_output_and_logs_are_masked(text, shown, capsys, caplog):
    assert console.masked(text) == shown
    before = logging.getLogRecordFactory()
    console.log_to_standard_error()
    try:
        with caplog.at_level(logging.INFO):
            console.say(text)
            console.complain(text)
            logging.getLogger("extractors").warning("%s: %d", text, 7)
    finally:
        logging.setLogRecordFactory(before)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(shown) >= 2
    assert [record.getMessage() for record in caplog.records][-1] == f"{shown}: 7"
    assert (SECRET in text) == (text != shown)
    assert SECRET not in said + caplog.text


def test_secrets_do_not_reach_the_settings_that_are_shown_and_kept():
    shown = dump_config(load_config(flags={"videos": f"s3://AKIA:{SECRET}@bucket/videos"}))
    assert SECRET not in shown
    assert "***@bucket/videos" in shown


OPTIONS = [
    {"password": SECRET, "queue": "gpu"},
    {"pod": {"env": [{"name": "HUB_TOKEN", "value": SECRET}], "image": "traitline:gpu"}},
    {"environment": {"AWS_SECRET_ACCESS_KEY": SECRET}, "api_key": [SECRET, SECRET]},
    {"job_script_prologue": ["module load cuda", f"export WANDB_API_KEY={SECRET}"]},
    {"worker_extra_args": [f"--token={SECRET}", f"--db-password '{SECRET} x'"], "cores": 4},
    {"address": f"https://user:{SECRET}@hub.example"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_secrets_among_options_of_a_cluster_reach_the_cluster_only(options, tmp_path):
    """What is kept in STORE/runs is `dump_config`; Prefect keeps the parameters of a step as JSON."""
    config = load_config(overrides={"dask.cluster": "dask_jobqueue.SLURMCluster", "dask.cluster_options": options})
    assert config.dask.cluster_options == options
    kept = keep_settings(config.model_copy(update={"store": StoreSettings(path=tmp_path)}), "extract")
    for text in (kept.with_suffix(".yaml").read_text(), config.model_dump_json()):
        assert SECRET not in text
        assert "***" in text


def test_other_options_of_a_cluster_are_shown_as_they_are():
    options = {"queue": "gpu", "cores": 4, "memory": "16GB", "walltime": "01:00:00", "security": True}
    shown = dump_config(load_config(overrides={"dask.cluster": "a.B", "dask.cluster_options": options}))
    assert yaml.safe_load(shown)["dask"]["cluster_options"] == options


@pytest.mark.parametrize(
    "assignment",
    [
        f"dask.cluster_options={{password: {SECRET}",  # not closed
        f"dask.cluster_options=password={SECRET}",
        f"dask={{address: 'tcp://h:1', cluster: a.B, cluster_options: {{api-key: {SECRET}}}}}",
    ],
)
def test_a_mistake_in_options_with_a_secret_does_not_repeat_it(assignment):
    with pytest.raises(UserError) as raised:
        load_config(assignments=[assignment])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("option", ["--store", "--videos", "--labels", "--out"])
def test_a_command_that_is_given_a_secret_does_not_repeat_it(option, traitline, tmp_path):
    options = {"--store": tmp_path / "store", "--videos": tmp_path / "videos", "--labels": tmp_path / "labels.csv"}
    options[option] = f"s3://AKIA:{SECRET}@bucket/x"
    done = traitline("run", *(word for pair in options.items() for word in pair), folder=tmp_path)
    assert done.returncode == 1
    assert SECRET not in done.stdout + done.stderr
    assert done.stderr.startswith("traitline: ")
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

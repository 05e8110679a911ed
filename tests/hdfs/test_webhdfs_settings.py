"""Options of webhdfs, settings of HADOOP_CONF_DIR, and the URIs and addresses that come of them. No server."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.webhdfs_server import webhdfs

import rangeio
from rangeio.hdfs.name_nodes import name_nodes
from rangeio.hdfs.settings import Settings

need_module("urllib3")


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME", "HADOOP_USER_NAME"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, **settings: str) -> None:
    entries = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>" for name, value in settings.items()
    )
    (folder / "hdfs-site.xml").write_text(f"<?xml version='1.0'?><configuration>{entries}</configuration>")


HA = {
    "dfs.nameservices": "one, two",
    "dfs.ha.namenodes.one": "nn1, nn2",
    "dfs.namenode.http-address.one.nn1": "a.example:9870",
    "dfs.namenode.http-address.one.nn2": "b.example:9871",
    "dfs.namenode.https-address.one.nn1": "a.example:9443",
    "dfs.namenode.https-address.one.nn2": "b.example:9443",
    "dfs.namenode.http-address.two": "${host.of.two}:50070",
    "host.of.two": "c.example",
    "fs.defaultFS": "hdfs://one/",
}


def found(cluster: str | None, given: Any = None, *, tls: bool = False) -> list[str]:
    nodes = name_nodes(cluster, given, tls=tls)
    urls = []
    for _ in range(len(nodes)):
        urls.append(nodes.active.address("/x", "op=OPEN").url.replace("/x?op=OPEN", ""))
        nodes.leave(nodes.active.origin)
    return urls


V1 = "/webhdfs/v1"


@pytest.mark.parametrize(
    ("cluster", "tls", "expected"),
    [
        ("one", False, [f"http://a.example:9870{V1}", f"http://b.example:9871{V1}"]),
        ("one", True, [f"https://a.example:9443{V1}", f"https://b.example:9443{V1}"]),
        (None, False, [f"http://a.example:9870{V1}", f"http://b.example:9871{V1}"]),
        ("two", False, [f"http://c.example:50070{V1}"]),
        ("three", False, [f"http://three:9870{V1}"]),
        ("three", True, [f"https://three:9871{V1}"]),
        ("three:80", False, [f"http://three{V1}"]),
        ("[::1]:9870", False, [f"http://[::1]:9870{V1}"]),
        ("[::1]", False, [f"http://[::1]:9870{V1}"]),
    ],
)
def test_clusters(
    cluster: str | None, tls: bool, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, **HA)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert found(cluster, tls=tls) == expected


def test_the_default_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is that of the RPC."""
    (tmp_path / "etc" / "hadoop").mkdir(parents=True)
    write(tmp_path / "etc" / "hadoop", **{"fs.defaultFS": "hdfs://d.example:8020"})
    monkeypatch.setenv("HADOOP_HOME", str(tmp_path))
    assert found(None) == [f"http://d.example:9870{V1}"]
    write(tmp_path / "etc" / "hadoop", **{"fs.defaultFS": "hdfs://d", "dfs.namenode.http-address": "e:1"})
    assert found(None) == [f"http://e:1{V1}"]


def test_given_name_nodes() -> None:
    assert found("any", ["a", "b:1"]) == [f"http://a:9870{V1}", f"http://b:1{V1}"]
    assert found(None, ["http://a:1/gateway/x/webhdfs/v1/"]) == ["http://a:1/gateway/x/webhdfs/v1"]
    assert found(None, ["https://a"], tls=True) == [f"https://a{V1}"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "no cluster"),
        ({"namenodes": []}, "list of host:port"),
        ({"namenodes": "a:1"}, "list of host:port"),
        ({"namenodes": [5]}, "list of host:port"),
        ({"namenodes": ["a/b"]}, "without login and query"),
        ({"namenodes": ["me@a"]}, "without login and query"),
        ({"namenodes": ["http://a/?x"]}, "without login and query"),
        ({"namenodes": ["https://a"]}, "swebhdfs"),
        ({"cluster": "a:x"}, "host or port"),
        ({"cluster": "a", "user": "me", "delegation_token": "T"}, "only one of"),
        ({"cluster": "a", "user": "me", "kerberos": True}, "only one of"),
        ({"cluster": "a", "delegation_token": "T", "kerberos": True}, "only one of"),
        ({"cluster": "a", "delegation_token": "T"}, "swebhdfs"),
        ({"cluster": "a", "kerberos": True}, "insecure_tokens"),
        ({"cluster": "localhost", "delegation_token": "T\n"}, "printable"),
        ({"cluster": "localhost", "delegation_token": ""}, "printable"),
        ({"cluster": "a", "user": ""}, "printable"),
        ({"cluster": "a", "user": 5}, "printable"),
        ({"cluster": "a", "data_proxy": "b"}, "data_proxy"),
        ({"cluster": "a", "root": "../x"}, "HDFS"),
        ({"cluster": "a", "tokn": "T"}, "unknown option"),
    ],
)
def test_wrong_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=match):
        rangeio.Operator("webhdfs", **options)


@pytest.mark.parametrize("path", ["..", "a/../b", "a/./b", "./a"])
def test_wrong_paths(path: str) -> None:
    """Servers would take them for other files, also outside the root."""
    with pytest.raises(rangeio.ConfigInvalidError, match="HDFS"):
        rangeio.Operator("webhdfs", cluster="a", root="x").open(path)


@pytest.mark.parametrize("option", ["if_match", "if_none_match", "if_modified_since", "version"])
def test_what_it_has_not(option: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.Operator("webhdfs", cluster="a").open("x", **{option: "x"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]:1"])
def test_tokens_to_this_machine(host: str) -> None:
    rangeio.Operator("webhdfs", cluster=host, delegation_token="T")
    rangeio.Operator("webhdfs", cluster="far", delegation_token="T", insecure_tokens=True)
    rangeio.Operator("swebhdfs", cluster="far", delegation_token="T")


@pytest.mark.parametrize(
    ("text", "match"),
    [("<configuration><property>", "is not XML"), ("\0", "is not XML"), (None, "cannot be read")],
)
def test_settings_that_are_none(
    text: str | None, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "core-site.xml"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    with pytest.raises(rangeio.ConfigInvalidError, match=match):
        rangeio.Operator("webhdfs", cluster="a")
    assert found("a", ["b"]) == [f"http://b:9870{V1}"]  # not read where it is not needed


def test_an_address_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{name: value for name, value in HA.items() if "nn2" not in name or "ha" in name})
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    with pytest.raises(rangeio.ConfigInvalidError, match="http-address is not set"):
        found("one")


def test_variables_in_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME", "thing")
    write(tmp_path, a="${b}-${env.SOME}", b="${c}", c="x", loop="${loop}", empty=" ", unknown="${none}y")
    settings = Settings(str(tmp_path))
    assert (settings.get("a"), settings.get("empty"), settings.get("none")) == ("x-thing", None, None)
    assert settings.get("unknown") == "y"
    assert settings.get("loop") == "${loop}"


def test_uris_and_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhdfs() as server:
        uri = server.put("/dir/a b%20c", b"content")
        monkeypatch.setenv("HADOOP_USER_NAME", "alice")
        with rangeio.open(uri) as reader:
            assert reader.path == uri
            with pickle.loads(pickle.dumps(reader)) as copy:
                assert copy.read_at(0, 7) == b"content"
        operator = rangeio.Operator.from_uri(f"webhdfs://{server.authority}/dir")
        assert [stat.path for stat in operator.list()] == ["a b%20c"]
        (stat,) = pickle.loads(pickle.dumps(operator)).list()
        with operator.open(stat.path) as reader:
            assert reader.read_at(0, 7) == b"content"
        assert operator.read_ranges([(stat.path, (0, 3)), (stat.path, (3, 7))]) == [b"con", b"tent"]
        assert "user.name=alice" in server.name_nodes[0].asked[0].target


@pytest.mark.parametrize("scheme", ["webhdfs", "swebhdfs", "hdfs"])
def test_uris_of_directories(scheme: str) -> None:
    """They end in a slash, as `rangeio ls` shows them; a file has none."""
    operator = rangeio.Operator.from_uri(f"{scheme}://node:1/dir")
    begin = f"{scheme}://node:1/dir"
    assert [operator.uri(path) for path in ("", "a", "a/", "/a//b/")] == [
        begin, f"{begin}/a", f"{begin}/a/", f"{begin}/a/b/",
    ]  # fmt: skip
    assert rangeio.Operator(scheme, cluster="node:1").uri("/") == f"{scheme}://node:1/"

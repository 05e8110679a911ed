"""Options of webhdfs, settings of HADOOP_CONF_DIR, and the URIs and addresses that come of them. No server."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.webhdfs_server import webhdfs

import rangeio
from rangeio.cli import main
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
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    settings = Settings()
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


# --- rangeio doctor ------------------------------------------------------------------------------------------


def diagnosis(scheme: str, **options: Any) -> dict[str, str]:
    return dict(rangeio.Operator(scheme, **options).diagnosis())


def test_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which name nodes and which login, and where they were found."""
    nodes = f"http://a.example:9870{V1}"
    here = {"cluster": "localhost"}
    nobody = {"name nodes": nodes, "credentials": "none: the name node's default user"}
    assert diagnosis("webhdfs", cluster="a.example") == nobody
    assert diagnosis("webhdfs", **here, user="me")["credentials"] == "user='me'"
    assert diagnosis("webhdfs", **here, delegation_token="secret")["credentials"] == "delegation_token="
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    assert diagnosis("webhdfs", **here)["credentials"] == "the user 'alice' of HADOOP_USER_NAME"
    write(tmp_path, **HA)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    both = f"https://a.example:9443{V1}, https://b.example:9443{V1} (of {str(tmp_path)!r})"
    assert diagnosis("swebhdfs")["name nodes"] == both
    assert diagnosis("webhdfs", namenodes=["c:1"])["name nodes"] == f"http://c:1{V1}"


def test_diagnosis_without_a_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/nothing")
    with pytest.raises((rangeio.UnauthenticatedError, rangeio.UnsupportedError), match=r"kinit|libgssapi"):
        diagnosis("webhdfs", cluster="localhost", kerberos=True)


def test_diagnosis_of_the_native_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("hdfs_native")
    for name in ("KRB5CCNAME", "HADOOP_TOKEN_FILE_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    found = diagnosis("hdfs", cluster="a:8020")
    assert found.pop("library").startswith("hdfs-native 0.")
    assert found == {
        "name nodes": "a:8020",
        "credentials": "the user of this process, or its default tickets",
    }
    assert diagnosis("hdfs")["name nodes"] == "none: fs.defaultFS is not set"
    rpc = {f"dfs.namenode.rpc-address.one.nn{n}": f"{'ab'[n - 1]}.example:8020" for n in (1, 2)}
    write(tmp_path, **{**HA, **rpc})
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    found = diagnosis("hdfs", kerberos_keytab="/key", settings={"dfs.namenode.rpc-address.one.nn2": "c:1"})
    assert found["name nodes"] == f"a.example:8020, c:1 (of settings=, {str(tmp_path)!r})"
    assert found["credentials"] == "kerberos_keytab=, HADOOP_USER_NAME ('alice')"


def test_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytes(range(65, 91)) * 1000
    with webhdfs() as server:
        uri = server.put("/dir/a b", data)
        options = ["-o", "user=alice"]
        assert main(["cat", uri, "--range", "5-10", *options]) == 0
        assert main(["ls", "-R", f"webhdfs://{server.authority}/dir/", *options]) == 0
        out = capfd.readouterr().out
        assert out.startswith("FGHIJ")
        assert out.endswith(f" {uri}\n")
        assert main(["stat", "--json", uri, *options]) == 0
        assert json.loads(capfd.readouterr().out)["size"] == len(data)
        assert main(["ranges", "--json", uri, "--range", "0-10", *options]) == 0
        assert json.loads(capfd.readouterr().out)["bytes_requested"] == 10
        assert main(["cp", uri, str(tmp_path), *options]) == 0
        assert (tmp_path / "a b").read_bytes() == data
        main(["doctor", "--json", uri, *options])
        found = {one["topic"]: one["text"] for one in json.loads(capfd.readouterr().out)["findings"]}
        assert found["credentials"] == "user='alice'"
        assert found["object"].startswith("25.4 KiB, pin ")
        assert found["reads"].startswith("can be read: ")

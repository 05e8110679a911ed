"""What reads arrays of zarr through `ZarrStore`: xarray, Dask; VirtualiZarr, through `rangeio.obspec`."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from pages import run_page
from servers.s3 import BUCKET, S3Server

if sys.version_info < (3, 11):
    pytest.skip("zarr 3.1 needs Python 3.11", allow_module_level=True)

need_module("urllib3")
np = need_module("numpy")
need_module("zarr")
ZarrStore = need_module("rangeio.adapters.zarr").ZarrStore
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of one library about another
    dask = need_module("dask")
    da = need_module("dask.array")
    xr = need_module("xarray")

# zarr's own LocalStore, with which tests write, leaves iterations of directories unfinished.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <posix.ScandirIterator:pytest.PytestUnraisableExceptionWarning"
)

NUMBERS = np.arange(60 * 40, dtype="f4").reshape(60, 40)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*onsolidated metadata")
        yield


@pytest.fixture
def data() -> Any:
    times = np.arange(60, dtype="i8").astype("M8[D]")
    air = xr.DataArray(NUMBERS, dims=("time", "x"), coords={"time": times}, attrs={"units": "K"})
    return xr.Dataset({"air": air, "level": ((), 3)})


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, data: Any) -> Any:
    data.chunk({"time": 16, "x": 40}).to_zarr(tmp_path)
    if request.param == "file":
        return ZarrStore(tmp_path)
    server: S3Server = request.getfixturevalue("seaweedfs")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            server.put(f"xarray/{path.relative_to(tmp_path)}", path.read_bytes())
    return ZarrStore(f"s3://{BUCKET}/xarray", **server.options)


def test_xarray(store: Any, data: Any) -> None:
    found = xr.open_zarr(store)
    xr.testing.assert_identical(found.compute(), data)
    assert found.air.chunks == ((16, 16, 16, 12), (40,))
    assert float(found.air.sel(time="1970-01-20").mean()) == NUMBERS[19].mean()
    xr.testing.assert_identical(xr.open_dataset(store, engine="zarr").compute(), data)


def test_a_tree(tmp_path: Path, data: Any) -> None:
    tree = xr.DataTree.from_dict({"/": data[["level"]], "/inner": data[["air"]]})
    tree.to_zarr(tmp_path / "tree")
    found = xr.open_datatree(ZarrStore(tmp_path / "tree"), engine="zarr")
    xr.testing.assert_identical(found["inner"].to_dataset().compute(), data[["air"]])


def test_dask(store: Any) -> None:
    lazy = da.from_zarr(store, component="air")
    assert (lazy[3:50, ::2].compute() == NUMBERS[3:50, ::2]).all()
    assert float(lazy.sum().compute()) == NUMBERS.sum()


def test_virtualizarr(tmp_path: Path, seaweedfs: S3Server) -> None:
    h5py = need_module("h5py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsers = need_module("virtualizarr.parsers")
        registry = need_module("obspec_utils.registry")
    import rangeio.obspec

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("air", data=NUMBERS, chunks=(10, 40))
    uri = seaweedfs.put("virtual/folder/a.h5", (tmp_path / "a.h5").read_bytes())
    for url, place, options in (
        (f"file://{tmp_path}/a.h5", f"file://{tmp_path}", {}),
        (uri, f"s3://{BUCKET}/virtual", seaweedfs.options),
        (uri, f"s3://{BUCKET}", seaweedfs.options),
    ):
        known = registry.ObjectStoreRegistry({place: rangeio.obspec.Store.from_url(place, **options)})
        virtual = parsers.HDFParser()(url, registry=known)
        found = xr.open_zarr(virtual, consolidated=False, zarr_format=3)
        assert (found.air.values == NUMBERS).all()


def test_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs in docs/zarr.md, as they stand there."""
    monkeypatch.chdir(tmp_path)
    assert run_page("zarr.md") == 3

"""Downloads from a local server: a complete file, or an error and no file."""

import functools
import http.server
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from idql_func.data.download import download_hdf5
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.types import InputError


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a path below ``/short/`` gets only half of the announced bytes."""

    def do_GET(self):
        if not self.path.startswith("/short/"):
            return super().do_GET()
        content = Path(self.translate_path(self.path.removeprefix("/short"))).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def log_message(self, format, *args):
        pass


@contextmanager
def serve(folder):
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server_url(tmp_path):
    write_d4rl_hdf5(tmp_path / "server_url" / "d.hdf5", {"a": np.arange(3000.0)})
    cut = (tmp_path / "server_url" / "d.hdf5").read_bytes()[:5000]
    (tmp_path / "server_url" / "cut.hdf5").write_bytes(cut)
    (tmp_path / "server_url" / "page.hdf5").write_text("<html>moved</html>")
    with serve(tmp_path / "server_url") as url:
        yield url


def test_complete_file_is_stored(server_url, tmp_path):
    path = download_hdf5(f"{server_url}/d.hdf5", tmp_path / "cache" / "d.hdf5")
    np.testing.assert_array_equal(read_d4rl_hdf5(path)[0]["a"], np.arange(3000.0))
    assert os.listdir(tmp_path / "cache") == ["d.hdf5"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("short/d.hdf5", r"stopped at \d+ of \d+ bytes; try again"),
        ("cut.hdf5", r"sent 5000 bytes that are not a complete HDF5 file"),
        ("page.hdf5", r"sent 18 bytes that are not a complete HDF5 file"),
        ("absent.hdf5", r"could not be downloaded \(.*[Nn]ot [Ff]ound\); get the file another"),
    ],
)
def test_failed_download_leaves_no_file(server_url, tmp_path, file, message):
    with pytest.raises(InputError, match=message) as error:
        download_hdf5(f"{server_url}/{file}", tmp_path / "cache" / "d.hdf5")
    assert f"put it at {tmp_path / 'cache' / 'd.hdf5'}" in str(error.value)
    assert os.listdir(tmp_path / "cache") == []


def test_unreachable_server_raises_input_error(tmp_path):
    with serve(tmp_path) as url:
        pass  # after this block, no server listens on the port
    with pytest.raises(InputError, match=r"could not be downloaded .*[Rr]efused.*; get the file"):
        download_hdf5(f"{url}/d.hdf5", tmp_path / "d.hdf5", timeout=2)
    assert not (tmp_path / "d.hdf5").exists()

"""A Dask cluster: two workers, one of them killed in the middle, and every case judged exactly once."""

import os
import signal
from collections import Counter

import pytest

from efcp_ref.oracle import campaign, terminal
from efcp_ref.oracle.chunks import Door
from efcp_ref.oracle.targets import UsageError
from tests.oracle.helpers import same, wrong

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'efcp-ref[distributed]'")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__DAEMON", "False")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as running:
        yield running


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_worker_killed_in_the_middle_changes_nothing(cluster, tmp_path):
    target, rows, killed = wrong(tmp_path), [], []

    def kill_one(label, done, total):
        if done >= 40 and not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    spread = campaign.run(
        Door(target), ["sp", "lcg"], 60, dask=cluster.scheduler_address, shrink_seconds=0, progress=kill_one,
        seen=rows.append, folder=tmp_path / "report",
    )  # fmt: skip
    assert killed
    assert set(Counter(row.id for row in rows).values()) == {1}
    assert len(rows) == 2 * 60 * 2
    alone = campaign.run(Door(target), ["sp", "lcg"], 60, jobs=1, shrink_seconds=0)
    assert same(terminal.as_json(spread)) == same(terminal.as_json(alone))


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_without_workers_is_wrong_usage(tmp_path):
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, local_directory=str(tmp_path)) as empty,
        pytest.raises(UsageError, match="the cluster has no workers"),
    ):
        campaign.run(Door(wrong(tmp_path)), ["sp"], 10, dask=empty.scheduler_address)


def test_an_address_where_nobody_answers_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no cluster answers"):
        campaign.run(Door(wrong(tmp_path)), ["sp"], 10, dask="tcp://127.0.0.1:9")

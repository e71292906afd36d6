"""The samples of dag_definitions/ run for real: functions under functions-framework, Beam in its own process."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from orchestrator import DAGBuilder, DAGExecutor, OrchestrationStatus
from orchestrator.engine.catalog import Catalog
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.runtime.catalog import DagFolders

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def executor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = DagFolders(ROOT / "dag_definitions")
    with DAGExecutor(Catalog(found), f"file://{tmp_path}/bucket", folders=found.folders) as executor:
        yield executor


def test_wordcount_of_an_edited_text_agrees_with_an_independent_count(executor, tmp_path):
    with gzip.open(ROOT / "dag_definitions/wordcount/data/king-james-bible.txt.gz", "rt") as lines:
        text = "".join(line for _, line in zip(range(4000), lines, strict=False))
    text = text.replace("begat", "BEGAT Zyzzyva's") + "\n" + "zyzzyva orchestrator " * 2000
    (tmp_path / "edited.txt").write_text(text)

    run_id = executor.start("wordcount", {"text": f"{tmp_path}/edited.txt", "output": f"{tmp_path}/out"})
    state = executor.wait(run_id, timeout_s=90)

    assert state.run.error is None
    report = json.loads(Path(state.nodes["Report"].result["report"]).read_text())
    counted = Counter(re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower()))
    expected = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:20]
    assert [(row["word"], row["count"]) for row in report["top"]] == expected
    assert counted["orchestrator"] == 2000
    assert ("orchestrator", 2000) in expected
    assert state.nodes["Profile"].result["words"] == sum(counted.values())
    assert state.nodes["Profile"].result["distinct_words"] == len(counted)


def test_wordcount_without_its_input_file_fails_with_one_clear_sentence(executor, tmp_path):
    run_id = executor.start("wordcount", {"text": f"{tmp_path}/nowhere.txt", "output": f"{tmp_path}/out"})
    state = executor.wait(run_id, timeout_s=60)
    assert state.run.status is RunStatus.FAILED
    assert state.run.error.node == "Init"
    assert "nowhere.txt" in state.run.error.message
    assert state.nodes["Report"].status is TaskStatus.SKIPPED


def test_the_sample_runs_all_its_steps_and_its_dag_shows_their_statuses(executor):
    run_id = executor.start("sample")
    state = executor.wait(run_id, timeout_s=60)
    assert state.run.status is RunStatus.COMPLETED
    names = ["Init", "Step1", "Step2", "Step3", "Branch1", "Branch2", "Int", "End"]
    assert [(n.node_name, n.status) for n in state.nodes.values()] == [(name, TaskStatus.COMPLETED) for name in names]
    definition = json.loads((ROOT / "dag_definitions/sample/dag.json").read_text())
    dag = DAGBuilder(definition, None, OrchestrationStatus(executor.store, run_id)).build_dag()
    assert {task.status for task in dag.all_tasks} == {TaskStatus.COMPLETED}
    assert dag.get_node_with_task("Int").is_end is False

"""What terraform/ lets in at once, what serves it, and what the code keeps ready for it go together."""

import re

import pytest

from orchestrator.services import connections
from orchestrator.stores import gcs
from tests.support.terraform import ROOT, concurrency


def source(name: str) -> str:
    return (ROOT / "terraform" / f"{name}.tf").read_text()


def test_an_instance_has_a_thread_for_each_request_that_it_is_let_have_at_once():
    orchestrator = source("function_orchestrator")
    let_in = re.findall(r"max_instance_request_concurrency += (.+)", orchestrator)
    served = re.findall(r"THREADS += tostring\((.+)\)", orchestrator)
    assert let_in == served == ["var.orchestrator.concurrency"]
    assert "merge(var.settings, local.orchestrator_environment)" in orchestrator


def test_a_function_that_takes_several_requests_at_once_has_a_thread_for_each():
    functions = source("function_tasks")
    let_in = re.findall(r"max_instance_request_concurrency += (.+)", functions)
    served = re.findall(r"THREADS += tostring\((.+)\)", functions)
    assert let_in == served == ["local.function_config[each.key].concurrency"]


@pytest.mark.parametrize("most", [connections.MOST, gcs.MOST], ids=["Google's APIs", "Cloud Storage"])
def test_each_request_finds_a_connection_that_is_kept_open(most):
    assert most >= concurrency()


def test_byte_code_of_the_orchestrators_source_holds_in_an_image():
    build = source("function_orchestrator").partition("build_config {")[2].partition("service_config {")[0]
    assert re.search(r'environment_variables += \{ SOURCE_DATE_EPOCH = "\d+" \}', build)

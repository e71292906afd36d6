# Offline: `terraform init && terraform test` in modules/package.

variables {
  root = "./tests/fixtures/repository"
  functions = {
    plain = "one/functions/plain"
    tasks = "one/functions/tasks"
  }
}

run "the_orchestrators_zip_holds_what_it_imports_and_reads_and_nothing_else" {
  command = plan

  assert {
    condition = keys(output.orchestrator) == [
      "dag_definitions/one/dag.json", "dag_definitions/one/glue.py", "dag_definitions/one/query.sql",
      "main.py", "orchestrator/__init__.py", "orchestrator/model/dag.py", "requirements.txt",
    ]
    error_message = join(", ", keys(output.orchestrator))
  }
}

run "a_functions_zip_holds_its_folder" {
  command = plan

  assert {
    condition     = keys(output.functions.plain) == ["help/texts.py", "main.py", "requirements.txt"]
    error_message = join(", ", keys(output.functions.plain))
  }
  assert {
    condition     = !output.uses_package.plain
    error_message = "It only speaks of the orchestrator."
  }
}

run "a_function_that_uses_the_package_has_it_in_its_zip" {
  command = plan

  assert {
    condition     = keys(output.functions.tasks) == ["main.py", "orchestrator/__init__.py", "orchestrator/model/dag.py", "requirements.txt"]
    error_message = join(", ", keys(output.functions.tasks))
  }
  assert {
    condition     = output.uses_package.tasks
    error_message = "It imports orchestrator.tasks."
  }
}

run "equal_contents_have_one_hash_and_others_another" {
  command = plan

  variables {
    functions = {
      plain = "one/functions/plain"
      again = "one/functions/plain"
      tasks = "one/functions/tasks"
    }
  }

  assert {
    condition     = output.hashes.plain == output.hashes.again
    error_message = "One folder, one hash."
  }
  assert {
    condition     = length(toset(values(output.hashes))) == 3
    error_message = "Three contents, three hashes."
  }
}

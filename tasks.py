"""What operators type: `invoke --list` shows all. The tasks are in runtime/tasks, by what they are about."""

from invoke import Collection

from runtime.tasks import (
    accuracy,
    care,
    container,
    evidence,
    handoff,
    kit,
    measure,
    model,
    process,
    random_weights,
    report,
    server,
    weights,
)

namespace = Collection()
for module in (
    kit,
    model,
    weights,
    server,
    process,
    measure,
    random_weights,
    accuracy,
    report,
    care,
    evidence,
    handoff,
):
    for task in Collection.from_module(module).tasks.values():
        namespace.add_task(task)
namespace.add_collection(Collection.from_module(container))

"""What operators type: `invoke --list` shows all. The tasks are in runtime/tasks, by what they are about."""

from invoke import Collection

from runtime import stdio
from runtime.tasks import command_line, container, develop, diagnose, evidence, kit, measure, model, server

stdio.prepare()
command_line.extend_invoke()
namespace = Collection()
for module in (kit, model, server, measure, diagnose, evidence):
    for task in Collection.from_module(module).tasks.values():
        task.auto_shortflags = False  # Invoke makes them up by the alphabet: -o would be --format, and -u --output
        namespace.add_task(task)
namespace.add_collection(Collection.from_module(container))
namespace.add_collection(Collection.from_module(develop, name="dev"))
command_line.list_apart("dev")

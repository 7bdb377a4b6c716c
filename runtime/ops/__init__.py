"""What operators do with the kit, behind the tasks."""

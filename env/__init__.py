"""What the kit runs on: settings, pinned stacks and their locks."""

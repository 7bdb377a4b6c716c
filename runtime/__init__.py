"""What the kit does: from audio to transcript on an Ascend NPU or a CPU."""

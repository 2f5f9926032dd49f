"""What is in the KV caches of engines, as they tell it: a process of its own beside the agent."""

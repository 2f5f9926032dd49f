"""Model servers to test against: an emulator with faults on demand, and one small real LLM."""

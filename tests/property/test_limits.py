"""Authorities over limits, whatever is taken, repeated, given back and done to the clock."""

from hypothesis import settings
from tests.fakes.effort import tries
from tests.fakes.limits_machine import LimitsMachine

TestMemory = LimitsMachine.TestCase
TestMemory.settings = settings(max_examples=tries(80), stateful_step_count=40)

"""Figures of merit: functions of callables and tensors, never of a trainer."""

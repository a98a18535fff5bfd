"""Pictures from codes: functions of callables and tensors, the paper's figures among them."""

"""Evaluation: one rule for gan-eval and eval_every."""

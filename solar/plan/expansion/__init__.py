"""Stages that stand for others, replaced by the stages that run: controls, stepwise DPO, reference passes."""
